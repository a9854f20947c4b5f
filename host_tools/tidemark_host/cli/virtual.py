"""`tidemark virtual`: a virtual board that runs until it is switched off."""

from __future__ import annotations

import time
from pathlib import Path

import click
import rich_click

from tidemark_host.boards.base import BoardError
from tidemark_host.boards.folder import open_folder
from tidemark_host.toolchain_cache import ToolchainError

_POLL_S = 0.1


@rich_click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Switch on the virtual board whose flash is FOLDER/flash.bin and show its console.

    Ctrl-C switches it off. Meanwhile `tidemark console`, `tidemark provision` and the stock
    mpremote reach it at the addresses that are printed first.
    """
    try:
        with open_folder(folder) as board:
            board.power_on()
            click.echo(f"console: {board.console_path} and {board.console_url}")
            shown, begin = 0, time.monotonic()
            while True:
                lines = list(board.serial_log)
                for line in lines[shown:]:
                    click.echo(f"{line.time - begin:9.3f}  {line.text}")
                shown = len(lines)
                time.sleep(_POLL_S)
    except (BoardError, ToolchainError) as error:
        raise click.ClickException(str(error)) from error
