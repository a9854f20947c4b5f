"""Clones, lower epochs and quarantine: what raises an alarm, what does not, and what lifts it."""

from __future__ import annotations

import sqlite3

import pytest

from tests.gateway.parts import Site


def test_an_operator_lifts_a_quarantine(site: Site):
    device = site.device()
    site.greet(device)
    site.send(device, "report", device.report())
    assert site.send(device, "report", device.seal("report", {1: 1}, n=1)) == []
    assert site.send(device, "report", device.report()) == []
    type(site.inventory)(site.inventory.path).clear(device.id)
    site.core.tick()
    assert site.send(device, "report", device.report()) == ["ack"]


@pytest.mark.parametrize("step_s", [-3e9, 3e9])
def test_clearing_hangs_on_no_clock(site: Site, step_s: float):
    device = site.device()
    site.greet(device)
    operator = type(site.inventory)(site.inventory.path)

    def double() -> None:
        site.send(device, "report", device.report())
        n = device.counters[2]
        assert site.send(device, "report", device.seal("report", {1: 1}, n=n)) == []

    site.clock.now += step_s
    double()
    assert site.send(device, "report", device.report()) == []
    operator.clear(device.id)
    site.core.tick()
    assert site.send(device, "report", device.report()) == ["ack"]
    # Cleared once more for good measure, and not read yet when the next clone shows.
    operator.clear(device.id)
    double()
    site.restart()
    site.core.tick()
    assert site.send(device, "hello", device.hello(site.core.sessions.nonce)) == ["welcome"]
    assert site.send(device, "report", device.report()) == []
    assert site.refusals()["quarantined"] == 2


def test_a_lost_database_takes_no_later_quarantine_with_it(site: Site):
    device = site.device()
    for _ in range(3):
        site.inventory.clear(device.id)
    site.greet(device)
    site.send(device, "report", device.report())
    assert site.send(device, "report", device.seal("report", {1: 1}, n=1)) == []
    assert site.send(device, "report", device.report()) == []
    assert site.refusals() == {"clone": 1, "quarantined": 1}


def test_a_database_of_the_earlier_schema_keeps_its_quarantine(site: Site):
    device = site.device()
    site.greet(device)
    site.send(device, "telemetry", device.telemetry(1))
    site.send(device, "telemetry", device.seal("telemetry", 1, 2, 2, n=1))
    site.store.close()
    with sqlite3.connect(site.path / "gateway.db") as db:
        db.execute("ALTER TABLE devices DROP COLUMN cleared")
        db.execute("ALTER TABLE epochs ADD COLUMN hello BLOB NOT NULL DEFAULT x''")
    site.start()
    site.greet(device)
    assert site.send(device, "telemetry", device.telemetry(3)) == []
    site.inventory.clear(device.id)
    assert site.send(device, "telemetry", device.telemetry(4)) == ["ack"]


def test_an_older_epoch_is_refused_with_an_alarm_but_not_for_a_replayed_hello(site: Site):
    device = site.device()
    hello = site.greet(device)
    device.boot()
    site.greet(device)
    site.core.sessions.drop(device.id)
    assert site.send(device, "hello", hello) == []
    assert site.view.events(device.id, "alarm") == []
    older = device.hello(site.core.sessions.nonce, epoch=1)
    assert site.send(device, "hello", older) == []
    (alarm,) = site.view.events(device.id, "alarm")
    assert (alarm["code"], alarm["highest"]) == ("epoch", 2)
    assert site.refusals() == {"epoch": 2}
    assert site.view.quarantined(device.id) is None


def test_an_earlier_hello_of_a_former_boot_raises_no_alarm_within_its_nonces_life(site: Site):
    device = site.device()
    captured = site.greet(device)
    site.greet(device)
    device.boot()
    site.greet(device)
    site.core.sessions.drop(device.id)
    assert site.send(device, "hello", captured) == []
    assert site.view.events(device.id, "alarm") == []
    assert site.refusals() == {"epoch": 1}


def test_a_lower_epoch_that_was_never_accepted_raises_an_alarm(site: Site):
    device = site.device()
    device.epoch = 5
    site.greet(device)
    assert site.send(device, "hello", device.hello(site.core.sessions.nonce, epoch=4)) == []
    (alarm,) = site.view.events(device.id, "alarm")
    assert (alarm["code"], alarm["epoch"]) == ("epoch", 4)
