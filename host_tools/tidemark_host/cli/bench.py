"""`tidemark bench`: the benchmarks, on the emulated Pico and on this machine."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import rich_click

from tidemark_host.bench import report
from tidemark_host.bench.registry import Results, Row, suites
from tidemark_host.boards.base import BoardError
from tidemark_host.toolchain_cache import ToolchainError


@click.command(cls=rich_click.RichCommand, name="bench")
@click.argument("names", nargs=-1, metavar="[SUITE]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/bench.json"),
    show_default=True,
)
@click.option("--list", "only_list", is_flag=True, help="Print the names of the suites.")
@click.option("--check", is_flag=True, help="Exit 1 when a goal is not met.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    names: tuple[str, ...], out: Path, only_list: bool, check: bool, as_json: bool
) -> None:
    """Run the benchmark SUITEs (all of them by default), with their peers in the same run.

    Cycles are those of an emulated RP2040 and repeat exactly; times of this machine do not.
    """
    known = suites()
    if only_list:
        click.echo("\n".join(known))
        return
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.ClickException(f"no suite {', '.join(unknown)}; there are: {', '.join(known)}")
    rows: list[Row] = []
    for name in names or known:
        began = time.monotonic()
        results = Results(name)
        try:
            known[name](results)
        except (BoardError, ToolchainError) as error:
            raise click.ClickException(f"suite {name}: {error} ({error.code})") from error
        rows += results.rows
        if sys.stderr.isatty():
            click.echo(f"bench: {name} took {time.monotonic() - began:.0f} s", err=True)
    report.write(rows, out)
    if as_json:
        click.echo(json.dumps(report.document(rows)))
    else:
        report.show(rows)
    missed = [f"{row.name} ({row.variant})" for row in rows if row.met is False]
    if check and missed:
        raise click.ClickException(f"{len(missed)} goals not met: {', '.join(missed)}")
