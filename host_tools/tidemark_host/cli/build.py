"""`tidemark build`: the application image of a release."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, cast

import click
import rich_click

from tidemark_host.romfs import ImageError, build_image

PROJECT = Path("tidemark.toml")


@click.command(cls=rich_click.RichCommand, name="build")
@click.argument(
    "overlays", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option(
    "--agent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the package `agent`; default: the one that comes with Tidemark.",
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file whose table [agent] becomes the image's settings; default: tidemark.toml, if "
    "it is there.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/app.romfs"),
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    overlays: tuple[Path, ...], agent: Path | None, project: Path | None, out: Path, as_json: bool
) -> None:
    """Compile the application, with OVERLAYS laid over it, into an image that `tidemark release
    add` signs. An overlay's `sensors.py` replaces or adds `agent/sensors.py`."""
    try:
        sources = [agent or default_agent(), *overlays]
        if project is None and PROJECT.is_file():
            project = PROJECT
        build_image(sources, read_settings(project) if project else None, out)
    except ImageError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    data = out.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        click.echo(json.dumps({"path": str(out), "size": len(data), "sha256": digest}))
    else:
        click.echo(f"{out}: {len(data)} bytes, SHA-256 {digest}")


def default_agent() -> Path:
    """Return the folder of the application that comes with Tidemark."""
    from tidemark_host.toolchain_build import firmware_dir

    return firmware_dir() / "agent"


def read_settings(project: Path) -> dict[str, Any] | None:
    """Return the table [agent] of a project file; None without the table.

    Raises ImageError `settings`.
    """
    try:
        # Not read_text: it would mend line ends that TOML refuses.
        document = tomllib.loads(project.read_bytes().decode())
    except OSError as error:
        raise ImageError("settings", f"{project}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ImageError("settings", f"{project}: {error}") from error
    table = document.get("agent")
    if table is not None and not isinstance(table, dict):
        raise ImageError("settings", f"{project}: [agent] must be a table")
    return cast("dict[str, Any] | None", table)
