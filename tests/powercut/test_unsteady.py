"""Torn cells that read differently from one look to the next within a boot, not only between
boots: seeded histories, through the real code.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import nor
from tests.powercut.test_counter_search import SLOT, Epochs
from tests.powercut.test_evidence_search import Box, Ring
from tests.powercut.test_journal_search import Keys
from tidemark.errors import StateError
from tidemark.evidence import SIZE
from tidemark.flash import Region
from tidemark.journal import Journal

HISTORIES = 400
BOOTS, CUTS = 8, 3
# What a boot may refuse with when its cells give it nothing to stand on.
REFUSALS = ("counter-worn", "journal-worn", "journal-unborn")
BLOCK = 128


class Unsteady(nor.NorFlash):
    """Each look at the flash draws what every interrupted operation reads as."""

    dice: random.Random | None = None

    def view(self, start: int, size: int) -> memoryview:
        self._draw()
        # A copy: what was looked at does not change behind the caller.
        return memoryview(bytes(super().view(start, size)))

    def read_into(self, addr: int, buf: bytearray | memoryview) -> None:
        self._draw()
        super().read_into(addr, buf)

    def _draw(self) -> None:
        if self.dice and self._weak:
            cut = self._cut_at
            self.power_up({group: self.dice.choice(nor.READINGS) for group in self.weak_groups()})
            self._cut_at = cut


class _Box(Box):
    def copy(self) -> _Box:
        return _Box(self.waiting, self.boots)

    def done(self, acknowledged: bool, dropped: int) -> None:
        """A torn acknowledgement may be there at one look and gone at the next: what still waits
        then makes a ring as small as this one drop the oldest, and say how many."""
        self.waiting = self.waiting[dropped:]


def _counter() -> tuple[Unsteady, Any]:
    return Unsteady(3 * 4 * SLOT, sector=4 * SLOT, page=SLOT, weak=True), Epochs()


def _journal() -> tuple[Unsteady, Any]:
    return Unsteady(2 * 11 * BLOCK, sector=11 * BLOCK, page=BLOCK, weak=True), Keys("Aa/AMm/da")


def _ring() -> tuple[Unsteady, Any]:
    return Unsteady(5 * 2 * SIZE, sector=2 * SIZE, page=SIZE, weak=True), Ring()


def _box() -> tuple[Unsteady, Any]:
    return Unsteady(3 * 1024, sector=1024, page=256, weak=True), _Box()


@pytest.mark.parametrize("make", [_counter, _journal, _ring, _box])
def test_no_promise_is_broken(make: Callable[[], tuple[Unsteady, Any]]) -> None:
    refused = cut = 0
    for seed in range(HISTORIES):
        flash, model = make()
        flash.dice = dice = random.Random(seed)
        cuts = CUTS
        for boot in range(BOOTS):
            if cuts and dice.random() < 0.6:
                flash.plan_cut(dice.randrange(8), nor.TORN)
            try:
                model.boot(flash)
                model.check(flash)
            except nor.PowerCut:
                cut += 1
                cuts -= 1
            except StateError as error:
                assert error.code in REFUSALS, f"seed {seed}, boot {boot}: {error}"
                refused += 1
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, boot {boot}: {error}") from error
            flash.no_cut()
    assert cut > HISTORIES and refused < HISTORIES, (cut, refused)


@pytest.mark.parametrize("later", [nor.OLD, nor.JUNK, nor.MIXED])
def test_what_an_affirmed_value_was_read_as_is_checked_at_that_look(later: str) -> None:
    """The index holds a torn record; it reads as junk when the value is to be made firm."""
    flash = nor.NorFlash(2 * 22 * BLOCK, sector=22 * BLOCK, page=BLOCK, weak=True)
    old, new = b"OLDVALUE" * 4, b"NEWVALUE" * 4
    _opened(flash).put("key", old)
    journal = _opened(flash)
    before = flash.snapshot(), flash.operations
    journal.put("key", new)
    last = flash.operations - before[1] - 1
    flash.restore(before[0])
    flash.plan_cut(last, nor.TORN)
    with pytest.raises(nor.PowerCut):
        _opened(flash).put("key", new)
    flash.power_up({1: nor.NEW})
    journal = _opened(flash)
    assert journal.get("key") == new
    flash.power_up({1: later})
    with pytest.raises(StateError, match="journal-worn"):
        journal.affirm("key")
    cells = flash.snapshot()
    for reading, value in ((later, old), (nor.NEW, new)):
        flash.restore(cells)
        flash.power_up({1: reading})
        assert _opened(flash).affirm("key") == value


def test_a_unit_whose_last_record_no_longer_reads_is_left_all_the_same() -> None:
    flash = nor.NorFlash(2 * 22 * BLOCK, sector=22 * BLOCK, page=BLOCK, weak=True)
    _opened(flash).put("key", b"1")
    before = flash.snapshot(), flash.operations
    _opened(flash).put("key", b"2")
    last = flash.operations - before[1] - 1
    flash.restore(before[0])
    flash.plan_cut(last, nor.TORN)
    with pytest.raises(nor.PowerCut):
        _opened(flash).put("key", b"2")
    flash.power_up({1: nor.NEW})
    journal = _opened(flash)
    assert journal.get("key") == b"2"
    flash.power_up({1: nor.JUNK})
    journal._compact("key", ord("V"), b"3")
    assert _opened(flash).get("key") == b"3"


def test_a_key_that_is_gone_by_a_torn_commit_is_gone_for_good_once_affirmed() -> None:
    flash = nor.NorFlash(2 * 11 * BLOCK, sector=11 * BLOCK, page=BLOCK, weak=True)
    journal = _opened(flash)
    journal.put("key", b"1")
    while journal._append("other", ord("V"), bytes(20)):
        pass  # full: the next change goes to the other unit
    before = flash.snapshot(), flash.operations
    journal = _opened(flash)
    journal.delete("key")
    # The COMMIT is the last but two: behind it come the claim and the record of SETTLED.
    last = flash.operations - before[1] - 3
    flash.restore(before[0])
    flash.plan_cut(last, nor.TORN)
    with pytest.raises(nor.PowerCut):
        _opened(flash).delete("key")
    flash.power_up({1: nor.NEW})
    journal = _opened(flash)
    assert journal._commit >= 0 and journal.get("key") is None
    assert journal.affirm("key") is None
    for reading in nor.READINGS:
        flash.power_up({1: reading})
        assert _opened(flash).get("key") is None


def _opened(flash: nor.NorFlash) -> Journal:
    journal = Journal(Region(flash, 0, flash.size))
    journal.recover()
    return journal
