"""`tidemark console`: a board's console by the stock `mpremote`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import rich_click

from tidemark_host.boards.base import BoardError
from tidemark_host.toolchain_cache import ToolchainError

_VIRTUAL = "virtual:"


@click.command(
    cls=rich_click.RichCommand,
    name="console",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("board")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(board: str, words: tuple[str, ...]) -> None:
    """Open the console of BOARD, or run mpremote's WORDS on it (`exec CODE`, `fs ls`, ...).

    BOARD is what mpremote connects to: a serial port, a pty of a virtual board that runs,
    socket://HOST:PORT; or virtual:FOLDER, a virtual board whose flash is FOLDER/flash.bin,
    switched on for as long as the console is open.
    """
    if not board.startswith(_VIRTUAL):
        sys.exit(_mpremote(board, words))
    from tidemark_host.boards.virtual import VirtualBoard

    try:
        with VirtualBoard(Path(board.removeprefix(_VIRTUAL))) as virtual:
            virtual.power_on()
            click.echo(
                f"virtual board at {virtual.console_path} and {virtual.console_url}", err=True
            )
            status = _mpremote(virtual.console_path, words)
    except (BoardError, ToolchainError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


def _mpremote(device: str, words: tuple[str, ...]) -> int:
    """Run mpremote to its end. `resume` keeps the heap and the application's last words."""
    argv = [sys.executable, "-m", "mpremote", "connect", device, *(words or ("resume", "repl"))]
    return subprocess.run(argv, check=False).returncode
