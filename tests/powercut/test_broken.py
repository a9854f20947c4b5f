"""What scenarios are there for, those with a runtime all: a base without a rule is refuted.

The rule is taken out of the frozen base as the board starts; no file of the firmware is changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.powercut import esp32, explore, variants
from tests.powercut.explore import Result
from tests.powercut.scenarios import SCENARIOS
from tests.powercut.setting import Setting
from tests.powercut.world import World

pytestmark = pytest.mark.xdist_group("powercut")
_START = "from tidemark import otadata, runtimes, slots\nR = runtimes.Runtimes\n"


@dataclass(frozen=True)
class Variant:
    """`rule`: what `lines` take away. `says`: the judge. `cut`: where power fails and how; without
    it nothing needs to fail."""

    rule: str
    scenario: str
    lines: str
    says: str
    cut: tuple[Callable[[World], bool], str] | None = None


def _in_otadata(world: World) -> bool:
    region = world.life.chip.layout.otadata if world.life.chip else None
    return bool(region) and region.offset <= world.next[0] < region.offset + region.size


def _marks_valid(world: World) -> bool:
    """Whether this program makes the entry of the runtime on trial VALID."""
    banner = world.banner
    return bool(banner) and banner.mode == "trial" and _in_otadata(world) and bool(world.next[1])


def _marks_late(world: World) -> bool:
    """Whether otadata changes on a board that has confirmed the new application."""
    state = world.state()
    return _in_otadata(world) and state is not None and state.release == 2


def _records_its_end(world: World) -> bool:
    """Whether this program begins the record of a trial's end that the journal has."""
    region, state = world.board.regions["evidence"], world.state()
    ended = state is not None and state.last_trial is not None
    return ended and region.offset <= world.next[0] < region.end


def _lists_its_rejection(world: World) -> bool:
    """Whether this program goes into the journal of a board whose slot B reads REJECTED."""
    region, state = world.board.regions["journal"], world.state()
    rejected = state is not None and state.states[1] == 5
    return rejected and region.offset <= world.next[0] < region.end


VARIANTS = (
    Variant(
        "a trial's end that a cut kept from the ring is told by the next boot",
        "crash",
        "slots.Slots.untold = lambda self: []",
        "I11: a trial ended rejected crash, the ring lacks it",
        (_records_its_end, "before"),
    ),
    Variant(
        "a rejection is in the list before the slot reads REJECTED",
        "crash",
        """
reject, put = slots.Slots._reject, slots.Slots._end_trial
def rejects(self, slot, reason):
    events = put(self, slot, slots.REJECTED, 'rejected', reason)
    self._end_trial = lambda *end: events
    return reject(self, slot, reason)
slots.Slots._reject = rejects
""",
        "I5: release 2 was rejected and is tried again",
        (_lists_its_rejection, "before"),
    ),
    Variant(
        "a confirmation that a cut kept from the ring is told by the next boot",
        "confirm",
        "slots.Slots.untold = lambda self: []",
        "I11: a trial ended confirmed, the ring lacks it",
        (_records_its_end, "before"),
    ),
    Variant(
        "the application waits for its runtime",
        "runtime",
        "R.enter = lambda self, app, reason: ''",
        "I3: release 2 runs on runtime 1",
    ),
    Variant(
        "a runtime goes into the slot that does not run",
        "runtime",
        """
begin = R.begin_write
def begins(self, *what):
    begin(self, *what)
    return self.confirmed
R.begin_write = begins
""",
        "I3: writes into ota_0, which runs",
    ),
    Variant(
        "an entry that reads VALID is affirmed before it is relied on",
        "runtime",
        "otadata.Otadata.affirm = lambda self: None",
        "I4: runtime 1 starts, release 2 needs runtime 2",
        (_marks_valid, "weak:no"),
    ),
    Variant(
        "otadata is VALID before the journal says CONFIRMED",
        "runtime",
        """
confirm, promote = R.confirm, R.promote
def promotes(self, app):
    if self.candidate and self.candidate.app == app.digest:
        confirm(self)
    return promote(self, app)
R.confirm = lambda self: None
R.promote = promotes
""",
        "I4: runtime 1 starts, release 2 needs runtime 2",
        (_marks_late, "before"),
    ),
    Variant(
        "a runtime's first page is programmed once its digest holds",
        "runtime-forged",
        """
from tidemark import updater
def fetches(self, path, release, slot):
    region = self.runtimes.regions[slot]
    yield from self._fetch(path, release, region, 0, self._runtime_progress)
updater.Updater._fetch_runtime = fetches
""",
        "I3: ota_1 would start bytes that nobody has published",
    ),
    Variant(
        "a runtime that did not get to stage 0 is rejected",
        "runtime-crash",
        "slots._FAULT_REASONS = slots._FAULT_REASONS[:-1]",
        "I5: runtime 2 had 20 starts without an end",
    ),
    Variant(
        "a rejection is journalled",
        "runtime-unwell",
        "slots.Slots._reject = lambda self, slot, reason: [('rejected', reason)]",
        "I5: release 2 was rejected and is tried again",
    ),
    Variant(
        "the confirmed application waits for its runtime to come back",
        "runtime-restore",
        "R.restore = lambda self, reason: ''",
        "I3: release 1 runs on runtime 2",
    ),
    Variant(
        "the runtime is kept with its application",
        "runtime-power",
        "R.confirm = lambda self: None",
        "I3: runtime 1 would start, release 2 has runtime 2",
    ),
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.rule.replace(" ", "-"))
def test_base_without_a_rule_is_refuted(setting: Setting, variant: Variant) -> None:
    board = SCENARIOS[variant.scenario].board
    kit = setting.kits[board]
    program = dataclasses.replace(kit.program, broken=_START + variant.lines)
    kits = {**setting.kits, board: dataclasses.replace(kit, program=program)}
    altered = dataclasses.replace(setting, kits=kits)
    result = explore.forked(lambda: Result(wrong=[("", _judged(altered, variant))]))
    assert result.wrong[0][1].startswith(variant.says)


@pytest.mark.parametrize("scenario", ["crash", "confirm"])
def test_end_that_a_cut_kept_from_the_ring_is_told_by_the_next_boot(
    setting: Setting, scenario: str
) -> None:
    whole = Variant("", scenario, "", "", (_records_its_end, "before"))
    result = explore.forked(lambda: Result(wrong=[("", _judged(setting, whole))]))
    assert result.wrong == [("", "")]


def test_each_scenario_with_a_runtime_has_a_variant() -> None:
    names = {name for name, scenario in SCENARIOS.items() if scenario.board == esp32.NAME}
    assert names <= {variant.scenario for variant in VARIANTS}


class _Cut(BaseException):
    pass


def _judged(setting: Setting, variant: Variant) -> str:
    """Drive a scenario, with one cut at most; return what is wrong."""
    world = explore.start(setting, variant.scenario)
    scenario = SCENARIOS[variant.scenario]
    if variant.cut is None:
        return explore.finish(scenario, world)
    where, how = variant.cut

    def cut(_address: int, _data: bytes | None) -> None:
        if where(world):
            raise _Cut

    world.on_operation = cut
    try:
        return "no cut: " + explore.finish(scenario, world)
    except _Cut:
        world.on_operation = lambda _address, _data: None
        world.life.stop()
        explore.lose_power(world, variants.parse(how))
        return explore.finish(scenario, world)
