"""Waiting for a thing, with a bound; ports that stay ours between two uses."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

HOST = "127.0.0.1"
_POLL_S = 0.05
_PORTS = range(20_000, 32_000)  # below what the kernel gives to outgoing connections
_BLOCK = 100
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

    It may be used much later, and be out of use for a while: nobody else who asks here is given it
    as long as this process lives. Raises SiteError.
    """
    return _ports.take()


class _Ports:
    """The blocks of ports that this process has. The first of each stays bound, which keeps other
    processes out of it; what a process forks takes blocks of its own."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._left: list[int] = []
        self._locks: list[socket.socket] = []

    def take(self) -> int:
        """Return a port that was not given before."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._left.clear()
        while True:
            while self._left:
                port = self._left.pop(0)
                probe = _bound(port)
                if probe:
                    probe.close()
                    return port
            self._take_block()

    def _take_block(self) -> None:
        for first in random.sample(_PORTS[::_BLOCK], len(_PORTS) // _BLOCK):
            lock = _bound(first)
            if lock:
                self._locks.append(lock)
                self._left.extend(range(first + 1, first + _BLOCK))
                return
        raise SiteError("no free port on loopback: every block is taken")


_ports = _Ports()


def _bound(port: int) -> socket.socket | None:
    """Return a socket bound to a loopback port, None if somebody has it."""
    found = socket.socket()
    try:
        found.bind((HOST, port))
    except OSError:
        found.close()
        return None
    return found
