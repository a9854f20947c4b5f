"""Ports of loopback for servers that begin to listen later, or again: nobody else gets them."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)  # below what the kernel gives to outgoing connections
_TRIES = 100
_given: set[int] = set()
_file: list[int] = []  # its descriptor: closed, it would let go of all that this process holds


def free_port() -> int:
    """Return a loopback port that nobody has and that no outgoing connection takes.

    No other process that asks here gets it while this one lives: a server that has not begun, or
    was killed to be started again, finds it free. Raises OSError.
    """
    for port in random.sample(_PORTS, _TRIES):
        if port in _given or not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port on loopback among {_TRIES} tried")


def _reserve(port: int) -> bool:
    """Lock the byte of a file that stands for the port, until this process ends."""
    if not _file:
        path = Path(tempfile.gettempdir(), f"tidemark-ports-{os.getuid()}")
        _file.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    try:
        fcntl.lockf(_file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True
