"""Readings arrive once each, verified, whatever happens to the messages that carry them."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.system.steps import more_readings, once_each
from tidemark_host.hil import attack
from tidemark_host.hil.site import Site

COPIES = 10


@pytest.mark.smoke
async def test_readings_arrive_once_each_in_order_and_verified(site: Site) -> None:
    await more_readings(site, 30)
    rows = site.readings()
    epoch = rows[-1]["epoch"]
    indices = [row["index"] for row in rows if row["epoch"] == epoch]
    assert indices == list(range(1, len(indices) + 1))
    assert {row["tags"]["trust"] for row in rows} == {"mac"}
    assert all(row["reading"]["1"] == row["index"] for row in rows), "not what the sensor gave"
    once_each(site)


@pytest.mark.smoke
async def test_replayed_reordered_altered_and_forged_messages_change_nothing(site: Site) -> None:
    await site.until("some telemetry", lambda: len(_sent(site)) >= 2 * COPIES)
    rows = site.readings()
    sent = _sent(site)
    chance = random.Random(1)
    copies = sent[-2 * COPIES :]
    chance.shuffle(copies)
    altered = [attack.flip(message, chance) for message in sent[-COPIES:]]
    reports = [attack.forge_report(site, n) for n in range(COPIES)]
    macs = [attack.forge_reading(site, n) for n in range(COPIES)]
    site.injected.update(altered, reports, macs)
    before = site.view.counts(site.id)

    def grown(*codes: str) -> int:
        now = site.view.counts(site.id)
        return sum(now.get(code, 0) - before.get(code, 0) for code in codes)

    await attack.publish(site, "telemetry", copies)
    await site.until("copies counted", lambda: grown("redelivery", "stale") >= 2 * COPIES)
    await attack.publish(site, "telemetry", macs)
    await site.until("forged readings refused", lambda: grown("mac") >= COPIES)
    await attack.publish(site, "report", reports)
    await site.until("forged reports refused", lambda: grown("signature") >= COPIES)
    refused = grown("mac", "shape", "size", "no-session", "space", "signature")
    await attack.publish(site, "telemetry", altered)
    await site.until(
        "altered readings refused",
        lambda: (
            grown("mac", "shape", "size", "no-session", "space", "signature") >= refused + COPIES
        ),
    )
    await more_readings(site, 5)
    now = site.readings()
    assert now[: len(rows)] == rows
    assert all(row["reading"]["1"] == row["index"] for row in now)
    assert site.view.quarantined(site.id) is None
    once_each(site)


@pytest.mark.slow
@pytest.mark.needs("power")
async def test_outage_of_broker_and_gateway_loses_nothing_and_repeats_nothing(site: Site) -> None:
    await site.kill_gateway()
    await site.broker.stop()
    await site.until("readings pile up", lambda: len(site.stored_readings()) >= 30, 60, 0.5)
    await asyncio.to_thread(site.board.power_off)
    stored = await asyncio.to_thread(site.stored_readings)
    assert stored
    await asyncio.to_thread(site.board.power_on)
    await site.broker.start()
    await site.start_gateway()
    await site.until(
        "what was stored arrives",
        lambda: stored <= {(row["epoch"], row["index"]) for row in site.readings()},
        120,
    )
    keys = once_each(site)
    for epoch in sorted({epoch for epoch, _ in stored}):
        indices = sorted(index for at, index in keys if at == epoch)
        assert indices == list(range(1, len(indices) + 1)), f"a reading of epoch {epoch} is lost"


def _sent(site: Site) -> list[bytes]:
    return site.capture.of(site.id, "telemetry")
