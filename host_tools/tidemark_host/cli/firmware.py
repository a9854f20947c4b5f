"""`tidemark firmware`: the firmware image of a board and a factory image, with their sizes."""

from __future__ import annotations

import json
from pathlib import Path

import click
import rich_click

from tidemark_host import toolchain
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.boardfile import BoardFileError
from tidemark_host.factory import FactoryError
from tidemark_host.firmware import make_firmware
from tidemark_host.release import ReleaseError
from tidemark_host.release.model import MAX_INDEX
from tidemark_host.romfs import ImageError
from tidemark_host.toolchain_cache import REPO, ToolchainError, bytes_digest


@rich_click.command()
@click.argument("board")
@click.option(
    "--release",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Repository whose release goes into slot A; default: one with keys made here.",
)
@click.option("--index", type=click.IntRange(min=1), help="Which release; default: the newest.")
@click.option(
    "--twice",
    is_flag=True,
    help="Instead: build the runtime twice from nothing in two folders, and compare the bytes, "
    "also with build/BOARD/firmware.uf2 if it is there.",
)
@click.option(
    "--runtime-index",
    type=click.IntRange(1, MAX_INDEX),
    default=1,
    show_default=True,
    help="What the runtime says it is: above those that are published (tidemark release).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    board: str,
    release: Path | None,
    index: int | None,
    twice: bool,
    runtime_index: int,
    as_json: bool,
) -> None:
    """Build BOARD, a folder of boards/, into build/BOARD/: firmware.uf2, the runtime alone, and
    factory.uf2 (.bin for an ESP32), the runtime with a signed agent in slot A. Fails when
    something does not fit."""
    if index is not None and release is None:
        raise click.UsageError("--index names a release of --release")
    try:
        if twice:
            _compare(board, runtime_index, as_json)
            return
        report = make_firmware(board, release, index, runtime_index)
    except (BoardFileError, FactoryError, ImageError, ReleaseError, ToolchainError) as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    for line in [report.to_json()] if as_json else report.lines():
        click.echo(line)


def _compare(board: str, runtime_index: int, as_json: bool) -> None:
    if not rp2.is_rp2(board):
        raise ToolchainError("no-image", f"{board} has no image of a chip to compare")
    first, second = rp2.built_twice(
        board, toolchain.mpy_cross(), toolchain.umqtt_dir(), runtime_index
    )
    # What would be handed out, if it was made: both builds could agree on something else.
    shipped = REPO / "build" / board / "firmware.uf2"
    ours = bytes_digest(shipped.read_bytes()) if shipped.is_file() else ""
    same = first == second and ours in ("", first)
    if as_json:
        said = {"board": board, "same": same, "sha256": [first, second], "shipped": ours}
        click.echo(json.dumps(said))
    else:
        click.echo(f"first   {first}\nsecond  {second}\nshipped {ours or 'not built'}")
        click.echo("the same" if same else "DIFFERENT")
    if not same:
        raise click.exceptions.Exit(1)
