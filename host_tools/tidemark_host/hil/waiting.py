"""Waiting for a thing, with a bound; ports that stay ours between two uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from tidemark_host import ports
from tidemark_host.ports import HOST

__all__ = ["HOST", "SiteError", "Timeout", "free_port", "now", "until"]

_POLL_S = 0.05
T = TypeVar("T")


class Timeout(Exception):
    """What was waited for did not happen in its bound."""


class SiteError(Exception):
    """A part of the site around the board failed: nothing that the board did."""


def now() -> float:
    """Return the time that everything on the bench is noted with: seconds, monotonic."""
    return time.monotonic()


async def until(
    what: str, holds: Callable[[], T | None], timeout: float = 30.0, poll: float = _POLL_S
) -> T:
    """Wait until `holds` returns something true, and return that. Raises Timeout."""
    end = time.monotonic() + timeout
    while True:
        value = await asyncio.to_thread(holds)
        if value is not None and value:
            return value
        if time.monotonic() > end:
            raise Timeout(f"not within {timeout:.0f} s: {what}")
        await asyncio.sleep(poll)


def free_port() -> int:
    """As `ports.free_port`. Raises SiteError."""
    try:
        return ports.free_port()
    except OSError as error:
        raise SiteError(str(error)) from error
