"""What must hold of all that crosses one board's connection, judged outside the board.

- No (epoch, seq) leaves the board twice, be it under the same bytes or others (I1).
- An acknowledgement names a message that left the board and whose content the gateway has
  committed: acks never lie.
- A PUBLISH has a packet id from 1 to 65,535 that rises until it wraps, and the size of its kind.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from tidemark_host import protocol
from tidemark_host.faults.packets import Packet, PacketError
from tidemark_host.faults.profiles import Direction
from tidemark_host.protocol import Refused

MAX_VIOLATIONS = 100  # kept as text
PACKET_ID_MAX = 65_535
# The subscriptions of each connection take ids as well.
_NEAR_WRAP = 1_000

# What a message is known by upstream: ("reading", creation epoch, index) or (kind, epoch, seq).
Key = tuple[str, int, int]


class Oracle:
    """Told of each packet by the proxy. `violations`: what did not hold, [] if all did."""

    def __init__(self, database: Path) -> None:
        """`database`: the gateway's, read while it runs. The board is known by its first word."""
        self.device = ""
        self.violations: list[str] = []
        self.published = 0  # PUBLISH packets of QoS 1 from the board
        self.wraps = 0  # of the packet id
        self.acks = 0  # different ones
        self.readings: set[tuple[int, int]] = set()  # (creation epoch, index) that left the board
        self._digests: dict[tuple[int, int], bytes] = {}
        self._keys: dict[tuple[int, int], Key] = {}
        self._acked: set[tuple[int, int]] = set()
        self._committed: set[Key] = set()
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._row = 0
        self._packet_id: int | None = None

    def __call__(self, direction: Direction, packet: Packet) -> None:
        """Judge one packet, before anything happens to it."""
        kind = packet.kind
        try:
            if kind == "PUBLISH" and direction == "up":
                self._left(packet)
            elif kind == "PUBLISH" and packet.topic == f"tm/1/{self.device}/down/ack":
                self._acknowledged(packet.payload)
        except (PacketError, Refused) as error:
            self._violated(f"{direction} {kind}: {error}")

    @property
    def counters(self) -> int:
        """How many different (epoch, seq) left the board."""
        return len(self._digests)

    def close(self) -> None:
        """Close the gateway's file."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _violated(self, text: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(text)

    def _left(self, packet: Packet) -> None:
        self.published += 1
        self._follow(packet.packet_id)
        device, name = protocol.parse_topic(packet.topic)
        self.device = self.device or device
        if device != self.device:
            self._violated(f"in the name of {device}")
        payload = packet.payload
        rule = protocol.UP[name]
        if len(payload) > rule.limit:
            self._violated(f"{name} of {len(payload)} bytes")
        if rule.space is None:
            return
        counter = protocol.peek_counted(protocol.open_envelope(payload, rule.limit), rule.space)
        number = counter.epoch, counter.seq
        digest = hashlib.blake2b(payload, digest_size=8).digest()
        former = self._digests.setdefault(number, digest)
        if number in self._keys:
            how = "again" if former == digest else "for another message"
            self._violated(f"counter {number} used {how}")
        key: Key = (name, *number)
        if name in ("telemetry", "backlog") and counter.body:
            epoch, index = counter.body[:2]
            self.readings.add((epoch, index))
            key = ("reading", epoch, index)
        self._keys[number] = key

    def _follow(self, packet_id: int) -> None:
        """Judge a packet id (MQTT 3.1.1, 2.3.1)."""
        former, self._packet_id = self._packet_id, packet_id
        if not packet_id:
            self._violated("packet id 0")
        if former is not None and packet_id <= former:
            # A reset begins from 1 as well.
            if packet_id > _NEAR_WRAP:
                self._violated(f"packet id {packet_id} after {former}")
            elif former > PACKET_ID_MAX - _NEAR_WRAP:
                self.wraps += 1

    def _acknowledged(self, payload: bytes) -> None:
        """Judge an ack as the gateway sends it, by what it says before any proof."""
        counter = protocol.parse_counted(protocol.open_envelope(payload).payload, 2)
        epoch, seq = counter.body
        key = self._keys.get((epoch, seq))
        if key is None:
            self._violated(f"an ack of {(epoch, seq)}, which never left")
            return
        if (epoch, seq) in self._acked:
            return
        self._acked.add((epoch, seq))
        self.acks += 1
        if key not in self._committed:
            self._read()
            if key not in self._committed:
                self._violated(f"an ack of {key}, which is not committed")

    def _read(self) -> None:
        """Read what the gateway has committed since the last time."""
        if self._connection is None:
            uri = f"{self._database.resolve().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, timeout=5)
        sql = "SELECT id, kind, epoch, idx FROM upstream WHERE device = ? AND id > ? ORDER BY id"
        for row, kind, epoch, index in self._connection.execute(sql, (self.device, self._row)):
            self._row = row
            name = "reading" if kind in ("telemetry", "backlog") else kind
            self._committed.add((name, epoch, index))
