"""A confirmed runtime whose flash decayed is written again from the former one's rescue, through
every power cut: the real firmware over ESP-IDF's rules, as in test_runtime_lives.py.

The slot that runs is never written; the confirmed one only while no entry of otadata names it;
what the mirror serves in its place is never started; each board comes to rest on the confirmed
pair, or in the rescue that says why not. TIDEMARK_CUTS=1: two cuts, and every reading.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.esp32.runtime_model import (
    BOARD,
    LAYOUT,
    NEW,
    SECTOR,
    Client,
    Known,
    Reset,
    Story,
    Violation,
    Watched,
)
from tests.esp32.runtime_world import Life, explore, made, settle
from tidemark import cbor
from tidemark_host.boards.nor import NEW as DONE
from tidemark_host.boards.nor import OLD as UNDONE
from tidemark_host.boards.nor import READINGS
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.image import ESP32, Segment, make_image

DEEPER = bool(int(os.environ.get("TIDEMARK_CUTS", "0")))
# More than a sector, so that it can be there in part.
IMAGE = make_image([Segment(ESP32.ram, bytes(n * n % 251 for n in range(4608)))])
OTHER = make_image([Segment(ESP32.ram, bytes(n * n % 249 for n in range(4608)))])
PATH = f"{BOARD}/runtime-{NEW}.bin"


@dataclass(frozen=True)
class Lost(Story):
    """`mirror`: what is to be had of the confirmed runtime. "fine"; "forged": other bytes, which
    a bootloader would start; "other": those, and signed; "unlisted"."""

    image: bytes = IMAGE
    mirror: str = "fine"


class Rescued(Life):
    """A life in which the base may take the confirmed runtime again."""

    def __init__(self, flash: Watched, story: Story, known: Known) -> None:
        super().__init__(flash, story, known)
        assert isinstance(story, Lost)
        self._healing = False
        self._forged = story.mirror == "forged"
        if story.mirror == "other":
            self.client = Client(replace(story, image=OTHER))
        elif story.mirror == "forged":
            self.client._files[PATH] = OTHER  # type: ignore[reportPrivateUsage]
        elif story.mirror == "unlisted":
            del self.client._entries[PATH]  # type: ignore[reportPrivateUsage]

    def sees(self, addr: int) -> None:
        slot = self._slot_of(NEW)
        region = LAYOUT.ota[slot]
        if not self._healing or not region.offset <= addr < region.offset + region.size:
            super().sees(addr)
            return
        if slot == self.running:
            raise Violation(f"writes into slot {slot}, which runs")
        assert LAYOUT.otadata
        for entry in otadata.read(self.flash, LAYOUT.otadata):
            if entry.is_valid and otadata.slot_of(entry.seq, 2) == slot:
                raise Violation(f"writes into slot {slot}, which an entry names")

    def _started(self, number: int) -> None:
        if number == NEW:
            image = bytes(self.flash.view(LAYOUT.ota[self._slot_of(NEW)].offset, len(IMAGE)))
            if image != IMAGE:
                raise Violation("bytes start that were not confirmed")

    def rescued(self, base: Any, why: str) -> None:
        if why != "runtime-lost" or self.known.confirmed != NEW:
            super().rescued(base, why)
        record = base.journal.get("runtime")
        self._healing = True
        outcome = self.update(base)
        if base.journal.get("runtime") != record:
            raise Violation("what is confirmed has changed")
        if outcome == "healed":
            base.reset("restore")
        if outcome == "erase-limit" and self._forged:
            outcome = "target-hash"  # what it was before, too often
        self.knows(rest=f"rescue: {outcome}")
        raise Reset


def lost(story: Lost, *, weak: bool = False, hard: bool = False) -> tuple[Watched, Known]:
    """Return a board whose pair was confirmed, and whose runtime's flash then decayed."""
    flash = made(story, weak=weak, hard=hard)
    known = settle(flash, Story(image=IMAGE, start=story.start))
    assert known.rest == "confirmed"
    decays(flash, story)
    return flash, replace(known, rest="", lives=0, marker=0, cause="power-on")


def decays(flash: Watched, story: Story) -> None:
    """Have a byte of the confirmed runtime's second sector no longer read as it was written."""
    flash._buf[LAYOUT.ota[1 - story.start].offset + SECTOR + 40] ^= 0x20  # type: ignore[reportPrivateUsage]


def healed(story: Lost, flash: Watched, known: Known) -> str:
    return settle(flash, story, known, kind=Rescued).rest


@pytest.mark.parametrize("start", [0, 1])
def test_it_is_written_again_and_its_application_runs(start: int) -> None:
    story = Lost(start=start)
    flash, known = lost(story)
    known = settle(flash, story, known, kind=Rescued)
    assert known.rest == "confirmed"
    # The fallback's boot, its rescue, and the confirmed one's.
    assert known.lives == 3
    held = bytes(flash.view(LAYOUT.ota[1 - start].offset, len(IMAGE)))
    assert held == IMAGE
    # And again, which a record of the first time must not prevent.
    decays(flash, story)
    known = replace(known, rest="", lives=0, marker=0, cause="power-on")
    assert healed(story, flash, known) == "confirmed"


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize(
    ("mirror", "rest"),
    [("forged", "target-hash"), ("other", "rt-unlisted"), ("unlisted", "rt-unlisted")],
)
def test_what_was_not_confirmed_does_not_come_in_its_place(
    mirror: str, rest: str, start: int
) -> None:
    story = Lost(mirror=mirror, start=start)
    flash, known = lost(story)
    before = bytes(flash.view(0, flash.size))
    assert healed(story, flash, known) == f"rescue: {rest}"
    if mirror != "forged":
        # Otadata and both runtimes are as they were.
        assert bytes(flash.view(0, 7 * SECTOR)) == before[: 7 * SECTOR]
    # Once it is to be had it comes.
    fine = replace(story, mirror="fine")
    assert healed(fine, flash, replace(known, lives=0)) == "confirmed"


@pytest.mark.parametrize("start", [0, 1])
def test_no_power_cut_keeps_it_from_being_healed(start: int) -> None:
    story = Lost(start=start)
    flash, known = lost(story, weak=True)
    readings = READINGS if DEEPER else (UNDONE, DONE)
    seen = explore(flash, story, 1, readings, known, kind=Rescued)
    assert seen.rests == {"confirmed"}
    assert seen.cuts > 50


def test_no_power_cut_has_a_forged_one_started() -> None:
    story = Lost(mirror="forged")
    flash, known = lost(story, weak=True)
    seen = explore(flash, story, 1, (UNDONE, DONE), known, kind=Rescued)
    assert seen.rests == {"rescue: target-hash"}
    assert seen.cuts > 50


@pytest.mark.skipif(not DEEPER, reason="TIDEMARK_CUTS=1: minutes")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("start", [0, 1])
def test_no_two_power_cuts_keep_it_from_being_healed(start: int, hard: bool) -> None:
    story = Lost(start=start)
    flash, known = lost(story, weak=True, hard=hard)
    # What a journal makes of a record that was written in part is its own tests' affair.
    seen = explore(flash, story, 2, (UNDONE, DONE), known, torn=range(7), kind=Rescued)
    assert seen.rests == {"confirmed"}


def test_one_that_came_by_cable_is_not_written_over() -> None:
    story = Lost()
    flash, known = lost(story)
    base = Rescued(flash, story, known).base(1, NEW)
    slot, index, digest = base.runtimes._confirmed
    assert (slot, index, len(digest)) == (1, NEW, 32)
    base.journal.put("runtime", cbor.encode([1, slot, index, b"", None]))
    assert healed(story, flash, known) == "rescue: rt-no-digest"


def test_one_that_hangs_although_it_is_whole_is_not_chosen_for_ever() -> None:
    story = Lost(reaches=False)
    flash, known = lost(story)
    assert healed(story, flash, known) == "rescue: erase-limit"
    charge = otadata.active(_entries(flash))
    assert charge is not None
    assert otadata.slot_of(_entries(flash)[charge].seq, 2) == story.start


def _entries(flash: Watched) -> list[otadata.Entry]:
    assert LAYOUT.otadata
    return list(otadata.read(flash, LAYOUT.otadata))
