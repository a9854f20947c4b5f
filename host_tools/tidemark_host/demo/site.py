"""One site on loopback: broker, gateway process, mirror, upstream reader, and a virtual board."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiomqtt

from tidemark_host import protocol
from tidemark_host.boardfile import Board, load_board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.demo import images
from tidemark_host.factory import factory_image
from tidemark_host.gateway.broker import Mosquitto
from tidemark_host.gateway.capture import Capture
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.service import DATABASE, INVENTORY
from tidemark_host.gateway.update_server import UpdateServer
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import DEFAULT_COHORT, Inventory
from tidemark_host.provision import Anchors, Born, LinkSettings, begin, finish
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image

HOST = "127.0.0.1"
BOARD = "VIRTUAL"
_POLL_S = 0.05
T = TypeVar("T")


class Timeout(Exception):
    """What a step waited for did not happen in its bound."""


@dataclass
class UpstreamReader:
    """A consumer of what the gateway forwards, as a cloud would be; keeps what it was given."""

    host: str
    port: int
    topic: str
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    subscribed: bool = False
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(
                    self.host, self.port, identifier="demo-upstream", timeout=5
                ) as client:
                    await client.subscribe(self.topic, qos=1)
                    self.subscribed = True
                    async for message in client.messages:
                        self.messages.append(json.loads(bytes(message.payload)))
            except aiomqtt.MqttError:
                self.subscribed = False
                await asyncio.sleep(0.1)


class BrokerProcess:
    """The embedded broker in a process of its own: what is killed has no time to say goodbye."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it accepts connections. Raises Timeout."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tidemark_host.gateway.broker", str(self.port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until("the broker accepts connections", self._accepts)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    async def stop(self) -> None:
        """SIGKILL to its own process."""
        process, self._process = self._process, None
        if process and process.returncode is None:
            process.kill()
            await process.wait()


class Site:
    """`async with Site(folder) as site`: everything runs until the block ends."""

    def __init__(self, folder: Path, broker: str = "embedded") -> None:
        self.folder = folder
        self.state = folder / "gateway"
        self.state.mkdir(parents=True)
        self.firmware = Path(__file__).parents[3] / "firmware"
        boards = Path(__file__).parents[3] / "boards"
        self.definition: Board = load_board(boards / BOARD / "board.toml")
        self.broker = _broker(broker)
        self.identity = GatewayIdentity.load_or_create(self.state)
        self.inventory = Inventory(self.state / INVENTORY)
        self.keylog = folder / "keylog.jsonl"
        # Made afresh in each run: no key of the demo outlives it.
        keys = KeyStore.create(folder / "keys")
        self.repository = Repository.create(folder / "updates", keys)
        self.mirror = UpdateServer(folder / "updates")
        self.yesterday = folder / "yesterday"  # the first metadata ever published, kept
        shutil.copytree(self.repository.metadata_dir, self.yesterday)
        self.capture_path = folder / "capture.jsonl"
        self.gateway_log = folder / "gateway.log"
        self._gateway: asyncio.subprocess.Process | None = None
        self._stack = AsyncExitStack()
        self.id = ""
        self.public = b""
        self.injected: set[bytes] = set()  # what the demo's attacker sent in the board's name

    # -- life

    async def __aenter__(self) -> Self:
        await self.broker.start()
        self._stack.push_async_callback(self.broker.stop)
        await self._stack.enter_async_context(self.mirror)
        self.capture = await self._stack.enter_async_context(
            Capture(HOST, self.broker.port, self.capture_path)
        )
        await self.start_gateway()
        self._stack.push_async_callback(self.kill_gateway)
        self.upstream = UpstreamReader(HOST, self.broker.port, f"site/{self.identity.id}/#")
        self.upstream.start()
        self._stack.push_async_callback(self.upstream.stop)
        self.board = VirtualBoard(self.folder / "board")
        self._stack.callback(self.board.close)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def start_gateway(self) -> None:
        """Start the gateway as its own process and wait until it serves."""
        begin = self.gateway_log.stat().st_size if self.gateway_log.exists() else 0
        with self.gateway_log.open("ab") as log:
            self._gateway = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tidemark_host", "gateway"),
                *("--state", str(self.state)),
                *("--broker", f"{HOST}:{self.broker.port}"),
                *("--keylog", str(self.keylog)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def ready() -> bool:
            return b"ready:" in self.gateway_log.read_bytes()[begin:]

        await until("the gateway is ready", ready)

    async def kill_gateway(self) -> None:
        """End the gateway as a power cut would: SIGKILL to its own process."""
        process, self._gateway = self._gateway, None
        if process and process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()

    @property
    def view(self) -> GatewayView:
        """The gateway's committed state, read from its file by another process than it."""
        return GatewayView(self.state / DATABASE)

    # -- releases

    def image(self, name: str, fault: str = "good", **settings: Any) -> Path:
        """Build an application image named `name` with one fault of `images.FAULTS`."""
        folder = images.overlay(self.folder / "source" / name, self.firmware / "agent", fault)
        base = {"period_ms": 40, **settings}
        return build_image([self.firmware / "agent", folder], base, self.folder / f"{name}.romfs")

    def release(self, version: str, image: Path, *, board: str = BOARD) -> int:
        """Sign and publish an image; returns its release index."""
        index = self.repository.add(image, board=board, version=version)
        self.repository.publish()
        return index

    # -- the board

    def flash(self, image: Path, version: str) -> None:
        """Make a factory image with this release in slot A, flash the board, switch it on."""
        index = self.release(version, image)
        path = app_path(BOARD, index)
        blank = factory_image(self.definition, self.repository.folder, path)
        self.board.flash(blank)
        self.board.power_on()
        self.board.serial_log.wait_for("waits on this console")

    def flash_and_provision(self, image: Path, version: str, cohort: str = DEFAULT_COHORT) -> Born:
        """Flash the board, then provision it and let it run."""
        self.flash(image, version)
        link = LinkSettings(
            HOST,
            self.broker.port,
            f"{self.mirror.url}/metadata/",
            f"{self.mirror.url}/targets/",
            update_s=2,
            report_s=2,
            keepalive_s=4,
            cohort=cohort,
        )
        with self.board.repl() as console:
            born = begin(console)
            anchors = Anchors(self.repository.root_bytes(), self.identity.public)
            finish(console, anchors, link)
        self.id, self.public = born.id, born.public
        self.inventory.enroll(born.public, born.board, "demo", cohort)
        self.board.reset()
        return born

    # -- looking on from outside

    def readings(self) -> list[dict[str, Any]]:
        """Return the readings that the gateway accepted for upstream, in their order."""
        rows = self.view.upstream(self.id)
        return [row for row in rows if row.get("kind") in ("telemetry", "backlog")]

    def trials(self) -> list[tuple[int, str, str]]:
        """Return (release index, outcome, reason) of each trial reported, oldest first."""
        last = [event["last-trial"] for event in self.view.events(self.id, "trial")]
        return [(index, outcome, reason) for index, _, outcome, reason, _ in last]

    def stored_readings(self) -> set[tuple[int, int]]:
        """Return (epoch, index) of each reading that waits in the outbox of a board that is off.

        Reads a copy of the flash with the firmware's own code: what a board would find at boot.
        """
        if str(self.firmware) not in sys.path:
            sys.path.append(str(self.firmware))
        from tidemark.flash import Region
        from tidemark.outbox import Outbox

        region = self.definition.regions["outbox"]
        copy = NorFlash(bytearray(self.board.read_flash(region.offset, region.size)))
        outbox: Any = Outbox(Region(copy, 0, region.size))
        count: int = outbox.recover()
        return {(epoch, index) for _, epoch, index, _ in outbox.pending(limit=count)}

    def claims(self) -> dict[str, Any]:
        """Return the last verified claims of the board."""
        return self.view.claims(self.id)

    def slot_bytes(self, slot: str, size: int, offset: int = 4096) -> bytes:
        """Return what the flash chip holds in a slot (`slot_a`, `slot_b`)."""
        return self.board.read_flash(self.definition.regions[slot].offset + offset, size)

    def counters(self) -> list[tuple[int, int]]:
        """Return the (epoch, seq) of every counted message that the wire saw from the board."""
        seen: dict[bytes, tuple[int, int]] = {}
        for message in self.capture.messages:
            prefix, kind = message.topic.rsplit("/", 1)
            ours = prefix == f"tm/1/{self.id}/up" and message.payload not in self.injected
            if ours and kind != "hello":
                space = protocol.UP[kind].space
                assert space is not None
                envelope = protocol.open_envelope(message.payload)
                counter = protocol.peek_counted(envelope, space)
                seen[message.payload] = (counter.epoch, counter.seq)
        return list(seen.values())


async def until(
    what: str, holds: Callable[[], T | None], timeout: float = 30.0, poll: float = _POLL_S
) -> T:
    """Wait until `holds` returns something true, and return that. Raises Timeout."""
    end = time.monotonic() + timeout
    while True:
        value = await asyncio.to_thread(holds)
        if value is not None and value:
            return value
        if time.monotonic() > end:
            raise Timeout(f"not within {timeout:.0f} s: {what}")
        await asyncio.sleep(poll)


def _broker(kind: str) -> BrokerProcess | Mosquitto:
    if kind == "mosquitto":
        from tidemark_host import toolchain

        return Mosquitto(toolchain.mosquitto())
    return BrokerProcess()


def free_port() -> int:
    """Return a loopback port that was free just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def clean(folder: Path) -> None:
    """Remove a site's folder with all its keys."""
    shutil.rmtree(folder, ignore_errors=True)
