"""The journal on worn sectors: what was promised stays, or the journal says that it can't."""

from __future__ import annotations

import itertools

import pytest

import nor
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.journal import Journal

SECTOR = 2048  # 16 blocks
PAGE = 128
KEYS = ("boot", "floor", "root", "key")


class Life:
    """Puts on a flash whose sectors fail. `held`: by key the values that it may have."""

    def __init__(self, sectors: int) -> None:
        self.flash = nor.NorFlash(sectors * SECTOR, sector=SECTOR, page=PAGE)
        self.held: dict[str, set[bytes | None]] = {key: {None} for key in KEYS}
        self.count = 0
        self.refused = 0
        self.boot()

    def boot(self) -> None:
        self.journal = Journal(Region(self.flash, 0, self.flash.size))
        self.journal.recover()
        self.check()

    def check(self) -> None:
        for key in KEYS:
            found = self.journal.get(key)
            assert found in self.held[key], f"{key} is {found}, promised was {self.held[key]}"

    def put(self) -> None:
        key = KEYS[self.count % len(KEYS)]
        self.count += 1
        value = b"%d" % self.count + bytes(self.count * 37 % 150)
        try:
            self.journal.put(key, value)
        except StateError as error:
            assert error.code == "journal-worn"
            self.refused += 1
            self.held[key].add(value)
            return
        self.held[key] = {value}

    def affirm(self, key: str) -> None:
        try:
            found = self.journal.affirm(key)
        except StateError as error:
            assert error.code == "journal-worn"
            return
        assert found in self.held[key]
        self.held[key] = {found}

    def live(self, puts: int) -> None:
        for i in range(puts):
            self.put()
            if i % 5 == 4:
                self.boot()
                self.affirm(KEYS[i % len(KEYS)])


@pytest.mark.parametrize("kind", nor.FAULTS)
def test_failing_sectors_never_bring_a_wrong_value(kind: str) -> None:
    for sector, before in itertools.product(range(4), (1, 6, 13, 24, 37)):
        life = Life(4)
        life.live(before)
        life.flash.fail(sector, kind)
        life.live(60)
        for other in range(4):
            life.flash.fail(other, kind)
            life.live(10)


@pytest.mark.parametrize("kinds", list(itertools.permutations(nor.FAULTS, 2)), ids="-".join)
def test_two_failures_in_a_row_bring_no_wrong_value(kinds: tuple[str, str]) -> None:
    for first, second in itertools.permutations(range(4), 2):
        life = Life(4)
        life.live(9)
        life.flash.fail(first, kinds[0])
        life.live(23)
        life.flash.fail(second, kinds[1])
        life.live(40)


@pytest.mark.parametrize("kind", [nor.NO_PROGRAM, nor.DEAD, nor.FEW_BITS, nor.STUCK_1])
@pytest.mark.parametrize("sector", [1, 2, 5, 6])
def test_a_sector_amid_a_unit_is_left_and_the_journal_goes_on(kind: str, sector: int) -> None:
    life = Life(8)
    life.live(20)
    life.flash.fail(sector, kind)
    life.live(300)
    assert not life.refused


def test_a_unit_that_takes_nothing_is_a_refusal_and_what_it_holds_can_be_read() -> None:
    life = Life(4)
    life.live(10)
    held = dict(life.held)
    for sector in range(4):
        life.flash.fail(sector, nor.DEAD)
    life.live(10)
    assert life.refused == 10
    life.boot()
    found = {key: life.journal.get(key) for key in KEYS}
    assert all(found[key] in held[key] for key in KEYS)


def test_sectors_that_wear_out_by_their_erases() -> None:
    for lives in itertools.product((1, 3), repeat=4):
        life = Life(4)
        for sector in range(4):
            life.flash.fail(sector, nor.FAULTS[sector % 3], after=lives[sector])
        life.live(150)
        assert life.refused
