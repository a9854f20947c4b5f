"""Who is checked next: MAC traffic in its order, signatures paced and fair. Pure and bounded.

A signature costs a hundred times what a MAC does, and anyone can send bad ones in any device's
name. So failures throttle signature checks only: never MAC traffic, and no device for good.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tidemark_host.gateway.core import Message
from tidemark_host.protocol import UP, Refused, parse_topic

MAC_QUEUE = 4096  # messages
SIGNED_PER_DEVICE = 16  # messages
SIGNED_NAMES = 1024  # devices that wait at once
SIGNED_RATE = 200.0  # failed checks a second
SIGNED_BURST = 400.0  # failed checks at once
SIGNED_PER_BATCH = 8  # so that MAC traffic waits for no more than these
MAC_PER_BATCH = 256

_SIGN1 = b"\xd2"


@dataclass
class Lanes:
    """Two lanes in front of the core. `now` below: seconds of a monotonic clock."""

    _mac: deque[Message] = field(default_factory=deque[Message])
    _signed: OrderedDict[str, deque[Message]] = field(
        default_factory=OrderedDict[str, deque[Message]]
    )
    _tokens: float = SIGNED_BURST
    _at: float = 0.0

    def put(self, message: Message, is_known: Callable[[str], bool]) -> None:
        """Queue a message. Raises Refused: "kind", "size", or "rate" for one that was dropped.

        `is_known`: whether a device id is enrolled. What a stranger says costs no signature check.

        A full lane of a device drops one of its messages at random, the new one included: what
        was said in a device's name can delay its own word, and not silence it.
        """
        name, kind = parse_topic(message.topic)
        if len(message.payload) > UP[kind].limit:
            raise Refused("size")
        if message.payload[:1] != _SIGN1 or not is_known(name):
            if len(self._mac) >= MAC_QUEUE:
                raise Refused("rate")
            self._mac.append(message)
            return
        lane = self._signed.get(name)
        if lane is None:
            if len(self._signed) >= SIGNED_NAMES:
                raise Refused("rate")
            lane = self._signed[name] = deque()
        if len(lane) < SIGNED_PER_DEVICE:
            lane.append(message)
            return
        place = random.randrange(SIGNED_PER_DEVICE + 1)
        if place < SIGNED_PER_DEVICE:
            del lane[place]
            lane.append(message)
        raise Refused("rate")

    def take(self, now: float) -> tuple[list[Message], list[Message]]:
        """Return the next batch: (MAC traffic, signed messages), one a device in turn."""
        mac = [self._mac.popleft() for _ in range(min(MAC_PER_BATCH, len(self._mac)))]
        self._tokens = min(SIGNED_BURST, self._tokens + (now - self._at) * SIGNED_RATE)
        self._at = now
        signed: list[Message] = []
        while self._signed and len(signed) < min(SIGNED_PER_BATCH, self._tokens):
            name, lane = self._signed.popitem(last=False)
            signed.append(lane.popleft())
            if lane:
                self._signed[name] = lane
        return mac, signed

    def failed(self, checks: int) -> None:
        """Charge signature checks that failed."""
        self._tokens -= checks

    def wait_s(self) -> float | None:
        """Return how long until `take` has something: 0, seconds, or None for nothing queued."""
        if self._mac:
            return 0.0
        if not self._signed:
            return None
        return max(0.0, (1.0 - self._tokens) / SIGNED_RATE)
