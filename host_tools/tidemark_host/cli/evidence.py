"""`tidemark evidence`: why a board was reset or rolled back, and all that it has on record."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import rich_click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidemark_host import discovery, remote, toolchain_build, uf2_file
from tidemark_host.boardfile import Board, BoardFileError
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.discovery import DiscoveryError
from tidemark_host.evidence import EvidenceError, Ring, read_ring
from tidemark_host.toolchain_cache import ToolchainError
from tidemark_host.uf2_file import Uf2Error

_VIRTUAL = "virtual:"


@rich_click.command()
@click.argument("source", default="")
@click.option(
    "--board", "name", default="VIRTUAL", show_default=True, help="Whose flash a file is."
)
@click.option("--stay", is_flag=True, help="Leave a running board at its REPL, under its lease.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(source: str, name: str, stay: bool, as_json: bool) -> None:
    """Read the evidence ring of SOURCE and verify its chain; exit 1 when the chain is broken.

    SOURCE is a running board (serial port, USB serial number or location, nickname,
    socket://HOST:PORT), by default the only one that is plugged in; a file with the content of a
    flash; or virtual:FOLDER. A running board is interrupted, and reset
    with the reason "request" when it has been read, so that it goes on with its work.
    """
    try:
        path = Path(source.removeprefix(_VIRTUAL)) / "flash.bin"
        if not source.startswith(_VIRTUAL):
            path = Path(source)
        if source.startswith(_VIRTUAL) or path.is_file():
            ring = read_ring(_of_file(path, toolchain_build.board_of(name)))
        else:
            ring = read_ring(_of_board(source, stay))
    except (BoardFileError, DiscoveryError, EvidenceError, ToolchainError, Uf2Error) as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except BoardError as error:
        hint = f"Try: tidemark console {source}".rstrip()
        raise click.ClickException(f"{error}\n{hint}") from error
    except OSError as error:
        raise click.ClickException(f"{source}: {error.strerror or error}") from error
    if as_json:
        click.echo(json.dumps({"why": ring.why, **asdict(ring)}))
    else:
        _show(ring)
    if ring.broken:
        raise click.exceptions.Exit(1)


def _of_file(path: Path, board: Board) -> bytes:
    region = board.regions["evidence"]
    if path.stat().st_size > uf2_file.MAX_FILE:
        raise EvidenceError("size", f"{path} is larger than any flash")
    data = path.read_bytes()
    if len(data) != board.flash_size:
        raise EvidenceError(
            "size",
            f"{path} has {len(data)} bytes, the flash of {board.name} {board.flash_size}: --board",
        )
    return data[region.offset : region.end]


def _of_board(source: str, stay: bool) -> bytes:
    found = discovery.find(source, discovery.serial_ports(), discovery.read_names())
    with Repl(found.port) as repl:
        region = remote.read_region(repl, "evidence")
        if not stay:
            remote.resume(repl)
    return region


def _show(ring: Ring) -> None:
    click.echo(ring.why)
    table = Table("#", "kind", "event", "detail", "count", "cause", "up s", "epoch")
    gaps = {gap.last + 1: gap for gap in ring.gaps}
    for record in ring.records:
        if gap := gaps.get(record.number):
            missing = gap.last - gap.first + 1
            how = "" if gap.marked else ", unmarked"
            table.add_row("", "", f"[yellow]{missing} missing{how}[/yellow]", "", "", "", "", "")
        number = f"[red]{record.number} ✘[/red]" if record.number in ring.broken else record.number
        table.add_row(
            str(number),
            record.kind,
            escape(record.code),
            escape(record.detail),
            str(record.count) if record.count > 1 else "",
            record.cause,
            f"{record.uptime_s:.1f}",
            str(record.epoch or ""),
        )
    Console(highlight=False).print(table)
    lost = sum(gap.last - gap.first + 1 for gap in ring.gaps)
    if ring.broken:
        numbers = ", ".join(str(number) for number in ring.broken)
        click.echo(f"the hash chain is BROKEN at record {numbers}: this flash was tampered with")
    elif ring.records:
        first, last = ring.records[0].number, ring.records[-1].number
        click.echo(f"records {first} to {last}: the hash chain holds, {lost} are missing")
    else:
        click.echo("the ring is blank")
