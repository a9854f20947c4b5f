"""Sessions of a gateway: RAM only, they end with a restart. Pure: the clock is handed in."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tidemark_host.protocol import NONCE, SessionKeys

NONCE_LIFE_S = 60.0  # a new beacon nonce each minute; the former one is still accepted
CHALLENGE_S = 10.0  # at most one challenge to a device in this time
_HELLOS = 4  # welcomes of a device that are kept to be sent again


@dataclass(slots=True)
class Session:
    """Keys of one handshake with one device."""

    device: str
    kid: bytes
    epoch: int
    boot_nonce: bytes
    keys: SessionKeys
    down: int = 0  # counter of messages down; starts anew with each welcome

    def next_down(self) -> int:
        """Return the next counter downward, from 1; never the same twice under one key."""
        self.down += 1
        return self.down


@dataclass(slots=True)
class _Device:
    live: list[Session] = field(default_factory=list[Session])  # former, then newest
    welcomes: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict[bytes, bytes])
    verified_at: float = float("-inf")
    challenged_at: float = float("-inf")


class Sessions:
    """All sessions, the beacon's nonces, and when a device was challenged.

    Only devices of the inventory are ever entered, so the inventory bounds it.
    """

    def __init__(self, now: float) -> None:
        """`now`: seconds of a monotonic clock, here and below."""
        self._devices: dict[str, _Device] = {}
        self._nonces = [secrets.token_bytes(NONCE)]
        self._nonce_at = now

    @property
    def nonce(self) -> bytes:
        """The beacon's current nonce."""
        return self._nonces[0]

    def is_fresh(self, nonce: bytes) -> bool:
        """Say whether a hello may carry this gateway nonce."""
        return nonce in self._nonces

    def turn(self, now: float) -> bool:
        """Renew the nonce when its minute is over; return whether it did."""
        if now - self._nonce_at < NONCE_LIFE_S:
            return False
        self._nonces = [secrets.token_bytes(NONCE), self._nonces[0]]
        self._nonce_at = now
        return True

    def find(self, device: str, kid: bytes) -> Session | None:
        """Return the live session of a device under `kid`."""
        return next((s for s in self.live(device) if s.kid == kid), None)

    def live(self, device: str) -> Iterator[Session]:
        """Yield the live sessions of a device: at most the former and the newest."""
        entry = self._devices.get(device)
        return iter(entry.live if entry else ())

    def welcome(self, device: str, hello: bytes) -> bytes | None:
        """Return the welcome that the hello with this digest got, if it is among the last."""
        entry = self._devices.get(device)
        return entry.welcomes.get(hello) if entry else None

    def open(self, session: Session, hello: bytes, welcome: bytes, floor: int) -> None:
        """Add a session; the one in use stays until a message comes under the new one.

        `hello`: its digest; `floor`: sessions of epochs below it have no replay window any more.
        """
        entry = self._devices.setdefault(session.device, _Device())
        former = [s for s in entry.live[:1] if s.epoch >= floor and s.kid != session.kid]
        entry.live = [*former, session]
        entry.welcomes[hello] = welcome
        while len(entry.welcomes) > _HELLOS:
            entry.welcomes.popitem(last=False)

    def used(self, session: Session, now: float) -> None:
        """Note a verified message under `session`; the first one ends the former session."""
        entry = self._devices[session.device]
        entry.verified_at = now
        if session is entry.live[-1]:
            entry.live = [session]

    def may_challenge(self, device: str, now: float) -> bool:
        """Say whether a challenge to a device is due, and note that it is sent.

        None is due while messages verify under a live session: then what failed was a leftover.
        """
        entry = self._devices.setdefault(device, _Device())
        if now - max(entry.challenged_at, entry.verified_at) < CHALLENGE_S:
            return False
        entry.challenged_at = now
        return True

    def drop(self, device: str) -> None:
        """End everything of a device (revoked, removed, quarantined)."""
        self._devices.pop(device, None)
