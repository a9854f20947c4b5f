"""Who is checked next: MAC traffic first, signatures paced, devices in turn. Pure and bounded.

A signature costs a hundred times what a MAC does, and anyone can send bad ones in any device's
name. So failures throttle signature checks only: never MAC traffic, and no device for good. What
comes under a name that is not enrolled has a small lane of its own and takes nobody's place.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tidemark_host.gateway.core import Message
from tidemark_host.protocol import UP, Refused, parse_topic

MAC_QUEUE = 4096  # messages
MAC_PER_DEVICE = 128  # messages; a board has 32 in flight
SIGNED_QUEUE = 16_384  # messages
SIGNED_PER_DEVICE = 16  # messages
SIGNED_RATE = 200.0  # failed checks a second
SIGNED_BURST = 400.0  # failed checks at once
SIGNED_PER_BATCH = 8  # so that MAC traffic waits for no more than these
MAC_PER_BATCH = 256
STRANGERS = 64  # messages; some may be of a device that was enrolled just now
STRANGERS_PER_NAME = 4  # messages
STRANGERS_PER_BATCH = 8

_SIGN1 = b"\xd2"


class _Lane:
    """Messages by name, each name's in their order, names in turn.

    Of a name that is full, one message is dropped at random, the new one included: what was said
    in a device's name can delay its own word, and not silence it.
    """

    def __init__(self, limit: int, per_name: int) -> None:
        """The limits count messages, of the whole lane and of one name."""
        self._limit, self._per_name = limit, per_name
        self._names: OrderedDict[str, deque[Message]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, name: str, message: Message) -> None:
        """Queue a message. Raises Refused("rate") when one was dropped."""
        mine = self._names.get(name)
        if mine is not None and len(mine) >= self._per_name:
            place = random.randrange(self._per_name + 1)
            if place < self._per_name:
                del mine[place]
                mine.append(message)
            raise Refused("rate")
        if self._count >= self._limit:
            raise Refused("rate")
        if mine is None:
            mine = self._names[name] = deque()
        mine.append(message)
        self._count += 1

    def take(self, most: int) -> list[Message]:
        """Return the next messages, up to `most`."""
        out: list[Message] = []
        while self._names and len(out) < most:
            name, mine = self._names.popitem(last=False)
            out.append(mine.popleft())
            if mine:
                self._names[name] = mine
        self._count -= len(out)
        return out


@dataclass
class Lanes:
    """The lanes in front of the core. `now` below: seconds of a monotonic clock."""

    _mac: _Lane = field(default_factory=lambda: _Lane(MAC_QUEUE, MAC_PER_DEVICE))
    _signed: _Lane = field(default_factory=lambda: _Lane(SIGNED_QUEUE, SIGNED_PER_DEVICE))
    _strangers: _Lane = field(default_factory=lambda: _Lane(STRANGERS, STRANGERS_PER_NAME))
    _tokens: float = SIGNED_BURST
    _at: float = 0.0

    def put(self, message: Message, is_known: Callable[[str], bool]) -> None:
        """Queue a message. Raises Refused: "kind", "size", or "rate" for one that was dropped.

        `is_known`: whether a device id is enrolled.
        """
        name, kind = parse_topic(message.topic)
        if len(message.payload) > UP[kind].limit:
            raise Refused("size")
        if not is_known(name):
            self._strangers.put(name, message)
        elif message.payload[:1] == _SIGN1:
            self._signed.put(name, message)
        else:
            self._mac.put(name, message)

    def take(self, now: float) -> tuple[list[Message], list[Message]]:
        """Return the next batch: (MAC traffic and strangers', signed messages)."""
        self._tokens = min(SIGNED_BURST, self._tokens + (now - self._at) * SIGNED_RATE)
        self._at = now
        # Strangers' first: one that was enrolled meanwhile may have more in the other lanes.
        first = self._strangers.take(STRANGERS_PER_BATCH)
        first += self._mac.take(MAC_PER_BATCH)
        return first, self._signed.take(int(min(SIGNED_PER_BATCH, max(0.0, self._tokens))))

    def failed(self, checks: int) -> None:
        """Charge signature checks that failed."""
        self._tokens -= checks

    def wait_s(self) -> float | None:
        """Return how long until `take` has something: 0, seconds, or None for nothing queued."""
        if self._mac or self._strangers:
            return 0.0
        if not self._signed:
            return None
        return max(0.0, (1.0 - self._tokens) / SIGNED_RATE)
