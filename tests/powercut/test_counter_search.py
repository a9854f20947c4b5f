"""I1: no epoch is issued twice, over all power cuts, torn slots and unstable reads of a small
ring.

tests/mutants takes each of the counter's five rules away in turn; one of these tests then fails.
"""

from __future__ import annotations

import pytest

import nor
from tests.powercut.search import search
from tidemark.counter import Counter
from tidemark.errors import StateError
from tidemark.flash import Region

SLOT = 16


class Epochs:
    """Opens one epoch a boot; each must be above all that were ever issued."""

    def __init__(self, issued: int = 0) -> None:
        self.issued = issued

    def copy(self) -> Epochs:
        return Epochs(self.issued)

    def key(self) -> object:
        return self.issued

    def boot(self, flash: nor.NorFlash) -> None:
        counter = Counter(Region(flash, 0, flash.size))
        counter.recover()
        epoch = counter.open_epoch()
        assert epoch > self.issued, f"epoch {epoch} issued again, {self.issued} was"
        assert counter.next(0) == (epoch, 4)
        self.issued = epoch

    def check(self, flash: nor.NorFlash) -> None:
        found = Counter(Region(flash, 0, flash.size)).recover()
        assert found >= self.issued, f"recovered {found}, {self.issued} was issued"


def _flash(sectors: int, slots: int, hard: bool = False) -> nor.NorFlash:
    size = slots * SLOT
    return nor.NorFlash(sectors * size, sector=size, page=SLOT, weak=True, hard=hard)


@pytest.mark.parametrize("hard", [False, True], ids=["weak", "hard"])
@pytest.mark.parametrize(
    ("sectors", "slots", "cuts", "boots"), [(2, 2, 3, 5), (3, 2, 2, 4), (2, 3, 3, 5)]
)
def test_no_cut_makes_an_epoch_come_twice(
    sectors: int, slots: int, cuts: int, boots: int, hard: bool
) -> None:
    """Starts before each slot of the ring, so that cuts meet each sector change and the wrap.

    Of a sector with two slots four cuts leave neither: a record torn, one half cleared, one more
    torn. Real sectors have 256.
    """
    flash = _flash(sectors, slots, hard)
    model = Epochs()
    tried = 0
    for _ in range(sectors * slots + 1):
        start = flash.snapshot()
        tried += search(flash, model.copy(), cuts, boots).cuts
        flash.restore(start)
        model.boot(flash)
    assert tried > 1000


@pytest.mark.parametrize("worn", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
def test_worn_sectors_skip_or_refuse_but_never_repeat(worn: set[int]) -> None:
    """A sector that takes no programs any more, and does not say so."""
    flash = _flash(3, 2)
    model = Epochs()
    for after in range(8):
        flash.worn = worn if after >= 4 else set()
        for _ in range(4):
            try:
                model.boot(flash)
            except StateError as error:
                assert error.code == "counter-worn"
            model.check(flash)


def test_each_of_two_cuts_meets_a_worn_sector() -> None:
    """Cuts, unstable reads and a worn sector together."""

    class Refusing(Epochs):
        def copy(self) -> Refusing:
            return Refusing(self.issued)

        def boot(self, flash: nor.NorFlash) -> None:
            try:
                super().boot(flash)
            except StateError as error:
                assert error.code == "counter-worn"

    flash = _flash(3, 2)
    model = Refusing()
    for _ in range(4):
        model.boot(flash)
    flash.worn = {1}
    assert search(flash, model, 2, 4).cuts > 100


@pytest.mark.parametrize("last", range(2, 14))
def test_an_aged_record_is_not_issued_again(last: int) -> None:
    """The newest record loses a few cells: its slot is junk, and its epoch stays used."""
    buf = bytearray(b"\xff" * (3 * 4 * SLOT))
    flash = nor.NorFlash(buf, sector=4 * SLOT, page=SLOT, weak=True)
    model = Epochs()
    for _ in range(last):
        model.boot(flash)
    at = (last - 1) % 12 * SLOT
    buf[at + 7] = 0xFF
    model.boot(flash)
    model.check(flash)
