"""What the gateway does with each message, without a network: real keys, real files."""

from __future__ import annotations

import sqlite3

import pytest

from tests.gateway.parts import Site, flip
from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.core import Message


def test_telemetry_is_accepted_once_each_in_order_and_acknowledged(site: Site):
    device = site.device()
    site.greet(device)
    for value in range(20):
        assert site.send(device, "telemetry", device.telemetry(value)) == ["ack"]
    assert site.readings(device) == list(range(20))
    assert not device.unanswered
    assert site.refusals() == {}


def test_what_goes_upstream_carries_key_and_tags(site: Site):
    device = site.device()
    site.greet(device)
    site.send(device, "telemetry", device.telemetry({1: b"\x01", 2: float("nan")}))
    (row,) = site.view.upstream(device.id)
    assert (row["device"], row["epoch"], row["index"]) == (device.id, 1, 1)
    assert row["reading"] == {"1": {"bytes": "01"}, "2": {"float": "nan"}}
    assert row["tags"] == {
        "path": "live",
        "trust": "mac",
        "cohort": "default",
        "policy": 0,
        "maybe_duplicate": False,
    }


def test_a_reading_and_another_message_never_share_a_key_upstream(site: Site):
    device = site.device()
    site.greet(device)
    for _ in range(8):
        site.send(device, "telemetry", device.telemetry(1))
    site.send(device, "backlog", device.seal("backlog", 1, 900, "old"))
    for kind, body in (("report", {}), ("alarm", {}), ("result", 1)):
        site.send(device, kind, device.seal(kind, body))
    site.send(device, "evidence", device.seal("evidence", 0, b""))
    rows = site.view.upstream(device.id)
    by_index = [row["kind"] for row in rows if "index" in row]
    assert by_index == ["telemetry"] * 8 + ["backlog"]
    # Counters 1 to 4 of space 2.
    assert [row["seq"] for row in rows if "seq" in row] == [6, 10, 14, 18]
    assert not any("index" in row and "seq" in row for row in rows)


def test_redelivery_is_acknowledged_again_without_effect(site: Site):
    device = site.device()
    site.greet(device)
    message = device.telemetry(1)
    for _ in range(3):
        assert site.send(device, "telemetry", message) == ["ack"]
    assert site.readings(device) == [1]
    assert site.refusals() == {"redelivery": 2}


def test_reordered_messages_arrive_and_below_the_window_is_stale(site: Site):
    device = site.device()
    site.greet(device)
    first = device.telemetry("first")
    second = device.telemetry("second")
    assert site.send(device, "telemetry", second) == ["ack"]
    assert site.send(device, "telemetry", first) == ["ack"]
    assert site.readings(device) == ["second", "first"]
    unsent = device.telemetry("late")
    device.counters[0] += protocol.WINDOW
    assert site.send(device, "telemetry", device.telemetry("far")) == ["ack"]
    assert site.send(device, "telemetry", unsent) == []
    assert site.refusals()["stale"] == 1
    assert site.readings(device) == ["second", "first", "far"]


def test_backlog_does_not_push_out_live_readings(site: Site):
    device = site.device()
    site.greet(device)
    live = device.telemetry("live")
    device.counters[1] += 5000
    site.send(device, "backlog", device.seal("backlog", 1, 900, "old"))
    assert site.send(device, "telemetry", live) == ["ack"]
    (row,) = site.view.upstream(device.id, "backlog")
    assert row["tags"]["path"] == "backlog"


@pytest.mark.parametrize("at", [-1, -20, 10])
def test_a_flipped_bit_is_refused_and_changes_nothing(site: Site, at: int):
    device = site.device()
    site.greet(device)
    message = device.telemetry("true")
    assert site.send(device, "telemetry", flip(message, at)) == []
    assert site.readings(device) == []
    assert sum(site.refusals().values()) == 1
    # The counter in it was not used up.
    assert site.send(device, "telemetry", message) == ["ack"]
    assert site.readings(device) == ["true"]


def test_forgery_with_another_key_is_refused(site: Site):
    device, other = site.device(), site.device()
    site.greet(device)
    site.greet(other)
    forged = FleetDevice(site.identity.public, other.key)
    forged.session, forged.boot_nonce = other.session, other.boot_nonce
    forged.id = device.id
    assert site.send(device, "telemetry", forged.telemetry(1)) == []
    assert site.send(device, "report", forged.report()) == []
    forged.public = other.public
    assert site.send(device, "hello", forged.hello(site.core.sessions.nonce)) == []
    assert site.refusals() == {"mac": 1, "signature": 2}
    assert site.view.upstream() == []


def test_unknown_device_is_refused_and_not_challenged(site: Site):
    stranger = FleetDevice(site.identity.public)
    assert site.send(stranger, "hello", stranger.hello(site.core.sessions.nonce)) == []
    assert site.send(stranger, "report", stranger.report()) == []
    assert site.refusals() == {"unknown-device": 2}


def test_enrolling_while_the_gateway_runs_is_enough(site: Site):
    stranger = FleetDevice(site.identity.public)
    type(site.inventory)(site.inventory.path).enroll(stranger.public, "FLEET")
    site.greet(stranger)


def test_revoked_device_is_refused_at_once(site: Site):
    device = site.device()
    site.greet(device)
    type(site.inventory)(site.inventory.path).revoke(device.id)
    site.core.tick()
    assert site.send(device, "telemetry", device.telemetry(1)) == []
    assert site.refusals() == {"revoked": 1}


def test_a_reading_sealed_again_goes_upstream_once(site: Site):
    device = site.device()
    site.greet(device)
    site.send(device, "telemetry", device.telemetry("x"))
    site.restart()
    site.greet(device)
    assert site.send(device, "telemetry", device.seal("telemetry", 1, 1, "x")) == ["ack"]
    assert site.send(device, "backlog", device.seal("backlog", 1, 1, "x")) == ["ack"]
    assert len(site.view.upstream(device.id)) == 1


def test_readings_too_old_to_tell_are_forwarded_as_maybe_duplicate(site: Site):
    device = site.device()
    device.epoch = 40
    site.greet(device)
    for epoch in range(10, 30):
        site.send(device, "backlog", device.seal("backlog", epoch, 5, epoch))
    site.send(device, "backlog", device.seal("backlog", 3, 1, "ancient"))
    rows = site.view.upstream(device.id)
    assert [r["tags"]["maybe_duplicate"] for r in rows] == [False] * 20 + [True]


def test_one_counter_with_two_valid_tags_is_a_clone(site: Site):
    device = site.device()
    site.greet(device)
    site.send(device, "telemetry", device.telemetry(1))
    assert site.send(device, "telemetry", device.seal("telemetry", 1, 2, 2, n=1)) == []
    assert site.refusals() == {"clone": 1}
    assert site.view.quarantined(device.id) is not None
    assert site.readings(device) == [1]


def test_forward_jumps_are_accepted_and_counted(site: Site):
    device = site.device()
    site.greet(device)
    device.counters[0] = 1 << 20
    assert site.send(device, "telemetry", device.telemetry(1)) == ["ack"]
    device.epoch = 77
    device.boot()
    site.greet(device)
    assert site.refusals() == {"jump": 2}


def test_space_must_fit_the_kind(site: Site):
    device = site.device()
    site.greet(device)
    payload = protocol.counted(device.epoch, 1, 1, 1, 1, "x")
    assert device.session
    message = protocol.seal_mac(
        device.session.keys.up_mac,
        protocol.HMAC_64,
        device.session.kid,
        protocol.aad("up", device.id, "telemetry", device.boot_nonce),
        payload,
    )
    assert site.send(device, "telemetry", message) == []
    assert site.refusals() == {"space": 1}


def test_a_message_of_one_kind_or_device_is_none_of_another(site: Site):
    device, other = site.device(), site.device()
    site.greet(device)
    site.greet(other)
    report = device.report()
    assert site.send(device, "alarm", report) == []
    assert site.send(other, "report", report) == []
    assert site.refusals() == {"signature": 2}


def test_a_failing_transaction_loses_nothing_and_acknowledges_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    device = site.device()
    site.greet(device)
    message = device.telemetry(1)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(site.store, "enqueue", fail)
    assert site.send(device, "telemetry", message) == []
    monkeypatch.undo()
    assert site.send(device, "telemetry", message) == ["ack"]
    assert site.readings(device) == [1]
    assert site.refusals() == {"internal": 1}


def test_nothing_is_answered_before_it_is_committed(site: Site, monkeypatch: pytest.MonkeyPatch):
    device = site.device()
    site.greet(device)
    message = device.telemetry(1)

    def fail() -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(site.store, "_flush", fail)
    assert site.send(device, "telemetry", message) == []
    monkeypatch.undo()
    site.restart()
    assert site.view.upstream() == []
    assert site.store.standing(device.id, 1, 0, 1, message[-8:]).value == "new"


def test_a_full_upstream_queue_leaves_readings_with_the_device(site: Site):
    device = site.device()
    site.greet(device)
    site.store._max_waiting = 1
    site.send(device, "telemetry", device.telemetry(1))
    message = device.telemetry(2)
    assert site.send(device, "telemetry", message) == []
    assert site.refusals() == {"rate": 1}
    site.store._max_waiting = 2
    assert site.send(device, "telemetry", message) == ["ack"]


def test_telemetry_created_after_its_own_epoch_is_malformed(site: Site):
    device = site.device()
    site.greet(device)
    assert site.send(device, "telemetry", device.seal("telemetry", 2, 1, "x")) == []
    assert site.refusals() == {"shape": 1}


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        ("tm/1/{id}/up/hello", b"x" * 4097, "size"),
        ("tm/1/{id}/up/telemetry", b"x" * 1025, "size"),
        ("tm/1/{id}/up/telemetry", b"", "shape"),
        ("tm/1/{id}/up/telemetry", b"\xd1\x84", "shape"),
        ("tm/1/{id}/up/report", b"\xd2" + b"\x81" * 900, "shape"),
        ("tm/1/{id}/up/report", b"\xd2\xc2\x42\x00\x00", "shape"),
        ("tm/1/{id}/up/firmware", b"", "kind"),
        ("tm/1/" + "Z" * 16 + "/up/report", b"", "kind"),
        ("tm/1/{id}/up/report/more", b"", "kind"),
    ],
)
def test_junk_is_refused_with_its_code(site: Site, topic: str, payload: bytes, code: str):
    device = site.device()
    assert site.core.handle([Message(topic.format(id=device.id), payload)]) == []
    assert site.refusals() == {code: 1}


def test_counters_of_strangers_take_no_space_of_their_own(site: Site):
    for n in range(50):
        site.core.handle([Message(f"tm/1/{n:016x}/up/report", b"")])
    assert site.refusals() == {"unknown-device": 50}
    site.core.tick()
    rows = site.store._db.execute("SELECT count(*) FROM counts").fetchone()
    assert rows == (1,)
