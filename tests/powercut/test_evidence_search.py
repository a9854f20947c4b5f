"""Evidence and outbox: what was recorded or stored stays, over two cuts with unstable cells."""

from __future__ import annotations

import pytest

import nor
from tests.powercut.search import search
from tidemark.evidence import SIZE, Evidence, follows, parse
from tidemark.flash import Region
from tidemark.outbox import Outbox


class Ring:
    """Adds two records a boot; those that were promised stay until their sector is needed."""

    def __init__(self, promised: tuple[tuple[int, bytes], ...] = (), count: int = 0) -> None:
        self.promised = promised
        self.count = count

    def copy(self) -> Ring:
        return Ring(self.promised, self.count)

    def key(self) -> object:
        return self.promised, self.count

    def boot(self, flash: nor.NorFlash) -> None:
        ring = self._open(flash)
        for _ in range(2):
            self.count += 1
            # Whatever the outcome: an add may have taken the oldest sector.
            self._keep(ring, flash)
            number = ring.add("event", bytes([self.count]))
            assert number > (self.promised[-1][0] if self.promised else 0), "a number came twice"
            self.promised = (*self.promised, (number, ring.read(number, 1)))
        self.check(flash)

    def _keep(self, ring: Evidence, flash: nor.NorFlash) -> None:
        """Forget what the coming add may erase: torn slots before it can cost a sector more."""
        per_sector = flash.sector // SIZE
        slots = flash.size // SIZE
        newest = max(ring.head()[0], self.promised[-1][0] if self.promised else 0)
        first = newest + 2 * per_sector - slots + 1
        self.promised = tuple(pair for pair in self.promised if pair[0] >= first)

    def check(self, flash: nor.NorFlash) -> None:
        ring = self._open(flash)
        for number, record in self.promised:
            assert ring.read(number, 1) == record, f"record {number} is gone"
        raw = ring.read(1, 64)
        before = None
        for at in range(0, len(raw), SIZE):
            parts = parse(raw[at : at + SIZE])
            if before and not parts[8]:
                # A gap without a mark is one that a cut-off erase of the oldest sector has left.
                if parts[0] == before[0] + 1:
                    assert follows(raw[at : at + SIZE], before[9])
                else:
                    assert before[0] <= ring.head()[0] - (flash.size - 2 * flash.sector) // SIZE
            before = parts

    def _open(self, flash: nor.NorFlash) -> Evidence:
        ring = Evidence(Region(flash, 0, flash.size))
        ring.recover()
        return ring


class Box:
    """Stores two readings a boot and acknowledges the oldest."""

    def __init__(self, waiting: tuple[tuple[int, int], ...] = (), boots: int = 0) -> None:
        self.waiting = waiting
        self.boots = boots

    def copy(self) -> Box:
        return Box(self.waiting, self.boots)

    def key(self) -> object:
        return self.waiting, self.boots

    def boot(self, flash: nor.NorFlash) -> None:
        self.boots += 1
        box = self._open(flash)
        for _ in range(2):
            index = box.next_index()
            box.add(self.boots, index, bytes([self.boots]) * 20)
            self.waiting = (*self.waiting, (self.boots, index))
        oldest = box.pending(limit=1)[0]
        # Before the flash has it: an acknowledgement that was cut off may have had effect.
        self.waiting = tuple(one for one in self.waiting if one != oldest[1:3])
        self.done(box.ack(oldest[0]), box.dropped)

    def done(self, acknowledged: bool, dropped: int) -> None:
        assert acknowledged
        assert dropped == 0

    def check(self, flash: nor.NorFlash) -> None:
        found = {
            (epoch, index): body for _, epoch, index, body in self._open(flash).pending(limit=99)
        }
        for epoch, index in self.waiting:
            assert found.get((epoch, index)) == bytes([epoch]) * 20, f"{(epoch, index)} is lost"

    def _open(self, flash: nor.NorFlash) -> Outbox:
        box = Outbox(Region(flash, 0, flash.size))
        box.recover()
        return box


@pytest.mark.parametrize("starts", [range(4), range(4, 8)], ids=["first-lap", "second-lap"])
def test_two_cuts_lose_no_record_and_break_no_chain(starts: range) -> None:
    flash = nor.NorFlash(5 * 2 * SIZE, sector=2 * SIZE, page=SIZE, weak=True)
    model = Ring()
    for boot in range(starts.stop):
        if boot in starts:
            begin = flash.snapshot()
            assert search(flash, model.copy(), 2, 3).cuts > 100
            flash.restore(begin)
        model.boot(flash)


def test_two_cuts_lose_no_reading() -> None:
    """Three sectors of two chunks; a chunk has room for many boots' readings."""
    flash = nor.NorFlash(3 * 1024, sector=1024, page=256, weak=True)
    model = Box()
    for _ in range(3):
        begin = flash.snapshot()
        assert search(flash, model.copy(), 2, 4, (nor.OLD, nor.NEW, nor.JUNK)).cuts > 100
        flash.restore(begin)
        model.boot(flash)
