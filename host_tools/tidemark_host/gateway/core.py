"""What a gateway does with messages: verification, then effects, then answers.

No network and no asyncio: batches of messages in, messages to send out. Whatever is handed out
was committed before. One thread at a time.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tidemark_host import protocol
from tidemark_host.gateway import verify
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.keylog import Keylog
from tidemark_host.gateway.sessions import Session, Sessions
from tidemark_host.gateway.store import Store
from tidemark_host.gateway.verify import NoSession, Verified
from tidemark_host.gateway.windows import WIDTH, Standing
from tidemark_host.inventory import Device, Inventory, InventoryError
from tidemark_host.protocol import Refused

POLICY_VERSION = 0  # no policy in force yet
HELLO_BURST = 30  # verified hellos of one device at once, then one a second
CLAIM_SIZE = 1024  # characters of one claim as JSON; a longer one is not kept
_TIME_LIFE_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message, either way."""

    topic: str
    payload: bytes
    retain: bool = False


class _Budget:
    """A token bucket: `burst` at once, then `rate` a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst, self._rate, self._left, self._at = burst, rate, burst, now

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Core:
    """The gateway without its network. Implements `verify.Lookup`."""

    def __init__(
        self,
        identity: GatewayIdentity,
        inventory: Inventory,
        store: Store,
        keylog: Keylog | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.identity = identity
        self.inventory = inventory
        self.store = store
        self._keylog = keylog
        self._monotonic = monotonic
        self._wall = wall
        self.sessions = Sessions(monotonic())
        self._counts: Counter[tuple[str, str]] = Counter()
        self._after: list[Callable[[], None]] = []
        self._budgets: dict[str, _Budget] = {}
        self._times: dict[str, tuple[bytes, float, bytes]] = {}
        self.failures = 0  # signed messages refused so far

    # --- verify.Lookup ----------------------------------------------------------------------

    def device(self, device: str) -> Device | None:
        known = self.inventory.get(device)
        if known is None and self._reload():
            known = self.inventory.get(device)
        return known

    def is_quarantined(self, device: str) -> bool:
        known, cleared = self.inventory.get(device), self.store.device(device).quarantined
        return known is not None and cleared is not None and cleared >= known.cleared

    def session(self, device: str, kid: bytes) -> Session | None:
        return self.sessions.find(device, kid)

    def boot(self, device: str) -> tuple[int, bytes] | None:
        state = self.store.device(device)
        return None if state.epoch is None else (state.epoch, state.boot_nonce)

    def standing(self, device: str, epoch: int, space: int, n: int, tag: bytes) -> Standing:
        return self.store.standing(device, epoch, space, n, tag)

    def is_fresh(self, nonce: bytes) -> bool:
        return self.sessions.is_fresh(nonce)

    def gateway(self) -> str:
        return self.identity.id

    # --- Entry points -----------------------------------------------------------------------

    def beacon(self) -> Message:
        """Return the beacon with the current nonce."""
        gateway = self.identity.id
        body = protocol.beacon(gateway, self.sessions.nonce)
        return Message(protocol.topic_beacon(gateway), body, retain=True)

    def tick(self, dropped: Counter[tuple[str, str]] | None = None) -> list[Message]:
        """Do what is due by time, about once a second; return what to send.

        `dropped`: counts by (device id or "", code) of what never reached `handle`.
        """
        self._reload()
        self._counts.update(dropped or {})
        if self._counts:
            with self.store.transaction():
                self.store.add_counts(self._counts, self._wall())
            self._counts.clear()
        return [self.beacon()] if self.sessions.turn(self._monotonic()) else []

    def handle(self, batch: Sequence[Message]) -> list[Message]:
        """Take messages in their order; return the answers, all of them to committed effects.

        Never raises for what a message contains. Messages share a transaction, but one that
        fails in an unforeseen way loses only itself.
        """
        try:
            return self._run(batch)
        except Exception:
            _log.exception("a batch of %d messages failed, taking them one by one", len(batch))
        out: list[Message] = []
        for message in batch:
            try:
                out += self._run([message])
            except Exception:
                _log.exception("a message failed")
                self.count("", "internal")
        return out

    def count(self, device: str, code: str) -> None:
        """Count under a device of the inventory, or under "" for all others."""
        self._counts[device if device in self.inventory else "", code] += 1

    def _run(self, batch: Iterable[Message]) -> list[Message]:
        out: list[Message] = []
        queue = list(batch)
        while queue:
            answers: list[Message] = []
            self._after.clear()
            with self.store.transaction():
                while queue:
                    self._one(queue.pop(0), answers)
                    if self._after:  # a new session must be known before the next message
                        break
            for then in self._after:
                then()
            out += answers
        return out

    def _one(self, message: Message, out: list[Message]) -> None:
        name = message.topic[5:21]
        refused: Refused | None = None
        try:
            device, kind, envelope = verify.admit(self, message.topic, message.payload)
            if kind == "hello":
                self._hello(device, message.payload, envelope, out)
            else:
                self._counted(verify.check_counted(self, device, kind, envelope), out)
        except NoSession as error:
            refused = error
            if error.ask and self.sessions.may_challenge(name, self._monotonic()):
                body = protocol.beacon(self.identity.id, self.sessions.nonce)
                out.append(Message(protocol.topic_down(name, "challenge"), body))
        except Refused as error:
            refused = error
        if refused is not None:
            self.count(name, refused.code)
            self.failures += message.payload[:1] == b"\xd2"

    # --- Effects ----------------------------------------------------------------------------

    def _hello(
        self, device: Device, message: bytes, envelope: protocol.Envelope, out: list[Message]
    ) -> None:
        digest = verify.digest(message)
        topic = protocol.topic_down(device.id, "welcome")
        known = self.sessions.welcome(device.id, digest)
        if known is not None:
            self.count(device.id, "redelivery")
            out.append(Message(topic, known))
            return
        hello = verify.check_hello(self, device, envelope)
        now = self._monotonic()
        if device.id not in self._budgets:
            self._budgets[device.id] = _Budget(HELLO_BURST, 1.0, now)
        if not self._budgets[device.id].take(now):
            raise Refused("rate")
        state = self.store.device(device.id)
        if state.epoch is not None:
            self._check_epoch(device, hello, state.epoch, state.boot_nonce)
        kid = bytes([state.handshakes & 0xFF])
        share = X25519PrivateKey.generate()
        payload = protocol.welcome_payload(
            message, device.id, share.public_key().public_bytes_raw(), kid, POLICY_VERSION
        )
        external = protocol.aad("down", device.id, "welcome")
        welcome = protocol.sign(self.identity.key, external, payload)
        keys = protocol.derive_keys(share, hello.share, message, welcome)
        self.store.accept_hello(device.id, hello.epoch, hello.boot_nonce)
        floor = self.store.window_floor(device.id)
        self._claims(device, hello.claims, hello.epoch, is_boot=True)
        session = Session(device.id, kid, hello.epoch, hello.boot_nonce, keys)
        out.append(Message(topic, welcome))

        def opened() -> None:
            self.sessions.open(session, digest, welcome, floor)
            if self._keylog:
                self._keylog.write(self.identity.id, session, digest)

        self._after.append(opened)

    def _check_epoch(
        self, device: Device, hello: protocol.Hello, epoch: int, boot_nonce: bytes
    ) -> None:
        if hello.epoch < epoch:
            # Any hello of a boot that is known may be a copy, though its nonce is still fresh.
            if self.store.boot_nonce(device.id, hello.epoch) != hello.boot_nonce:
                detail = {"code": "epoch", "epoch": hello.epoch, "highest": epoch}
                self._alarm(device, detail)
            raise Refused("epoch")
        if hello.epoch == epoch and hello.boot_nonce != boot_nonce:
            self._clone(device, {"code": "clone", "why": "second boot nonce", "epoch": epoch})
        if hello.epoch > epoch + 1:
            self.count(device.id, "jump")

    def _counted(self, message: Verified, out: list[Message]) -> None:
        device, counter = message.device, message.counter
        if message.session is not None:
            self.sessions.used(message.session, self._monotonic())
        if message.standing is Standing.OTHER:
            detail = {"epoch": counter.epoch, "seq": counter.seq}
            self._clone(device, {"code": "clone", "why": "second message", **detail})
        if message.standing is Standing.SAME:
            self.count(device.id, "redelivery")
        else:
            if not self.store.has_room:
                raise Refused("rate", "the upstream queue is full")
            rise = self.store.mark(
                device.id, counter.epoch, counter.space, counter.n, message.seal
            )
            if rise > WIDTH:
                self.count(device.id, "jump")
            self._effect(message)
        self._answer(message, out)

    def _effect(self, message: Verified) -> None:
        device, kind, counter = message.device, message.kind, message.counter
        body = counter.body
        if kind in ("telemetry", "backlog"):
            epoch, index, reading = body
            standing = self.store.reading(device.id, epoch, index)
            if standing is Standing.SAME:
                self.count(device.id, "redelivery")
                return
            value = {"reading": protocol.json_safe(reading)}
            unsure = standing is Standing.STALE
            self._forward(message, epoch, "index", index, value, maybe_duplicate=unsure)
            return
        if kind in ("report", "alarm"):
            value = {"claims": protocol.named_claims(body[0])}
            if kind == "report":
                self._claims(device, body[0], counter.epoch)
            else:
                self.store.add_event(device.id, "device-alarm", value, self._wall())
        elif kind == "evidence":
            self.store.add_evidence(device.id, body[0], body[1])
            value = {"number": body[0], "records": body[1].hex()}
        else:
            value = {"body": protocol.json_safe(body)}
        self._forward(message, counter.epoch, "seq", counter.seq, value)

    def _forward(
        self,
        message: Verified,
        epoch: int,
        key: Literal["index", "seq"],
        number: int,
        value: dict[str, Any],
        maybe_duplicate: bool = False,
    ) -> None:
        """Queue a message for upstream; (device, epoch, `number` under `key`) names it there."""
        device = message.device
        document = {
            "device": device.id,
            "epoch": epoch,
            key: number,
            "kind": message.kind,
            **value,
            "received": round(self._wall(), 3),
            "tags": {
                "path": "backlog" if message.kind == "backlog" else "live",
                "trust": "signature" if message.session is None else "mac",
                "cohort": device.cohort,
                "policy": POLICY_VERSION,
                "maybe_duplicate": maybe_duplicate,
            },
        }
        text = json.dumps(document, separators=(",", ":"))
        self.store.enqueue(device.id, message.kind, epoch, number, text)

    def _claims(
        self, device: Device, claims: dict[int, Any], epoch: int, is_boot: bool = False
    ) -> None:
        named = self._kept(device, claims)
        before = self.store.device(device.id).claims
        now = self._wall()
        if is_boot and before.get("epoch") != epoch:
            names = ("mode", "reset-cause", "image-digest", "swversion", "evidence-head")
            detail = {"epoch": epoch} | {k: named[k] for k in names if k in named}
            self.store.add_event(device.id, "boot", detail, now)
        trial = named.get("last-trial")
        if trial is not None and trial != before.get("last-trial"):
            self.store.add_event(device.id, "trial", {"epoch": epoch, "last-trial": trial}, now)
        for name in ("update", "health"):
            if name in named and named[name] != before.get(name):
                detail = {"epoch": epoch, name: named[name]}
                self.store.add_event(device.id, name, detail, now)
        self.store.set_claims(device.id, named | {"epoch": epoch}, now)

    def _kept(self, device: Device, claims: dict[int, Any]) -> dict[str, Any]:
        """Return the claims to keep: those of known numbers, each bounded in size."""
        kept: dict[str, Any] = {}
        for name, value in protocol.named_claims(
            {k: v for k, v in claims.items() if k in protocol.CLAIMS}
        ).items():
            if len(json.dumps(value)) > CLAIM_SIZE:
                self.count(device.id, "size")
            else:
                kept[name] = value
        return kept

    def _alarm(self, device: Device, detail: dict[str, Any]) -> None:
        if self.store.add_event(device.id, "alarm", detail, self._wall()):
            _log.warning("alarm: device %s: %s", device.id, detail["code"])

    def _clone(self, device: Device, detail: dict[str, Any]) -> None:
        """Raise the alarm, quarantine the device, refuse the message."""
        self._alarm(device, detail)
        self._reload()  # a clearance that is not read yet must not lift this one
        known = self.inventory.get(device.id) or device
        self.store.quarantine(device.id, "clone", known.cleared, self._wall())
        raise Refused("clone")

    def _answer(self, message: Verified, out: list[Message]) -> None:
        """Acknowledge, and give the time if it was asked for."""
        device, counter = message.device, message.counter
        if message.kind == "report":
            token = self._time(device, counter.body[0].get(protocol.TIME_NONCE), message.standing)
            if token is not None:
                out.append(Message(protocol.topic_down(device.id, "time"), token))
        # A signed message does not say which keys its sender holds by now: answer under each.
        sessions = [message.session] if message.session else list(self.sessions.live(device.id))
        sessions = [s for s in sessions if s.epoch == counter.epoch]
        for session in sessions:
            payload = protocol.counted(
                session.epoch, session.next_down(), 2, counter.epoch, counter.seq
            )
            external = protocol.aad("down", device.id, "ack", session.boot_nonce)
            sealed = protocol.seal_mac(
                session.keys.down_mac, protocol.HMAC_256, session.kid, external, payload
            )
            out.append(Message(protocol.topic_down(device.id, "ack"), sealed))
        if not sessions and self.sessions.may_challenge(device.id, self._monotonic()):
            body = protocol.beacon(self.identity.id, self.sessions.nonce)
            out.append(Message(protocol.topic_down(device.id, "challenge"), body))

    def _time(self, device: Device, nonce: object, standing: Standing) -> bytes | None:
        """Return the token for `nonce`; a redelivered question gets the token it got before."""
        if not isinstance(nonce, bytes) or len(nonce) != protocol.NONCE:
            return None
        now = self._monotonic()
        asked, at, token = self._times.get(device.id, (b"", 0.0, b""))
        if asked == nonce:
            return token if now - at < _TIME_LIFE_S else None
        if standing is not Standing.NEW:
            return None
        payload = protocol.time_payload(nonce, int(self._wall()), self.identity.id)
        external = protocol.aad("down", device.id, "time")
        token = protocol.sign(self.identity.key, external, payload)
        self._times[device.id] = (nonce, now, token)
        return token

    def _reload(self) -> bool:
        """Read the inventory again if its file changed: one stat, cheap enough for a stranger."""
        try:
            if not self.inventory.reload():
                return False
        except (InventoryError, OSError) as error:
            _log.error("the inventory can't be read, the last good one stays: %s", error)
            return False
        for device in {*self._budgets, *self._times}:
            known = self.inventory.get(device)
            if known is None or known.state == "revoked":
                self._budgets.pop(device, None)
                self._times.pop(device, None)
                self.sessions.drop(device)
        return True
