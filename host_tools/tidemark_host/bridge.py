"""The other end of a board's serial line: opens the TCP connections that the board asks for.

    async with Bridge("/dev/ttyUSB0", [("broker.lan", 1883), ("updates.lan", 8080)]) as bridge:
        ...

A board without a network of its own (docs/uart-link.md) reaches what is on the list, by the name
and port it asks for, and nothing else. The serial device may vanish and come back.
"""

# The firmware's own files, which the state machine is, have no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import serial

from tidemark_host import discovery
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import GONE
from tidemark_host.discovery import DiscoveryError
from tidemark_host.toolchain_build import firmware_dir

BAUD = 921_600
_SILENT_S = 10.0  # without a turn: the board is gone, and so are its connections
_RETRY_S = 0.5
_TICK_S = 0.5
_CHUNK = 4096
_OUT_MAX = 4096
_TCP_BUFFER = 65_536
_CONNECT_MAX_S = 60.0
_LINGER_S = 10.0
_CHANNELS = 4
_TOLD_MAX = 64

Place = tuple[str, int]
Say = Callable[[str, dict[str, object]], None]


@dataclass(frozen=True)
class Counters:
    """What a bridge did since its start."""

    port_opens: int  # how often the serial device came
    sessions: int  # of boards, that ended
    turns: int
    opened: int  # TCP connections
    failed: int
    denied: int  # not on the list
    up_bytes: int  # board to network
    down_bytes: int
    bad_frames: int
    duplicates: int
    gaps: int
    resent: int
    strangers: int  # frames of a session that is not in effect
    violations: int
    other_versions: int


class _Line:
    """The two buffers between the serial device and the end's state machine."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def readinto(self, buf: memoryview) -> int | None:
        size = min(len(buf), len(self.incoming))
        buf[:size] = self.incoming[:size]
        del self.incoming[:size]
        return size or None

    def write(self, buf: memoryview) -> int:
        if len(self.outgoing) + len(buf) > _OUT_MAX:
            return 0
        self.outgoing += buf
        return len(buf)


class _Connection:
    """One channel's TCP connection, from the board's request to its end."""

    def __init__(self, bridge: Bridge, index: int, place: Place, timeout_s: float) -> None:
        self._bridge = bridge
        self._index = index
        self.pending = bytearray()  # from the network, not yet with the board
        self.finished = False  # the network's side ended
        self.broken = False
        self._room = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.create_task(self._run(place, timeout_s))
        bridge.watch(self._task)

    async def _run(self, place: Place, timeout_s: float) -> None:
        code, streams = await _connect(place, min(timeout_s, _CONNECT_MAX_S))
        self._bridge.answered(self._index, place, code)
        if streams is None:
            return
        reader, self._writer = streams
        try:
            while data := await reader.read(_CHUNK):
                self.pending += data
                self._room.clear()
                await self._room.wait()
        except OSError:
            self.broken = True
        self.finished = True

    def write(self, data: bytes) -> None:
        if self._writer:
            self._writer.write(data)

    def takes(self) -> bool:
        """Return whether the network takes more from the board."""
        writer = self._writer
        return writer is not None and writer.transport.get_write_buffer_size() < _TCP_BUFFER

    def taken(self) -> None:
        """Read on: all that was pending is with the board's end."""
        self._room.set()

    def close(self) -> None:
        """End it; what was written still goes out, for a bounded time."""
        self._task.cancel()
        writer, self._writer = self._writer, None
        if writer:
            transport = writer.transport
            writer.close()
            asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)


async def _connect(
    place: Place, timeout_s: float
) -> tuple[int, tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]:
    """Return a code of ANSWER and, when it is 0, the streams."""
    from tidemark_host.boards import mux_host

    try:
        async with asyncio.timeout(timeout_s):
            streams = await asyncio.open_connection(*place, limit=_CHUNK)
    except socket.gaierror:
        return mux_host.RESOLVE, None
    except TimeoutError:
        return mux_host.TIMEOUT, None
    except (OSError, UnicodeError):
        return mux_host.REFUSED, None
    with contextlib.suppress(OSError):
        sock: socket.socket = streams[1].get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return mux_host.OPEN, streams


class BridgeError(BoardError):
    """A bridge that serves no more, by a fault of its own; its code is `service`."""

    def __init__(self, text: str) -> None:
        super().__init__("service", text)


def find_port(name: str) -> str:
    """Return where a device is now: by path, URL, USB serial number, USB location or nickname.

    Raises DiscoveryError, BoardError.
    """
    return discovery.find(name, discovery.serial_ports(), discovery.read_names()).port


class Bridge:
    """Serves one serial device until the end of its `async with` block.

    `port`: what `find(port)` makes a device's path of, or a pyserial URL such as
    socket://127.0.0.1:4000, anew whenever it is opened. `allow`: the hosts and ports that the
    board may reach. `say(event, values)`: told of what happens, in the loop. A fault of its own
    ends it: `failed` is set, and the block raises BridgeError at its end.
    """

    def __init__(
        self,
        port: str,
        allow: Iterable[Place],
        *,
        baud: int = BAUD,
        say: Say | None = None,
        find: Callable[[str], str] = find_port,
    ) -> None:
        firmware = str(firmware_dir())
        if firmware not in sys.path:
            sys.path.append(firmware)
        from tidemark_host.boards.mux_host import HostEnd

        self._port = port
        self._find = find
        self._baud = baud
        self._allow = {(host.lower(), number) for host, number in allow}
        self._say: Say = say or (lambda event, values: None)
        self._line = _Line()
        self._end: Any = HostEnd(self._line, secrets.token_bytes, self)
        self._connections: dict[int, _Connection] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._serial: Any = None
        self._fd = -1
        self._gone = asyncio.Event()
        self._turn_at = time.monotonic()
        self._start_at = 0  # channel that is served first at the next turn
        self._port_opens = self._opened = self._failed = self._denied = 0
        self._up = self._down = 0
        self._told: set[Place] = set()  # destinations that were said to be denied
        self.plugged = asyncio.Event()
        self.failed = asyncio.Event()
        self._fault: BaseException | None = None

    @property
    def connected(self) -> bool:
        """Whether a board's session is in effect."""
        return bool(self._end.connected)

    @property
    def counters(self) -> Counters:
        end = self._end
        return Counters(
            port_opens=self._port_opens,
            sessions=end.sessions,
            turns=end.turns,
            opened=self._opened,
            failed=self._failed,
            denied=self._denied,
            up_bytes=self._up,
            down_bytes=self._down,
            bad_frames=end.bad,
            duplicates=end.duplicates,
            gaps=end.gaps,
            resent=end.resent,
            strangers=end.strangers,
            violations=end.violations,
            other_versions=end.versions,
        )

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._watch())]
        for task in self._tasks:
            self.watch(task)
        return self

    def watch(self, task: asyncio.Task[None]) -> None:
        """End with the fault that a task ends with."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        task.add_done_callback(done)

    def _fail(self, error: BaseException) -> None:
        """Serve no more: half of a bridge looks to its board like a network that hangs."""
        if self._fault is None:
            self._fault = error
            self._say("broken", {"reason": f"{type(error).__name__}: {error}"})
        for task in self._tasks:
            task.cancel()
        self._close_port()
        self._close_all()
        self.failed.set()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close_port()
        self._close_all()
        if self._fault is not None and error is None:
            text = f"the bridge at {self._port} failed: {type(self._fault).__name__}"
            raise BridgeError(f"{text}: {self._fault}") from self._fault

    # -- the serial device --

    async def _serve(self) -> None:
        """Open the device whenever it is there, until cancelled."""
        told = ""
        while True:
            try:
                self._serial, device = await asyncio.to_thread(self._open_port)
                self._attach()
            except (*GONE, ValueError, DiscoveryError, BoardError) as error:
                self._close_port()
                if str(error) != told:
                    told = str(error)
                    self._say("waiting", {"port": self._port, "reason": told})
                await asyncio.sleep(_RETRY_S)
                continue
            told = ""
            self._say("plugged", {"port": device})
            await self._gone.wait()
            self._close_port()
            self._say("unplugged", {"port": self._port})
            await asyncio.sleep(_RETRY_S)

    def _open_port(self) -> tuple[Any, str]:
        path = self._find(self._port)
        if not path:
            raise BoardError("absent", f"{self._port} is not plugged in")
        device = serial.serial_for_url(path, self._baud, timeout=0, exclusive=True)
        # Adapters that hold bytes back for 16 ms halve the throughput.
        with contextlib.suppress(AttributeError, NotImplementedError, ValueError, *GONE):
            device.set_low_latency_mode(True)
        return device, path

    def _attach(self) -> None:
        self._fd = self._serial.fileno()
        os.set_blocking(self._fd, False)
        self._line.incoming.clear()
        self._line.outgoing.clear()
        self._gone.clear()
        self._port_opens += 1
        asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self.plugged.set()

    def _close_port(self) -> None:
        device, self._serial = self._serial, None
        self.plugged.clear()
        if device is None:
            return
        if self._fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            self._fd = -1
        with contextlib.suppress(*GONE):
            device.close()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # readable and empty: the device is gone
            asyncio.get_running_loop().remove_reader(self._fd)
            self._gone.set()
            return
        self._line.incoming += data
        self._step()

    def _writable(self) -> None:
        asyncio.get_running_loop().remove_writer(self._fd)
        self._step()

    def _step(self) -> None:
        # Called by the loop, which would only log what is raised here and call again.
        try:
            self._move_on()
        except Exception as error:
            self._fail(error)

    def _move_on(self) -> None:
        turns = self._end.turns
        self._end.step()
        self._take()
        if self._end.turns != turns:
            self._turn_at = time.monotonic()
        out = self._line.outgoing
        if not out or self._fd < 0:
            return
        try:
            del out[: os.write(self._fd, out)]
        except BlockingIOError:
            pass
        except OSError:
            self._gone.set()
            return
        if out:
            asyncio.get_running_loop().add_writer(self._fd, self._writable)

    async def _watch(self) -> None:
        """End the session of a board that has gone silent."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._end.connected and time.monotonic() - self._turn_at > _SILENT_S:
                self._end.drop()

    # -- what the end of the line asks (mux_host.HostEnd) --

    def opened(self, index: int, host: str, port: int, timeout_s: float) -> None:
        """Connect a channel, if its destination is on the list."""
        from tidemark_host.boards import mux_host

        if (host.lower(), port) not in self._allow:
            self._denied += 1
            # A line for each destination, not for each try: a board could fill a disk with them.
            if (host, port) not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add((host, port))
                self._say("denied", {"to": f"{host}:{port}"})
            self._end.answer(index, mux_host.DENIED)
            return
        self._drop(index)
        self._connections[index] = _Connection(self, index, (host, port), timeout_s)

    def answered(self, index: int, place: Place, code: int) -> None:
        """Tell the board what became of its connection."""
        values: dict[str, object] = {"to": "{}:{}".format(*place)}
        if code:
            self._failed += 1
            self._connections.pop(index, None)
            reason = ("", "name not found", "refused", "no answer")[code]
            self._say("failed", values | {"reason": reason})
        else:
            self._opened += 1
            self._say("opened", values)
        self._end.answer(index, code)

    def ended(self, index: int) -> None:
        """Finish a channel that the board closed."""
        connection = self._connections.get(index)
        if connection:
            self._move(index, connection, last=True)
        self._end.shut(index)
        self._drop(index)

    def dropped(self) -> None:
        """Close every connection of a session that ended."""
        self._close_all()
        self._say("dropped", {})

    def fill(self) -> None:
        """Hand over what the network brought: a frame of each channel in turn, while they fit."""
        self._take()
        order = [(self._start_at + i) % _CHANNELS for i in range(_CHANNELS)]
        self._start_at = (self._start_at + 1) % _CHANNELS
        moved = True
        while moved:
            moved = False
            for index in order:
                connection = self._connections.get(index)
                if connection and connection.pending:
                    sent = self._end.send(index, connection.pending)
                    del connection.pending[:sent]
                    self._down += sent
                    moved = moved or bool(sent)
                    if not connection.pending:
                        connection.taken()
        for index, connection in list(self._connections.items()):
            if connection.finished and not connection.pending:
                self._end.shut(index, connection.broken)
                self._drop(index)

    def _take(self) -> None:
        """Hand what came from the board to the network, where that takes it."""
        for index, connection in self._connections.items():
            self._move(index, connection)

    def _move(self, index: int, connection: _Connection, last: bool = False) -> None:
        while last or connection.takes():
            data = bytes(self._end.receive(index, _CHUNK))
            if not data:
                return
            self._up += len(data)
            connection.write(data)

    def _drop(self, index: int) -> None:
        connection = self._connections.pop(index, None)
        if connection:
            connection.close()

    def _close_all(self) -> None:
        for index in list(self._connections):
            self._drop(index)
