"""What the bootloader makes of an entry of a failed update, whose erase was cut off."""

from __future__ import annotations

import pytest

from tests.esp32.runtime_model import LAYOUT, NEW, OLD, SECTOR, SIZE, runtime
from tidemark.flash import Region
from tidemark.otadata import SIZE as ENTRY
from tidemark.otadata import Otadata
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.bootloader import Bootloader
from tidemark_host.esp32.flash import program_padded
from tidemark_host.esp32.otadata import Entry, State

assert LAYOUT.otadata
AT = LAYOUT.otadata.offset


class _Cut(Exception):
    pass


class _Flash(NorFlash):
    """Power fails at the first cell that the erase takes up; the caller chooses it."""

    def erase(self, addr: int) -> None:
        raise _Cut


@pytest.mark.parametrize("state", [State.ABORTED, State.INVALID])
def test_no_cell_that_rises_first_brings_back_what_was_undone(state: State) -> None:
    cells = bytearray(b"\xff" * SIZE)
    flash = _Flash(cells)
    for region, number in zip(LAYOUT.ota, (OLD, NEW), strict=True):
        program_padded(flash, region.offset, runtime(number))
    entries = Entry.made(1, State.VALID), Entry.made(2, state)
    for number, entry in enumerate(entries):
        program_padded(flash, AT + number * SECTOR, entry.encode())
    assert Bootloader(flash, LAYOUT).boot().index == 0
    with pytest.raises(_Cut):
        Otadata(Region(flash, AT, 2 * SECTOR)).keep(0)
    start = AT + SECTOR
    risen = 0
    for at in range(start, start + ENTRY):
        for bit in range(8):
            if not cells[at] >> bit & 1:
                cut = bytearray(cells)
                cut[at] |= 1 << bit
                assert Bootloader(NorFlash(cut), LAYOUT).boot().index == 0, (at - start, bit)
                risen += 1
    assert risen > ENTRY
    # And all of one part of the entry before any of the others.
    for first, size in ((0, 4), (4, 20), (24, 4), (28, 4)):
        cut = bytearray(cells)
        cut[start + first : start + first + size] = b"\xff" * size
        assert Bootloader(NorFlash(cut), LAYOUT).boot().index == 0, first
