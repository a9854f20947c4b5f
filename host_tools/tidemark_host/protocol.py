"""Host side of docs/protocol.md: topics, envelopes, handshake and payloads. Bytes in, values out.

Deterministic CBOR (RFC 8949, 4.2.1) by cbor2 and COSE (RFC 9052, 9053) as one page over it and
cryptography. Nothing here keeps state, reads a clock or touches the network.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tidemark_host.codec import (
    CODES,
    MAX_DEPTH,
    MAX_MESSAGE,
    Refused,
    decode,
    encode,
    escaped,
    is_bytes,
    is_uint,
    json_safe,
)

# Callers need one name for the wire: the codec's are handed on.
__all__ = ["CODES", "MAX_DEPTH", "MAX_MESSAGE", "Refused", "decode", "encode", "escaped"]
__all__ += ["is_bytes", "is_uint", "json_safe"]

PROTOCOL: Final = 1
SUITE: Final = 1

MAX_HELLO: Final = 4096  # bytes
NONCE: Final = 8  # bytes
WINDOW: Final = 1024  # counters that a replay window remembers

ENCRYPT0: Final = 16
MAC0: Final = 17
SIGN1: Final = 18
HMAC_64: Final = 4
HMAC_256: Final = 5
EDDSA: Final = -8
AES_CCM: Final = 10  # AES-CCM-16-64-128
IV: Final = 13  # bytes

Direction = Literal["up", "down"]

CLAIMS: Final[Mapping[int, str]] = {
    256: "ueid",
    259: "hwmodel",
    261: "uptime",
    268: "bootseed",
    270: "swname",
    271: "swversion",
    1000: "runtime-digest",
    1001: "image-digest",
    1002: "slots",
    1003: "floor",
    1004: "trust-marks",
    1005: "reset-cause",
    1006: "mode",
    1007: "evidence-head",
    1008: "time-floor",
    1009: "last-trial",
    1010: "heap-free",
    1011: "outbox",
    1012: "update",
    1013: "time-nonce",
    1014: "outcomes",
    1015: "health",
    1016: "trial-times",
    1017: "runtime",
}
LAST_TRIAL: Final = 1009
TIME_NONCE: Final = 1013


@dataclass(frozen=True, slots=True)
class Kind:
    """How messages of one kind are sealed: algorithms allowed, and the space of their counters."""

    algs: tuple[int, ...]
    space: int | None = None
    limit: int = MAX_MESSAGE


UP: Final[Mapping[str, Kind]] = {
    "telemetry": Kind((HMAC_64, EDDSA, AES_CCM), 0),
    "backlog": Kind((HMAC_64, EDDSA, AES_CCM), 1),
    "hello": Kind((EDDSA,), None, MAX_HELLO),
    "report": Kind((EDDSA,), 2),
    "alarm": Kind((EDDSA,), 2),
    "evidence": Kind((EDDSA,), 2),
    "result": Kind((HMAC_256,), 2),
}
_MAC_BYTES: Final = {HMAC_64: 8, HMAC_256: 32, EDDSA: 64}
_CCM_TAG: Final = 8


# --- Claims ---------------------------------------------------------------------------------


def named_claims(claims: dict[int, Any]) -> dict[str, Any]:
    """Return claims by name, JSON-safe; unknown numbers become "claim-<number>"."""
    return {CLAIMS.get(k, f"claim-{k}"): json_safe(v) for k, v in claims.items()}


# --- Topics and names -----------------------------------------------------------------------

_TOPIC = re.compile(r"tm/1/([0-9a-f]{16})/up/([a-z]{1,16})")
_ID = re.compile(r"[0-9a-f]{16}")


def key_id(public: bytes) -> str:
    """Return the id (16 hex digits) of a device or gateway whose first public key this is."""
    return hashlib.sha256(public).hexdigest()[:16]


def is_id(text: object) -> bool:
    """Say whether `text` is a device or gateway id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def topic_up(device: str, kind: str) -> str:
    return f"tm/1/{device}/up/{kind}"


def topic_down(device: str, kind: str) -> str:
    return f"tm/1/{device}/down/{kind}"


def topic_beacon(gateway: str) -> str:
    return f"tm/1/gw/{gateway}/beacon"


def parse_topic(topic: str) -> tuple[str, str]:
    """Return (device id, kind) of an upward topic. Raises Refused("kind")."""
    match = _TOPIC.fullmatch(topic)
    if match is None or match[2] not in UP:
        raise Refused("kind", "not an upward topic")
    return match[1], match[2]


# --- COSE -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """A COSE_Mac0, COSE_Sign1 or COSE_Encrypt0 by shape alone; nothing in it is proven yet.

    `payload`: of a COSE_Encrypt0 the ciphertext with its tag. `iv`: of a COSE_Encrypt0 only.
    """

    alg: int
    kid: bytes | None
    protected: bytes
    payload: bytes
    seal: bytes
    iv: bytes | None = None

    @property
    def is_signed(self) -> bool:
        return self.alg == EDDSA


def aad(direction: Direction, device: str, kind: str, nonce: bytes = b"") -> bytes:
    """Return the external_aad of a message; `nonce` is empty in hello, welcome and time."""
    return encode([PROTOCOL, direction, device, kind, nonce])


def open_envelope(message: bytes, limit: int = MAX_MESSAGE) -> Envelope:
    """Take a tagged COSE message of the profile apart. Raises Refused: "size", "shape"."""
    if len(message) > limit:
        raise Refused("size", f"{len(message)} bytes, at most {limit}")
    if message[:1] == bytes([0xC0 | ENCRYPT0]):
        return _open_encrypted(decode(message[1:], limit), limit)
    if message[:1] not in (b"\xd1", b"\xd2"):
        raise Refused("shape", "not a COSE message of the profile")
    parts = decode(message[1:], limit)
    if not isinstance(parts, list) or len(cast("list[Any]", parts)) != 4:
        raise Refused("shape", "not four parts")
    protected, unprotected, payload, seal = cast("list[Any]", parts)
    if not all(isinstance(part, bytes) for part in (protected, payload, seal)):
        raise Refused("shape", "parts of the wrong type")
    header = decode(protected, limit)
    if not isinstance(header, dict) or list(cast("dict[Any, Any]", header)) != [1]:
        raise Refused("shape", "protected header")
    alg = cast("dict[int, Any]", header)[1]
    signed = message[0] == 0xC0 | SIGN1
    # An int: 4.0 equals 4.
    if not isinstance(alg, int) or alg not in ((EDDSA,) if signed else (HMAC_64, HMAC_256)):
        raise Refused("shape", "algorithm")
    if len(seal) != _MAC_BYTES[alg]:
        raise Refused("shape", "length of the seal")
    kid: bytes | None = None
    if signed:
        if unprotected != {}:
            raise Refused("shape", "unprotected header")
    else:
        if not isinstance(unprotected, dict) or list(cast("dict[Any, Any]", unprotected)) != [4]:
            raise Refused("shape", "unprotected header")
        kid = cast("dict[int, Any]", unprotected)[4]
        if not is_bytes(kid, 1):
            raise Refused("shape", "kid")
    return Envelope(alg, kid, protected, payload, seal)


def _open_encrypted(parts: object, limit: int) -> Envelope:
    if not isinstance(parts, list) or len(cast("list[Any]", parts)) != 3:
        raise Refused("shape", "not three parts")
    protected, unprotected, data = cast("list[Any]", parts)
    if protected != encode({1: AES_CCM}):
        raise Refused("shape", "protected header")
    if not isinstance(unprotected, dict) or list(cast("dict[Any, Any]", unprotected)) != [4, 5]:
        raise Refused("shape", "unprotected header")
    kid, iv = cast("dict[int, Any]", unprotected).values()
    if not is_bytes(kid, 1) or not is_bytes(iv, IV):
        raise Refused("shape", "kid or IV")
    if not isinstance(data, bytes) or len(data) < _CCM_TAG:
        raise Refused("shape", "ciphertext")
    return Envelope(AES_CCM, kid, protected, data, data[-_CCM_TAG:], iv)


def _to_be_sealed(alg: int, protected: bytes, external: bytes, payload: bytes) -> bytes:
    # RFC 9052, 4.4 and 6.3.
    context = "Signature1" if alg == EDDSA else "MAC0"
    return encode([context, protected, external, payload])


def _mac(key: bytes, alg: int, protected: bytes, external: bytes, payload: bytes) -> bytes:
    data = _to_be_sealed(alg, protected, external, payload)
    return hmac.digest(key, data, "sha256")[: _MAC_BYTES[alg]]


def seal_mac(key: bytes, alg: int, kid: bytes, external: bytes, payload: bytes) -> bytes:
    """Return a tagged COSE_Mac0 of `payload` (bytes) under `key` (32 bytes)."""
    protected = encode({1: alg})
    seal = _mac(key, alg, protected, external, payload)
    return bytes([0xC0 | MAC0]) + encode([protected, {4: kid}, payload, seal])


def sign(key: Ed25519PrivateKey, external: bytes, payload: bytes) -> bytes:
    """Return a tagged COSE_Sign1 of `payload` (bytes)."""
    protected = encode({1: EDDSA})
    seal = key.sign(_to_be_sealed(EDDSA, protected, external, payload))
    unprotected: dict[int, bytes] = {}
    return bytes([0xC0 | SIGN1]) + encode([protected, unprotected, payload, seal])


def verify_mac(envelope: Envelope, key: bytes, external: bytes) -> None:
    """Check a COSE_Mac0. Raises Refused("mac")."""
    seal = _mac(key, envelope.alg, envelope.protected, external, envelope.payload)
    if envelope.is_signed or not hmac.compare_digest(seal, envelope.seal):
        raise Refused("mac")


def verify_signature(envelope: Envelope, public: bytes, external: bytes) -> None:
    """Check a COSE_Sign1 by an Ed25519 key (32 bytes). Raises Refused("signature")."""
    data = _to_be_sealed(EDDSA, envelope.protected, external, envelope.payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(envelope.seal, data)
    except (InvalidSignature, ValueError) as error:
        raise Refused("signature") from error


def make_iv(direction: Direction, epoch: int, seq: int) -> bytes:
    """Return the IV of an encrypted message; its counter makes it unique under its key."""
    counter = epoch.to_bytes(4, "big") + seq.to_bytes(4, "big")
    return bytes([direction == "down"]) + counter + bytes(4)


def iv_counter(iv: bytes, direction: Direction = "up") -> tuple[int, int]:
    """Return (epoch, seq) of an IV. Raises Refused("shape") for one of another form."""
    epoch, seq = int.from_bytes(iv[1:5], "big"), int.from_bytes(iv[5:9], "big")
    if iv != make_iv(direction, epoch, seq):
        raise Refused("shape", "IV")
    return epoch, seq


def _enc_structure(protected: bytes, external: bytes) -> bytes:
    return encode(["Encrypt0", protected, external])  # RFC 9052, 5.3


def encrypt(key: bytes, kid: bytes, iv: bytes, external: bytes, payload: bytes) -> bytes:
    """Return a tagged COSE_Encrypt0 of `payload` (bytes) under `key` (16 bytes)."""
    protected = encode({1: AES_CCM})
    data = AESCCM(key, _CCM_TAG).encrypt(iv, payload, _enc_structure(protected, external))
    return bytes([0xC0 | ENCRYPT0]) + encode([protected, {4: kid, 5: iv}, data])


def decrypt(envelope: Envelope, key: bytes, external: bytes) -> bytes:
    """Return the payload of a COSE_Encrypt0. Raises Refused("mac")."""
    structure = _enc_structure(envelope.protected, external)
    if envelope.iv is None:
        raise Refused("mac")
    try:
        return AESCCM(key, _CCM_TAG).decrypt(envelope.iv, envelope.payload, structure)
    except InvalidTag as error:
        raise Refused("mac") from error


# --- Handshake ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Keys of one handshake; live in RAM only."""

    up_mac: bytes
    up_enc: bytes
    down_mac: bytes
    down_enc: bytes


def derive_keys(
    share: X25519PrivateKey, other: bytes, hello: bytes, welcome: bytes
) -> SessionKeys:
    """Derive the keys of a handshake from both messages as sent. Raises Refused("share")."""
    try:
        secret = share.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:  # cryptography refuses the all-zero result (RFC 7748, 6.1)
        raise Refused("share", "all-zero secret") from error
    salt = hashlib.sha256(hello + welcome).digest()

    def key(use: str, length: int) -> bytes:
        info = f"tidemark/1 {use}".encode()
        return HKDF(hashes.SHA256(), length, salt, info).derive(secret)

    return SessionKeys(
        key("up mac", 32), key("up enc", 16), key("down mac", 32), key("down enc", 16)
    )


def beacon(gateway: str, nonce: bytes) -> bytes:
    """Return the body of a beacon or a challenge."""
    return encode([gateway, nonce])


def parse_beacon(message: bytes) -> tuple[str, bytes]:
    """Return (gateway id, gateway nonce). Raises Refused: "size", "shape"."""
    value = decode(message)
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 2:
        raise Refused("shape", "beacon")
    gateway, nonce = cast("list[Any]", value)
    if not is_id(gateway) or not is_bytes(nonce, NONCE):
        raise Refused("shape", "beacon")
    return gateway, nonce


@dataclass(frozen=True, slots=True)
class Hello:
    """The payload of a hello."""

    device: str
    public: bytes
    gateway: str
    gateway_nonce: bytes
    boot_nonce: bytes
    epoch: int
    share: bytes
    claims: dict[int, Any]

    def encode(self) -> bytes:
        who: list[object] = [self.device, self.public, self.gateway]
        boot: list[object] = [self.gateway_nonce, self.boot_nonce, self.epoch]
        return encode([PROTOCOL, SUITE, *who, *boot, self.share, self.claims])


def parse_hello(payload: bytes) -> Hello:
    """Raises Refused: "size", "shape"."""
    value = decode(payload, MAX_HELLO)
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 10:
        raise Refused("shape", "hello")
    fields = cast("list[Any]", value)
    if fields[:2] != [PROTOCOL, SUITE] or not all(is_uint(value) for value in fields[:2]):
        raise Refused("shape", "protocol or suite")
    hello = Hello(*fields[2:])
    if not (
        is_id(hello.device)
        and is_bytes(hello.public, 32)
        and is_id(hello.gateway)
        and is_bytes(hello.gateway_nonce, NONCE)
        and is_bytes(hello.boot_nonce, NONCE)
        and is_uint(hello.epoch)
        and hello.epoch < 1 << 32
        and is_bytes(hello.share, 32)
        and isinstance(cast("object", hello.claims), dict)
    ):
        raise Refused("shape", "hello")
    return hello


def welcome_payload(
    hello: bytes, device: str, share: bytes, kid: bytes, policy_version: int = 0
) -> bytes:
    """Return the payload of a welcome; `hello` is the whole message as received."""
    return encode([hashlib.sha256(hello).digest(), device, share, kid, policy_version])


def time_payload(nonce: bytes, unix: int, gateway: str) -> bytes:
    """Return the payload of a time token."""
    return encode([nonce, unix, gateway])


# --- Counted payloads -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """A payload with its counter: `n` is seq >> 2, counted from 1 in its space."""

    epoch: int
    seq: int
    body: list[Any]

    @property
    def space(self) -> int:
        return self.seq & 3

    @property
    def n(self) -> int:
        return self.seq >> 2


def counted(epoch: int, n: int, space: int, *body: object) -> bytes:
    """Return the payload [epoch, seq, body...]."""
    return encode([epoch, n << 2 | space, *body])


def parse_counted(payload: bytes, space: int) -> Counted:
    """Raises Refused: "shape", "space"."""
    value = decode(payload)
    if not isinstance(value, list) or len(cast("list[Any]", value)) < 3:
        raise Refused("shape", "payload")
    epoch, seq, *body = cast("list[Any]", value)
    return _checked_counter(epoch, seq, body, space)


def peek_counted(envelope: Envelope, space: int) -> Counted:
    """Return what a sender claims, before any proof: for the window.

    Of an encrypted message that is the IV's counter, without a body. Raises as `parse_counted`.
    """
    if envelope.iv is None:
        return parse_counted(envelope.payload, space)
    return _checked_counter(*iv_counter(envelope.iv), [], space)


def _checked_counter(epoch: Any, seq: Any, body: list[Any], space: int) -> Counted:
    if not is_uint(epoch) or not is_uint(seq) or epoch >= 1 << 32 or not 0 < seq >> 2 < 1 << 30:
        raise Refused("shape", "counter")
    if seq & 3 != space:
        raise Refused("space")
    return Counted(epoch, seq, body)
