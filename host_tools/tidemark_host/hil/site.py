"""One site on loopback: broker, gateway process, update mirror, upstream reader, and a board."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tidemark_host import protocol
from tidemark_host.boards.base import Board, Cut, Line, Operation, Reset
from tidemark_host.factory import factory_image
from tidemark_host.faults.oracle import Oracle
from tidemark_host.faults.proxy import Network, Proxy
from tidemark_host.gateway.capture import Capture
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.service import DATABASE, INVENTORY
from tidemark_host.gateway.update_server import UpdateServer
from tidemark_host.gateway.upstream import BATCH
from tidemark_host.gateway.view import GatewayView
from tidemark_host.hil import images, processes, records, waiting
from tidemark_host.hil.records import Event
from tidemark_host.hil.targets import CONSOLE, PEEK, POWER, Target, power_cycle
from tidemark_host.hil.upstream import UpstreamReader
from tidemark_host.hil.waiting import HOST, SiteError, Timeout, free_port
from tidemark_host.inventory import DEFAULT_COHORT, Inventory
from tidemark_host.provision import BENCH_TRIAL, Anchors, Born, LinkSettings, begin, finish
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image

T = TypeVar("T")
Trial = tuple[int, str, str]  # release index, outcome, reason
_KEPT = ("keys", "updates", "yesterday", "gateway")  # folders that a snapshot has


@dataclass(frozen=True)
class Snapshot:
    """A site whose board was provisioned, at rest: files, flash, the ports it will look for."""

    folder: Path
    flash: bytes
    id: str
    public: bytes
    broker_port: int
    mirror_port: int


class Site:
    """`async with Site(folder, target) as site`: everything runs until the block ends.

    Waits are given in seconds on the virtual board; slower boards get `target.patience` times as
    many.
    """

    def __init__(
        self,
        folder: Path,
        target: Target,
        broker: str = "embedded",
        snapshot: Snapshot | None = None,
        faulty: bool = False,
    ) -> None:
        """`faulty`: the board reaches broker and mirror through fault proxies, calm at first."""
        self.folder = folder
        self.target = target
        self.snapshot = snapshot
        self.state = folder / "gateway"
        if snapshot:
            for name in _KEPT:
                shutil.copytree(snapshot.folder / name, folder / name)
        else:
            self.state.mkdir(parents=True)
        self.firmware = Path(__file__).parents[3] / "firmware"
        self.definition = target.definition
        self.identity = GatewayIdentity.load_or_create(self.state)
        self.inventory = Inventory(self.state / INVENTORY)
        # Made afresh for each first life of a board: no key outlives the run.
        updates, keys = folder / "updates", folder / "keys"
        if snapshot:
            self.repository = Repository.open(updates, KeyStore(keys))
        else:
            self.repository = Repository.create(updates, KeyStore.create(keys))
        self.yesterday = folder / "yesterday"  # the first metadata ever published, kept
        if not snapshot:
            shutil.copytree(self.repository.metadata_dir, self.yesterday)
        # Where the board finds them, by the settings that it was provisioned with.
        self.broker_port = snapshot.broker_port if snapshot else free_port()
        self.mirror_port = snapshot.mirror_port if snapshot else free_port()
        self.broker = processes.broker(broker, 0 if faulty else self.broker_port)
        self.mirror = UpdateServer(updates, port=free_port() if faulty else self.mirror_port)
        self.network: Network | None = None
        if faulty:
            oracle = Oracle(self.state / DATABASE)
            self.network = Network(
                Proxy(self.broker.port, self.broker_port, watch=oracle, note=self.note),
                Proxy(self.mirror.port, self.mirror_port, stream=True, note=self.note),
                Proxy(self.broker.port, free_port(), note=self.note),
                oracle,
            )
        self.capture_path = folder / "capture.jsonl"
        self.keylog = folder / "keylog.jsonl"
        self.gateway_log = folder / "gateway.log"
        port = self.network.gateway.port if self.network else self.broker.port
        options = ("--broker", f"{HOST}:{port}", "--keylog", str(self.keylog))
        self.gateway = processes.GatewayProcess(self.state, options, self.gateway_log)
        self._stack = AsyncExitStack()
        self.update_s = self.report_s = 2  # how often a board that is provisioned here asks
        self._seen: tuple[list[Reset], list[Operation]] | None = None
        self.id = snapshot.id if snapshot else ""
        self.public = snapshot.public if snapshot else b""
        # (epoch, index) forwarded before this site began: a board not told of it sends it again.
        self.accepted_before: set[tuple[int, int]] = set()
        # Messages in flight when the gateway was killed: upstream may be given them twice.
        self.in_flight: set[tuple[int, int]] = set()
        self.injected: set[bytes] = set()  # what an attacker of ours sent in the board's name
        self.notes: list[Line] = []  # what the bench did, for the timeline

    # -- life

    async def __aenter__(self) -> Self:
        try:
            return await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> Self:
        stack = self._stack
        # First of all: a board that can't be switched off still lives the life of another site.
        self.board: Board = await asyncio.to_thread(self.target.open, self.folder / "board")
        stack.callback(self.board.close)
        stack.callback(self._remember)
        if self.snapshot:
            await asyncio.to_thread(self.board.flash, self.snapshot.flash)
        else:
            await asyncio.to_thread(self.halt)
        await self.broker.start()
        stack.push_async_callback(self.broker.stop)
        await stack.enter_async_context(self.mirror)
        if self.network:
            stack.callback(self.network.oracle.close)
            for proxy in self.network.proxies:
                await stack.enter_async_context(proxy)
        self.capture = await stack.enter_async_context(
            Capture(HOST, self.broker.port, self.capture_path)
        )
        # Its session is clean: what the gateway forwards before it listens is not for it.
        self.upstream = UpstreamReader(HOST, self.broker.port, f"site/{self.identity.id}/#")
        self.upstream.start()
        stack.push_async_callback(self.upstream.stop)
        await self.until("the reader upstream listens", lambda: self.upstream.subscribed)
        if self.snapshot:
            self.accepted_before = self.accepted()
        await self.gateway.start()
        stack.push_async_callback(self.gateway.kill)
        ports = (self.broker_port, self.mirror_port)
        await stack.enter_async_context(self.target.link(self.board, ports))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def start_gateway(self) -> None:
        self.note("gateway started")
        await self.gateway.start()

    async def kill_gateway(self) -> None:
        self.note("gateway killed")
        await self.gateway.kill()
        for row in self.view.unconfirmed(BATCH):
            if "index" in row:
                self.in_flight.add((row["epoch"], row["index"]))

    async def rest(self, folder: Path) -> Snapshot:
        """Switch board and gateway off and keep both as they are in a new `folder`."""
        flash = await asyncio.to_thread(self._halted_flash)
        await self.kill_gateway()
        for name in _KEPT:
            shutil.copytree(self.folder / name, folder / name)
        return Snapshot(folder, flash, self.id, self.public, self.broker_port, self.mirror_port)

    def _remember(self) -> None:
        self._seen = list(self.board.resets), list(self.board.operations)

    def seen(self) -> tuple[Sequence[Reset], Sequence[Operation]]:
        """Return starts and flash operations of the board, also when it has been closed."""
        if self._seen is None and hasattr(self, "board"):
            return self.board.resets, self.board.operations
        return self._seen or ((), ())

    def note(self, text: str) -> None:
        """Say on the timeline what the bench does."""
        self.notes.append(Line(waiting.now(), text))

    @property
    def view(self) -> GatewayView:
        """The gateway's committed state, read from its file by another process than it."""
        return GatewayView(self.state / DATABASE)

    # -- waiting

    async def until(
        self, what: str, holds: Callable[[], T | None], timeout: float = 30.0, poll: float = 0.05
    ) -> T:
        """Wait until `holds` returns something true, and return that. Raises Timeout."""
        return await waiting.until(what, holds, timeout * self.target.patience, poll)

    async def said(self, text: str, timeout: float = 30.0, since: int = 0) -> Line:
        """Wait for a text on the board's console, in line `since` or later. Raises BoardTimeout.

        `since`: a former `len(site.board.serial_log)`.
        """
        patience = timeout * self.target.patience
        return await asyncio.to_thread(self.board.serial_log.wait_for, text, patience, since)

    def boots(self) -> int:
        """Return how many boots of the board the gateway has heard of."""
        return len(self.view.events(self.id, "boot"))

    async def heard(self, boots: int, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the hello of a boot after the first `boots`; return the board's claims."""
        await self.until("a hello", lambda: self.boots() > boots, timeout)
        return self.claims()

    async def claimed(self, timeout: float = 30.0, **wanted: Any) -> dict[str, Any]:
        """Wait until the board's claims have these values; return all of them."""

        def fit() -> dict[str, Any] | None:
            claims = self.claims()
            return claims if all(claims.get(k) == v for k, v in wanted.items()) else None

        return await self.until(f"claims {wanted}", fit, timeout)

    async def outcome(self, index: int, timeout: float = 60.0) -> Trial:
        """Wait until the trial of a release ends for good, and return how."""

        def ended() -> Trial | None:
            ends = [t for t in self.trials() if t[0] == index and t[1] != "inconclusive"]
            return ends[-1] if ends else None

        return await self.until(f"an end of the trial of release {index}", ended, timeout)

    # -- releases

    def image(
        self, name: str, fault: str = "good", table: int = images.TABLE_SIZE, **settings: Any
    ) -> Path:
        """Build an application image named `name` with one fault of `images.FAULTS`.

        `table`: bytes of ballast; what else is given are settings of the image.
        """
        agent = self.firmware / "agent"
        folder = images.overlay(self.folder / "source" / name, agent, fault, table)
        base = {"period_ms": self.target.period_ms, **settings}
        return build_image([self.firmware / "agent", folder], base, self.folder / f"{name}.romfs")

    def release(
        self,
        version: str,
        image: Path,
        *,
        runtime: bytes | Path | None = None,
        runtime_index: int | None = None,
        check_runtime: bool = True,
    ) -> int:
        """Sign and publish an image; returns its release index.

        runtime: published with it, as the runtime that it needs; without it, `runtime_index` is
        one that was published before. check_runtime: False takes one that no board would start.
        """
        board = self.definition
        if runtime is not None:
            runtime_index = self.repository.add_runtime(
                runtime,
                board=board,
                version=version,
                index=runtime_index,
                check_image=check_runtime,
            )
        least, cabled = runtime_index or 0, board.esp32 is None
        index = self.repository.add(
            image, board=board.name, version=version, min_runtime=least, cabled=cabled
        )
        self.repository.publish()
        self.note(f"release {index} ({version}) published, {image.stat().st_size} bytes")
        return index

    async def publish(
        self,
        version: str,
        fault: str = "good",
        table: int = 4096,
        *,
        runtime: bytes | Path | None = None,
        runtime_index: int | None = None,
        check_runtime: bool = True,
        **settings: Any,
    ) -> int:
        """Build an image, sign and publish it, with a runtime as `release` does; returns its
        release index."""
        image = await asyncio.to_thread(self.image, f"v{version}", fault, table, **settings)
        named: dict[str, Any] = {"runtime_index": runtime_index, "check_runtime": check_runtime}
        return self.release(version, image, runtime=runtime, **named)

    # -- the board

    def flash(self, image: Path, version: str) -> None:
        """Make a factory image with this release in slot A, flash the board, switch it on."""
        index = self.release(version, image)
        path = app_path(self.definition.name, index)
        blank = bytearray(factory_image(self.definition, self.repository.folder, path))
        for start, content in self.target.parts().items():
            blank[start : start + len(content)] = content
        since = len(self.board.serial_log)
        self.note("flashed with a factory image")
        self.board.flash(bytes(blank))
        self.board.power_on()
        patience = 30 * self.target.patience
        if CONSOLE in self.target.abilities:
            self.board.serial_log.wait_for("waits on this console", patience, since)
        else:
            self.board.repl(timeout=patience).close()

    def flash_and_provision(self, image: Path, version: str, cohort: str = DEFAULT_COHORT) -> Born:
        """Flash the board, then provision it and let it run."""
        self.flash(image, version)
        with self.board.repl(timeout=10 * self.target.patience) as console:
            born = begin(console)
            finish(console, self.anchors, self.link_settings(cohort))
        self.id, self.public = born.id, born.public
        self.inventory.enroll(born.public, born.board, "bench", cohort)
        self.board.reset()
        return born

    @property
    def anchors(self) -> Anchors:
        """What the owner gives a board to trust."""
        return Anchors(self.repository.root_bytes(), self.identity.public)

    def link_settings(self, cohort: str = DEFAULT_COHORT) -> LinkSettings:
        """Where the board finds this site, and how often it asks."""
        return LinkSettings(
            self.target.host,
            self.broker_port,
            f"http://{self.target.host}:{self.mirror_port}/metadata/",
            f"http://{self.target.host}:{self.mirror_port}/targets/",
            update_s=self.update_s,
            report_s=self.report_s,
            keepalive_s=4,
            cohort=cohort,
            trial=BENCH_TRIAL,
            wifi=self.target.wifi,
        )

    async def power_cycle(self) -> str:
        """Switch the board off and on, or reset it; returns which: `power` or `reset`."""
        how = await asyncio.to_thread(power_cycle, self.target, self.board)
        why = "power off and on" if how == "power" else f"reset, since {self.target.lacks(POWER)}"
        self.note(why)
        return how

    def halt(self) -> None:
        """Switch the board off, or stop its application where nothing can."""
        if POWER in self.target.abilities:
            self.board.power_off()
            return
        self.note(f"stopped at the REPL, since {self.target.lacks(POWER)}")
        self._stop()

    def _stop(self) -> None:
        self.board.repl(True, 10 * self.target.patience).close()

    def _halted_flash(self, off: bool = True) -> bytes:
        """Halt the board and return all of its flash; it has not run since. Without `off` one that
        had to be on to be read stays so: switched on for what comes next, it would run."""
        if PEEK in self.target.abilities:
            self.halt()
        else:
            self._stop()  # one that is off can't be read
        # It must not run on: its counter would go back with what is written later (I1).
        flash = self.board.read_flash(0, self.definition.flash_size, resume=False)
        if off and POWER in self.target.abilities:
            self.board.power_off()
        return flash

    async def cut(self, n: int, variant: str = "torn", timeout: float = 30.0) -> Cut:
        """Have the power fail at the n-th flash operation from now; return when it has."""
        self.board.cut_at(n, variant)
        cut = await asyncio.to_thread(self.board.wait_cut, timeout * self.target.patience)
        self.note(f"power failed {cut.variant} {cut.operation.kind} {cut.operation.address:#x}")
        return cut

    def patch_flash(self, changes: Sequence[tuple[str, int, bytes]]) -> None:
        """Change the flash as one with a programmer in hand can; off afterwards, if it can be.

        `changes`: (region, offset in it, bytes).
        """
        flash = bytearray(self._halted_flash(off=False))
        for region, offset, data in changes:
            start = self.definition.regions[region].offset + offset
            flash[start : start + len(data)] = data
        self.note("flash altered: " + ", ".join(region for region, _, _ in changes))
        self.board.flash(bytes(flash))

    # -- looking on from outside

    def readings(self) -> list[dict[str, Any]]:
        """Return the readings that the gateway accepted for upstream, in their order."""
        rows = self.view.upstream(self.id)
        return [row for row in rows if row.get("kind") in ("telemetry", "backlog")]

    def accepted(self) -> set[tuple[int, int]]:
        """Return (epoch, index) of the readings that the gateway accepted."""
        return {(row["epoch"], row["index"]) for row in self.readings()}

    def trials(self) -> list[Trial]:
        """Return (release index, outcome, reason) of each trial reported, oldest first."""
        last = [event["last-trial"] for event in self.view.events(self.id, "trial")]
        return [(index, outcome, reason) for index, _, outcome, reason, _ in last]

    def stored_readings(self) -> set[tuple[int, int]]:
        """Return (epoch, index) of each reading that waits in the outbox of a board that is off.

        Reads a copy of the flash with the firmware's own code: what a board would find at boot.
        """
        return records.stored_readings(self._copy("outbox"))

    def evidence(self) -> list[Event]:
        """Return what the board's evidence ring holds, oldest first; `chained` False: a gap.

        Read from the flash with the firmware's own code, the board's running or not.
        """
        return records.events(self._copy("evidence"))

    def _copy(self, name: str) -> Any:
        """Return a copy of a flash region as the firmware's own `Region`."""
        region = self.definition.regions[name]
        return records.region(self.firmware, self.read_flash(region.offset, region.size))

    def claims(self) -> dict[str, Any]:
        """Return the last verified claims of the board."""
        return self.view.claims(self.id)

    def slot_bytes(self, slot: str, size: int = 0, offset: int = 4096) -> bytes:
        """Return what the flash chip holds in a slot (`slot_a`, `slot_b`); `size` 0: all of it."""
        region = self.definition.regions[slot]
        if not size:
            return self.read_flash(region.offset, region.size)
        return self.read_flash(region.offset + offset, size)

    def read_flash(self, start: int, size: int) -> bytes:
        """Return what the flash holds, from a thread of its own: `await asyncio.to_thread(...)`.

        A board that has to be stopped for it has been heard again when this returns, so that what
        a test does next meets a board that runs. Raises Timeout.
        """
        if PEEK in self.target.abilities:
            return self.board.read_flash(start, size)
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise SiteError("in the event loop, which the board's link may need meanwhile")
        boots = self.boots()
        content = self.board.read_flash(start, size)
        if self.id and self.gateway.runs:
            end = time.monotonic() + 60 * self.target.patience
            while self.boots() <= boots:
                if time.monotonic() > end:
                    raise Timeout("not heard again after its flash was read")
                time.sleep(0.05)
        return content

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


def clean(folder: Path) -> None:
    """Remove a site's folder with all its keys."""
    shutil.rmtree(folder, ignore_errors=True)
