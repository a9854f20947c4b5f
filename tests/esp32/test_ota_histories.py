"""Boards through many lives and power cuts, under an application that updates itself.

Only images that were confirmed or chosen boot, one in its trial boots once and knows that it is in
it, and what was confirmed is there to fall back to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.esp32.tiny import (
    NEW,
    TWO,
    VALID,
    WITH_FACTORY,
    image,
    made,
    number_of,
    put_entries,
)
from tidemark_host.boards.nor import NEW as DONE
from tidemark_host.boards.nor import OLD as UNDONE
from tidemark_host.boards.nor import (
    READINGS,
    TORN,
    VARIANTS,
    NorFlash,
    PowerCut,
)
from tidemark_host.esp32.bootloader import FACTORY, Boot, Bootloader, Layout
from tidemark_host.esp32.flash import program_padded
from tidemark_host.esp32.ota_ops import IDF_5_4, IDF_5_5, OtaError, OtaOps, Rules, SafeOta
from tidemark_host.esp32.otadata import ENTRY_SIZE, Entry, State

GOOD, TRIAL = 100, 200  # numbers of the confirmed image and of the one in trial


@dataclass(frozen=True)
class Cut:
    """A power cut: in the bootloader or in the application, at which of its operations, how."""

    in_application: bool
    at: int
    variant: str = TORN
    count: int = -1


@dataclass(frozen=True)
class Step:
    """One life of a board, from power on until power is gone.

    `does`: how far an application in charge goes. `ends`: how a trial ends. `reading`: how weak
    cells read in the next life.
    """

    does: str = "idle"
    ends: str = "crash"
    slot: int = 0
    cut: Cut | None = None
    reading: str = UNDONE


class Violation(AssertionError):
    """An image booted that may not, or none."""


@dataclass(frozen=True)
class Known:
    """What has been promised about images, by number."""

    confirmed: frozenset[int]  # the mark has returned
    marked: frozenset[int] = frozenset()  # the mark has begun
    chosen: frozenset[int] = frozenset()  # set_boot_partition has begun
    trials: frozenset[int] = frozenset()  # has booted unconfirmed
    last: int = TRIAL


@dataclass
class Life:
    """A board through its lives, with an application that goes by `kind`."""

    flash: NorFlash
    layout: Layout
    known: Known
    rules: Rules = IDF_5_4
    kind: type[OtaOps] = SafeOta

    def step(self, step: Step) -> None:
        """Live one life. Raises Violation."""
        cut = step.cut
        try:
            if cut and not cut.in_application:
                self.flash.plan_cut(cut.at, cut.variant, cut.count, 0x0F)
            booted = Bootloader(self.flash, self.layout).boot()
            self.flash.no_cut()
            if cut and cut.in_application:
                self.flash.plan_cut(cut.at, cut.variant, cut.count, 0x0F)
            self._runs(booted, step)
        except PowerCut:
            pass
        self.flash.power_up(dict.fromkeys(self.flash.weak_groups(), step.reading))

    def _knows(self, **changes: frozenset[int] | int) -> None:
        self.known = replace(self.known, **changes)

    def _runs(self, booted: Boot, step: Step) -> None:
        number = number_of(booted.image.segments[0].data)
        known = self.known
        trusted = number in known.confirmed | known.marked
        if not trusted:
            if number not in known.chosen or number in known.trials:
                raise Violation(f"{number} was never chosen, or had its boot")
            self._knows(trials=known.trials | {number})
        ops = self.kind(self.flash, self.layout, booted.index, rules=self.rules)
        try:
            pending = ops.state(booted.index) == State.PENDING_VERIFY
        except OtaError:
            pending = False
        if not pending and not trusted:
            raise Violation(f"{number} does not know that it is in its trial")
        try:
            if pending:
                self._ends(ops, number, step.ends)
            else:
                self._updates(ops, step)
        except OtaError as error:
            assert error.code in (
                "ESP_ERR_OTA_ROLLBACK_FAILED",
                "ESP_ERR_OTA_ROLLBACK_INVALID_STATE",
            )

    def _ends(self, ops: OtaOps, number: int, ends: str) -> None:
        if ends == "confirm":
            self._knows(marked=self.known.marked | {number})
            ops.mark_app_valid_cancel_rollback()
            self._knows(confirmed=self.known.confirmed | {number})
        elif ends == "give up":
            ops.mark_app_invalid_rollback()

    def _updates(self, ops: OtaOps, step: Step) -> None:
        if step.does == "idle":
            return
        slot = step.slot if ops.running == FACTORY else 1 - ops.running
        ops.begin(slot)
        if step.does == "begin":
            return
        number = self.known.last + 1
        self._knows(last=number)
        program_padded(self.flash, self.layout.ota[slot].offset, image(number))
        if step.does == "write":
            return
        self._knows(chosen=self.known.chosen | {number})
        ops.set_boot_partition(slot)


ACTS = [Step(does="idle"), Step(does="write"), Step(does="choose")]
ENDS = [Step(ends="crash"), Step(ends="give up"), Step(ends="confirm")]
TORN_CUTS = [None, *(Cut(inside, at) for inside in (False, True) for at in range(4))]
LIVES = [
    replace(step, cut=cut, reading=reading)
    for step in ACTS + ENDS
    for cut in TORN_CUTS
    for reading in (UNDONE, DONE)
]


def explore(kind: type[OtaOps], depth: int) -> int:
    """Live every history of `depth` lives from a first choice on; return the states met.

    Each life may be cut within each operation, whose cells read as not begun or as completed.
    Raises Violation.
    """
    flash = made(TWO, {0: GOOD, 1: TRIAL}, weak=True)
    put_entries(flash, (Entry.made(1, VALID), Entry.made(2, NEW)))
    life = Life(flash, TWO, Known(frozenset({GOOD}), chosen=frozenset({TRIAL})), kind=kind)
    seen = {(flash.snapshot(), life.known)}
    front = list(seen)
    for _ in range(depth):
        met: list[tuple[tuple[object, ...], Known]] = []
        for state, known in front:
            for step in LIVES:
                flash.restore(state)
                life.known = known
                life.step(step)
                found = (flash.snapshot(), life.known)
                if found not in seen:
                    seen.add(found)
                    met.append(found)
        front = met
    return len(seen)


def test_no_three_lives_with_a_cut_in_each_break_a_promise() -> None:
    assert explore(SafeOta, 3) > 100


class WithoutAffirm(SafeOta):
    def _affirm(self) -> None:
        """Leave the entry in charge as it reads."""


class WithoutClear(SafeOta):
    def _clear(self) -> None:
        """Leave the other entry as it reads."""


@pytest.mark.parametrize("kind", [OtaOps, WithoutAffirm, WithoutClear])
def test_without_a_rule_of_safe_ota_three_lives_do(kind: type[OtaOps]) -> None:
    with pytest.raises(Violation):
        explore(kind, 3)


STEPS = st.builds(
    Step,
    st.sampled_from(("idle", "begin", "write", "choose", "choose")),
    st.sampled_from(("confirm", "confirm", "give up", "crash")),
    st.integers(0, 1),
    st.none()
    | st.builds(
        Cut,
        st.booleans(),
        st.integers(0, 5),
        st.sampled_from(VARIANTS),
        st.integers(-1, ENTRY_SIZE),
    ),
    st.sampled_from(READINGS),
)


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=6, max_size=25),
    weak=st.booleans(),
    factory=st.booleans(),
    rules=st.sampled_from((IDF_5_4, IDF_5_5)),
)
def test_no_history_of_cuts_loses_the_image_or_boots_a_trial_twice(
    steps: list[Step], weak: bool, factory: bool, rules: Rules
) -> None:
    layout = WITH_FACTORY if factory else TWO
    flash = made(layout, {FACTORY if factory else 0: GOOD}, weak=weak)
    life = Life(flash, layout, Known(frozenset({GOOD})), rules)
    for step in steps:
        life.step(step)
    # Two quiet lives end what was under way; what boots then stays.
    for _ in range(2):
        life.step(Step())
    number = number_of(Bootloader(flash, layout).boot().image.segments[0].data)
    assert number in life.known.confirmed | life.known.marked
