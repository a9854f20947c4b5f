"""A flash as years leave it: its rings have gone round, both units of the journal are full.

What is done here is done by the firmware's own code, on a model of the chip; it is imported from
`firmware_dir()`, so this runs as a program: FLASH_IN FLASH_OUT JSON, where JSON has `sector`,
`page` and `regions` (name: [offset, size]).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tidemark_host.boardfile import Board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_cache import REPO

_RECORD = 16  # bytes of an epoch's record
_EVIDENCE = 64  # of an event's
_READING = 60  # bytes of a small reading
_JOURNAL_ROOM = 6  # blocks: what a boot writes does not change the unit


def aged(flash: bytes, board: Board) -> bytes:
    """Return the flash of a provisioned board as it is when its rings have gone round."""
    facts = {
        "sector": board.sector,
        "page": board.page,
        "regions": {name: (one.offset, one.size) for name, one in board.regions.items()},
    }
    with tempfile.TemporaryDirectory() as name:
        young, old = Path(name) / "young", Path(name) / "old"
        young.write_bytes(flash)
        path = os.pathsep.join((str(firmware_dir()), str(REPO / "host_tools")))
        argv = [sys.executable, "-m", __name__, young, old, json.dumps(facts)]
        subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, check=True)
        return old.read_bytes()


class _Flash:
    """The port's flash object (docs/architecture.md, Port) over the model of the chip."""

    def __init__(self, cells: bytearray, sector: int, page: int) -> None:
        self.sector, self.page, self.size = sector, page, len(cells)
        self._cells = cells
        self._chip = NorFlash(cells, sector=sector, page=page)
        self.erase, self.program = self._chip.erase, self._program

    def _program(self, off: int, data: Any) -> None:
        self._chip.program(off, bytes(data))

    def view(self, off: int, n: int) -> memoryview:
        return memoryview(self._cells)[off : off + n]

    def read_into(self, off: int, buf: Any) -> None:
        buf[:] = self.view(off, len(buf))


def _age(cells: bytearray, facts: dict[str, Any]) -> None:
    flash = _Flash(cells, facts["sector"], facts["page"])

    def region(name: str) -> Any:
        return importlib.import_module("tidemark.flash").Region(flash, *facts["regions"][name])

    def part(name: str) -> Any:
        module = importlib.import_module(f"tidemark.{name}")
        made = getattr(module, name.capitalize())(region(name))
        made.recover()
        return made

    for _ in range(2 * region("counter").size // _RECORD):
        part("counter").open_epoch()
    evidence = part("evidence")
    for _ in range(2 * region("evidence").size // _EVIDENCE):
        evidence.add("boot", b"power")
    journal = part("journal")
    number = 0
    # The unit before is full, and this one all but full.
    while journal._generation < 3 or journal._tail < journal._blocks * 7 // 8 - _JOURNAL_ROOM:
        number += 1
        journal.put(f"aged{number % 3}", number.to_bytes(4, "big") * 10)
    outbox = part("outbox")
    for number in range(2 * region("outbox").size // _READING):
        outbox.add(1, number + 1, bytes(_READING))


if __name__ == "__main__":
    content = bytearray(Path(sys.argv[1]).read_bytes())
    _age(content, json.loads(sys.argv[3]))
    Path(sys.argv[2]).write_bytes(content)
