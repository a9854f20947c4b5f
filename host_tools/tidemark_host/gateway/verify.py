"""The order of work of a receiver (docs/protocol.md): pure, nothing changes here.

Shape and size, then a read-only look-up of window and session, then the MAC or signature. What
passes is a `Verified` message; its effect is the caller's, in one transaction with its window.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from tidemark_host import protocol
from tidemark_host.gateway.sessions import Session
from tidemark_host.gateway.windows import Standing
from tidemark_host.inventory import Device
from tidemark_host.protocol import Counted, Envelope, Hello, Refused

QUARANTINE_KINDS = ("hello", "evidence")  # what a quarantined device may still send


class Lookup(Protocol):
    """What verification may ask. Every answer is read-only and bounded in cost."""

    def device(self, device: str) -> Device | None: ...
    def is_quarantined(self, device: str) -> bool: ...
    def session(self, device: str, kid: bytes) -> Session | None: ...
    def boot(self, device: str) -> tuple[int, bytes] | None:
        """Return (epoch, boot nonce) of the device's newest accepted hello."""
        ...

    def standing(self, device: str, epoch: int, space: int, n: int, tag: bytes) -> Standing: ...
    def is_fresh(self, nonce: bytes) -> bool: ...
    def gateway(self) -> str: ...


class NoSession(Refused):
    """No keys or boot nonce to check a message with. `ask`: whether a hello would help."""

    def __init__(self, ask: bool) -> None:
        super().__init__("no-session")
        self.ask = ask


@dataclass(frozen=True, slots=True)
class Verified:
    """A message whose MAC or signature holds. `standing` is NEW, SAME or OTHER.

    `session`: the one it came under; None when it was signed.
    """

    device: Device
    kind: str
    counter: Counted
    standing: Standing
    seal: bytes
    session: Session | None


def admit(lookup: Lookup, topic: str, message: bytes) -> tuple[Device, str, Envelope]:
    """Judge a message by size, shape, sender and algorithm: all that costs no cryptography.

    Raises Refused: "kind", "size", "shape", "unknown-device", "revoked", "quarantined".
    """
    name, kind = protocol.parse_topic(topic)
    rule = protocol.UP[kind]
    if len(message) > rule.limit:
        raise Refused("size", f"{len(message)} bytes, at most {rule.limit}")
    device = lookup.device(name)
    if device is None:
        raise Refused("unknown-device")
    if device.state == "revoked":
        raise Refused("revoked")
    if kind not in QUARANTINE_KINDS and lookup.is_quarantined(name):
        raise Refused("quarantined")
    envelope = protocol.open_envelope(message, rule.limit)
    if envelope.alg not in rule.algs:
        raise Refused("shape", "algorithm of another kind")
    return device, kind, envelope


def check_hello(lookup: Lookup, device: Device, envelope: Envelope) -> Hello:
    """Return the payload of a hello whose signature holds and whose nonce is ours and fresh.

    Raises Refused: "shape", "nonce", "signature".
    """
    hello = protocol.parse_hello(envelope.payload)
    if hello.device != device.id or hello.public != device.public_bytes:
        raise Refused("signature", "not the key of the inventory")
    if hello.gateway != lookup.gateway() or not lookup.is_fresh(hello.gateway_nonce):
        raise Refused("nonce")
    protocol.verify_signature(
        envelope, device.public_bytes, protocol.aad("up", device.id, "hello")
    )
    return hello


def check_counted(lookup: Lookup, device: Device, kind: str, envelope: Envelope) -> Verified:
    """Return a message of any kind but hello whose MAC or signature holds.

    Raises Refused: "shape", "space", "stale", "mac", "signature"; NoSession.
    """
    space = protocol.UP[kind].space
    assert space is not None, "hello carries no counter"
    counter = protocol.peek_counted(envelope, space)
    if envelope.iv is None:
        check_body(kind, counter)

    def standing() -> Standing:
        return lookup.standing(device.id, counter.epoch, space, counter.n, envelope.seal)

    boot = lookup.boot(device.id)
    if boot is None:
        raise NoSession(ask=True)
    session: Session | None = None
    if envelope.kid is None:
        epoch, nonce = boot
        if counter.epoch < epoch:
            raise Refused("stale", "epoch of a former boot")
        if counter.epoch > epoch:
            raise NoSession(ask=True)
    else:
        session = lookup.session(device.id, envelope.kid)
        if session is None or session.epoch != counter.epoch:
            # What was seen before is a leftover of a former session; a hello would not help it.
            raise NoSession(ask=counter.epoch >= boot[0] and standing() is Standing.NEW)
        nonce = session.boot_nonce
    seen = standing()
    if seen is Standing.STALE:
        raise Refused("stale")
    external = protocol.aad("up", device.id, kind, nonce)
    if session is None:
        protocol.verify_signature(envelope, device.public_bytes, external)
    elif envelope.iv is None:
        protocol.verify_mac(envelope, session.keys.up_mac, external)
    else:
        payload = protocol.decrypt(envelope, session.keys.up_enc, external)
        inside = protocol.parse_counted(payload, space)
        if (inside.epoch, inside.seq) != (counter.epoch, counter.seq):
            raise Refused("shape", "the IV names another counter than the payload")
        counter = inside
        check_body(kind, counter)
    return Verified(device, kind, counter, seen, envelope.seal, session)


def check_body(kind: str, counter: Counted) -> None:
    """Check the body of a counted payload by its kind. Raises Refused("shape")."""
    body: list[Any] = counter.body
    if kind in ("telemetry", "backlog"):
        fits = (
            len(body) == 3
            and protocol.is_uint(body[0])
            and protocol.is_uint(body[1])
            and body[0] <= counter.epoch
            and body[1] < 1 << 32
        )
    elif kind in ("report", "alarm"):
        fits = len(body) == 1 and isinstance(body[0], dict)
    elif kind == "evidence":
        fits = (
            len(body) == 2
            and protocol.is_uint(body[0])
            and body[0] < 1 << 32
            and isinstance(body[1], bytes)
        )
    else:
        fits = True
    if not fits:
        raise Refused("shape", f"body of a {kind}")


def digest(message: bytes) -> bytes:
    """Return the SHA-256 of a whole message."""
    return hashlib.sha256(message).digest()
