"""A confirmed runtime whose flash decayed comes back over the network, without a cable."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.steps import last_record, once_each
from tests.system.test_runtime import board_of, in_charge, runtime
from tidemark_host.esp32.otadata import State
from tidemark_host.hil.site import Site

# Its flash is altered behind its back.
pytestmark = [pytest.mark.needs("runtimes"), pytest.mark.needs("peek")]


def place(site: Site, label: str) -> int:
    """Return where a partition starts."""
    assert site.definition.esp32
    return next(row.offset for row in site.definition.esp32.partitions if row.label == label)


async def decay(site: Site, offset: int, before_on: Callable[[], None] = lambda: None) -> None:
    """Have one byte of the flash no longer read as it was written; the board is on again after.

    `before_on`: what is to be planned before it starts.
    """
    size = site.definition.flash_size
    await asyncio.to_thread(site.board.power_off)
    flash = bytearray(await asyncio.to_thread(site.board.read_flash, 0, size, resume=False))
    flash[offset] ^= 0x20
    await asyncio.to_thread(site.board.flash, bytes(flash))
    site.note(f"flash decayed at {offset:#x}")
    await asyncio.to_thread(before_on)
    await asyncio.to_thread(site.board.power_on)


async def confirmed_pair(site: Site) -> tuple[int, bytes]:
    """Have a release confirmed with its runtime; return its index and the runtime's bytes."""
    image = await runtime(site)
    index = await site.publish("2.0.0", runtime=image)
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    await site.claimed(mode="normal", floor=index)
    return index, image


def served(site: Site) -> Path:
    """Return the file that the mirror serves as runtime 2."""
    (found,) = (site.folder / "updates" / "targets").rglob("*.runtime-2.bin")
    return found


def forged(image: bytes) -> bytes:
    """Return other bytes of the same length that a bootloader takes for an image."""
    data = bytearray(image[:-32])
    data[5000] ^= 1
    data[5001] ^= 1  # its checksum is an exclusive or
    return bytes(data) + hashlib.sha256(data).digest()


@pytest.mark.smoke
async def test_confirmed_runtime_that_decayed_is_healed_over_the_network(site: Site) -> None:
    index, image = await confirmed_pair(site)
    former = site.claims()
    last, since = last_record(site), len(site.board.serial_log)
    start = place(site, "ota_1")
    await decay(site, start + 5000)
    await site.said("rescue (runtime-lost)", 60, since)
    await site.said("update healed", 90, since)
    claims = await site.claimed(mode="normal", floor=index, runtime=[2, 1, State.VALID, 0])
    for claim in ("runtime-digest", "image-digest"):
        assert claims[claim] == former[claim]
    assert await in_charge(site) == (1, State.VALID)
    assert board_of(site).running == 1
    assert await asyncio.to_thread(site.board.read_flash, start, len(image)) == image
    events = await asyncio.to_thread(site.evidence)
    told = [(event.code, event.detail.rstrip(b"\0")) for event in events if event.number > last]
    assert ("rescue", b"runtime-lost") in told
    assert ("update", b"healed") in told
    once_each(site)


@pytest.mark.needs("operations")
@pytest.mark.parametrize(
    ("label", "operation", "variant"),
    [("otadata", 1, "torn"), ("otadata", 2, "torn"), ("ota_1", 3, "torn"), ("otadata", 4, "torn")],
)
async def test_power_cut_in_a_healing_leaves_one_that_begins_again(
    site: Site, label: str, operation: int, variant: str
) -> None:
    """At the affirmed entry, the erased one, the slot, the choice."""
    index, _ = await confirmed_pair(site)
    since = len(site.board.serial_log)
    await decay(
        site,
        place(site, "ota_1") + 5000,
        lambda: board_of(site).cut_in(label, operation, variant),
    )
    await site.said("rescue (runtime-lost)", 60, since)
    await asyncio.to_thread(site.board.wait_cut, 60 * site.target.patience)
    site.note("power failed")
    await asyncio.to_thread(site.board.power_on)
    await site.claimed(90, mode="normal", floor=index, runtime=[2, 1, State.VALID, 0])
    assert await in_charge(site) == (1, State.VALID)
    assert board_of(site).running == 1
    once_each(site)


async def test_forged_runtime_does_not_start_in_place_of_a_lost_one(site: Site) -> None:
    index, image = await confirmed_pair(site)
    served(site).write_bytes(forged(image))
    since = len(site.board.serial_log)
    await decay(site, place(site, "ota_1") + 5000)
    await site.said("update target-hash", 90, since)
    await site.claimed(mode="rescue", update="erase-limit", floor=index)
    for _ in range(2):
        boots = site.boots()
        await site.power_cycle()
        await site.heard(boots)
        assert board_of(site).running == 0
    assert site.claims()["mode"] == "rescue"
