"""Application and runtime of one release, through every power cut, as the firmware handles them.

What starts outside a trial is a confirmed pair, never a mixed one; the confirmed pair is never
overwritten; a runtime that was never chosen never starts; every board comes to rest on a confirmed
pair whose entry is VALID. TIDEMARK_CUTS=1 searches all releases, and two cuts from staging on.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.esp32.runtime_model import (
    LAYOUT,
    SECTOR,
    Known,
    Port,
    Story,
    Violation,
    Watched,
    large,
)
from tests.esp32.runtime_world import FIRM, Life, explore, made, settle
from tidemark import reasons, stage0
from tidemark.errors import FlashError
from tidemark.otadata import in_charge
from tidemark_host.boards.nor import NEW as DONE
from tidemark_host.boards.nor import OLD as UNDONE
from tidemark_host.boards.nor import READINGS, TORN, PowerCut
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.bootloader import Bootloader
from tidemark_host.esp32.ota_ops import IDF_5_5
from tidemark_host.esp32.otadata import Entry, State

DEEPER = bool(int(os.environ.get("TIDEMARK_CUTS", "0")))

STORIES = {
    "is well": (Story(), "confirmed"),
    "is well, into slot 0": (Story(start=1), "confirmed"),
    "is well, after a factory's blank otadata": (Story(blank=True), "confirmed"),
    "is well, under ESP-IDF 5.5": (Story(rules=IDF_5_5), "confirmed"),
    "fails its health check": (Story(trials=("health",)), "rejected: health"),
    "crashes": (Story(trials=("crash",)), "rejected: crash"),
    "hangs": (Story(trials=("watchdog",)), "rejected: watchdog"),
    "misses a deadline": (Story(trials=("deadline",)), "rejected: deadline"),
    "is cut off once": (Story(trials=("no-ack", "confirm")), "confirmed"),
    "is cut off for good": (Story(trials=("no-ack",)), "rejected: loses-link"),
    "loses power on trial": (Story(trials=("power", "power", "confirm")), "confirmed"),
    "loses power 20 times": (Story(trials=("power",) * 20 + ("confirm",)), "confirmed"),
    "never reaches stage 0": (Story(reaches=False), "rejected: runtime"),
    "never reaches stage 0, slot 0": (Story(reaches=False, start=1), "rejected: runtime"),
    "is not the runtime that it was published as": (Story(index=1), "rejected: runtime"),
    "is stopped from its console": (Story(trials=("repl", "confirm")), "confirmed"),
    "has a base that can't be made": (Story(fault="made"), "rejected: runtime"),
    "has a base that can't read its state": (Story(fault="read"), "rejected: runtime"),
    "has a base that hangs": (Story(fault="hangs"), "rejected: runtime"),
    "has a base that loops": (Story(fault="loops"), "rejected: runtime"),
    "has a base that stops in recovery": (Story(fault="known"), "rejected: runtime"),
    "has a base that can't choose": (Story(fault="choice"), "rejected: runtime"),
    "has a base that chooses for ever": (Story(fault="chooses"), "rejected: runtime"),
    "has a base without a link": (Story(fault="link"), "rejected: runtime"),
    "is no image that the bootloader takes": (Story(image=b"x" * 700), "rejected: runtime"),
}


# What is told otherwise where the former runtime can't read what the new one marked.
UNTOLD = {"rejected: deadline": "rejected: reset"}
MEMORIES = ("own", "lost", "shared")


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", STORIES)
def test_a_pair_is_confirmed_or_undone_together(name: str, memory: str) -> None:
    story, rest = STORIES[name]
    if memory != "shared":
        rest = UNTOLD.get(rest, rest)
    assert settle(made(story, weak=False), replace(story, memory=memory)).rest == rest


def test_who_looks_for_a_first_boot() -> None:
    """A base whose parts are missing was never confirmed; a flash that fails is nobody's first."""
    story = Story()
    flash = made(story, weak=False)
    known = settle(flash, story, lives=2)
    Bootloader(flash, LAYOUT).boot()
    port: Any = Port(Life(flash, story, known), 1)
    assert stage0._is_first(port)
    assert not stage0._is_first(Port(Life(flash, story, known), 0))
    port.reset_cause = lambda: "soft"
    assert not stage0._is_first(port)

    def fails(error: Exception) -> Any:
        raise error

    assert stage0._is_first(SimpleNamespace(runtimes=lambda: fails(ImportError())))
    assert not stage0._is_first(SimpleNamespace(runtimes=lambda: fails(FlashError("table"))))
    assert not stage0._is_first(SimpleNamespace(runtimes=lambda: None))


def test_loss_of_power_between_choice_and_first_boot_counts() -> None:
    story = Story(trials=("power",))
    flash = made(story, weak=False)
    known = settle(flash, story, lives=2)
    for cause, counted in (("reset", 0), ("power-on", 1)):
        twin = Watched(bytearray(flash.view(0, flash.size)))
        twin.sectors = []
        life = Life(twin, story, replace(known, cause=cause))
        life.live()
        slots = life.base(1, 2).slots
        assert (slots.trial_open, slots.power_boots) == (True, counted)


SEARCHED = (
    "is well, into slot 0",
    "fails its health check",
    "never reaches stage 0",
    "has a base that hangs",
    "has a base without a link",
)


@pytest.mark.parametrize("name", [n for n in STORIES if DEEPER or n in SEARCHED])
def test_no_power_cut_breaks_a_pair(name: str) -> None:
    story, rest = STORIES[name]
    if "20" in name:
        pytest.skip("twenty lives on trial, each like the one before")
    seen = explore(made(story, weak=True), story, 1, READINGS if DEEPER else (UNDONE, DONE))
    # What a cut took away is the reason at most, never the outcome.
    assert {found.split(":")[0] for found in seen.rests} == {rest.split(":")[0]}
    assert seen.cuts > 100


@pytest.mark.parametrize("name", ["is well, after a factory's blank otadata", "crashes"])
def test_no_page_that_was_written_in_part_breaks_a_pair(name: str) -> None:
    story, rest = STORIES[name]
    seen = explore(made(story, weak=False), story, 1, (UNDONE,), variants=FIRM)
    assert {found.split(":")[0] for found in seen.rests} == {rest.split(":")[0]}


@pytest.mark.parametrize("fault", ["known", "choice", "link"])
def test_a_base_that_fails_between_valid_and_confirmed_is_undone(fault: str) -> None:
    """No marker tells of it after the cut that it takes: it is tried once more, then rejected."""
    story = Story(trials=("confirm", "confirm"), fault=fault, sound=1)
    flash = made(story, weak=True)
    known = settle(flash, story, lives=2)
    seen = explore(flash, story, 1, (UNDONE, DONE), known, torn=OTADATA)
    assert seen.rests == {"confirmed", "rejected: runtime"}


OTADATA = (1, 2)  # sectors
UNDONE_LATE = Story(trials=("confirm", "health"))


@pytest.mark.parametrize("start", [0, 1] if DEEPER else [1])
def test_no_two_power_cuts_break_a_confirmation_or_what_undoes_it(start: int) -> None:
    story = replace(UNDONE_LATE, start=start)
    flash = made(story, weak=True)
    # Downloaded, and chosen: the next life is the new runtime's first.
    known = settle(flash, story, lives=2)
    torn = range(flash.size // SECTOR) if DEEPER else OTADATA
    seen = explore(flash, story, 2, (UNDONE, DONE), known, torn=torn)
    assert seen.rests == {"confirmed", "rejected: health"}
    assert seen.cuts > 500


@pytest.mark.skipif(not DEEPER, reason="TIDEMARK_CUTS=1: minutes")
@pytest.mark.parametrize("name", [*SEARCHED, "is well", "crashes", "is cut off once"])
@pytest.mark.parametrize("hard", [False, True])
def test_no_two_power_cuts_break_a_pair(name: str, hard: bool) -> None:
    story, rest = STORIES[name]
    flash = made(story, weak=True, hard=hard)
    known = settle(flash, story, lives=1)
    seen = explore(flash, story, 2, (UNDONE, DONE), known)
    assert {found.split(":")[0] for found in seen.rests} == {rest.split(":")[0]}


FORGED = Story(image=large(0), served=(large(1), large(0)))


def test_nothing_that_a_mirror_forged_starts_if_the_confirmed_runtime_decays() -> None:
    """Each life begins with that question (Life._decays): the bootloader takes forged bytes, too,
    if they hold their own checksum."""
    assert settle(made(FORGED, weak=False), FORGED).rest == "confirmed"
    for_ever = replace(FORGED, served=(large(1),))
    flash = made(for_ever, weak=False)
    known = settle(flash, for_ever)
    assert known.rest == "target-hash"
    again = replace(known, rest="", lives=0)
    assert settle(flash, for_ever, again).rest == "target-hash"


def test_no_power_cut_has_what_a_mirror_forged_start() -> None:
    seen = explore(made(FORGED, weak=True), FORGED, 1, (UNDONE, DONE))
    assert seen.rests == {"confirmed"}
    assert seen.cuts > 200


# -- what is not a power cut


def _decay(flash: Watched, address: int) -> None:
    """Have one byte of an image no longer read as it was written."""
    flash._buf[address] ^= 0x20  # type: ignore[reportPrivateUsage]


def test_a_staged_runtime_that_decayed_is_fetched_again() -> None:
    story = Story()
    flash = made(story, weak=False)
    known = settle(flash, story, lives=1)
    _decay(flash, LAYOUT.ota[1].offset + 40)
    assert settle(flash, story, known).rest == "confirmed"


def test_no_power_cut_breaks_a_pair_whose_runtime_decayed() -> None:
    story = Story()
    flash = made(story, weak=True)
    known = settle(flash, story, lives=1)
    _decay(flash, LAYOUT.ota[1].offset + 40)
    seen = explore(flash, story, 1, (UNDONE, DONE), known, torn=OTADATA)
    assert seen.rests == {"confirmed"}


def test_an_entry_that_is_not_firm_does_not_bring_a_slot_back_that_was_written() -> None:
    story = Story(start=1)
    flash = made(story, weak=True)
    region = LAYOUT.otadata
    assert region
    # A runtime in slot 0 was undone; the confirmed one came back, and its mark was cut off.
    otadata.write(flash, region, 0, Entry.made(3, State.VALID))
    flash.plan_cut(1, TORN)
    with pytest.raises(PowerCut):
        otadata.write(flash, region, 1, Entry.made(4, State.VALID))
    (group,) = flash.weak_groups()
    flash.power_up({group: DONE})
    known = settle(flash, story, lives=1)
    flash.power_up({group: UNDONE})
    assert settle(flash, story, known).rest == "confirmed"


def test_a_chosen_runtime_that_the_bootloader_refuses_is_undone() -> None:
    story = Story()
    flash = made(story, weak=False)
    known = settle(flash, story, lives=2)
    _decay(flash, LAYOUT.ota[1].offset + 40)
    # The former one runs as the bootloader's fallback until some reset.
    assert settle(flash, story, known).rest == "fallback"
    assert settle(flash, story).rest == "rejected: runtime"


def test_a_former_runtime_that_decayed_ends_in_rescue_not_in_a_loop() -> None:
    story = UNDONE_LATE
    flash = made(story, weak=False)
    known = settle(flash, story, lives=2)
    # The power fails between VALID and the confirmation, and the former runtime is gone.
    flash.plan_cut(_writes_until_valid(flash, story, known))
    life = Life(flash, story, known)
    with pytest.raises(PowerCut):
        life.live()
    flash.power_up({})
    _decay(flash, LAYOUT.ota[0].offset + 40)
    known = replace(life.known, cause="power-on")
    with pytest.raises(Violation, match="rescue: runtime-lost"):
        settle(flash, story, known)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("former", ["read", "known"])
@pytest.mark.parametrize("fault", ["known", "choice", "link"])
def test_two_runtimes_whose_bases_fail_do_not_take_turns(
    fault: str, former: str, memory: str
) -> None:
    story = Story(
        trials=("confirm", "confirm"), fault=fault, former=former, sound=1, memory=memory
    )
    flash = made(story, weak=False)
    known = settle(flash, story, lives=2)
    # Marked VALID; not yet affirmed, let alone confirmed.
    flash.plan_cut(_writes_until_valid(flash, story, known) - 1)
    life = Life(flash, story, known)
    with pytest.raises(PowerCut):
        life.live()
    flash.power_up({})
    known = replace(life.known, cause="power-on")
    # The new one is VALID and not confirmed: it brings the former one back, which stays if it
    # knows that it was brought: by the journal, or by a marker. Else the new one stays.
    stays = former == "known" or memory == "shared"
    why = "state-unreadable|flash-worn" if stays else "flash-worn|TypeError|base-fault"
    with pytest.raises(Violation, match=rf"rescue: ({why})"):
        settle(flash, story, known)
    last = (story.start, State.PENDING_VERIFY) if stays else (1 - story.start, State.VALID)
    assert in_charge(_entries(flash))[1:] == last


def test_a_former_runtime_without_provisioning_waits_for_a_person() -> None:
    story = Story(fault="made", former="blank")
    flash = made(story, weak=False)
    known = settle(flash, Story(), lives=1)
    markers: list[str] = []
    # Chosen, failed; the former one then waits until its lease has run out, twice.
    for told in (Story(), story, story, story):
        known = settle(flash, told, known, lives=1)
        markers.append(reasons.decode(known.marker))
    assert markers == ["runtime", "runtime", "lease", "lease"]


def _entries(flash: Watched) -> list[bytes]:
    return [bytes(flash.view(at * SECTOR, 32)) for at in OTADATA]


def _writes_until_valid(flash: Watched, story: Story, known: Known) -> int:
    """Return how many operations a life does up to mark_valid's last, and the one that follows."""
    twin = Watched(bytearray(flash.view(0, flash.size)))
    twin.sectors = []
    Life(twin, story, known).live()
    return 1 + max(at for at, sector in enumerate(twin.sectors) if sector in OTADATA)


def test_firmware_and_bootloader_agree_who_is_in_charge() -> None:
    sequences = (1, 2, 3, 4, 0xFFFFFFFE, 0xFFFFFFFF)
    states = (*State, 0x17)
    entries = [Entry.made(seq, state) for seq in sequences for state in states]
    entries += [replace(entries[0], crc=5), otadata.BLANK]
    for pair in itertools.product(entries, repeat=2):
        index = otadata.active(pair)
        found = in_charge([entry.encode() for entry in pair])
        if index is None:
            assert found is None
        else:
            assert found == (index, otadata.slot_of(pair[index].seq, 2), pair[index].state)
