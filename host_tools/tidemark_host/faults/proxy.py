"""A TCP proxy on loopback that does to whole MQTT packets what a bad network or broker does.

What it does to a packet depends on the seed and the packet's number alone (`profiles`), so a run
with the same seed meets the same faults at the same packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tidemark_host.faults.oracle import Oracle
from tidemark_host.faults.packets import Packet, PacketError, puback, read_chunk, read_packet
from tidemark_host.faults.profiles import CALM, PASS, Decision, Direction, Profile

HOST = "127.0.0.1"
MAX_CONNECTIONS = 64  # at once
MAX_EVENTS = 50_000  # kept; the oldest go
MAX_ECHOES = 16  # packets that come again, of one client and direction
MAX_CLIENTS = 64  # whose packets come again on a later connection
ECHO_PACKETS = 40  # an echo comes at most so many PUBLISH and PUBACK packets later
HOLD_S = 0.25  # a packet waits so long for one that overtakes it
_FRAGMENTS = 64  # bytes of a packet that go one by one
_CONNECT_S = 5.0
_GOODBYE_S = 1.0
_TRAFFIC = ("PUBLISH", "PUBLISH0", "PUBACK")

Watch = Callable[[Direction, Packet], None]


@dataclass(frozen=True, slots=True)
class Event:
    """A fault that happened: the `number`-th packet of its kind and direction met `action`."""

    time: float
    connection: int
    direction: str
    kind: str
    number: int
    action: str

    def __str__(self) -> str:
        where = f"connection {self.connection}"
        if self.kind:
            where += f", {self.direction} {self.kind} {self.number}"
        return f"{self.action}: {where}"


class _Cut(Exception):
    """The connection ends, after `silence_s` in which nothing passes."""

    def __init__(self, silence_s: float = 0.0) -> None:
        super().__init__()
        self.silence_s = silence_s


class Proxy:
    """`async with Proxy(port_of_broker, port) as proxy`: clients connect to `proxy.port`.

    It begins calm. `counts`: how often each fault happened; `events`: the last of them; `packets`:
    how many of each (direction, kind) came.
    """

    def __init__(
        self,
        target: int,
        port: int = 0,
        *,
        stream: bool = False,
        watch: Watch | None = None,
        note: Callable[[str], None] | None = None,
        limit_s: float = 3600.0,
    ) -> None:
        """`target`, `port`: on loopback, port 0 for any free one; `stream`: bytes that are not
        MQTT; `watch`: told of each packet as it comes from its sender, before anything happens to
        it; `note`: told of each fault but delays; `limit_s`: after so long all connections end.
        """
        self.target = target
        self.port = port
        self.profile = CALM
        self.seed = 0
        self.watch = watch
        self.note = note
        self.counts: Counter[str] = Counter()
        self.packets: Counter[tuple[Direction, str]] = Counter()
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.connections = 0  # since the storm began
        self.read = read_chunk if stream else read_packet
        self.again: dict[tuple[str, Direction], list[Packet]] = {}  # for a later connection
        self._limit_s = limit_s
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._end: asyncio.TimerHandle | None = None

    def storm(self, profile: Profile, seed: int) -> None:
        """Begin with faults; packets and connections are numbered anew."""
        self.profile, self.seed = profile, seed
        self.packets.clear()
        self.counts.clear()
        self.connections = 0
        if profile.life_s[1]:
            self.cut_all()  # a connection has its age from its beginning

    def calm(self) -> None:
        """Pass everything from now on; what was to come again does not come."""
        self.profile = CALM
        self.again.clear()

    def cut_all(self) -> None:
        """End all connections now."""
        for task in list(self._open):
            task.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._end = asyncio.get_running_loop().call_later(self._limit_s, self._expire)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._end:
            self._end.cancel()
        self._expire()
        if self._open:
            await asyncio.gather(*self._open, return_exceptions=True)

    def _expire(self) -> None:
        if self._server:
            self._server.close()
        self.cut_all()

    def happened(
        self, connection: int, direction: str, kind: str, number: int, action: str
    ) -> None:
        """Log a fault."""
        event = Event(time.monotonic(), connection, direction, kind, number, action)
        self.counts[action] += 1
        self.events.append(event)
        if self.note and action != "delay":
            self.note(f"network: {event}")

    def decide(self, direction: Direction, packet: Packet) -> tuple[Decision, int]:
        """Count a packet and return what becomes of it, and its number."""
        kind = packet.kind
        self.packets[direction, kind] += 1
        number = self.packets[direction, kind]
        return self.profile.decide(self.seed, direction, kind, number), number

    def remember(self, client: str, direction: Direction, packets: list[Packet]) -> None:
        """Have packets come again on the client's next connection, within the bounds."""
        if not client or not packets or self.profile is CALM:
            return
        if len(self.again) >= MAX_CLIENTS and (client, direction) not in self.again:
            return
        kept = self.again.setdefault((client, direction), [])
        kept += packets[: MAX_ECHOES - len(kept)]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        number = self.connections
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        if self.profile.is_refused(self.seed, number):
            self.happened(number, "up", "", 0, "refuse")
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._carry(number, reader, writer)
        except (OSError, TimeoutError):
            pass  # the broker is not there: the client sees a connection that ends
        except asyncio.CancelledError:
            pass  # nobody awaits this task, and to end here is all that was asked of it
        finally:
            writer.transport.abort()
            self._open.discard(task)

    async def _carry(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(_CONNECT_S):
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        try:
            for end in (writer, far_writer):
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, number, _End(writer), _End(far_writer))
            await connection.run(reader, far_reader)
            # What was passed on must arrive: a socket that closes over unread bytes resets.
            far_writer.write_eof()
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(_GOODBYE_S):
                    while await far_reader.read(65_536):
                        pass
        finally:
            far_writer.transport.abort()


@dataclass(frozen=True)
class Network:
    """The connections of a site: a board's to broker and mirror, the gateway's to the broker."""

    mqtt: Proxy
    web: Proxy
    gateway: Proxy
    oracle: Oracle  # over all that crosses `mqtt`

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        return self.mqtt, self.web, self.gateway

    def calm(self) -> None:
        """Pass everything from now on."""
        for proxy in self.proxies:
            proxy.calm()


class _End:
    """The writing half of a socket, for packets from more than one task."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._lock = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        async with self._lock:
            self._writer.write(data)
            await self._writer.drain()

    async def send_slowly(self, data: bytes) -> None:
        """Send bytes one by one, each in a segment of its own."""
        async with self._lock:
            for at in range(min(len(data), _FRAGMENTS)):
                self._writer.write(data[at : at + 1])
                await self._writer.drain()
                await asyncio.sleep(0.001)
            self._writer.write(data[_FRAGMENTS:])
            await self._writer.drain()

    async def close(self) -> None:
        """Have what was sent arrive, then close."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._writer.wait_closed()


@dataclass
class _Way:
    """One direction of a connection."""

    direction: Direction
    to: _End
    held: Packet | None = None
    echoes: list[tuple[int, Packet]] = field(default_factory=list[tuple[int, Packet]])
    unsure: Packet | None = None  # the PUBLISH that a cut met


class _Connection:
    """One client's connection, until either side or a fault ends it."""

    def __init__(self, proxy: Proxy, number: int, client: _End, broker: _End) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._ways = (_Way("up", broker), _Way("down", client))
        self._client_id = ""

    async def run(
        self, from_client: asyncio.StreamReader, from_broker: asyncio.StreamReader
    ) -> None:
        """Carry packets both ways until the end."""
        up, down = self._ways
        jobs: list[Coroutine[Any, Any, None]] = [
            self._pump(up, from_client),
            self._pump(down, from_broker),
        ]
        life = self._proxy.profile.life(self._proxy.seed, self._number)
        if life:
            jobs.append(self._grow_old(life))
        tasks = [asyncio.create_task(job) for job in jobs]
        error: BaseException | None = None
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = next((task.exception() for task in done if task.exception()), None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(error, _Cut):
            for way in self._ways:
                left = [packet for _, packet in way.echoes]
                if way.unsure and self._proxy.profile.resend:
                    left.append(way.unsure.again())
                self._proxy.remember(self._client_id, way.direction, left)
            await asyncio.sleep(error.silence_s)
        elif error is None:
            await self._client.close()
        elif not isinstance(error, ConnectionError | PacketError):
            raise error

    async def _grow_old(self, life: float) -> None:
        profile = self._proxy.profile
        await asyncio.sleep(life)
        if self._proxy.profile is not profile:
            await asyncio.Event().wait()
        self._proxy.happened(self._number, "", "", 0, "life")
        raise _Cut

    async def _pump(self, way: _Way, reader: asyncio.StreamReader) -> None:
        """Carry packets one way until the stream ends."""
        reading: asyncio.Task[Packet | None] | None = None
        try:
            while True:
                reading = reading or asyncio.create_task(self._proxy.read(reader))
                if way.held:
                    done, _ = await asyncio.wait({reading}, timeout=HOLD_S)
                    if not done:
                        await self._release(way)
                        continue
                packet = await reading
                reading = None
                if packet is None:
                    await self._release(way)
                    return
                await self._take(way, packet)
        finally:
            if reading:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _take(self, way: _Way, packet: Packet) -> None:
        proxy = self._proxy
        kind = packet.kind
        if kind == "CONNECT":
            self._client_id = packet.client_id
            for each in self._ways:
                left = proxy.again.pop((self._client_id, each.direction), [])
                each.echoes += [(1, again) for again in left]
        if proxy.watch:
            proxy.watch(way.direction, packet)
        decision, number = proxy.decide(way.direction, packet)
        if decision.action == "reorder" and way.held:
            decision = PASS  # one at a time
        if decision is not PASS:
            proxy.happened(self._number, way.direction, kind, number, decision.action)
        if way.held and not _may_pass(packet, way.held, proxy.profile.strict):
            await self._release(way)
        await self._act(way, packet, decision)
        if way.held is not packet:
            await self._release(way)
        if kind in _TRAFFIC:
            await self._echo(way)

    async def _act(self, way: _Way, packet: Packet, decision: Decision) -> None:
        action, amount = decision.action, decision.amount
        data = packet.raw
        if action == "reorder":
            way.held = packet
        elif action == "fragment":
            await way.to.send_slowly(data)
        elif action == "vanish":
            return
        elif action == "lie":
            await self._client.send(puback(packet.packet_id).raw)
        elif action in ("cut_before", "cut_within", "cut_after", "silence"):
            if packet.kind == "PUBLISH":
                way.unsure = packet
            if action == "cut_within":
                await way.to.send(data[: 1 + int(amount * (len(data) - 1))])
            elif action == "cut_after":
                await way.to.send(data)
            raise _Cut(self._proxy.profile.silence_s if action == "silence" else 0.0)
        else:
            if action == "delay":
                await asyncio.sleep(amount * self._proxy.profile.delay_s)
            await way.to.send(data)
            if action == "duplicate":
                await way.to.send(packet.again().raw)
            elif action == "echo" and len(way.echoes) < MAX_ECHOES:
                way.echoes.append((2 + int(amount * ECHO_PACKETS), packet.again()))

    async def _release(self, way: _Way) -> None:
        """Send the packet that was held back, if there is one."""
        held, way.held = way.held, None
        if held:
            await way.to.send(held.raw)

    async def _echo(self, way: _Way) -> None:
        """Send what is to come again by now."""
        if not way.echoes or self._proxy.profile is CALM:
            return
        due = [packet for left, packet in way.echoes if left <= 1]
        way.echoes = [(left - 1, packet) for left, packet in way.echoes if left > 1]
        for packet in due:
            await way.to.send(packet.raw)


def _may_pass(packet: Packet, held: Packet, strict: bool) -> bool:
    """Say whether a packet may overtake the one before it (MQTT 3.1.1, 4.6).

    PUBLISHes of one topic keep their order, and so do PUBACKs.
    """
    if not strict:
        return packet.kind in _TRAFFIC
    if packet.kind not in _TRAFFIC:
        return False
    if packet.kind == "PUBACK" or held.kind == "PUBACK":
        return packet.kind != held.kind
    return packet.topic != held.topic
