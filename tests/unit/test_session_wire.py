"""What the device seals verifies with cbor2 and cryptography by docs/protocol.md alone, and back.

Nothing here uses the firmware's codecs or the gateway's: this is a third reading of the protocol.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from gateway_side import Counter, Identity, fixed_random
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark.errors import TidemarkError
from tidemark.session import Session

GATEWAY_KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
GATEWAY_PUBLIC = GATEWAY_KEY.public_key().public_bytes_raw()
GATEWAY_ID = hashlib.sha256(GATEWAY_PUBLIC).hexdigest()[:16]
GATEWAY_NONCE = b"\x11" * 8


def canonical(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def aad(direction: str, device: str, kind: str, nonce: bytes) -> bytes:
    return canonical([1, direction, device, kind, nonce])


def verified_sign1(message: bytes, public: bytes, external: bytes) -> Any:
    tagged = cbor2.loads(message)
    assert tagged.tag == 18
    protected, unprotected, payload, signature = tagged.value
    assert (cbor2.loads(protected), unprotected) == ({1: -8}, {})
    signed = canonical(["Signature1", protected, external, payload])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    assert canonical(cbor2.loads(payload)) == payload
    return cbor2.loads(payload)


def sign1(key: Ed25519PrivateKey, value: object, external: bytes) -> bytes:
    protected, payload = canonical({1: -8}), canonical(value)
    signature = key.sign(canonical(["Signature1", protected, external, payload]))
    return canonical(cbor2.CBORTag(18, [protected, {}, payload, signature]))


class Handshake:
    """A device's session and the keys of an independent gateway."""

    def __init__(self, integrity: str = "mac", confidential: bool = False) -> None:
        self.device = Identity()
        parts = (self.device, Counter(), GATEWAY_ID, GATEWAY_PUBLIC, fixed_random(), integrity)
        self.session = Session(*parts, confidential=confidential)
        self.hello = self.session.hello(GATEWAY_NONCE, {259: b"VIRTUAL", 1003: 7})
        self.fields = verified_sign1(
            self.hello, self.device.public, aad("up", self.device.id, "hello", b"")
        )
        share = X25519PrivateKey.from_private_bytes(b"\x44" * 32)
        body = [
            hashlib.sha256(self.hello).digest(),
            self.device.id,
            share.public_key().public_bytes_raw(),
            b"\x09",
            3,
        ]
        self.welcome = sign1(GATEWAY_KEY, body, aad("down", self.device.id, "welcome", b""))
        secret = share.exchange(X25519PublicKey.from_public_bytes(self.fields[8]))
        salt = hashlib.sha256(self.hello + self.welcome).digest()
        self.up, self.down = (
            HKDF(hashes.SHA256(), 32, salt, info).derive(secret)
            for info in (b"tidemark/1 up mac", b"tidemark/1 down mac")
        )
        self.enc = HKDF(hashes.SHA256(), 16, salt, b"tidemark/1 up enc").derive(secret)
        self.session.take_welcome(self.welcome)

    def aad(self, direction: str, kind: str) -> bytes:
        return aad(direction, self.device.id, kind, self.fields[6])

    def mac0(self, key: bytes, value: object, kind: str) -> bytes:
        protected, payload = canonical({1: 5}), canonical(value)
        data = canonical(["MAC0", protected, self.aad("down", kind), payload])
        tag = hmac.digest(key, data, "sha256")
        return canonical(cbor2.CBORTag(17, [protected, {4: b"\x09"}, payload, tag]))


def test_hello_verifies_by_the_text_of_the_protocol() -> None:
    shake = Handshake()
    version, suite, device, public, gateway, nonce, boot, epoch, share, claims = shake.fields
    assert (version, suite, gateway, nonce, epoch) == (1, 1, GATEWAY_ID, GATEWAY_NONCE, 7)
    assert device == hashlib.sha256(public).hexdigest()[:16]
    assert (len(boot), len(share)) == (8, 32)
    assert claims == {259: b"VIRTUAL", 1003: 7}
    assert shake.session.policy_version == 3


@pytest.mark.parametrize(("kind", "alg", "size"), [("telemetry", 4, 8), ("result", 5, 32)])
def test_mac_verifies_under_the_derived_key(kind: str, alg: int, size: int) -> None:
    shake = Handshake()
    message, epoch, seq = shake.session.seal(kind, [7, 1, {1: 20.25}])
    tagged = cbor2.loads(message)
    assert tagged.tag == 17
    protected, unprotected, payload, tag = tagged.value
    assert (cbor2.loads(protected), unprotected) == ({1: alg}, {4: b"\x09"})
    data = canonical(["MAC0", protected, shake.aad("up", kind), payload])
    assert tag == hmac.digest(shake.up, data, "sha256")[:size]
    assert cbor2.loads(payload) == [epoch, seq, 7, 1, {1: 20.25}]


@pytest.mark.parametrize("kind", ["telemetry", "backlog"])
def test_confidential_telemetry_opens_under_the_derived_key(kind: str) -> None:
    shake = Handshake(confidential=True)
    message, epoch, seq = shake.session.seal(kind, [7, 1, {1: 20.25}])
    tagged = cbor2.loads(message)
    assert tagged.tag == 16
    protected, unprotected, data = tagged.value
    iv = b"\0" + epoch.to_bytes(4, "big") + seq.to_bytes(4, "big") + bytes(4)
    assert (cbor2.loads(protected), unprotected) == ({1: 10}, {4: b"\x09", 5: iv})
    covered = canonical(["Encrypt0", protected, shake.aad("up", kind)])
    payload = AESCCM(shake.enc, tag_length=8).decrypt(iv, data, covered)
    assert payload == canonical([epoch, seq, 7, 1, {1: 20.25}])


@pytest.mark.parametrize("kind", ["telemetry", "backlog", "report", "alarm", "evidence"])
def test_signatures_verify_under_the_devices_key(kind: str) -> None:
    shake = Handshake("sign")
    message, epoch, seq = shake.session.seal(kind, [1, 2, 3])
    payload = verified_sign1(message, shake.device.public, shake.aad("up", kind))
    assert payload == [epoch, seq, 1, 2, 3]
    with pytest.raises(InvalidSignature):
        verified_sign1(message, shake.device.public, shake.aad("up", "other"))


def test_independent_ack_and_time_are_taken() -> None:
    shake = Handshake()
    assert shake.session.open("ack", shake.mac0(shake.down, [7, 6, 7, 4], "ack")) == [7, 4]
    nonce = shake.session.want_time(0)
    external = aad("down", shake.device.id, "time", b"")
    token = sign1(GATEWAY_KEY, [nonce, 1_800_000_000, GATEWAY_ID], external)
    assert shake.session.take_time(token, 100) == 1_800_000_000


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_altered_or_random_input_gives_a_typed_error_and_changes_nothing(data: Any) -> None:
    shake = SHAKE
    ack = shake.mac0(shake.down, [7, 1 << 2 | 2, 7, 4], "ack")
    token = sign1(GATEWAY_KEY, [NONCE, 1, GATEWAY_ID], aad("down", shake.device.id, "time", b""))
    original = data.draw(st.sampled_from([ack, token, shake.welcome, b""]))
    if original:
        at = data.draw(st.integers(0, len(original) - 1))
        cut = data.draw(st.integers(0, len(original)))
        flip = data.draw(st.integers(1, 255))
        altered = bytearray(original)
        altered[at] ^= flip
        bad = bytes(altered) if data.draw(st.booleans()) else original[:cut] + b"\x00"
    else:
        bad = data.draw(st.binary(max_size=1200))
    before = shake.session.ready, shake.session._window.newest, shake.session._time_nonce
    for take in (
        lambda: shake.session.open("ack", bad),
        lambda: shake.session.take_welcome(bad),
        lambda: shake.session.take_time(bad, 0),
    ):
        with pytest.raises(TidemarkError):
            take()
    assert (shake.session.ready, shake.session._window.newest, shake.session._time_nonce) == before


SHAKE = Handshake()
NONCE = SHAKE.session.want_time(0)
SHAKE.session.hello(GATEWAY_NONCE, {})  # so that welcomes are looked at, not refused unseen
