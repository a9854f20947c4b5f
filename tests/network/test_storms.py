"""The network fails in every way that MQTT over TCP can show: each reading arrives once.

Faults come from a seed (docs/network-faults.md); the test's name holds it.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.system.steps import from_board, once_each, unhurried
from tidemark_host.faults.profiles import PROFILES
from tidemark_host.faults.proxy import Network
from tidemark_host.hil.site import Site

EACH = 2  # of each fault that a profile has
UNDER_WAY = 16 + 8 + 1  # live readings, backlog, a report: messages that may wait for their ack


def network_of(site: Site) -> Network:
    assert site.network is not None
    return site.network


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("lossy", 1),
        ("lossy", 2),
        ("hostile-broker", 1),
        ("hostile-broker", 2),
        ("half-open", 1),
        ("half-open", 2),
    ],
)
async def test_every_reading_arrives_once_through_a_storm(
    faulty_site: Site, name: str, seed: int
) -> None:
    site, network = faulty_site, network_of(faulty_site)
    profile = PROFILES[name]
    oracle = network.oracle
    boots = site.boots()
    network.mqtt.storm(profile.slower(site.target.patience), seed)
    await site.until(
        f"faults of {name}",
        lambda: enough(network.mqtt.counts, profile.faults),
        90,
    )
    network.calm()
    left = set(oracle.readings)
    await site.until("what had left arrives", lambda: left <= site.accepted(), 60)
    bounds = await from_board(
        site,
        "[stage0.base.outbox.dropped, stage0.base.link.dropped, stage0.base.connection.room]",
    )
    assert bounds[:2] == [0, 0], "readings or messages dropped"
    assert 32 - UNDER_WAY <= bounds[2] <= 32
    await asyncio.to_thread(site.halt)
    assert oracle.violations == []
    once_each(site)
    stored = await asyncio.to_thread(site.stored_readings)
    known = site.accepted() | stored
    for epoch in {epoch for epoch, _ in left}:
        indices = sorted(index for at, index in known if at == epoch)
        assert indices == list(range(1, len(indices) + 1)), f"a reading of epoch {epoch} is lost"
    assert site.boots() == boots, "the network resets no board"
    assert site.view.quarantined(site.id) is None
    assert not any(row["tags"]["maybe_duplicate"] for row in site.readings())
    # Upstream's own connection is sound: what the gateway queued once comes once.
    due = left - site.accepted_before
    await site.until("upstream has them", lambda: due <= set(upstream(site)), 60)
    assert len(upstream(site)) == len(set(upstream(site)))


async def test_gateway_behind_a_bad_network_loses_nothing_and_queues_nothing_twice(
    faulty_site: Site,
) -> None:
    site, network = faulty_site, network_of(faulty_site)
    profile = PROFILES["lossy"]
    network.gateway.storm(profile.slower(site.target.patience), 3)
    await site.until(
        "faults at the gateway",
        lambda: enough(network.gateway.counts, profile.faults),
        90,
    )
    network.calm()
    left = set(network.oracle.readings)
    await site.until("what had left arrives", lambda: left <= site.accepted(), 60)
    assert network.oracle.violations == []
    once_each(site)
    # Here it is at least once, by a key: a PUBACK that is lost brings the same row again.
    due = left - site.accepted_before
    await site.until("upstream has them", lambda: due <= set(upstream(site)), 60)


async def test_update_goes_through_a_flapping_link(faulty_site: Site) -> None:
    site, network = faulty_site, network_of(faulty_site)
    # No connection lives for long: some trials would otherwise end before one that does.
    await unhurried(site, hold_s=2)
    network.mqtt.storm(PROFILES["flapping"].slower(site.target.patience), 1)
    network.web.storm(PROFILES["lossy"].slower(site.target.patience), 1)
    await site.until("a link that flaps", lambda: network.mqtt.counts["life"] >= EACH, 60)
    index = await site.publish("1.1.0", table=96 * 1024)
    assert await site.outcome(index, 110) == (index, "confirmed", "ok")
    cuts = [action for action in network.web.counts if action.startswith("cut")]
    assert cuts, "the download met no fault"
    assert network.mqtt.counts["life"] > EACH
    network.calm()
    await site.claimed(mode="normal", floor=index)
    assert network.oracle.violations == []
    once_each(site)


def enough(counts: Counter[str], faults: frozenset[str]) -> bool:
    """Say whether a storm has shown what it has."""
    return all(counts[fault] >= EACH for fault in faults)


def upstream(site: Site) -> list[tuple[int, int]]:
    """Return (epoch, index) of the readings that a reader upstream was given in this test."""
    return [(row["epoch"], row["index"]) for row in site.upstream.messages if "index" in row]
