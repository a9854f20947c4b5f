"""`tidemark boards`: which boards are plugged in, and your names for them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
import rich_click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidemark_host import discovery, toolchain_build
from tidemark_host.boardfile import BoardFileError
from tidemark_host.discovery import DiscoveryError, Nickname
from tidemark_host.toolchain_cache import ToolchainError


@rich_click.command()
@click.argument("target", default="")
@click.option("--name", "nickname", help="From now on call the board TARGET this.")
@click.option("--board", default="", help="With --name: which folder of boards/ it is.")
@click.option("--forget", metavar="NAME", help="Drop a nickname.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON list.")
def command(
    target: str, nickname: str | None, board: str, forget: str | None, as_json: bool
) -> None:
    """List the boards that are plugged in and those that have a name but are absent.

    TARGET with --name is a serial port, a USB serial number, or a USB location for a board without
    a number of its own; without, the only board there is.
    """
    if (target or board) and nickname is None:
        raise click.UsageError("TARGET and --board belong to --name")
    try:
        ports = discovery.serial_ports()
        if forget is not None:
            discovery.forget_name(forget)
        if nickname is not None:
            if board:
                toolchain_build.board_of(board)
            discovery.keep_name(Nickname(nickname, *_known_by(target, ports, board)))
        found = discovery.boards(ports, discovery.read_names())
    except (BoardFileError, DiscoveryError, ToolchainError) as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found]))
        return
    if not found:
        click.echo("no board is plugged in, and none has a name")
        return
    table = Table("name", "board", "port", "USB serial number", "USB location", "product")
    for row in found:
        port = escape(row.port) if row.port else "[dim]absent[/dim]"
        cells = [
            escape(cell)
            for cell in (row.nickname, row.board, row.serial, row.location, row.product)
        ]
        table.add_row(*cells[:2], port, *cells[2:])
    Console(highlight=False).print(table)


def _known_by(target: str, ports: list[discovery.PortInfo], board: str) -> tuple[str, str, str]:
    """Return USB serial number, board and USB location, one of the outer two "", of what is
    plugged in, or of what is going to be."""
    try:
        found = discovery.find(target, ports, discovery.read_names(), absent=True)
    except DiscoveryError as error:
        # A board that is not here yet may have its name already.
        if error.code != "unknown":
            raise
        place = discovery.is_location(target)
        return ("", board, target) if place else (target, board, "")
    if not found.key:
        raise DiscoveryError(
            "serial", f"{found.port} has neither USB serial number nor location to know it by"
        )
    return ("", board, found.key) if found.by_location else (found.key, board, "")
