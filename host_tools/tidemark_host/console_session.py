"""A person at a board's console: mpremote's REPL, connected again after each reset.

A board on its own USB vanishes when it resets; one behind a USB serial bridge does not. Either way
what comes after is told from what came before by a line across the terminal.
"""

# mpremote has no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import click
from mpremote.console import Console
from mpremote.main import State
from mpremote.repl import do_repl_main_loop
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from tidemark_host import discovery
from tidemark_host.boards.repl import GONE, close_transport
from tidemark_host.discovery import DiscoveryError, Found

_POLL_S = 0.1
_WIDTH = 72
# Typed by Ctrl-J: the lease of a person at the REPL begins anew. One line, as at the prompt.
RENEW = (
    "from tidemark import stage0; "
    "stage0.base.supervisor.lease(stage0.base.board.LEASE_REPL_MS, 'lease'); "
    "print('lease: %d s from now' % (stage0.base.board.LEASE_REPL_MS // 1000))\r\n"
)
# How a boot of ours announces itself (firmware/tidemark/stage0.py), at the start of a line.
_BOOTS = (
    b"tidemark: slot ",
    b"tidemark: not provisioned",
    b"tidemark: rescue (",
    b"tidemark: safe (",
)


def run_session(found: Found) -> int:
    """Hold the console of a board until the person leaves it (Ctrl-]); return the exit status.

    Ctrl-C goes to the board; while there is none it ends the session, with the status 2.
    """
    click.echo("Ctrl-] leaves, Ctrl-J renews the lease; looking on disturbs nothing", err=True)
    try:
        transport = _connect(found)
        while _repl(transport):
            click.echo(_line(f"the board is gone: a reset, or unplugged {_clock()}"), nl=False)
            began = time.monotonic()
            transport = _connect(found)
            click.echo(_line(f"back after {time.monotonic() - began:.1f} s {_clock()}"), nl=False)
    except KeyboardInterrupt:
        return 2
    return 0


def _connect(found: Found) -> Any:
    """Wait until the board's port is there and can be opened; no limit: a person looks on."""
    told = False
    while True:
        port, reason = _port(found)
        if port:
            try:
                return SerialTransport(port, timeout=1)
            except (TransportError, *GONE) as error:
                reason = str(error)
        if not told:
            click.echo(f"{reason}: waits, Ctrl-C ends", err=True)
            told = True
        time.sleep(_POLL_S)


def _port(found: Found) -> tuple[str, str]:
    """Return where the board is now, or "" and why not. After a reset it may have another name."""
    absent = f"{found.nickname or found.key or found.port} is not plugged in"
    if found.key:
        try:
            return discovery.port_named(found.key, discovery.serial_ports()), absent
        except DiscoveryError as error:
            return "", str(error)
    return found.port if "://" in found.port or Path(found.port).exists() else "", absent


def _repl(transport: Any) -> bool:
    """Run mpremote's REPL; return True when the board went away, False when the person did."""
    state: Any = State()
    state.transport = transport
    console: Any = Console()
    screen = Screen(console.write)
    console.enter()
    try:
        screen.rule(f"connected to {transport.device_name}")
        # The application goes on, and its last words stay: nothing is sent before a key is hit.
        ended = do_repl_main_loop(
            state,
            console,
            screen.write,
            escape_non_printable=False,
            code_to_inject=RENEW.encode(),
            file_to_inject=None,
        )
        return cast("bool", ended)
    except GONE:
        return True  # pyserial's own words for a device that is gone
    finally:
        console.exit()
        close_transport(transport)


class Screen:
    """What a board says, on its way to a terminal; a boot begins with a line across it."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._held = bytearray()  # the start of a line that may become one of _BOOTS
        self._fresh = True

    def write(self, data: bytes) -> None:
        """Pass on what the board has said."""
        out = bytearray()
        for byte in data:
            self._held.append(byte)
            if self._fresh and any(mark.startswith(self._held) for mark in _BOOTS):
                if bytes(self._held) not in _BOOTS:
                    continue
                out += _line(f"the board has started {_clock()}")
            out += self._held
            self._held.clear()
            self._fresh = byte == ord("\n")
        self._write(bytes(out))

    def rule(self, text: str) -> None:
        """Draw a line across the terminal, whatever the cursor was doing."""
        self._write(_line(text))


def _line(text: str) -> bytes:
    return f"\r\n{f'── {text} ':─<{_WIDTH}}\r\n".encode()


def _clock() -> str:
    return f"({datetime.now():%H:%M:%S})"
