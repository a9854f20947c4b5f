"""What each job costs the flash, against the bounds that docs/bench.md states.

A bound is on flash operations of the regions that a job may touch; no other region is touched.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.system.steps import more_readings
from tidemark_host.bench.wear import Ours
from tidemark_host.hil import timeline
from tidemark_host.hil.site import Site

pytestmark = pytest.mark.needs("operations")

Cost = dict[tuple[str, str], int]  # (region, kind): operations
READING = 2  # programs a reading: stored, acknowledged
# Of those that share a chunk, which has its stamp, and of which one lies across a page's end.
EACH_OF = 8
READINGS, READINGS_SLOW = 200, 100


def cost(site: Site, since: int, but: str = "") -> Cost:
    """Return the operations after the first `since` by region and kind, but for one region."""
    counts = Counter(
        (timeline.region_of(operation.address, site.definition), operation.kind)
        for operation in list(site.board.operations)[since:]
    )
    return {key: count for key, count in counts.items() if key[0] != but}


async def outbox(site: Site) -> tuple[int, int]:
    """Return how many readings this boot has stored, and how many wait, of any boot."""
    epoch = site.claims()["epoch"]
    await site.until("one of them", lambda: any(at == epoch for at, _ in site.accepted()))
    waiting = await asyncio.to_thread(site.stored_readings)
    # Looked at second: what was acknowledged since then waits no longer and is here.
    known = waiting | site.accepted()
    return max(index for at, index in known if at == epoch), len(waiting)


def check(found: Cost, bounds: Cost) -> None:
    beyond = {key: count for key, count in found.items() if count > bounds.get(key, 0)}
    assert not beyond, f"{beyond} above {bounds}"


async def test_boot(site: Site) -> None:
    await asyncio.to_thread(site.board.power_off)
    since, boots = len(site.board.operations), site.boots()
    await asyncio.to_thread(site.board.power_on)
    await site.heard(boots)
    await asyncio.to_thread(site.board.power_off)
    bounds = {
        ("counter", "program"): 2,
        ("counter", "erase"): 1,
        ("evidence", "program"): 8,
        ("evidence", "erase"): 1,
        ("journal", "program"): 32,
        ("journal", "erase"): 1,
    }
    found = cost(site, since, "outbox")
    check(found, bounds)
    # What `tidemark bench wear` takes for a boot is what a boot costs.
    counted = Ours(site.definition).measure_boots(256)
    for part in ("counter", "journal", "evidence"):
        assert found[part, "program"] <= counted[part].programs / 256 + 4, part


@pytest.mark.slow
async def test_readings(site: Site) -> None:
    await site.claimed(update="current")
    # Before the operations begin to count: what is stored in between is allowed, and not counted.
    first, waited = await outbox(site)
    since = len(site.board.operations)
    await more_readings(site, READINGS if site.target.patience == 1 else READINGS_SLOW)
    await asyncio.to_thread(site.board.power_off)
    last, _ = await outbox(site)
    count = last - first
    others = waited + 2 + count // EACH_OF
    assert others < count, "a third program a reading would not show"
    found = cost(site, since)
    bounds = {
        ("outbox", "program"): READING * count + others,
        ("outbox", "erase"): 1 + count // 50,
    }
    check(found, bounds)


async def test_update(site: Site) -> None:
    await site.claimed(update="current")
    since = len(site.board.operations)
    index = await site.publish("1.1.0", table=32 * 1024)
    assert await site.outcome(index) == (index, "confirmed", "ok")
    size = site.repository.target_path(site.definition.name, index).stat().st_size
    definition = site.definition
    bounds = {
        # The image once, and its header's sector at both ends of the download.
        ("slot_b", "erase"): -(-size // definition.sector) + 2,
        ("slot_b", "program"): -(-size // definition.page) + 4,
        ("journal", "program"): 80,
        ("journal", "erase"): 2,
        ("vfs", "program"): 64,
        ("vfs", "erase"): 12,
        ("evidence", "program"): 24,
        ("evidence", "erase"): 1,
        ("counter", "program"): 4,
        ("counter", "erase"): 1,
    }
    check(cost(site, since, "outbox"), bounds)


async def test_looks_at_an_unchanged_mirror_write_nothing(site: Site) -> None:
    await site.claimed(update="current")
    since = len(site.board.operations)

    def looks() -> int:
        return sum("update current" in line.text for line in site.board.serial_log)

    before = looks()
    await site.until("five more looks at the mirror", lambda: looks() >= before + 5, 60)
    check(cost(site, since, "outbox"), {})
