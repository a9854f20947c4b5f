"""`tidemark flash`: an image onto a board, unless the board holds it already."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import rich_click
from rich.console import Console
from rich.progress import Progress

from tidemark_host import bootsel, discovery, remote, toolchain_build
from tidemark_host.boardfile import Board, BoardFileError
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.bootsel import DriveError
from tidemark_host.discovery import DiscoveryError, Found
from tidemark_host.factory import FactoryError, factory_image
from tidemark_host.firmware import make_firmware, named_release, shown
from tidemark_host.flashing import (
    Bench,
    FlashingError,
    Image,
    Outcome,
    flash_drive,
    flash_rp2,
    read_image,
)
from tidemark_host.flashing_esp32 import flash_esp32
from tidemark_host.release import ReleaseError, app_path
from tidemark_host.romfs import ImageError
from tidemark_host.toolchain_cache import REPO, ToolchainError, bytes_digest
from tidemark_host.uf2_file import Uf2Error

_VIRTUAL = "virtual:"
_BOOTSEL = "bootsel"
_REFUSALS = (
    BoardFileError,
    DiscoveryError,
    DriveError,
    FactoryError,
    FlashingError,
    ImageError,
    ReleaseError,
    ToolchainError,
    Uf2Error,
)


@rich_click.command()
@click.argument("target", default="")
@click.option(
    "--board", "name", default="", help="A folder of boards/; default: as named, or asked."
)
@click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Update repository (`tidemark release init`) whose release goes into slot A.",
)
@click.option("--index", type=click.IntRange(min=1), help="Which release; default: the newest.")
@click.option(
    "--image",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A UF2 file, or the raw content of a flash; default: build/BOARD/factory.uf2 (.bin).",
)
@click.option(
    "--runtime", is_flag=True, help="Only build/BOARD/firmware.uf2 (.bin): key and slots stay."
)
@click.option(
    "--force",
    is_flag=True,
    help="Flash over a board that was used, or is another one: its key is lost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    target: str,
    name: str,
    repo: Path | None,
    index: int | None,
    image: Path | None,
    runtime: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write an image to TARGET, unless it is there already.

    TARGET is a serial port, a USB serial number or location, or a nickname (`tidemark boards`), by
    default the only board that is plugged in; the folder of a boot ROM's drive, or `bootsel` for
    the one that is mounted; or virtual:FOLDER.
    """
    if (repo is not None) + (image is not None) + runtime > 1 or (index and repo is None):
        raise click.UsageError("one of --repo (with --index), --image, --runtime")
    try:
        if target.startswith(_VIRTUAL):
            board = toolchain_build.board_of(name or "VIRTUAL")
            if runtime:
                raise FlashingError(
                    "no-way",
                    "a virtual board has no --runtime to flash: `tidemark virtual` starts the one "
                    "of this tree; without --runtime its whole flash is written",
                )
            _virtual(
                Path(target.removeprefix(_VIRTUAL)), board, repo, index, image, force, as_json
            )
            return
        drive = bootsel.read_drive(Path(target)) if target and Path(target).is_dir() else None
        found = Found("") if drive or target == _BOOTSEL else _find(target)
        board = toolchain_build.board_of(name or found.board or _asked(found))
        chosen = read_image(image or _built(board, repo, index, runtime), board)
        with _progress(as_json) as show:
            bench = Bench(progress=show)
            if found.port:
                outcome = _serial(found, chosen, bench, force)
            else:
                whole = chosen.erasing_state() if force and not chosen.runtime_only else chosen
                how = flash_drive(whole, bench, drive)
                outcome = Outcome("", chosen.digest, False, False, how)
    except _REFUSALS as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except BoardError as error:
        raise click.ClickException(
            f"{error}\nTry: hold BOOTSEL while plugging it in, then `tidemark flash bootsel`"
        ) from error
    except OSError as error:
        raise click.ClickException(str(error)) from error
    _say(outcome, board, as_json)


def _find(target: str) -> Found:
    return discovery.find(target, discovery.serial_ports(), discovery.read_names())


def _asked(found: Found) -> str:
    """Return which board of boards/ runs at a port."""
    facts = remote.Facts("")
    if found.port:
        with Repl(found.port) as console:
            facts = remote.ask(console)
    if not facts.board:
        raise FlashingError("which-board", "it can't be asked what it is: --board NAME")
    return facts.board


def _built(board: Board, repo: Path | None, index: int | None, runtime: bool) -> Path:
    """Return the image of `make firmware`, made now for a repository that is named."""
    if repo is not None:
        make_firmware(board.name, repo, index)
    suffix = "uf2" if board.chip.family else "bin"
    path = REPO / "build" / board.name / f"{'firmware' if runtime else 'factory'}.{suffix}"
    if not path.is_file():
        raise FlashingError(
            "no-image", f"{shown(path)} is not there: make firmware BOARD={board.name}"
        )
    return path


def _serial(found: Found, image: Image, bench: Bench, force: bool) -> Outcome:
    if image.board.chip.port == "esp32":
        return flash_esp32(found, image, bench.progress, force=force)
    if image.board.chip.port != "rp2":
        raise FlashingError("no-way", f"{image.board.name} has no flash at a serial port")
    return flash_rp2(found, image, bench, force=force)


def _virtual(
    folder: Path,
    board: Board,
    repo: Path | None,
    index: int | None,
    image: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    if repo is not None:
        signed = named_release(board, repo, index)
        blank = bytearray(factory_image(board, repo, app_path(board.name, signed.index)))
        for start, part in _beside(board).items():
            blank[start : start + len(part)] = part
        content = bytes(blank)
    else:
        content = read_image(image or _built(board, None, None, False), board).parts[0]
    path = folder / "flash.bin"
    present = path.read_bytes() if path.is_file() else b""
    skipped = present == content
    if not skipped and present.strip(b"\xff") and not force:
        raise FlashingError(
            "used",
            f"{path} was used: flashing it loses its key and counters. Use --force to do so",
        )
    if not skipped:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digest = bytes_digest(content)
    if as_json:
        click.echo(json.dumps({"flash": str(path), "sha256": digest, "skipped": skipped}))
    else:
        click.echo(f"{path}: {'holds it already' if skipped else 'written'}, sha256 {digest[:16]}")


def _beside(board: Board) -> Mapping[int, bytes]:
    """Return what a virtual board's flash holds beside slot and metadata."""
    if board.chip.port != "esp32":
        return {}
    if board.chip.name != "esp32":
        raise FlashingError("no-way", f"nothing here plays a {board.chip.name}")
    from tidemark_host.boards.virtual_esp32 import parts
    from tidemark_host.toolchain_virtual_esp32 import runtime_image

    return parts(board, runtime_image(board))


@contextmanager
def _progress(as_json: bool) -> Generator[bootsel.Progress | None]:
    """Show a bar on a terminal, nothing elsewhere."""
    if as_json or not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("flashing", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _say(outcome: Outcome, board: Board, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "board": board.name,
                    "port": outcome.port,
                    "sha256": outcome.sha256,
                    "skipped": outcome.skipped,
                    "verified": outcome.verified,
                    "how": outcome.how,
                }
            )
        )
        return
    what = "holds it already" if outcome.skipped else f"flashed by {outcome.how}"
    proof = "" if outcome.verified else ", not verified: the board was not asked"
    click.echo(f"{outcome.port or board.name}: {what}, sha256 {outcome.sha256[:16]}{proof}")
