"""I1 to the last usable sector: no epoch comes twice while sectors fail, in every order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import nor
from tidemark.counter import Counter
from tidemark.errors import StateError
from tidemark.flash import Region

SLOT = 16
SLOTS = 3  # of a sector: fewer than may fail before a sector is left


class Life:
    """Boots of one counter on a flash whose sectors fail; holds what it issued."""

    def __init__(self, flash: nor.NorFlash) -> None:
        self.flash = flash
        self.sectors = flash.size // flash.sector
        self.last = 0
        self.refusals = 0

    def boot(self) -> None:
        counter = Counter(Region(self.flash, 0, self.flash.size))
        assert counter.recover() >= self.last, "an issued epoch is forgotten"
        try:
            epoch = counter.open_epoch()
        except StateError as error:
            assert error.code == "counter-worn"
            self._check_nothing_is_issued(counter)
            self._check_end()
            self.refusals += 1
            return
        assert epoch > self.last, f"epoch {epoch} issued again, {self.last} was"
        assert counter.next(0) == (epoch, 4)
        self.last = epoch

    def _check_nothing_is_issued(self, counter: Counter) -> None:
        for act in (counter.open_epoch, lambda: counter.next(0)):
            with pytest.raises(StateError, match=r"counter-(worn|closed)"):
                act()

    def _check_end(self) -> None:
        """It may only refuse when no usable sector has room beside the last record."""
        healthy = [i for i in range(self.sectors) if not self.flash._fault(i * self.flash.sector)]
        slot = (self.last - 1) % (self.sectors * SLOTS)
        home = slot // SLOTS if self.last else -1
        fault = self.flash._fault(home * self.flash.sector) if self.last else None
        if fault and fault.kind == nor.IO:
            return  # the last record can't be affirmed, and nothing may rest on it
        assert set(healthy) <= {home}, (
            f"sectors {healthy} would take a record, {home} has the last"
        )
        if home in healthy:
            rest = bytes(self.flash.view(slot * SLOT, (SLOTS - slot % SLOTS) * SLOT))
            blank = [i for i in range(SLOT, len(rest), SLOT) if rest[i : i + SLOT] == b"\xff" * 16]
            assert not blank, "the last usable sector has room"


def _flash(sectors: int) -> nor.NorFlash:
    return nor.NorFlash(sectors * SLOTS * SLOT, sector=SLOTS * SLOT, page=SLOT)


def _orders() -> Iterator[tuple[int, ...]]:
    for sectors in (2, 3, 4):
        yield from itertools.permutations(range(sectors))


@pytest.mark.parametrize("kind", nor.FAULTS)
def test_sectors_that_fail_in_any_order_end_in_a_clean_refusal(kind: str) -> None:
    lives = 0
    for order in _orders():
        for first, gap in itertools.product((0, 1, 3, 8), (1, 2, 4, 7)):
            life = Life(_flash(len(order)))
            for _ in range(first):
                life.boot()
            for sector in order:
                life.flash.fail(sector, kind)
                for _ in range(gap):
                    life.boot()
            for _ in range(SLOTS * len(order) * 2):
                life.boot()
            assert life.refusals, "it goes on for ever"
            lives += 1
    assert lives == (2 + 6 + 24) * 16


@pytest.mark.parametrize("kind", nor.FAULTS)
def test_sectors_that_wear_out_by_their_erases_end_in_a_clean_refusal(kind: str) -> None:
    for sectors in (2, 3):
        for lives in itertools.product(range(1, 5), repeat=sectors):
            life = Life(_flash(sectors))
            for sector in range(sectors):
                life.flash.fail(sector, kind, after=lives[sector])
            for _ in range(SLOTS * sectors * 12):
                life.boot()
            assert life.refusals


@pytest.mark.parametrize("kinds", list(itertools.permutations(nor.FAULTS, 3)), ids="-".join)
def test_sectors_that_fail_in_different_ways(kinds: tuple[str, ...]) -> None:
    for order in itertools.permutations(range(3)):
        life = Life(_flash(3))
        for sector, kind in zip(order, kinds, strict=True):
            for _ in range(5):
                life.boot()
            life.flash.fail(sector, kind)
        for _ in range(30):
            life.boot()
        assert life.refusals


@pytest.mark.parametrize("good", range(4))
def test_the_last_usable_sector_gives_all_its_slots(good: int) -> None:
    life = Life(_flash(4))
    for _ in range(2 * SLOTS * 4):
        life.boot()
    for sector in range(4):
        if sector != good:
            life.flash.fail(sector, nor.DEAD)
    before = life.flash.erase_counts[good]
    epochs: list[int] = []
    while not life.refusals:
        had = life.last
        life.boot()
        if life.last > had:
            epochs.append(life.last)
    # The sector of the last record on this flash, before it failed, was the last one.
    assert len(epochs) == (SLOTS if good != 3 else 0)
    assert life.flash.erase_counts[good] - before <= 1


def test_power_cuts_while_sectors_fail_issue_nothing_twice() -> None:
    for kind in nor.FAULTS:
        for at, variant in itertools.product(range(6), (nor.BEFORE, nor.TORN, nor.AFTER)):
            life = Life(_flash(3))
            for boot in range(24):
                if boot in (5, 9):
                    life.flash.fail(boot % 3, kind)
                if boot % 3 == 1:
                    life.flash.plan_cut(at, variant)
                try:
                    life.boot()
                except nor.PowerCut:
                    pass
                except AssertionError as error:
                    # A cut may leave junk where a record would still fit: it may refuse early.
                    if "would take a record" not in str(error) and "has room" not in str(error):
                        raise
                life.flash.no_cut()
