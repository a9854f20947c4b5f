"""MQTT 3.1.1 packets as a proxy sees them: whole, bounded, and no further understood."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

MAX_PACKET = 64 * 1024  # bytes, header included; a longer one ends its connection
CHUNK = 1_460  # bytes of a stream that is not MQTT, at most: what one Ethernet frame carries

_DUP = 0x08
_QOS = 0x06
# MQTT 3.1.1, table 2.1.
_KINDS = {
    1: "CONNECT",
    2: "CONNACK",
    3: "PUBLISH",
    4: "PUBACK",
    8: "SUBSCRIBE",
    9: "SUBACK",
    10: "UNSUBSCRIBE",
    11: "UNSUBACK",
    12: "PINGREQ",
    13: "PINGRESP",
    14: "DISCONNECT",
}


class PacketError(Exception):
    """Bytes that are no packet, or one above the bound."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. `raw`: all of it; `at`: where the variable header begins, 0 in a stream."""

    raw: bytes
    at: int

    @property
    def kind(self) -> str:
        """Its name in the standard; `PUBLISH0` for a PUBLISH without packet id, `chunk` of a
        stream."""
        if not self.at:
            return "chunk"
        name = _KINDS.get(self.raw[0] >> 4, "other")
        return "PUBLISH0" if name == "PUBLISH" and not self.raw[0] & _QOS else name

    @property
    def topic(self) -> str:
        """Topic of a PUBLISH. Raises PacketError."""
        return self._text(self.at).decode("utf-8", "backslashreplace")

    @property
    def client_id(self) -> str:
        """Client identifier of a CONNECT (3.1.3.1). Raises PacketError."""
        return self._text(self.at + 10).decode("utf-8", "backslashreplace")

    @property
    def packet_id(self) -> int:
        """Packet id of a PUBLISH with QoS 1, or of a PUBACK. Raises PacketError."""
        at = self.at
        if self.kind == "PUBLISH":
            at += 2 + len(self._text(at))
        return int.from_bytes(self._part(at, 2), "big")

    @property
    def payload(self) -> bytes:
        """Payload of a PUBLISH with QoS 1. Raises PacketError."""
        return self.raw[self.at + 4 + len(self._text(self.at)) :]

    def again(self) -> Packet:
        """Return the same PUBLISH with the DUP flag."""
        return Packet(bytes([self.raw[0] | _DUP]) + self.raw[1:], self.at)

    def _text(self, at: int) -> bytes:
        return self._part(at + 2, int.from_bytes(self._part(at, 2), "big"))

    def _part(self, at: int, size: int) -> bytes:
        part = self.raw[at : at + size]
        if len(part) != size:
            raise PacketError("shorter than its fields")
        return part


def puback(packet_id: int) -> Packet:
    """Return the PUBACK of a packet id."""
    return Packet(b"\x40\x02" + packet_id.to_bytes(2, "big"), 2)


async def read_packet(reader: asyncio.StreamReader) -> Packet | None:
    """Read one packet; None at the end of the stream, be it in the middle of one.

    Raises PacketError for a length of more than four bytes or a packet above the bound.
    """
    try:
        head = await reader.readexactly(2)
        size, shift = head[1] & 0x7F, 7
        while head[-1] & 0x80:
            if len(head) == 5:
                raise PacketError("remaining length of five bytes")
            head += await reader.readexactly(1)
            size |= (head[-1] & 0x7F) << shift
            shift += 7
        if len(head) + size > MAX_PACKET:
            raise PacketError(f"{size} bytes")
        return Packet(head + await reader.readexactly(size), len(head))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def read_chunk(reader: asyncio.StreamReader) -> Packet | None:
    """Read what is there of a stream, at most `CHUNK` bytes; None at its end."""
    try:
        data = await reader.read(CHUNK)
    except ConnectionError:
        return None
    return Packet(data, 0) if data else None
