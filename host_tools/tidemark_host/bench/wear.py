"""How long the flash lasts: counted erases of our state, and of littlefs doing a counter's work.

Ours is the firmware's own code on flashes that count, of the size that the Pico's regions have.
The peer is littlefs as MicroPython mounts it on RP2 and ESP32, with one 16-byte record saved a
message or a boot. A life ends when a sector has had its cycles: of ours the sector that was erased
most, of the peer's all of them as if it levelled perfectly, which is more than it does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from littlefs import LittleFS, UserContext

from tidemark_host.bench.registry import Results, suite
from tidemark_host.boardfile import Board, load_board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_cache import REPO

ENDURANCE = 100_000
"""Cycles of a sector: what makers of such flash chips promise."""
MESSAGES_A_DAY = 8640
"""One in ten seconds."""
BOOTS_A_DAY = 24
LEAST_YEARS = 10
"""Our goal for each part of the state, at these rates."""
_YEAR = 365.25
_MILLION = 1_000_000
_ERASES = "erases a million"

_BOARD = "TIDEMARK_PICO"
_PARTS = ("counter", "journal", "evidence", "outbox")
_READING = 24  # bytes
_RECORD = 16


@dataclass(frozen=True)
class Wear:
    """Erases of each sector and pages programmed, for a number of messages, readings or boots."""

    count: int
    erases: Sequence[int]
    programs: int

    def per_million(self) -> float:
        """Return erases for a million."""
        return sum(self.erases) * _MILLION / self.count

    def spread(self) -> float:
        """Return how much more the most erased sector had than the average; 1 is even."""
        total = sum(self.erases)
        return max(self.erases) * len(self.erases) / total if total else 1.0

    def life(self, even: bool = False) -> float:
        """Return how many until a sector has had its cycles; `even`: as if all had the same."""
        most = sum(self.erases) / len(self.erases) if even else max(self.erases)
        return ENDURANCE * self.count / most if most else float("inf")


# -- ours -----------------------------------------------------------------------------------------


class Ours:
    """The state of one provisioned board, each region on a flash of its own."""

    def __init__(self, board: Board) -> None:
        if str(firmware_dir()) not in sys.path:
            sys.path.append(str(firmware_dir()))
        modules: dict[str, Any] = {
            name: importlib.import_module(f"tidemark.{name}")
            for name in ("flash", "slots", *_PARTS)
        }
        self._modules = modules
        self.flashes = {
            name: NorFlash(board.regions[name].size, board.sector, board.page) for name in _PARTS
        }
        self._regions = {
            name: modules["flash"].Region(flash, 0, flash.size)
            for name, flash in self.flashes.items()
        }
        self._provision()

    def _part(self, name: str) -> Any:
        """Return a part of the state as a boot finds it."""
        part = getattr(self._modules[name], name.capitalize())(self._regions[name])
        part.recover()
        return part

    def _slots(self, journal: Any) -> Any:
        slots = self._modules["slots"].Slots(journal)
        slots.recover()
        return slots

    def _provision(self) -> None:
        """Write what provisioning and the first update run write: about 1 KiB of journal."""
        journal = self._part("journal")
        journal.put("key", bytes(range(32)))
        journal.put("config", bytes(160))
        self._slots(journal).provision(
            self._modules["slots"].Release(bytes(32), 60_000, 1, 0, "1.0.0")
        )
        journal.raise_mark("root", 1, bytes(32))
        for role in ("timestamp", "snapshot", "targets"):
            journal.raise_mark(role, 1, b"", bytes(32))
        journal.raise_mark("time", 1_700_000_000)
        self._counter = self._part("counter")
        self._counter.open_epoch()

    def boots(self, count: int) -> None:
        """Boot: what stage 0 and the first hello write (base.recover, claims.build)."""
        for _ in range(count):
            evidence, journal = self._part("evidence"), self._part("journal")
            evidence.add("boot", b"power-on")
            journal.affirm("key")
            self._slots(journal)
            self._part("counter").open_epoch()
            evidence.head()
            for mark in ("floor", "time", "root", "timestamp", "snapshot", "targets"):
                journal.affirm(mark)
            evidence.add("healthy")

    def measure_boots(self, count: int) -> dict[str, Wear]:
        """Boot so often and return what it cost each part."""
        return self.measure(self.boots, count)

    def messages(self, count: int) -> None:
        """Take counter values, within one boot."""
        for _ in range(count):
            self._counter.next(0)

    def readings(self, count: int) -> None:
        """Store readings and acknowledge them, within one boot."""
        outbox = self._part("outbox")
        for _ in range(count):
            outbox.ack(outbox.add(1, outbox.next_index(), bytes(_READING)))

    def measure(self, work: Callable[[int], None], count: int) -> dict[str, Wear]:
        """Do `work(count)` and return what it cost each part."""
        begun = {name: (list(f.erase_counts), f.programs) for name, f in self.flashes.items()}
        work(count)
        return {
            name: Wear(
                count,
                [now - was for now, was in zip(f.erase_counts, begun[name][0], strict=True)],
                f.programs - begun[name][1],
            )
            for name, f in self.flashes.items()
        }


# -- the peer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """How MicroPython mounts littlefs on a port (extmod/vfs_lfsx.c, the port's _boot.py)."""

    name: str
    blocks: int
    program: int
    block: int = 4096
    read: int = 32
    lookahead: int = 32
    cycles: int = 100

    @property
    def cache(self) -> int:
        """Bytes of a cache."""
        return min(self.block, 4 * max(self.read, self.program))


class _Counting(UserContext):
    """A flash that counts."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry.block * geometry.blocks)
        self._geometry = geometry
        self.erases = [0] * geometry.blocks
        self.programs = 0

    def read(self, cfg: object, block: int, off: int, size: int) -> bytearray:
        start = block * self._geometry.block + off
        return self.buffer[start : start + size]

    def prog(self, cfg: object, block: int, off: int, data: bytes) -> int:
        start = block * self._geometry.block + off
        self.buffer[start : start + len(data)] = data
        self.programs += len(data) // self._geometry.program
        return 0

    def erase(self, cfg: object, block: int) -> int:
        start = block * self._geometry.block
        self.buffer[start : start + self._geometry.block] = b"\xff" * self._geometry.block
        self.erases[block] += 1
        return 0

    def sync(self, cfg: object) -> int:
        return 0


class Peer:
    """A counter's record in a file on littlefs."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self.context = _Counting(geometry)
        self._fs = self._mounted()
        self._number = 0

    def _mounted(self) -> Any:
        geometry = self._geometry
        return LittleFS(
            context=self.context,
            block_size=geometry.block,
            block_count=geometry.blocks,
            read_size=geometry.read,
            prog_size=geometry.program,
            cache_size=geometry.cache,
            lookahead_size=geometry.lookahead,
            block_cycles=geometry.cycles,
        )

    def rewrite(self) -> None:
        """Write the file anew, in place of its former content."""
        self._write("counter")

    def replace(self) -> None:
        """Write a temporary file, then rename it over the former one."""
        self._write("counter~")
        self._fs.rename("counter~", "counter")

    def boot(self) -> None:
        """Mount again, read the record, write the next one."""
        self._fs.unmount()
        self._fs = self._mounted()
        if self._number:
            with self._fs.open("counter", "rb") as file:
                assert int.from_bytes(file.read(_RECORD), "big") == self._number
        self.rewrite()

    def _write(self, name: str) -> None:
        self._number += 1
        with self._fs.open(name, "wb") as file:
            file.write(self._number.to_bytes(_RECORD, "big"))

    def measure(self, save: Callable[[], None], count: int) -> Wear:
        """Call `save` `count` times and return what that cost."""
        begun, programs = list(self.context.erases), self.context.programs
        for _ in range(count):
            save()
        erases = [now - was for now, was in zip(self.context.erases, begun, strict=True)]
        return Wear(count, erases, self.context.programs - programs)


# -- the suite ------------------------------------------------------------------------------------


def years(life: float, a_day: float) -> float:
    """Return a life in years, at so many messages or boots a day."""
    return life / a_day / _YEAR


def _add(results: Results, what: str, wear: Wear, goal: float | None, by: str, peer: bool) -> None:
    boots = what.endswith("boot")
    results.add(
        f"{what}: {_ERASES}",
        wear.per_million(),
        "erases",
        variant=by,
        goal=goal,
        peer=peer,
        note=f"{len(wear.erases)} sectors, spread {wear.spread():.1f}",
    )
    life = wear.life(even=peer)
    if life == float("inf"):
        return  # it wears nothing
    a_day = BOOTS_A_DAY if boots else MESSAGES_A_DAY
    results.add(
        f"{what}: life, {a_day:,} a day",
        years(life, a_day),
        "years",
        variant=by,
        goal=None if peer else LEAST_YEARS,
        at_least=True,
        peer=peer,
        note=f"{life / _MILLION:,.1f} million",
    )


@suite("wear")
def wear(results: Results, boots: int = 4096, readings: int = 20_000, saves: int = 20_000) -> None:
    """Count it, ours and the peers'."""
    board = load_board(REPO / "boards" / _BOARD / "board.toml")
    ours = Ours(board)
    blocks = board.regions["vfs"].size // board.sector
    few = board.regions["counter"].size // board.sector
    peers = (
        Geometry("rp2", blocks, 256),
        Geometry("esp32", 512, 32),
        # In the space of our counter.
        Geometry("rp2", few, 256),
        Geometry("esp32", few, 32),
    )

    message = ours.measure(ours.messages, saves)["counter"]
    _add(results, "counter, a message", message, 1, "tidemark", False)
    for geometry in peers:
        by = f"littlefs {geometry.name}, {geometry.blocks} sectors"
        peer = Peer(geometry)
        found = peer.measure(peer.rewrite, saves)
        _add(results, "counter, a message", found, None, f"{by}, rewritten", True)
        if geometry.blocks > few:
            found = peer.measure(peer.replace, saves)
            _add(results, "counter, a message", found, None, f"{by}, renamed", True)

    cost = ours.measure_boots(boots)
    _add(results, "counter, a boot", cost["counter"], 4000, "tidemark", False)
    for geometry in peers:
        peer = Peer(geometry)
        found = peer.measure(peer.boot, boots)
        by = f"littlefs {geometry.name}, {geometry.blocks} sectors, rewritten"
        _add(results, "counter, a boot", found, None, by, True)

    for part in ("journal", "evidence"):
        _add(results, f"{part}, a boot", cost[part], None, "tidemark", False)
    reading = ours.measure(ours.readings, readings)["outbox"]
    _add(results, "outbox, a reading", reading, None, "tidemark", False)
