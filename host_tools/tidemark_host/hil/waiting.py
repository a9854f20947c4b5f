"""Waiting for a thing, with a bound; ports that stay ours between two uses."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

HOST = "127.0.0.1"
_POLL_S = 0.05
_PORTS = range(20_000, 32_000)  # below what the kernel gives to outgoing connections
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
    """Return a loopback port that nobody has, and that no outgoing connection takes meanwhile.

    Raises SiteError.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SiteError("no free port on loopback among 100 tried")
