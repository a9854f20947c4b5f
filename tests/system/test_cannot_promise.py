"""What a board does when its flash keeps no promise: it refuses, says why, keeps evidence.

docs/reliability.md has the table. Flash is worn out below the firmware, at once and for good.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import more_readings, overheard, unhurried
from tidemark_host import provision
from tidemark_host.boards.emulated_board import EmulatedBoard
from tidemark_host.boards.nor import DEAD, FEW_BITS
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.hil.site import Site
from tidemark_host.provision import ProvisionError

pytestmark = [pytest.mark.needs("console"), pytest.mark.needs("faults")]


def wear(site: Site, region: str, kind: str = DEAD) -> None:
    """Let a region's sectors fail."""
    assert isinstance(site.board, VirtualBoard | EmulatedBoard)
    where = site.definition.regions[region]
    site.board.wear(where.offset, where.size, kind)


async def again(site: Site, text: str) -> None:
    """Switch the board off and on, and hear it say something in that boot."""
    await asyncio.to_thread(site.board.power_off)
    since = len(site.board.serial_log)
    await asyncio.to_thread(site.board.power_on)
    await site.said(text, 30, since)


def recorded(site: Site, code: str) -> list[bytes]:
    """Return the details of a code in the evidence ring."""
    return [event.detail for event in site.evidence() if event.code == code]


async def kept(site: Site, code: str, detail: bytes) -> None:
    """Wait until the ring's only record of a code, or its last one, has this detail."""
    await site.until(f"{code} as evidence", lambda: recorded(site, code)[-1:] == [detail], 30)


def heard(site: Site) -> tuple[int, set[int]]:
    """Return how many hellos the wire saw, and the epochs of all that was sent.

    Once there were readings, what comes late is of that boot and changes neither.
    """
    return len(site.capture.of(site.id, "hello")), {epoch for epoch, _ in site.counters()}


async def running(site: Site) -> tuple[int, set[int]]:
    """Wait for readings of this boot; return what was heard."""
    await more_readings(site, 3)
    await overheard(site)
    return heard(site)


async def test_worn_counter_sends_nothing_and_says_why(site: Site) -> None:
    before = await running(site)
    wear(site, "counter")
    await again(site, "tidemark: counter-worn")
    # An update run without the time begins later than any hello would have.
    await site.said("update no-time", 30, len(site.board.serial_log))
    assert heard(site) == before
    assert recorded(site, "counter-worn") == [b"sample"], "once a boot"


async def test_lost_counter_is_safe_mode_and_nothing_is_sent(site: Site) -> None:
    size = site.definition.regions["counter"].size
    before = await running(site)
    since = len(site.board.serial_log)
    await asyncio.to_thread(site.patch_flash, [("counter", 0, b"\xff" * size)])
    await asyncio.to_thread(site.board.power_on)
    await site.said("safe (state-lost)", 30, since)
    assert await asyncio.to_thread(refusal, site) == "state-lost"
    assert heard(site) == before
    await kept(site, "state-lost", b"provision")
    assert recorded(site, "state-lost") == [b"", b"provision"]
    region = site.definition.regions["counter"]
    assert site.board.read_flash(region.offset, region.size) == b"\xff" * size


def refusal(site: Site) -> str:
    """Return the code with which provisioning is refused."""
    with (
        site.board.repl(timeout=10 * site.target.patience) as console,
        pytest.raises(ProvisionError) as refused,
    ):
        provision.begin(console)
    return refused.value.code


async def test_worn_journal_is_rescue_without_a_word_on_the_wire(site: Site) -> None:
    before = await running(site)
    wear(site, "journal")
    await again(site, "rescue (journal-worn)")
    assert await asyncio.to_thread(refusal, site) == "journal-worn"
    assert heard(site) == before
    await kept(site, "rescue", b"journal-worn")


@pytest.mark.slow
async def test_journal_that_wears_out_in_a_boot_takes_no_update_and_is_reported(
    site: Site,
) -> None:
    await site.claimed(update="current")
    wear(site, "journal")
    await site.publish("1.1.0")
    await site.claimed(update="journal-worn", health="journal", timeout=60)
    await more_readings(site, 20)
    await asyncio.to_thread(site.board.power_off)
    assert recorded(site, "journal-worn") == [b"update"]
    assert site.slot_bytes("slot_b", 4096, 0) == b"\xff" * 4096


async def test_trial_that_the_journal_can_not_confirm_ends(site: Site) -> None:
    await unhurried(site)
    since = len(site.board.serial_log)
    index = await site.publish("1.1.0")
    await site.said(f"release {index} (1.1.0), trial", 60, since)
    wear(site, "journal")
    await site.said("rescue (journal-worn)", 60, since)
    assert b"report" in recorded(site, "journal-worn")
    assert [trial for trial in site.trials() if trial[1] == "confirmed"] == []


async def test_evidence_ring_that_takes_nothing_is_counted_and_keeps_what_it_has(
    site: Site,
) -> None:
    wear(site, "evidence")
    boots, events = site.boots(), site.evidence()
    await again(site, "tidemark: evidence-worn")
    claims = await site.heard(boots)
    assert claims["mode"] == "normal"
    assert claims["outcomes"][1] > 0
    assert claims["evidence-head"][0] == events[-1].number
    assert site.evidence() == events
    await more_readings(site, 20)


async def test_outbox_that_takes_nothing_counts_the_readings(site: Site) -> None:
    since = len(site.board.serial_log)
    wear(site, "outbox")
    await site.said("tidemark: outbox-worn", 30, since)
    await site.until("a count", lambda: site.claims()["outcomes"][2] > 0)
    assert site.claims()["mode"] == "normal"
    assert recorded(site, "outbox-worn") == [b"sample"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DEAD, FEW_BITS])
async def test_slot_that_can_not_be_written_is_never_staged(site: Site, kind: str) -> None:
    await site.claimed(update="current")
    wear(site, "slot_b", kind)
    await site.publish("1.1.0")
    claims = await site.claimed(update="slot-worn", timeout=60)
    assert claims["mode"] == "normal"
    await more_readings(site, 20)
    # Once a boot; the next one may come to tell it again.
    assert recorded(site, "slot-worn") == [b"update"]
    boots = site.boots()
    await asyncio.to_thread(site.board.reset)
    assert (await site.heard(boots))["floor"] == 1
    await asyncio.to_thread(site.board.power_off)
    assert set(recorded(site, "slot-worn")) == {b"update"}


@pytest.mark.slow
async def test_worn_files_stop_updates_and_nothing_else(site: Site) -> None:
    await site.claimed(update="current")
    wear(site, "vfs")
    await site.publish("1.1.0")
    await site.claimed(update="file-write", timeout=60)
    boots = site.boots()
    await asyncio.to_thread(site.board.reset)
    assert (await site.heard(boots))["mode"] == "normal"
    await more_readings(site, 20)
    await asyncio.to_thread(site.board.power_off)
    assert b"update" in recorded(site, "file-write")


async def test_damaged_provisioning_is_rescue_until_the_same_owner_comes(site: Site) -> None:
    before = await running(site)
    since = len(site.board.serial_log)
    await asyncio.to_thread(site.patch_flash, [("provisioning", 300, b"\x00" * 8)])
    await asyncio.to_thread(site.board.power_on)
    await site.said("rescue (provisioning-damaged)", 30, since)
    assert heard(site) == before
    await kept(site, "rescue", b"provisioning-dam")
    boots = site.boots()

    def mend() -> str:
        with site.board.repl(timeout=10 * site.target.patience) as console:
            born = provision.begin(console)
            provision.finish(console, site.anchors, site.link_settings())
        site.board.reset()
        return born.id

    assert await asyncio.to_thread(mend) == site.id
    assert (await site.heard(boots))["mode"] == "normal"


async def test_provisioning_sector_that_does_not_hold_leaves_the_board_unprovisioned(
    blank_site: Site,
) -> None:
    site = blank_site

    def attempt() -> str:
        site.flash(site.image("v1.0.0", table=0), "1.0.0")
        with site.board.repl(timeout=10 * site.target.patience) as console:
            provision.begin(console)
            wear(site, "provisioning", FEW_BITS)
            with pytest.raises(ProvisionError) as refused:
                provision.finish(console, site.anchors, site.link_settings())
        return refused.value.code

    assert await asyncio.to_thread(attempt) == "provisioning-worn"
    assert recorded(site, "provisioning-worn") == [b"provision"]
    await again(site, "waits on this console")
    assert not recorded(site, "provisioned")


async def test_foreign_bytes_in_the_journal_are_no_birth(blank_site: Site) -> None:
    site = blank_site
    await asyncio.to_thread(site.flash, site.image("v1.0.0", table=0), "1.0.0")
    half = site.definition.regions["journal"].size // 2
    changes = [("journal", 256, bytes(256)), ("journal", half + 256, bytes(256))]
    await asyncio.to_thread(site.patch_flash, changes)
    await again(site, "waits on this console")
    assert await asyncio.to_thread(refusal, site) == "journal-unborn"
    assert recorded(site, "journal-unborn") == [b"provision"]
