"""Handshakes at the gateway, without a network: hello, welcome, and the sessions between them."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.parts import Site
from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.core import HELLO_BURST, Message
from tidemark_host.protocol import Refused


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
