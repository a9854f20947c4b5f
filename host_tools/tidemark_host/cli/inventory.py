"""`tidemark inventory`: the devices of a site, and what the gateway last knew of each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import rich_click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidemark_host.gateway.service import DATABASE, INVENTORY
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import Device, Inventory, InventoryError

_ID = 16  # hex digits
_COLUMNS = ("id", "nickname", "board", "state", "mode", "version", "seen")


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("gateway"),
    show_default=True,
    envvar="TIDEMARK_GATEWAY_STATE",
    help="The gateway's state directory.",
)
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Other file.")
@click.option("--clear", metavar="ID", help="Lift a device's quarantine after you looked into it.")
@click.option("--rename", nargs=2, metavar="ID NAME", help="Give a device a nickname.")
@click.option("--events", metavar="ID", help="Show what happened to one device instead.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(
    state: Path,
    file: Path | None,
    clear: str | None,
    rename: tuple[str, str] | None,
    events: str | None,
    as_json: bool,
) -> None:
    """List the enrolled devices."""
    try:
        inventory = Inventory(file or state / INVENTORY)
        if clear:
            inventory.clear(clear)
        if rename:
            inventory.rename(*rename)
    except InventoryError as error:
        raise click.ClickException(f"{error}\n{error.hint}") from error
    view = GatewayView(state / DATABASE)
    known = (state / DATABASE).exists()
    try:
        if events:
            rows = view.events(events) if known else []
            _show(rows, as_json, ("last", "kind", "detail", "count"), _event)
            return
        rows = [_row(device, view if known else None) for device in inventory]
    except sqlite3.Error as error:
        raise click.ClickException(
            f"{state / DATABASE} can't be read: {error}\n"
            "Try: restore it from a backup; the devices themselves are in the inventory's file"
        ) from error
    _show(rows, as_json, _COLUMNS, lambda row: [str(row[name]) for name in _COLUMNS])


def _row(device: Device, view: GatewayView | None) -> dict[str, Any]:
    claims = view.claims(device.id) if view else {}
    state = device.state
    if state == "active" and view and view.is_quarantined(device.id, device.cleared):
        state = "quarantined"
    seen = view.seen(device.id) if view else None
    return asdict(device) | {
        "state": state,
        "mode": claims.get("mode", ""),
        "version": claims.get("swversion", ""),
        "seen": _when(seen) if seen else "never",
        "claims": claims,
    }


def _event(row: dict[str, Any]) -> list[str]:
    rest = {k: v for k, v in row.items() if k not in ("device", "kind", "count", "first", "last")}
    return [_when(row["last"]), row["kind"], json.dumps(rest), str(row["count"])]


def _when(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _show(
    rows: list[dict[str, Any]],
    as_json: bool,
    columns: tuple[str, ...],
    cells: Callable[[dict[str, Any]], list[str]],
) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for name in columns:
        # An id is copied from here into the next command: never cut or broken.
        table.add_column(
            name,
            no_wrap=name == "id",
            min_width=_ID if name == "id" else len(name),
            overflow="fold",
        )
    for row in rows:
        # What came from a device is data, never markup.
        table.add_row(*(escape(cell) for cell in cells(row)))
    console = Console()
    least = console.measure(table).minimum
    console.print(table, width=max(console.width, least), crop=False)
