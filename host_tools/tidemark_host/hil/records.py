"""What a board keeps in flash, read with the firmware's own code from a copy of a region.

`region` makes `tidemark` importable.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemark_host.boards.nor import NorFlash


@dataclass(frozen=True)
class Event:
    """A record of a board's evidence ring. `chained`: its hash continues the record before it."""

    number: int
    code: str
    detail: bytes
    epoch: int
    cause: str
    chained: bool


def region(firmware: Path, content: bytes) -> Any:
    """Return `content` as the `Region` of the firmware in a folder."""
    if str(firmware) not in sys.path:
        sys.path.append(str(firmware))
    from tidemark.flash import Region

    return Region(NorFlash(bytearray(content)), 0, len(content))


def stored_readings(region: Any) -> set[tuple[int, int]]:
    """Return (epoch, index) of each reading that waits in a copy of the outbox."""
    from tidemark.outbox import Outbox

    outbox: Any = Outbox(region)
    count: int = outbox.recover()
    return {(epoch, index) for _, epoch, index, _ in outbox.pending(limit=count)}


def events(region: Any) -> list[Event]:
    """Return what a copy of the evidence ring holds, oldest first."""
    from tidemark import evidence as firmware_evidence

    evidence: Any = firmware_evidence
    ring: Any = evidence.Evidence(region)
    last: int = ring.recover()
    found: list[Event] = []
    before: tuple[int, bytes] | None = None
    for number in range(int(ring.oldest()), last + 1):
        raw: bytes = ring.read(number, 1)
        if not raw:
            continue
        parts: tuple[Any, ...] = evidence.parse(raw)
        follows = bool(evidence.follows(raw, before[1] if before else None))
        chained = follows if before and before[0] == number - 1 else number == 1 or not before
        found.append(Event(number, parts[2], bytes(parts[3]), parts[4], parts[7], chained))
        before = number, parts[9]
    return found
