"""`tidemark console`: a board's console by the stock `mpremote`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import rich_click

from tidemark_host import discovery
from tidemark_host.boards.base import BoardError
from tidemark_host.console_session import run_session
from tidemark_host.discovery import DiscoveryError, Found
from tidemark_host.toolchain_cache import ToolchainError

_VIRTUAL = "virtual:"


@click.command(
    cls=rich_click.RichCommand,
    name="console",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("board", default="")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(board: str, words: tuple[str, ...]) -> None:
    """Open the console of BOARD, or run mpremote's WORDS on it (`exec CODE`, `fs ls`, ...).

    BOARD is a serial port, a USB serial number or location, a nickname (`tidemark boards`), by
    default the only board that is plugged in; the pty of a virtual board that runs,
    socket://HOST:PORT; or virtual:FOLDER, a virtual board whose flash is FOLDER/flash.bin,
    switched on for as long as the console is open.

    Looking disturbs nothing. Ctrl-C stops the application under a lease: the board goes on feeding
    its watchdog, and resets itself when the lease ends; Ctrl-J renews it. A board that resets or
    is unplugged is waited for. Ctrl-] leaves.
    """
    try:
        if not board.startswith(_VIRTUAL):
            found = discovery.find(
                board, discovery.serial_ports(), discovery.read_names(), absent=not words
            )
            sys.exit(_open(found, words))
        from tidemark_host.boards.folder import open_folder

        with open_folder(Path(board.removeprefix(_VIRTUAL))) as virtual:
            virtual.power_on()
            click.echo(
                f"virtual board at {virtual.console_path} and {virtual.console_url}", err=True
            )
            status = _open(Found(virtual.console_path), words)
    except (DiscoveryError, ToolchainError) as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except BoardError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


def _open(found: Found, words: tuple[str, ...]) -> int:
    """Run mpremote's words to their end, or a session for a person; return the exit status."""
    if words:
        argv = [sys.executable, "-m", "mpremote", "connect", found.port, *words]
        return subprocess.run(argv, check=False).returncode
    if not sys.stdin.isatty():
        raise BoardError(
            "no-terminal", "the console wants a terminal; or say what to do: exec CODE"
        )
    return run_session(found)
