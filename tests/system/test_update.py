"""A signed release goes into the other slot, across a power cut; nothing else gets in."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.system.steps import both_slots, digest, once_each, slow_mirror
from tidemark_host.hil.mirror import ATTEMPTS, Attempt
from tidemark_host.hil.site import Site


@pytest.mark.smoke
async def test_signed_release_goes_into_the_other_slot_is_tried_and_confirmed(site: Site) -> None:
    former = await asyncio.to_thread(site.slot_bytes, "slot_a")
    index = await site.publish("1.1.0")
    assert await site.outcome(index) == (index, "confirmed", "ok")
    claims = await site.claimed(mode="normal", floor=index)
    data = site.repository.target_path(site.definition.name, index).read_bytes()
    assert digest(claims) == hashlib.sha256(data).digest()
    assert await asyncio.to_thread(site.slot_bytes, "slot_b", len(data)) == data
    assert await asyncio.to_thread(site.slot_bytes, "slot_a") == former
    once_each(site)


@pytest.mark.slow
async def test_second_update_goes_back_into_the_first_slot(site: Site) -> None:
    for version in ("1.1.0", "1.2.0"):
        index = await site.publish(version)
        assert await site.outcome(index) == (index, "confirmed", "ok")
    data = site.repository.target_path(site.definition.name, index).read_bytes()
    assert await asyncio.to_thread(site.slot_bytes, "slot_a", len(data)) == data


@pytest.mark.needs("operations")
async def test_download_goes_on_where_a_power_cut_ended_it(site: Site) -> None:
    region = site.definition.regions["slot_b"]
    first = len(site.board.operations)
    slow_mirror(site)
    index = await site.publish("1.1.0", table=96 * 1024)

    def written() -> int:
        found = list(site.board.operations)[first:]
        return sum(region.offset <= op.address < region.end for op in found)

    await site.until("the download", lambda: written() > 100, 60, 0.01)
    await site.cut(40, "torn")
    site.mirror.bytes_per_s = None
    await asyncio.to_thread(site.board.power_on)
    assert await site.outcome(index) == (index, "confirmed", "ok")
    ranges = [
        wanted
        for path, _, wanted in site.mirror.requests
        if "/targets/" in path and wanted and not wanted.startswith("bytes=0-")
    ]
    assert ranges, "it began again from the start"
    data = site.repository.target_path(site.definition.name, index).read_bytes()
    assert await asyncio.to_thread(site.slot_bytes, "slot_b", len(data)) == data


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.text.replace(" ", "-"))
async def test_release_that_must_not_be_installed_is_refused(site: Site, attempt: Attempt) -> None:
    # A floor to be below of, and metadata newer than yesterday's.
    index = await site.publish("1.1.0")
    assert await site.outcome(index) == (index, "confirmed", "ok")
    await site.claimed(update="current")
    slots = await both_slots(site)
    with attempt.staged(site):
        await site.until(
            f"refused: {attempt.text}", lambda: site.claims().get("update") in attempt.codes, 60
        )
    await site.claimed(update="current", timeout=60)
    assert slots == await both_slots(site)
    assert site.claims()["floor"] == index
