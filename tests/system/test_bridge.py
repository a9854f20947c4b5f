"""The bridge on a pty: a board under real MicroPython reaches a real broker and update server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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
from tidemark_host.demo.site import until
from tidemark_host.gateway.broker import Mosquitto

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
        self._board = board
        board.setblocking(False)
        asyncio.get_running_loop().add_reader(board, self._from_board)
        self._master = self._slave = -1

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
        data = self.down(os.read(self._master, 4096))
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

    async def says(self, start: str, count: int = 1) -> str:
        """Return the `count`-th line that begins with `start`, once it is there."""

        def found() -> list[str]:
            return [line for line in self.lines if line.startswith(start)][count - 1 :]

        try:
            return (await until(start, found, LIMIT_S))[0]
        except Exception as error:
            raise AssertionError(f"no {start!r} #{count} in {self.lines}") from error

    def close(self) -> None:
        assert self._process.stdout
        asyncio.get_running_loop().remove_reader(self._process.stdout)
        self._process.kill()
        self._process.communicate()


class Site:
    """Broker, update server, cable, bridge, board."""

    def __init__(self, broker: int, updates: int, cable: Cable, bridge: Bridge) -> None:
        self.broker = broker
        self.updates = updates
        self.cable = cable
        self.bridge = bridge
        self.boards: list[Board] = []
        self.events: list[str] = []


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    files = tmp_path / "files"
    files.mkdir()
    (files / "image").write_bytes(IMAGE)
    ours, boards = socket.socketpair()
    with serve(files) as url, boards:
        updates = int(url.rsplit(":", 1)[1])
        async with Mosquitto(toolchain.mosquitto()) as broker:
            cable = Cable(tmp_path / "ttyUSB", ours)
            cable.plug()
            allow = [(HOST, broker.port), (HOST, updates)]
            async with Bridge(str(cable.path), allow) as bridge:
                made = Site(broker.port, updates, cable, bridge)
                made.boards.append(Board(boards, broker.port, updates))
                yield made
                for board in made.boards:
                    board.close()
            cable.close()


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
    board = site.boards[0]
    await board.says("up 1")
    await echo(site.broker, [b"%d" % n * 100 for n in range(20)])
    assert await board.says("image") == f"image {DIGEST}"
    counters = site.bridge.counters
    assert counters.down_bytes > len(IMAGE)
    assert not [line for line in board.lines if line.startswith(("down", "interrupted"))]
    assert (counters.opened, counters.sessions, counters.violations) == (2, 0, 0)
