"""The bridge on a pty: a board under real MicroPython reaches a real broker and update server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
import pytest
import pytest_asyncio

from tests.conftest import firmware_dir
from tests.unit.file_server import serve
from tidemark_host import toolchain
from tidemark_host.bridge import Bridge
from tidemark_host.cli.bridge import plain
from tidemark_host.gateway.broker import Mosquitto
from tidemark_host.hil.waiting import until

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
LIMIT_S = 60.0
IMAGE = random.Random(4).randbytes(48 * 1024)
DIGEST = hashlib.sha256(IMAGE).hexdigest()

Damage = Callable[[bytes], bytes]


def untouched(data: bytes) -> bytes:
    return data


class Cable:
    """A serial device that can be unplugged: the board's socket on one side, a pty on the other.

    `up`, `down`: what happens to bytes on their way to the host and to the board.
    """

    def __init__(self, path: Path, board: socket.socket) -> None:
        self.path = path
        self.up: Damage = untouched
        self.down: Damage = untouched
        self._master = self._slave = -1
        self._board = board
        self.attach(board)

    def attach(self, board: socket.socket) -> None:
        """Solder the line to this board."""
        asyncio.get_running_loop().remove_reader(self._board)
        if board is not self._board:
            self._board.close()
        self._board = board
        board.setblocking(False)
        asyncio.get_running_loop().add_reader(board, self._from_board)

    def plug(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._from_host)

    def unplug(self) -> None:
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            self.path.unlink()
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1

    def close(self) -> None:
        self.unplug()
        asyncio.get_running_loop().remove_reader(self._board)
        self._board.close()

    def _from_board(self) -> None:
        data = self.up(self._board.recv(4096))
        if self._master >= 0 and data:
            with contextlib.suppress(BlockingIOError):
                os.write(self._master, data)

    def _from_host(self) -> None:
        self.to_board(self.down(os.read(self._master, 4096)))

    def to_board(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                self._board.send(data)


class Board:
    """uart_board.py under MicroPython; `lines`: what it printed."""

    def __init__(self, line: socket.socket, broker: int, updates: int) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [
                *toolchain.quick_micropython(),
                str(HERE / "uart_board.py"),
                *map(str, (line.fileno(), broker, updates, len(IMAGE))),
                *map(str, (firmware_dir(), toolchain.umqtt_dir())),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[line.fileno()],
        )
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        asyncio.get_running_loop().add_reader(self._process.stdout, self._read)
        self._rest = b""

    def _read(self) -> None:
        assert self._process.stdout
        data = os.read(self._process.stdout.fileno(), 4096)
        if not data:
            asyncio.get_running_loop().remove_reader(self._process.stdout)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in lines]

    async def says(self, start: str | tuple[str, ...], count: int = 1) -> str:
        """Return the `count`-th line that begins with `start` (one of them), once there."""

        def found() -> list[str]:
            return [line for line in self.lines if line.startswith(start)][count - 1 :]

        try:
            return (await until(str(start), found, LIMIT_S))[0]
        except Exception as error:
            raise AssertionError(f"no {start!r} #{count} in {self.lines}") from error

    def close(self) -> None:
        assert self._process.stdout
        asyncio.get_running_loop().remove_reader(self._process.stdout)
        self._process.kill()
        self._process.communicate()


class Site:
    """Broker, update server, cable, and the board; a bridge is the test's own."""

    def __init__(self, broker: int, updates: int, path: Path) -> None:
        self.broker = broker
        self.updates = updates
        self.allow = [(HOST, broker), (HOST, updates)]
        self.events: list[str] = []
        ours, line = socket.socketpair()
        self.cable = Cable(path, ours)
        self.cable.plug()
        with line:
            self.board = Board(line, broker, updates)

    def bridge(
        self, allow: list[tuple[str, int]] | None = None, port: str | None = None
    ) -> Bridge:
        return Bridge(
            port or str(self.cable.path),
            self.allow if allow is None else allow,
            say=lambda event, values: self.events.append(f"{event} {values}"),
        )

    def reset_board(self) -> None:
        """Replace the board by one that has just started."""
        self.board.close()
        ours, line = socket.socketpair()
        self.cable.attach(ours)
        with line:
            self.board = Board(line, self.broker, self.updates)

    def close(self) -> None:
        self.board.close()
        self.cable.close()


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    files = tmp_path / "files"
    files.mkdir()
    (files / "image").write_bytes(IMAGE)
    with serve(files) as url:
        broker = Mosquitto(toolchain.mosquitto())
        async with broker:
            made = Site(broker.port, int(url.rsplit(":", 1)[1]), tmp_path / "ttyUSB")
            yield made
            made.close()


async def echo(port: int, payloads: list[bytes]) -> None:
    """Send each payload to the board and wait for its way back."""
    async with (
        asyncio.timeout(LIMIT_S),
        aiomqtt.Client(HOST, port, identifier="host") as client,
    ):
        await client.subscribe("out/+", qos=1)
        messages = client.messages
        for payload in payloads:
            await client.publish("in/x", payload, qos=1)
            assert bytes((await anext(messages)).payload) == payload


async def test_mqtt_and_a_download_share_the_line(site: Site) -> None:
    async with site.bridge() as bridge:
        await site.board.says("up 1")
        await echo(site.broker, [b"%d" % n * 100 for n in range(20)])
        assert await site.board.says("image") == f"image {DIGEST}"
        counters = bridge.counters
    assert counters.down_bytes > len(IMAGE)
    assert not [x for x in site.board.lines if x.startswith(("down", "interrupted"))]
    assert (counters.opened, counters.sessions, counters.violations) == (2, 0, 0)


class Noise:
    """A bad line: bytes lost, changed, doubled, and made up; repeats itself by its seed."""

    def __init__(self, seed: int, rate: float) -> None:
        self._random = random.Random(seed)
        self._rate = rate

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._random.random() >= self._rate:
                out.append(byte)
                continue
            kind = self._random.randrange(4)
            if kind == 1:
                out.append(byte ^ 1 << self._random.randrange(8))
            elif kind == 2:
                out += bytes((byte, byte))
            elif kind == 3:
                out += self._random.randbytes(8) + bytes((byte,))
        return bytes(out)


async def test_noise_costs_time_and_nothing_else(site: Site) -> None:
    site.cable.up = Noise(1, 0.0005)
    site.cable.down = Noise(2, 0.0005)
    async with site.bridge() as bridge:
        await site.board.says("up 1")
        assert await site.board.says("image") == f"image {DIGEST}"
        await echo(site.broker, [b"%d" % n * 100 for n in range(20)])
        counters = bridge.counters
    assert counters.bad_frames and counters.resent
    assert not [x for x in site.board.lines if x.startswith(("down", "interrupted"))]


async def test_unplugging_for_a_moment_keeps_the_connections(site: Site) -> None:
    async with site.bridge() as bridge:
        await site.board.says("up 1")
        for count in (2, 3):
            site.cable.unplug()
            await until("unplugged", lambda: not bridge.plugged.is_set())
            site.cable.plug()
            await until("plugged", lambda count=count: bridge.counters.port_opens == count)
        await echo(site.broker, [b"%d" % n for n in range(5)])
        assert await site.board.says("image") == f"image {DIGEST}"
        assert bridge.counters.sessions == 0
    assert not [x for x in site.board.lines if x.startswith(("down", "interrupted"))]


async def test_a_line_that_stays_dead_ends_the_connections_on_both_sides(site: Site) -> None:
    async with site.bridge() as bridge:
        await site.board.says("up 1")
        site.cable.unplug()
        await site.board.says("down")
        await until("the bridge drops them", lambda: bridge.counters.sessions == 1)
        site.cable.plug()
        await site.board.says("up 2")
        await echo(site.broker, [b"again"])
        assert await site.board.says("image") == f"image {DIGEST}"


async def test_a_new_bridge_knows_no_old_session(site: Site) -> None:
    async with site.bridge():
        await site.board.says("up 1")
    async with site.bridge() as bridge:
        await site.board.says("down")
        await site.board.says("up 2")
        await echo(site.broker, [b"again"])
        assert await site.board.says("image") == f"image {DIGEST}"
        assert bridge.counters.strangers


async def test_a_reset_of_the_board_closes_its_old_connections(site: Site) -> None:
    async with site.bridge() as bridge:
        await site.board.says("up 1")
        site.reset_board()
        await site.board.says("up 1")
        await echo(site.broker, [b"again"])
        assert await site.board.says("image") == f"image {DIGEST}"
        assert bridge.counters.sessions == 1
    assert any(event.startswith("dropped") for event in site.events)


async def test_a_destination_that_is_not_on_the_list_is_refused(site: Site) -> None:
    async with site.bridge([(HOST, site.broker)]) as bridge:
        await site.board.says("up 1")
        said = await site.board.says(("interrupted", "image"))
        assert said.split()[:2] == ["interrupted", "refused"]
        await echo(site.broker, [b"served"])
        assert bridge.counters.denied
        assert bridge.counters.opened == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
async def test_command_ends_cleanly_with_its_counters(
    site: Site, number: signal.Signals, status: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidemark_host", "bridge", "--json"),
        *("--port", str(site.cable.path)),
        *("--allow", f"{HOST}:{site.broker}", "--allow", f"{HOST}:{site.updates}"),
        stdout=subprocess.PIPE,
    )
    try:
        assert await site.board.says("image") == f"image {DIGEST}"
    finally:
        process.send_signal(number)
        out, _ = await process.communicate()
    assert process.returncode == status
    events = [json.loads(line) for line in out.splitlines()]
    assert {event["event"] for event in events} >= {"plugged", "opened", "stopped"}
    assert events[-1]["down_bytes"] > len(IMAGE)


async def test_device_in_use_is_waited_for(site: Site) -> None:
    async with site.bridge():
        await site.board.says("up 1")
        async with site.bridge() as second:
            await until("it says so", lambda: [e for e in site.events if "waiting" in e])
            assert not second.plugged.is_set()
            await echo(site.broker, [b"undisturbed"])


async def test_device_may_be_a_tcp_address(site: Site) -> None:
    cable = site.cable
    cable.unplug()

    async def wire(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def up(data: bytes) -> bytes:
            writer.write(data)
            return b""

        cable.up = up
        try:
            while data := await reader.read(4096):
                cable.to_board(data)
        finally:
            writer.close()

    async with await asyncio.start_server(wire, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with site.bridge(port=f"socket://{HOST}:{port}"):
            await site.board.says("up 1")
            await echo(site.broker, [b"over TCP"])
            assert await site.board.says("image") == f"image {DIGEST}"


def test_what_a_board_asks_in_vain_costs_a_line_a_destination_and_reaches_no_terminal() -> None:
    said: list[dict[str, object]] = []
    bridge = Bridge("nowhere", [(HOST, 1883)], say=lambda event, values: said.append(values))
    for port in range(1, 101):
        for _ in range(3):
            bridge.opened(0, "\x1b[2Jevil", port, 1.0)
    assert bridge.counters.denied == 300
    assert len(said) == 64
    assert plain(said[0]["to"]) == "\\x1b[2Jevil:1"
