"""A runtime comes and goes with its application, on boards with two slots for each."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from tests.conftest import firmware_dir
from tests.system.steps import (
    causes_since,
    conclusions,
    digest,
    last_record,
    once_each,
    unhurried,
)
from tidemark_host.boards.nor import NorFlash
from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.flash import Region
from tidemark_host.esp32.otadata import Entry, State
from tidemark_host.hil.site import Site
from tidemark_host.hil.targets import VirtualEsp32Target

pytestmark = pytest.mark.needs("runtimes")

# Bases that do not come up. The bootloader's watchdog ends all three.
HANGS = {"_boot.py": "while True:\n    pass\n"}
CRASHES = {"tidemark/stage0.py": "def boot():\n    raise ValueError\n\n\ndef run():\n    pass\n"}
LACKS_A_MODULE = {"tidemark/journal.py": None}


def recovery(fails: str) -> dict[str, str | None]:
    """Return a base whose recovery `fails` once it has told of its boot."""
    source = (firmware_dir() / "tidemark/base.py").read_text("utf-8")
    line = "        self.journal.recover()\n"
    assert source.count(line) == 1
    return {"tidemark/base.py": source.replace(line, f"        {fails}\n")}


# Bases that fail after stage 0 has armed the watchdog.
BROKEN = {
    "without-a-link": {"tidemark/connection.py": None},
    "without-its-parts": {"tidemark/runtimes.py": None},
    "recovery-raises": recovery("raise ValueError"),
    "recovery-loops": recovery("while True: pass"),
}


def board_of(site: Site) -> VirtualEsp32Board:
    return cast("VirtualEsp32Board", site.board)


async def runtime(
    site: Site, index: int = 2, changes: dict[str, str | None] | None = None
) -> bytes:
    target = cast("VirtualEsp32Target", site.target)
    return await asyncio.to_thread(target.runtime_image, index, changes)


async def entries(site: Site) -> list[Entry]:
    assert site.definition.esp32
    row = next(row for row in site.definition.esp32.partitions if row.label == "otadata")
    raw = await asyncio.to_thread(site.read_flash, row.offset, row.size)
    return otadata.read(NorFlash(bytearray(raw)), Region(0, row.size))


async def in_charge(site: Site) -> tuple[int, int]:
    """Return (slot, state) of the entry that the bootloader goes by."""
    found = await entries(site)
    index = otadata.active(found)
    assert index is not None
    return otadata.slot_of(found[index].seq, 2), found[index].state


@pytest.mark.smoke
async def test_application_and_runtime_are_confirmed_together(site: Site) -> None:
    former = site.claims()
    index = await site.publish("2.0.0", runtime=await runtime(site))
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    claims = await site.claimed(mode="normal", floor=index)
    assert claims["runtime-digest"] != former["runtime-digest"]
    assert claims["runtime"] == [2, 1, State.VALID, 0]  # index, slot, state, no candidate
    assert digest(claims) != digest(former)
    assert await in_charge(site) == (1, State.VALID)
    boots = site.boots()
    await site.power_cycle()
    assert (await site.heard(boots))["runtime-digest"] == claims["runtime-digest"]
    assert board_of(site).running == 1
    once_each(site)


async def test_next_pair_goes_back_into_the_first_slots(site: Site) -> None:
    for number in (2, 3):
        index = await site.publish(f"{number}.0.0", runtime=await runtime(site, number))
        assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    assert await in_charge(site) == (0, State.VALID)
    assert board_of(site).running == 0


async def test_application_alone_goes_on_the_runtime_that_runs(site: Site) -> None:
    former = site.claims()["runtime-digest"]
    index = await site.publish("1.1.0")
    assert await site.outcome(index) == (index, "confirmed", "ok")
    assert site.claims()["runtime-digest"] == former
    assert board_of(site).running == 0


@pytest.mark.parametrize(
    "changes", [HANGS, CRASHES, LACKS_A_MODULE], ids=["hangs", "crashes", "lacks-a-module"]
)
async def test_runtime_that_does_not_come_up_is_rolled_back(
    site: Site, changes: dict[str, str | None]
) -> None:
    former = site.claims()
    last = last_record(site)
    index = await site.publish("2.0.0", runtime=await runtime(site, 2, changes))
    assert (await site.outcome(index, 90))[:2] == (index, "rejected")
    claims = await site.claimed(mode="normal")
    assert claims["runtime-digest"] == former["runtime-digest"]
    assert (digest(claims), claims["floor"]) == (digest(former), 1)
    assert "watchdog" in await causes_since(site, last)
    assert await in_charge(site) == (0, State.VALID)
    # It is offered still, and never tried again.
    await site.claimed(update="rejected")
    assert len(conclusions(site, index)) == 1


@pytest.mark.parametrize("broken", BROKEN)
async def test_runtime_whose_base_fails_is_rejected_and_the_pair_undone(
    site: Site, broken: str
) -> None:
    former = site.claims()
    index = await site.publish("2.0.0", runtime=await runtime(site, 2, BROKEN[broken]))
    assert await site.outcome(index, 120) == (index, "rejected", "runtime")
    claims = await site.claimed(mode="normal")
    assert claims["runtime-digest"] == former["runtime-digest"]
    assert (digest(claims), claims["floor"]) == (digest(former), 1)
    assert await in_charge(site) == (0, State.VALID)
    assert board_of(site).running == 0
    # It is offered still, and never tried again.
    await site.claimed(update="rejected")
    assert len(conclusions(site, index)) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("unwell", "health"), ("crashes", "crash"), ("stalls", "watchdog")]
)
async def test_runtime_goes_with_the_application_that_fails(
    site: Site, fault: str, reason: str
) -> None:
    former = site.claims()
    index = await site.publish("2.0.0", fault, runtime=await runtime(site))
    assert await site.outcome(index, 90) == (index, "rejected", reason)
    claims = await site.claimed(mode="normal")
    assert claims["runtime-digest"] == former["runtime-digest"]
    assert digest(claims) == digest(former)
    assert await in_charge(site) == (0, State.VALID)
    assert board_of(site).running == 0


async def test_runtime_that_no_bootloader_would_start_is_never_chosen(site: Site) -> None:
    """A damaged image with good signatures: ESP-IDF's set_boot refuses it."""
    image = bytearray(await runtime(site))
    image[4096] ^= 1
    index = await site.publish("2.0.0", runtime=bytes(image), runtime_index=2, check_runtime=False)
    assert (await site.outcome(index, 90))[:2] == (index, "rejected")
    await site.claimed(mode="normal")
    assert await in_charge(site) == (0, State.VALID)
    assert board_of(site).running == 0


@pytest.mark.needs("operations")
async def test_brownout_in_the_trial_is_no_fault_of_the_pair(site: Site) -> None:
    """The bootloader takes the runtime back, as after any reset; then both are tried again."""
    await unhurried(site)
    last, since = last_record(site), len(site.board.serial_log)
    index = await site.publish("2.0.0", runtime=await runtime(site))
    await site.said("2.0.0), trial", 60, since)
    await asyncio.to_thread(board_of(site).brownout)
    site.note("brownout")
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    assert "brownout" in await causes_since(site, last)
    assert await in_charge(site) == (1, State.VALID)


@pytest.mark.needs("operations")
@pytest.mark.parametrize(
    ("operation", "variant"),
    [
        (1, "torn"),
        (2, "after"),
        (3, "torn"),
        (4, "before"),
        (4, "torn"),
        (5, "torn"),
        (6, "before"),
        (6, "after"),
        (8, "before"),
        (8, "torn"),
        (9, "after"),
    ],
)
async def test_power_cut_at_otadata_loses_neither_of_the_pair(
    site: Site, operation: int, variant: str
) -> None:
    """By whoever writes there: the core, set_boot, the bootloader at the start, mark_valid."""
    board_of(site).cut_in("otadata", operation, variant)
    index = await site.publish("2.0.0", runtime=await runtime(site))
    await asyncio.to_thread(site.board.wait_cut, 60 * site.target.patience)
    site.note("power failed")
    await asyncio.to_thread(site.board.power_on)
    assert await site.outcome(index, 120) == (index, "confirmed", "ok")
    await site.claimed(mode="normal", floor=index)
    assert await in_charge(site) == (1, State.VALID)
    assert board_of(site).running == 1
    once_each(site)
