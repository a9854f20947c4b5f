"""The network fails in every way that MQTT over TCP can show: each reading arrives once.

Faults come from a seed (docs/network-faults.md); the test's name holds it.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import from_board, once_each
from tidemark_host.faults.profiles import PROFILES
from tidemark_host.faults.proxy import Network
from tidemark_host.hil.site import Site

EACH = 2  # of each fault that a profile has
# What the base records of a board that runs and is neither reset nor updated. The network's own
# troubles are counted under their codes as remote events, which push nothing of this out.
OWN = {"boot", "healthy", "lease", "reset", "update"}


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
    network.storm(profile.slower(site.target.patience), seed)
    await site.until(
        f"{EACH} of each fault of {name}",
        lambda: all(network.mqtt.counts[fault] >= EACH for fault in profile.faults),
        90,
    )
    network.calm()
    left = set(oracle.readings)
    await site.until("what had left arrives", lambda: left <= arrived(site), 60)
    bounds = await from_board(
        site,
        "[stage0.base.outbox.dropped, stage0.base.link.dropped, stage0.base.connection.room >= 0]",
    )
    assert bounds == [0, 0, True]
    await asyncio.to_thread(site.halt)
    assert oracle.violations == []
    once_each(site)
    stored = await asyncio.to_thread(site.stored_readings)
    known = arrived(site) | stored
    for epoch in {epoch for epoch, _ in left}:
        indices = sorted(index for at, index in known if at == epoch)
        assert indices == list(range(1, len(indices) + 1)), f"a reading of epoch {epoch} is lost"
    assert site.boots() == boots, "the network resets no board"
    assert site.view.quarantined(site.id) is None
    assert not any(row["tags"]["maybe_duplicate"] for row in site.readings())
    # Upstream's own connection is sound: what the gateway queued once comes once.
    await site.until(
        "upstream has all", lambda: len(site.upstream.messages) >= site.view.accepted()
    )
    upstream = [(row["epoch"], row["index"]) for row in site.upstream.messages if "index" in row]
    assert len(upstream) == len(set(upstream))


async def test_update_goes_through_a_flapping_link(faulty_site: Site) -> None:
    site, network = faulty_site, network_of(faulty_site)
    network.storm(PROFILES["flapping"].slower(site.target.patience), 1)
    index = await site.publish("1.1.0", table=96 * 1024)
    assert await site.outcome(index, 110) == (index, "confirmed", "ok")
    assert network.mqtt.counts["life"] >= EACH
    network.calm()
    await site.claimed(mode="normal", floor=index)
    once_each(site)


def arrived(site: Site) -> set[tuple[int, int]]:
    """Return (epoch, index) of what the gateway accepted."""
    return {(row["epoch"], row["index"]) for row in site.readings()}
