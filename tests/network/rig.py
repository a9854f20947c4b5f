"""A client and a broker on the two sides of a fault proxy, both in the test's hands."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tidemark_host.faults.packets import Packet, puback, read_packet
from tidemark_host.faults.proxy import HOST, Proxy

WAIT_S = 60.0  # nobody waits so long but for what never comes


def packet(first: int, body: bytes) -> Packet:
    """Return a packet by its first byte and all behind its length."""
    size = len(body)
    head = bytearray([first])
    while True:
        size, digit = size >> 7, size & 0x7F
        head.append(digit | (0x80 if size else 0))
        if not size:
            return Packet(bytes(head) + body, len(head))


def text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def connect(client: str) -> Packet:
    return packet(0x10, text("MQTT") + bytes([4, 2, 0, 30]) + text(client))


def publish(number: int, topic: str = "t", payload: bytes = b"payload") -> Packet:
    return packet(0x32, text(topic) + number.to_bytes(2, "big") + payload)


class Side:
    """One end of a connection: what it got, and a way to send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.got: list[Packet] = []
        self.raw = b""
        self.ended = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        copy = asyncio.StreamReader()
        packets = asyncio.create_task(self._packets(copy))
        try:
            while data := await self._reader.read(65_536):
                self.raw += data
                copy.feed_data(data)
        except ConnectionError:
            pass
        copy.feed_eof()
        await packets
        self.ended.set()
        self._news.set()

    async def _packets(self, copy: asyncio.StreamReader) -> None:
        while got := await read_packet(copy):
            self.got.append(got)
            self._news.set()

    def send(self, *packets: Packet) -> None:
        self._writer.write(b"".join(each.raw for each in packets))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def get(self, count: int) -> list[Packet]:
        """Wait until so many packets have come in all, or the end; return them."""
        async with asyncio.timeout(WAIT_S):
            while len(self.got) < count and not self.ended.is_set():
                self._news.clear()
                await self._news.wait()
        return self.got

    async def end(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(WAIT_S):
            await self.ended.wait()

    def close(self) -> None:
        self._writer.transport.abort()


class Rig:
    """`async with Rig() as rig`: proxy, broker's side of each connection, and clients."""

    def __init__(self, *, stream: bool = False, limit_s: float = 60.0) -> None:
        self.brokers: list[Side] = []
        self._accepted = asyncio.Event()
        self._clients: list[Side] = []
        self._options = {"stream": stream, "limit_s": limit_s}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        port = int(self._server.sockets[0].getsockname()[1])
        stream, limit_s = bool(self._options["stream"]), float(self._options["limit_s"])
        self.proxy = await Proxy(port, stream=stream, limit_s=limit_s).__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.proxy.__aexit__(kind, error, trace)
        self._server.close()
        for side in [*self.brokers, *self._clients]:
            side.close()
            await side.task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.brokers.append(Side(reader, writer))
        self._accepted.set()

    async def client(self) -> Side:
        """Connect through the proxy."""
        reader, writer = await asyncio.open_connection(HOST, self.proxy.port)
        side = Side(reader, writer)
        self._clients.append(side)
        return side

    async def pair(self) -> tuple[Side, Side]:
        """Connect; return the client's and the broker's side."""
        count = len(self.brokers)
        client = await self.client()
        async with asyncio.timeout(WAIT_S):
            while len(self.brokers) == count:
                self._accepted.clear()
                await self._accepted.wait()
        return client, self.brokers[-1]


def ids(packets: list[Packet]) -> list[int]:
    """Return the packet ids of PUBLISH and PUBACK packets."""
    return [each.packet_id for each in packets if each.kind in ("PUBLISH", "PUBACK")]


__all__ = ["Rig", "Side", "connect", "ids", "packet", "puback", "publish"]
