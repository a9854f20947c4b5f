"""What the gateway does with each message, without a network: real keys, real files."""

from __future__ import annotations

import hashlib
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.parts import Site
from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.core import HELLO_BURST, Message
from tidemark_host.protocol import Refused


def flip(message: bytes, at: int = -1) -> bytes:
    changed = bytearray(message)
    changed[at] ^= 1
    return bytes(changed)


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


def test_wrong_kid_is_no_session_and_asks_for_a_hello_at_most_once_in_ten_seconds(site: Site):
    device = site.device()
    site.greet(device)
    assert device.session
    device.session.kid = b"\x63"
    for _ in range(5):
        assert site.send(device, "telemetry", device.telemetry(1)) in ([], ["challenge"])
    kinds = [m.topic.rsplit("/", 1)[1] for m in site.sent]
    assert kinds.count("challenge") == 1
    site.clock.now += 10
    assert site.send(device, "telemetry", device.telemetry(1)) == ["challenge"]
    assert site.refusals() == {"no-session": 6}


def test_stale_beacon_nonce_is_refused_and_the_former_one_accepted(site: Site):
    device = site.device()
    old = site.core.sessions.nonce
    site.clock.now += 60
    (beacon,) = site.core.tick()
    assert beacon.retain
    assert protocol.parse_beacon(beacon.payload) == (site.identity.id, site.core.sessions.nonce)
    assert site.core.sessions.nonce != old
    assert site.send(device, "hello", device.hello(old)) == ["welcome"]
    site.clock.now += 60
    site.core.tick()
    assert site.send(device, "hello", device.hello(old)) == []
    assert site.refusals() == {"nonce": 1}


def test_hello_for_another_gateway_is_refused(site: Site):
    device = site.device()
    hello = device.hello(site.core.sessions.nonce, gateway="0" * 16)
    assert site.send(device, "hello", hello) == []
    assert site.refusals() == {"nonce": 1}


def test_the_same_hello_gets_the_same_welcome_and_no_second_handshake(site: Site):
    device = site.device()
    hello = device.hello(site.core.sessions.nonce)
    topic = protocol.topic_up(device.id, "hello")
    first = site.core.handle([Message(topic, hello), Message(topic, hello)])
    later = site.core.handle([Message(topic, hello)])
    assert len({m.payload for m in [*first, *later]}) == 1
    assert site.store.device(device.id).handshakes == 1


def test_former_keys_hold_until_the_first_message_under_the_new_ones(site: Site):
    device = site.device()
    site.greet(device)
    under_former = [device.telemetry(n) for n in range(2)]
    site.greet(device)
    assert device.session and device.session.kid == b"\x01"
    assert site.send_raw(device, "telemetry", under_former[0]) == ["ack"]
    site.send(device, "telemetry", device.telemetry("new"))
    assert site.send_raw(device, "telemetry", under_former[1]) == []
    assert site.refusals() == {"no-session": 1}


def test_a_restart_ends_sessions_and_keeps_windows(site: Site):
    device = site.device()
    site.greet(device)
    report = device.report()
    site.send(device, "report", report)
    accepted = device.telemetry(1)
    site.send(device, "telemetry", accepted)
    site.restart()
    # A signed report is not taken twice, though no session lives; without one it can't be acked.
    assert site.send(device, "report", report) == ["challenge"]
    assert site.send(device, "telemetry", accepted) == []
    assert len(site.view.upstream(device.id)) == 2
    site.greet(device)
    assert device.session and device.session.kid == b"\x01"
    assert site.send(device, "telemetry", device.telemetry(2)) == ["ack"]
    assert site.readings(device) == [1, 2]


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


def test_second_boot_nonce_in_one_epoch_is_a_clone_and_quarantined(site: Site):
    device = site.device()
    site.greet(device)
    clone = FleetDevice(site.identity.public, device.key)
    assert site.send(device, "hello", clone.hello(site.core.sessions.nonce)) == []
    assert site.send(device, "telemetry", device.telemetry(1)) == []
    assert site.send(device, "report", device.report()) == []
    assert site.send(device, "evidence", device.seal("evidence", 0, b"")) == ["ack"]
    assert site.refusals() == {"clone": 1, "quarantined": 2}
    (alarm,) = site.view.events(device.id, "alarm")
    assert alarm["code"] == "clone"
    device.boot()
    assert site.send(device, "hello", device.hello(site.core.sessions.nonce)) == ["welcome"]
    assert site.send(device, "telemetry", device.telemetry(2)) == []


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


def test_signed_telemetry_passes_the_same_window(site: Site):
    device = site.device()
    site.greet(device)
    message = device.telemetry("signed", sign=True)
    assert site.send(device, "telemetry", message) == ["ack"]
    assert site.send(device, "telemetry", message) == ["ack"]
    (row,) = site.view.upstream(device.id)
    assert row["tags"]["trust"] == "signature"
    assert site.refusals() == {"redelivery": 1}


def test_encrypted_telemetry_passes_the_same_window(site: Site):
    device = site.device()
    site.greet(device)
    plain, secret = device.telemetry(1), device.telemetry("secret", encrypt=True)
    assert b"secret" not in secret
    assert site.send(device, "telemetry", secret) == ["ack"]
    assert site.send(device, "telemetry", plain) == ["ack"]
    assert site.send(device, "telemetry", secret) == ["ack"]
    assert site.readings(device) == ["secret", 1]
    assert site.refusals() == {"redelivery": 1}
    again = device.seal("telemetry", 1, 9, "other", n=2, encrypt=True)
    assert site.send(device, "telemetry", again) == []
    assert site.refusals(device)["clone"] == 1


@pytest.mark.parametrize("at", [-1, 30])
def test_encrypted_telemetry_with_a_flipped_bit_is_refused(site: Site, at: int):
    device = site.device()
    site.greet(device)
    message = device.telemetry(1, encrypt=True)
    assert site.send(device, "telemetry", flip(message, at)) == []
    assert site.refusals(device) == {"mac": 1}
    assert site.send(device, "telemetry", message) == ["ack"]


def _encrypted(device: FleetDevice, iv: bytes, payload: bytes, kind: str = "telemetry") -> bytes:
    session = device.session
    assert session is not None
    external = protocol.aad("up", device.id, kind, device.boot_nonce)
    return protocol.encrypt(session.keys.up_enc, session.kid, iv, external, payload)


def test_iv_and_payload_name_the_same_counter(site: Site):
    device = site.device()
    site.greet(device)
    good = protocol.make_iv("up", 1, 4)
    reading = (1, 1, "x")
    down = protocol.make_iv("down", 1, 4)
    for iv, n, code in (
        (good, 2, "shape"),
        (protocol.make_iv("up", 1, 5), 1, "space"),
        (down, 1, "shape"),
        (good[:-1] + b"\x01", 1, "shape"),
        (protocol.make_iv("up", 1, 0), 0, "shape"),
    ):
        before = site.refusals(device).get(code, 0)
        message = _encrypted(device, iv, protocol.counted(1, n, 0, *reading))
        assert site.send(device, "telemetry", message) == []
        assert site.refusals(device)[code] == before + 1
    assert site.readings(device) == []
    message = _encrypted(device, good, protocol.counted(1, 1, 0, *reading))
    assert site.send(device, "telemetry", message) == ["ack"]


def test_encryption_is_for_telemetry_only(site: Site):
    device = site.device()
    site.greet(device)
    iv = protocol.make_iv("up", 1, 6)
    message = _encrypted(device, iv, protocol.counted(1, 1, 2, {}), "report")
    assert site.send(device, "report", message) == []
    assert site.refusals(device) == {"shape": 1}


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


def test_hellos_of_one_device_have_a_budget(site: Site):
    device, other = site.device(), site.device()
    for _ in range(HELLO_BURST + 5):
        site.send(device, "hello", device.hello(site.core.sessions.nonce))
    assert site.refusals() == {"rate": 5}
    site.greet(other)


def test_all_zero_share_is_refused(site: Site):
    device = site.device()
    hello = device.hello(site.core.sessions.nonce, share=bytes(32))
    assert site.send(device, "hello", hello) == []
    assert site.refusals() == {"share": 1}
    assert site.store.device(device.id).epoch is None


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


def test_public_key_of_another_device_in_a_hello_is_refused(site: Site):
    device = site.device()
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    hello = device.hello(site.core.sessions.nonce, public=other)
    assert site.send(device, "hello", hello) == []
    assert site.refusals() == {"signature": 1}


def test_welcome_binds_the_hello(site: Site):
    device = site.device()
    hello = site.greet(device)
    welcome = site.sent[-1].payload
    payload = protocol.decode(protocol.open_envelope(welcome).payload)
    assert payload[0] == hashlib.sha256(hello).digest()
    assert payload[1] == device.id
    other = FleetDevice(Ed25519PrivateKey.generate().public_key().public_bytes_raw(), device.key)
    other.hello(site.core.sessions.nonce)
    with pytest.raises(Refused):
        other.take(protocol.topic_down(device.id, "welcome"), welcome)
