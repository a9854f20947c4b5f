"""One device as the wire sees it: key, epoch, counters, sessions. No firmware, no network.

It keeps to docs/protocol.md by itself, so that a gateway can be tested against the page and not
against the firmware. What a hostile device would do is done by its caller, with its parts.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tidemark_host import protocol
from tidemark_host.protocol import Refused, SessionKeys


@dataclass(slots=True)
class _Session:
    keys: SessionKeys
    kid: bytes
    epoch: int
    down: set[int] = field(default_factory=set[int])


class FleetDevice:
    """A device that boots, greets, measures and takes answers.

    `gateway`: the gateway's public key (32 bytes), the one whose welcome is taken.
    """

    def __init__(self, gateway: bytes, key: Ed25519PrivateKey | None = None) -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.id = protocol.key_id(self.public)
        self.gateway = gateway
        self.epoch = 0
        self.claims: dict[int, Any] = {259: b"FLEET", 270: "fleet", 271: "1.0"}
        self.times: list[int] = []
        self.boot()

    def boot(self) -> None:
        """Start anew: next epoch, new boot nonce, no session, counters from 1."""
        self.epoch += 1
        self.boot_nonce = secrets.token_bytes(protocol.NONCE)
        self.session: _Session | None = None
        self.counters = [0, 0, 0]
        self.index = 0
        self.unanswered: dict[int, tuple[str, bytes]] = {}  # by seq: kind, message
        self._outstanding: tuple[bytes, X25519PrivateKey] | None = None
        self._time_nonce = b""

    # --- Up ---------------------------------------------------------------------------------

    def hello(self, nonce: bytes, gateway: str | None = None, **changes: Any) -> bytes:
        """Return a hello that answers the gateway nonce; `changes` replace fields of it."""
        share = X25519PrivateKey.generate()
        fields: dict[str, Any] = {
            "device": self.id,
            "public": self.public,
            "gateway": gateway or protocol.key_id(self.gateway),
            "gateway_nonce": nonce,
            "boot_nonce": self.boot_nonce,
            "epoch": self.epoch,
            "share": share.public_key().public_bytes_raw(),
            "claims": self.claims | {268: self.boot_nonce},
        }
        payload = protocol.Hello(**fields | changes).encode()
        message = protocol.sign(self.key, protocol.aad("up", self.id, "hello"), payload)
        self._outstanding = (message, share)
        return message

    def count(self, space: int) -> int:
        """Return the next counter of a space."""
        self.counters[space] += 1
        return self.counters[space]

    def seal(
        self,
        kind: str,
        *body: object,
        n: int | None = None,
        sign: bool = False,
        encrypt: bool = False,
    ) -> bytes:
        """Return a message of any counted kind; `n` overrides the counter."""
        space = protocol.UP[kind].space
        assert space is not None
        number = self.count(space) if n is None else n
        payload = protocol.counted(self.epoch, number, space, *body)
        external = protocol.aad("up", self.id, kind, self.boot_nonce)
        alg = protocol.UP[kind].algs[0]
        if sign or alg == protocol.EDDSA:
            message = protocol.sign(self.key, external, payload)
        else:
            if self.session is None:
                raise Refused("no-session")
            session = self.session
            keys, kid = session.keys, session.kid
            if encrypt:
                iv = protocol.make_iv("up", self.epoch, number << 2 | space)
                message = protocol.encrypt(keys.up_enc, kid, iv, external, payload)
            else:
                message = protocol.seal_mac(keys.up_mac, alg, kid, external, payload)
        self.unanswered[number << 2 | space] = (kind, message)
        return message

    def telemetry(self, reading: object, sign: bool = False, encrypt: bool = False) -> bytes:
        """Return a live reading, created now."""
        self.index += 1
        body = (self.epoch, self.index, reading)
        return self.seal("telemetry", *body, sign=sign, encrypt=encrypt)

    def report(self, claims: dict[int, Any] | None = None, ask_time: bool = False) -> bytes:
        """Return a report of the device's claims."""
        every = self.claims | (claims or {})
        if ask_time:
            self._time_nonce = secrets.token_bytes(protocol.NONCE)
            every[protocol.TIME_NONCE] = self._time_nonce
        return self.seal("report", every)

    # --- Down -------------------------------------------------------------------------------

    def take(self, topic: str, message: bytes) -> str:
        """Take one message from the gateway; return its kind. Raises Refused for a bad one."""
        kind = topic.rsplit("/", 1)[1]
        if kind == "welcome":
            self._take_welcome(message)
        elif kind == "ack":
            self._take_ack(message)
        elif kind == "time":
            self._take_time(message)
        elif kind not in ("beacon", "challenge"):
            raise Refused("kind")
        return kind

    def _take_welcome(self, message: bytes) -> None:
        envelope = protocol.open_envelope(message)
        protocol.verify_signature(envelope, self.gateway, protocol.aad("down", self.id, "welcome"))
        if self._outstanding is None:
            raise Refused("nonce", "no hello is outstanding")
        hello, share = self._outstanding
        digest, device, other, kid, _policy = cast("list[Any]", protocol.decode(envelope.payload))
        if digest != hashlib.sha256(hello).digest() or device != self.id:
            raise Refused("nonce", "another hello's answer")
        keys = protocol.derive_keys(share, other, hello, message)
        self._outstanding = None
        self.session = _Session(keys, kid, self.epoch)

    def _take_ack(self, message: bytes) -> None:
        session = self.session
        envelope = protocol.open_envelope(message)
        if session is None or envelope.kid != session.kid:
            raise Refused("no-session")
        if envelope.alg != protocol.HMAC_256:
            raise Refused("shape")
        external = protocol.aad("down", self.id, "ack", self.boot_nonce)
        protocol.verify_mac(envelope, session.keys.down_mac, external)
        counter = protocol.parse_counted(envelope.payload, 2)
        if counter.n in session.down:
            raise Refused("redelivery")
        session.down.add(counter.n)
        epoch, seq = counter.body
        if epoch == self.epoch:
            self.unanswered.pop(seq, None)

    def _take_time(self, message: bytes) -> None:
        envelope = protocol.open_envelope(message)
        protocol.verify_signature(envelope, self.gateway, protocol.aad("down", self.id, "time"))
        nonce, unix, _gateway = cast("list[Any]", protocol.decode(envelope.payload))
        if not self._time_nonce or nonce != self._time_nonce:
            raise Refused("nonce")
        self._time_nonce = b""
        self.times.append(unix)

    def waiting(self) -> Iterator[tuple[str, bytes]]:
        """Yield (topic, message) of all that was not acknowledged, as sealed before."""
        for kind, message in list(self.unanswered.values()):
            yield protocol.topic_up(self.id, kind), message
