"""What happened at a site, on one timeline: board, flash, gateway, and what the bench did."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidemark_host.boardfile import Board as Definition
from tidemark_host.boards.base import Operation
from tidemark_host.hil.site import Site

ENTRIES_MAX = 1_500  # of one test; the oldest go
_GAP_S = 0.5  # flash operations of one kind closer together than this are one entry
_TEXT_MAX = 500


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `source`: `board`, `flash`, `reset`, `gateway` or `bench`."""

    time: float
    source: str
    text: str


def of(site: Site) -> list[Entry]:
    """Return what is known of a site that was started, oldest first."""
    entries = [Entry(line.time, "bench", line.text) for line in site.notes]
    entries += [Entry(line.time, "gateway", line.text) for line in site.gateway.lines]
    board = getattr(site, "board", None)
    if board is not None:
        entries += [Entry(line.time, "board", line.text) for line in board.serial_log]
        resets, operations = site.seen()
        entries += [Entry(reset.time, "reset", reset.cause) for reset in resets]
        entries += flash_entries(operations, site.definition)
    entries.sort(key=lambda entry: entry.time)
    return entries[-ENTRIES_MAX:]


def flash_entries(operations: Iterable[Operation], definition: Definition) -> list[Entry]:
    """Return flash operations as entries, those in a row on one region in one."""
    entries: list[Entry] = []
    row: list[Operation] = []
    where = ""

    def end() -> None:
        if row:
            count = f" x{len(row)}" if len(row) > 1 else ""
            text = f"{row[0].kind}{count} {where} {row[0].address:#08x}"
            entries.append(Entry(row[0].time, "flash", text))
            row.clear()

    for operation in operations:
        region = region_of(operation.address, definition)
        if row:
            same = operation.kind == row[-1].kind and region == where
            if not same or operation.time - row[-1].time > _GAP_S:
                end()
        where = region
        row.append(operation)
    end()
    return entries


def region_of(address: int, definition: Definition) -> str:
    """Return the name of the flash region that an address lies in; "none" outside of all."""
    for name, region in definition.regions.items():
        if region.offset <= address < region.end:
            return name
    return "none"


def as_html(entries: Sequence[Entry], rerun: str) -> str:
    """Return a part of a page. A board's and a gateway's words are text, whatever they hold."""
    begin = entries[0].time if entries else 0.0
    rows = "".join(
        f'<tr><td style="text-align:right">{entry.time - begin:.3f}</td>'
        f'<td style="color:{_COLORS.get(entry.source, "inherit")}">{entry.source}</td>'
        f"<td>{html.escape(entry.text[:_TEXT_MAX])}</td></tr>"
        for entry in entries
    )
    return (
        f"<p>Again: <code>{html.escape(rerun)}</code></p>"
        f"<details><summary>timeline, {len(entries)} entries (seconds)</summary>"
        f'<table style="font:12px monospace;white-space:pre-wrap">{rows}</table></details>'
    )


_COLORS = {
    "board": "#222",
    "flash": "#777",
    "reset": "#b00",
    "gateway": "#06c",
    "bench": "#080",
}
