"""Power cuts before, within, between and after the flash operations of bootloader and application.

At every instant one image boots, and an image in its trial boots at most once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.esp32.tiny import (
    NEW,
    OTA,
    PENDING,
    TWO,
    VALID,
    image,
    made,
    number_of,
    put,
    put_entries,
)
from tidemark_host.boards.nor import (
    AFTER,
    BEFORE,
    READINGS,
    TORN,
    NorFlash,
    PowerCut,
)
from tidemark_host.boards.nor import NEW as DONE
from tidemark_host.boards.nor import OLD as UNDONE
from tidemark_host.esp32.bootloader import Boot, Bootloader
from tidemark_host.esp32.ota_ops import OtaOps, SafeOta
from tidemark_host.esp32.otadata import ENTRY_SIZE, Entry, State

GOOD, TRIAL = 100, 200  # numbers of the confirmed image and of the one in trial


@dataclass(frozen=True)
class Scene:
    """A board before an action, and what may boot once the action's power was cut.

    `trial`: the state of the trial's entry, None for a blank one. `boots`: how often the trial
    may boot from here on; None for no limit.
    """

    trial: State | None
    act: Callable[[NorFlash, int], object]
    boots: int | None


def boot(flash: NorFlash, _: int = 0) -> Boot:
    return Bootloader(flash, TWO).boot()


def safe(flash: NorFlash, running: int) -> SafeOta:
    return SafeOta(flash, TWO, running)


FIRST = "a first record"
# `good`: the slot of the confirmed image; the trial is in the other one.
SCENES = {
    FIRST: Scene(None, boot, 0),
    "choose": Scene(None, lambda f, good: safe(f, good).set_boot_partition(1 - good), 1),
    "choose over an aborted one": Scene(
        State.ABORTED, lambda f, good: safe(f, good).set_boot_partition(1 - good), 1
    ),
    "boot a chosen one": Scene(NEW, boot, 1),
    "boot a pending one": Scene(PENDING, boot, 0),
    "confirm": Scene(
        PENDING, lambda f, good: safe(f, 1 - good).mark_app_valid_cancel_rollback(), None
    ),
    "give up": Scene(PENDING, lambda f, good: safe(f, 1 - good).mark_app_invalid_rollback(), 0),
    "begin": Scene(State.ABORTED, lambda f, good: safe(f, good).begin(1 - good), 0),
}


def arranged(scene: Scene, good: int, weak: bool) -> NorFlash:
    flash = made(TWO, {good: GOOD, 1 - good: TRIAL}, weak=weak)
    if scene is SCENES[FIRST]:
        return flash
    trial = Entry.made(good + 2, scene.trial) if scene.trial is not None else None
    confirmed = Entry.made(good + 1, VALID)
    put_entries(flash, (trial, confirmed) if good else (confirmed, trial))
    return flash


def tears(weak: bool) -> Iterator[tuple[str, int]]:
    """Yield variants of a cut; a firm one stops at every byte of an entry."""
    yield BEFORE, -1
    yield AFTER, -1
    for count in [-1] if weak else range(ENTRY_SIZE + 1):
        yield TORN, count


# A board is born with its image in slot 0; all else is tried both ways round.
ARRANGED = [(name, good) for name in SCENES for good in (0, 1) if good == 0 or name != FIRST]


@pytest.mark.parametrize(("name", "good"), ARRANGED)
@pytest.mark.parametrize("weak", [False, True], ids=["firm", "weak"])
def test_a_cut_at_any_operation_leaves_an_image_that_may_boot(
    name: str, good: int, weak: bool
) -> None:
    scene = SCENES[name]
    flash = arranged(scene, good, weak)
    begun, before = flash.snapshot(), flash.operations
    scene.act(flash, good)
    operations = flash.operations - before
    readings = list(itertools.product(READINGS, repeat=3)) if weak else [(UNDONE,) * 3]
    tried = 0
    for at, (variant, count) in itertools.product(range(operations), tears(weak)):
        for reading in readings if variant == TORN else readings[:1]:
            flash.restore(begun)
            flash.plan_cut(at, variant, count, 0x0F)
            with pytest.raises(PowerCut):
                scene.act(flash, good)
            trials = 0
            for each in reading:
                flash.power_up(dict.fromkeys(flash.weak_groups(), each))
                booted = number_of(boot(flash).image.segments[0].data)
                assert booted in (GOOD, TRIAL)
                trials += booted == TRIAL
            assert scene.boots is None or trials <= scene.boots, (at, variant, count, reading)
            tried += 1
    assert tried >= 2 * 3


@pytest.mark.parametrize("kind", [OtaOps, SafeOta])
def test_only_an_affirmed_entry_keeps_an_image_from_booting_unchosen(kind: type[OtaOps]) -> None:
    flash = made(TWO, {0: TRIAL, 1: GOOD}, weak=True)
    put_entries(flash, (Entry.made(3, PENDING), Entry.made(2, VALID)))
    # Slot 0 confirms itself, and power goes within the program.
    flash.plan_cut(1, TORN)
    with pytest.raises(PowerCut):
        OtaOps(flash, TWO, 0).mark_app_valid_cancel_rollback()
    flash.power_up(dict.fromkeys(flash.weak_groups(), DONE))
    assert boot(flash).index == 0
    # It reads VALID, and the board takes an image that is written and not chosen.
    kind(flash, TWO, 0).begin(1)
    put(flash, OTA[1], image(300))
    flash.power_up(dict.fromkeys(flash.weak_groups(), UNDONE))
    booted = number_of(boot(flash).image.segments[0].data)
    # As ESP-IDF has it, the entry that has gone leaves the old one, which names that image.
    assert booted == (300 if kind is OtaOps else TRIAL)
