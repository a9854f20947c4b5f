"""`tidemark flash`: the factory image of a release onto a board."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import rich_click

from tidemark_host import toolchain_build
from tidemark_host.boardfile import BoardFileError, load_board
from tidemark_host.factory import FactoryError, factory_image
from tidemark_host.release import app_path

_VIRTUAL = "virtual:"


@rich_click.command()
@click.argument("target")
@click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the update repository (`tidemark release init`).",
)
@click.option("--index", type=click.IntRange(min=1), required=True, help="Release for slot A.")
@click.option("--board", "name", default="VIRTUAL", show_default=True, help="A folder of boards/.")
@click.option("--force", is_flag=True, help="Flash over a board that was used: its key is lost.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(target: str, repo: Path, index: int, name: str, force: bool, as_json: bool) -> None:
    """Write the factory image of a release to TARGET: virtual:FOLDER.

    The image holds the release in slot A and the metadata that authorises it; the rest is blank.
    A board that holds just this image already is left alone.
    """
    if not target.startswith(_VIRTUAL):
        raise click.ClickException(
            f"{target}: only virtual boards can be flashed so far. Try virtual:FOLDER"
        )
    try:
        board = load_board(toolchain_build.REPO / "boards" / name / "board.toml")
        image = factory_image(board, repo, app_path(name, index))
    except (BoardFileError, FactoryError) as error:
        raise click.ClickException(f"{error}. Next: tidemark release status") from error
    path = Path(target.removeprefix(_VIRTUAL)) / "flash.bin"
    digest = hashlib.sha256(image).hexdigest()
    present = path.read_bytes() if path.is_file() else b""
    skipped = present == image
    if not skipped and present.strip(b"\xff") and not force:
        raise click.ClickException(
            f"{path} was used: flashing it loses its key and counters. Use --force to do so"
        )
    if not skipped:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    if as_json:
        click.echo(json.dumps({"flash": str(path), "sha256": digest, "skipped": skipped}))
    else:
        click.echo(f"{path}: {'holds it already' if skipped else 'written'}, sha256 {digest[:16]}")
