"""The wear suite: what it counts is what it says, goals are met, peers are measured beside."""

from __future__ import annotations

import pytest

from tidemark_host.bench import wear
from tidemark_host.bench.registry import Results
from tidemark_host.bench.wear import Geometry, Peer, Wear


@pytest.fixture(scope="module")
def results() -> Results:
    found = Results("wear")
    # One lap of the counter's region, and enough of the rest.
    wear.wear(found, boots=1024, readings=2000, saves=2000)
    return found


def test_goals_are_met_and_each_peer_has_its_rows(results: Results) -> None:
    assert [row.name for row in results.rows if row.met is False] == []
    peers = {row.variant for row in results.rows if row.peer}
    for name in ("littlefs rp2, 186 sectors", "littlefs esp32, 512 sectors", "littlefs rp2, 4"):
        assert any(peer.startswith(name) for peer in peers), name
    assert {row.variant for row in results.rows if not row.peer} == {"tidemark"}


def test_a_message_erases_nothing_and_a_boot_its_256th_of_a_sector(results: Results) -> None:
    ours = {row.name: row.value for row in results.rows if not row.peer}
    assert ours["counter, a message: erases a million"] == 0
    assert ours["counter, a boot: erases a million"] == 1_000_000 / 256
    peers = [row.value for row in results.rows if row.peer and row.unit == "erases"]
    assert min(peers) > 10_000


def test_a_life_ends_with_the_most_erased_sector() -> None:
    found = Wear(1000, [1, 3, 0, 0], 50)
    assert found.per_million() == 4000
    assert found.life() == wear.ENDURANCE * 1000 / 3
    assert found.life(even=True) == wear.ENDURANCE * 1000
    assert found.spread() == 3
    assert Wear(1000, [0, 0], 0).life() == float("inf")


def test_the_peer_keeps_its_record_over_mounts() -> None:
    peer = Peer(Geometry("rp2", 8, 256))
    found = peer.measure(peer.boot, 300)  # reads back what the mount before has written
    assert sum(found.erases) >= 300 // 16
    assert found.programs >= 300
