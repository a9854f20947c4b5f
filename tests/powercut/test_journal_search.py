"""The journal's promises over all power cuts, torn cells and unstable reads of two small units.

A promise is one that was given: a call that returned. A value may change only to one that was
being written when the power failed, and not any more once a later call on its key has returned.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

import nor
from tests.powercut.search import search
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.journal import Journal

PAGE = 128
DEEPER = int(os.environ.get("TIDEMARK_CUTS", "0"))


class Keys:
    """Puts and deletes `a`, raises the mark `m`, affirms either.

    `steps` says what a boot does: A affirms `a`, a puts it, d deletes it, M and m the same for the
    mark. Parts between slashes are for one boot after another, in turn.
    """

    def __init__(self, steps: str, size: int = 20) -> None:
        self.steps = steps
        self.size = size
        self.count = 0
        self.boots = 0
        # key: (promised value, values that an interrupted call may have left)
        self.known: dict[str, tuple[object, frozenset[object]]] = {}

    def copy(self) -> Keys:
        twin = Keys(self.steps, self.size)
        twin.count = self.count
        twin.boots = self.boots
        twin.known = dict(self.known)
        return twin

    def key(self) -> object:
        return self.count, self.boots, tuple(sorted(self.known.items(), key=lambda item: item[0]))

    def boot(self, flash: nor.NorFlash) -> None:
        journal = self._open(flash)
        try:
            self._work(journal)
        except StateError as error:
            if error.code == "journal-worn":
                raise
            # Two torn headers at birth: the host has to erase, and nothing was promised yet.
            assert error.code == "journal-unborn"
            assert all(promised == _NOTHING[key] for key, (promised, _) in self.known.items())
        self.check_open(journal)

    def _work(self, journal: Journal) -> None:
        parts = self.steps.split("/")
        self.boots += 1
        for step in parts[self.boots % len(parts)]:
            self.count += 1
            if step == "A":
                value = journal.affirm("a")
                # Before birth nothing can be made firm, not even that a key has no value.
                if not journal.is_blank():
                    self._settled("a", value)
            elif step == "a":
                # One block or two: what no longer fits may be followed by what does.
                value = bytes([self.count]) * (self.size if self.count % 3 == 2 else 20)
                self._trying("a", value)
                journal.put("a", value)
                self._settled("a", value)
            elif step == "d":
                self._trying("a", None)
                journal.delete("a")
                self._settled("a", None)
            elif step == "M":
                journal.affirm("m")
                if not journal.is_blank():
                    self._settled("m", journal.mark("m"))
            elif step == "m":
                self._raise(journal)

    def check(self, flash: nor.NorFlash) -> None:
        self.check_open(self._open(flash))

    def check_open(self, journal: Journal) -> None:
        self._allowed("a", journal.get("a"))
        self._allowed("m", journal.mark("m"))

    def _open(self, flash: nor.NorFlash) -> Journal:
        journal = Journal(Region(flash, 0, flash.size))
        journal.recover()
        return journal

    def _raise(self, journal: Journal) -> None:
        number = self.count
        self._trying("m", (number, b""))
        journal.raise_mark("m", number)
        self._settled("m", (number, b""))

    def _trying(self, key: str, value: object) -> None:
        promised, others = self.known.get(key, (_NOTHING[key], frozenset()))
        self.known[key] = (promised, others | {value})

    def _settled(self, key: str, value: object) -> None:
        self._allowed(key, value)
        self.known[key] = (value, frozenset())

    def _allowed(self, key: str, value: object) -> None:
        promised, others = self.known.get(key, (_NOTHING[key], frozenset()))
        assert value == promised or value in others, f"{key} reads {value!r}, not {promised!r}"
        if key == "m":
            assert value[0] >= promised[0], "the mark fell"  # type: ignore[index]


_NOTHING: dict[str, object] = {"a": None, "m": (0, b"")}


def _flash(blocks: int, sectors: int = 1, hard: bool = False) -> nor.NorFlash:
    """Two units of `sectors` sectors with `blocks` blocks each; a block is a page."""
    return nor.NorFlash(
        2 * sectors * blocks * PAGE, sector=blocks * PAGE, page=PAGE, weak=True, hard=hard
    )


def _explore(
    flash: nor.NorFlash,
    model: Keys,
    starts: int,
    cuts: int,
    boots: int,
    readings: Sequence[str] = nor.READINGS,
) -> int:
    """Search from the blank flash and after each of `starts` - 1 clean boots; return the cuts."""
    tried = 0
    for _ in range(starts):
        begin = flash.snapshot()
        tried += search(flash, model.copy(), cuts, boots, readings).cuts
        flash.restore(begin)
        model.boot(flash)
    return tried


@pytest.mark.parametrize(
    ("steps", "hard"), [("AMamda", False), ("AMamda", True), ("A/mAa", False)]
)
def test_one_cut_anywhere_breaks_no_promise(steps: str, hard: bool) -> None:
    """All calls, every place in a unit, several compactions."""
    assert _explore(_flash(11, hard=hard), Keys(steps), 6, 1, 3) > 100


@pytest.mark.parametrize(
    ("blocks", "size", "hard"), [(11, 20, False), (11, 20, True), (12, 300, False)]
)
def test_two_cuts_anywhere_break_no_promise(blocks: int, size: int, hard: bool) -> None:
    """Cuts in the recovery from cuts, from birth to the second compaction."""
    steps = "Aa" if DEEPER else "a"
    readings = nor.READINGS if DEEPER else (nor.OLD, nor.NEW, nor.MIXED)
    flash = _flash(blocks, hard=hard)
    assert _explore(flash, Keys(steps, size), 3 + DEEPER, 2 + DEEPER, 4 + DEEPER, readings) > 100


def test_a_torn_abort_does_not_bring_a_torn_commit_back() -> None:
    """Three cuts, found by a deeper search: COMMIT, then ABORT, then the erase behind them."""
    flash = _flash(11)
    model = Keys("a")
    model.boot(flash)
    model.boot(flash)
    for at, readings in ((5, {}), (2, {1: nor.MIXED}), (1, {1: nor.MIXED, 2: nor.NEW})):
        flash.power_up(readings)
        flash.plan_cut(at, nor.TORN)
        with pytest.raises(nor.PowerCut):
            model.boot(flash)
    for last in nor.READINGS:
        flash.power_up({1: nor.NEW, 2: nor.OLD, 3: last})
        model.check(flash)
