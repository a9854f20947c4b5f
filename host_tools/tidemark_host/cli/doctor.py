"""`tidemark doctor`: which tools are here, and whether they work."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
import rich_click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidemark_host import toolchain


@rich_click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON list.")
def command(as_json: bool) -> None:
    """Try every tool that Tidemark needs; exit 0 only if all work."""
    checks = toolchain.doctor()
    good = all(check.ok for check in checks)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        table = Table("tool", "", "what was found")
        for check in checks:
            mark = "[green]✔[/green]" if check.ok else "[red]✘[/red]"
            table.add_row(escape(check.name), mark, escape(check.detail))
        Console(highlight=False).print(table)
        if not good:
            click.echo("next: make setup", err=True)
    sys.exit(0 if good else 1)
