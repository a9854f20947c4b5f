"""Bad releases end with their reason, and the former image runs; an outage rejects nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import (
    causes_since,
    conclusions,
    digest,
    downloading,
    last_record,
    slow_mirror,
)
from tidemark_host.hil.site import Site


@pytest.mark.parametrize(
    ("fault", "reason", "cause"),
    [
        pytest.param("crashes", "crash", "reset", marks=pytest.mark.smoke),
        ("hangs", "deadline", "watchdog"),
        ("stalls", "watchdog", "watchdog"),
        ("leaks", "heap", "reset"),
        ("unwell", "health", "reset"),
    ],
)
async def test_faulty_release_is_rejected_with_its_reason(
    site: Site, fault: str, reason: str, cause: str
) -> None:
    former = digest(site.claims())
    slot = await asyncio.to_thread(site.slot_bytes, "slot_a")
    last = last_record(site)
    index = await site.publish("1.1.0", fault)
    assert await site.outcome(index, 90) == (index, "rejected", reason)
    claims = await site.claimed(mode="normal")
    assert (digest(claims), claims["floor"]) == (former, 1)
    assert cause in await causes_since(site, last)
    assert await asyncio.to_thread(site.slot_bytes, "slot_a") == slot
    # It is offered still, and never tried again.
    await site.claimed(update="rejected")
    assert conclusions(site, index) == [(index, "rejected", reason)]


@pytest.mark.slow
async def test_release_that_loses_the_link_is_rejected_after_three_trials(site: Site) -> None:
    former = digest(site.claims())
    index = await site.publish("1.1.0", "loses-link")
    assert await site.outcome(index, 180) == (index, "rejected", "loses-link")
    trials = [trial for trial in site.trials() if trial[0] == index]
    assert trials[:-1] == [(index, "inconclusive", "no-ack")] * (len(trials) - 1)
    claims = await site.claimed(mode="normal")
    assert (digest(claims), claims["floor"]) == (former, 1)


@pytest.mark.slow
async def test_outage_during_a_trial_is_inconclusive_and_delays_a_good_release(site: Site) -> None:
    since = len(site.board.serial_log)
    slow_mirror(site)
    index = await site.publish("1.1.0", table=48 * 1024)
    await downloading(site)
    await site.kill_gateway()
    site.mirror.bytes_per_s = None
    await site.said("inconclusive no-ack", 90, since)
    await site.start_gateway()
    await site.until(
        "an inconclusive trial", lambda: (index, "inconclusive", "no-ack") in site.trials(), 60
    )
    assert await site.outcome(index, 120) == (index, "confirmed", "ok")
