"""`tidemark demo`: the main job, end to end, on a virtual board."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import click
import rich_click

from tidemark_host.demo import steps
from tidemark_host.demo.show import Failed, Show
from tidemark_host.hil import site
from tidemark_host.hil.targets import VirtualTarget


@rich_click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep all files in this new folder.")
@click.option(
    "--broker",
    type=click.Choice(["embedded", "mosquitto"]),
    default="embedded",
    show_default=True,
    help="Which MQTT broker to run on loopback.",
)
@click.option("--only", type=click.IntRange(1, len(steps.STEPS)), help="Stop after this step.")
def command(as_json: bool, keep: Path | None, broker: str, only: int | None) -> None:
    """Run the main job on a virtual board with a real broker, gateway and update mirror.

    Everything listens on loopback, all keys are made afresh. Exit 0 only if every check holds.
    """
    if keep and keep.exists():
        raise click.ClickException(f"{keep} exists: name a new folder for --keep")
    folder = keep or Path(tempfile.mkdtemp(prefix="tidemark-demo-"))
    good = False
    try:
        good = asyncio.run(run(folder, Show(as_json), broker, only))
    except KeyboardInterrupt:
        site.clean(folder)
        raise
    if good and not keep:
        site.clean(folder)
    else:
        click.echo(f"logs, keys and flash image are in {folder}", err=True)
    sys.exit(0 if good else 1)


async def run(folder: Path, show: Show, broker: str, only: int | None = None) -> bool:
    """Run the steps in a new `folder`; return whether all hold."""
    planned = steps.STEPS[:only]
    async with site.Site(folder / "site", VirtualTarget(), broker) as here:
        try:
            for title, step in planned:
                with show.step(title):
                    await step(here, show)
        except Failed:
            pass
        except Exception as error:  # kept by show.step: the table says where it ended
            click.echo(f"{type(error).__name__}: {error}", err=True)
        finally:
            text = "\n".join(f"{line.time:.3f} {line.text}" for line in here.board.serial_log)
            (folder / "console.log").write_text(text, "utf-8")
    return show.finish(len(planned))
