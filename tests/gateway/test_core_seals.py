"""Signed and encrypted telemetry at the gateway, without a network."""

from __future__ import annotations

import pytest

from tests.gateway.parts import Site, flip
from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice


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
