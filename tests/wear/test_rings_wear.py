"""Evidence and outbox on worn sectors: a bad sector is left, only what reads back counts."""

from __future__ import annotations

import itertools

import pytest

import nor
from tidemark.errors import StateError
from tidemark.evidence import REMOTE, SIZE, Evidence, follows, parse
from tidemark.flash import Region
from tidemark.outbox import Outbox

# -- evidence -------------------------------------------------------------------------------------

PER_SECTOR = 8


def _flash(sectors: int = 4) -> nor.NorFlash:
    return nor.NorFlash(sectors * PER_SECTOR * SIZE, sector=PER_SECTOR * SIZE, page=SIZE)


def _ring(flash: nor.NorFlash) -> Evidence:
    ring = Evidence(Region(flash, 0, flash.size))
    ring.recover()
    return ring


def _chain_holds(ring: Evidence, bad: tuple[int, ...]) -> None:
    """Each record continues the one before it or is marked; a hole is in a bad sector."""
    raw = ring.read(ring.oldest(), 64)
    before = None
    for at in range(0, len(raw), SIZE):
        parts = parse(raw[at : at + SIZE])
        if before:
            assert parts[0] > before[0]
            lost = range(before[0] + 1, parts[0])
            if lost and not parts[8]:
                assert {(number - 1) // PER_SECTOR % 4 for number in lost} <= set(bad)
            elif not parts[8]:
                assert follows(raw[at : at + SIZE], before[9])
        before = parts


@pytest.mark.parametrize("kind", nor.FAULTS)
@pytest.mark.parametrize("bad", [(0,), (2,), (0, 1), (1, 3), (0, 1, 3)], ids=str)
def test_each_boot_keeps_its_first_record_while_two_sectors_are_good(
    kind: str, bad: tuple[int, ...]
) -> None:
    for before in range(0, 40, 3):
        flash = _flash()
        for _ in range(before):
            _ring(flash).add("boot")
        for sector in bad:
            flash.fail(sector, kind)
        last = 0
        for boot in range(50):
            ring = _ring(flash)
            assert ring.head()[0] >= last, "the newest record is gone"
            number = ring.add("boot", bytes([boot]))
            if len(bad) <= 2:
                assert number, f"boot {boot} left no record"
            if number:
                assert number > last
                assert parse(ring.read(number, 1))[3] == bytes([boot])
                last = number
            else:
                assert ring.gaps == 1
        _chain_holds(_ring(flash), bad)


def test_a_ring_that_takes_nothing_keeps_its_newest_records_and_counts() -> None:
    flash = _flash()
    for boot in range(24):  # the newest sector is full
        _ring(flash).add("boot", bytes([boot]))
    for sector in range(4):
        flash.fail(sector, nor.NO_PROGRAM)
    for _ in range(3):
        ring = _ring(flash)
        done = flash.erases
        for i in range(5):
            assert not ring.add("event")
            assert ring.gaps == i + 1
        # Each of the other sectors is tried once in a boot.
        assert flash.erases - done <= 3
        assert ring.read(24, 1)
    assert _ring(flash).head()[0] == 24


def test_a_ring_that_never_took_anything_is_tried_once_a_boot() -> None:
    flash = _flash()
    for sector in range(4):
        flash.fail(sector, nor.NO_PROGRAM)
    ring = _ring(flash)
    for i in range(5):
        assert not ring.add("event")
        assert ring.gaps == i + 1
    assert flash.erases == 4


def test_remote_events_wait_uncounted_while_the_ring_takes_nothing() -> None:
    flash = _flash()
    ring = _ring(flash)
    ring.add("boot")
    for sector in range(4):
        flash.fail(sector, nor.DEAD)
    ring.add("event")
    for second in range(5):
        ring.add("bad-mac", kind=REMOTE, uptime_ms=second * 1000)
        ring.poll(second * 1000)
    assert ring.gaps == 1


# -- outbox ---------------------------------------------------------------------------------------

BOX_SECTOR = 1024  # two chunks


class Box:
    """Stores and acknowledges on a flash whose sectors fail."""

    def __init__(self) -> None:
        self.flash = nor.NorFlash(4 * BOX_SECTOR, sector=BOX_SECTOR, page=256)
        self.waiting: dict[tuple[int, int], bytes] = {}
        self.refused = 0
        self.epoch = 0
        self.boot()

    def boot(self) -> None:
        self.box = Outbox(Region(self.flash, 0, self.flash.size))
        self.box.recover()
        self.epoch += 1
        self.check()

    def check(self) -> None:
        found = {(epoch, i): body for _, epoch, i, body in self.box.pending(limit=999)}
        for key, body in self.waiting.items():
            assert found.get(key) == body, f"reading {key} is lost"

    def store(self) -> None:
        index = self.box.next_index()
        body = bytes([self.epoch & 0xFF, index & 0xFF]) * 12
        dropped = self.box.dropped
        try:
            self.box.add(self.epoch, index, body)
        except StateError as error:
            assert error.code == "outbox-worn"
            assert self.box.dropped > dropped, "a reading that was not stored is counted"
            self.refused += 1
        else:
            self.waiting[self.epoch, index] = body

    def deliver(self, most: int) -> None:
        for handle, epoch, index, body in self.box.pending(limit=most):
            expected = self.waiting.pop((epoch, index), body)
            assert expected == body, "another reading than the one that was stored"
            self.box.ack(handle)


@pytest.mark.parametrize("kind", nor.FAULTS)
@pytest.mark.parametrize("sector", range(4))
def test_a_bad_sector_loses_no_reading_that_was_stored(kind: str, sector: int) -> None:
    for before in (0, 5, 17, 40):
        box = Box()
        for _ in range(before):
            box.store()
            box.deliver(4)
        box.flash.fail(sector, kind)
        stored = 0
        for i in range(120):
            box.store()
            stored += 1
            # Soon enough: what is dropped to make room is another promise.
            box.deliver(2)
            if i % 7 == 6:
                box.boot()
        # A bad sector costs a reading each time that the ring or a boot comes to it, no more.
        assert box.refused <= stored // 4


@pytest.mark.parametrize("sector", range(4))
def test_a_sector_without_its_header_takes_no_reading(sector: int) -> None:
    box = Box()
    # One byte of the serial number: all else in the sector is sound.
    box.flash.fail(sector, nor.STUCK_1, at=(4,))
    for i in range(120):
        box.store()
        box.check()
        box.deliver(2)
        if i % 7 == 6:
            box.boot()


def test_flash_that_takes_nothing_refuses_each_reading_and_keeps_what_waits() -> None:
    box = Box()
    for _ in range(6):
        box.store()
    for sector in range(4):
        box.flash.fail(sector, nor.DEAD)
    for _ in range(3):
        box.store()
    assert box.refused
    box.boot()


def test_flash_that_takes_no_programs_costs_no_more_than_half_of_what_waits() -> None:
    flash = nor.NorFlash(8 * BOX_SECTOR, sector=BOX_SECTOR, page=256)
    box = Outbox(Region(flash, 0, flash.size))
    box.recover()
    for index in range(500):
        box.add(1, index, bytes(24))
    for sector in range(8):
        flash.fail(sector, nor.NO_PROGRAM)
    waiting = len(box)
    for boot in range(3):
        box = Outbox(Region(flash, 0, flash.size))
        box.recover()
        erased = flash.erases
        for index in range(20):
            with pytest.raises(StateError, match="outbox-worn"):
                box.add(2 + boot, index, bytes(24))
        assert flash.erases - erased <= 4
        assert box.dropped >= 20
    assert len(box) >= waiting // 3


def test_pairs_of_bad_sectors_lose_no_reading_that_was_stored() -> None:
    for (first, second), kind in itertools.product(
        itertools.combinations(range(4), 2), nor.FAULTS
    ):
        box = Box()
        box.flash.fail(first, kind)
        box.flash.fail(second, nor.NO_PROGRAM)
        for i in range(60):
            box.store()
            box.deliver(3)
            if i % 9 == 8:
                box.boot()
