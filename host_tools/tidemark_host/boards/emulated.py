"""An emulated Pico with its REPL on uart0, and how to measure code on it in cycles."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tidemark_host import toolchain
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError, BoardTimeout
from tidemark_host.boards.emulated_chip import MARK_ADDRESS, Chip, with_runtime
from tidemark_host.boards.repl import text
from tidemark_host.romfs import pack
from tidemark_host.toolchain_cache import REPO
from tidemark_host.toolchain_rp2 import flash_of

# Where modules under test are put: a slot, which a board that is not provisioned leaves alone.
_BENCH_REGION = load_board(REPO / "boards" / "TIDEMARK_PICO" / "board.toml").regions["slot_b"]
BENCH_OFFSET = _BENCH_REGION.offset
BENCH_SIZE = _BENCH_REGION.size
_XIP_BASE = 0x10000000
_MAX_OUTPUT = 1 << 20
_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"

_JOB = "_job"
_MOUNT = f"""
import sys, uctypes, vfs
vfs.mount(vfs.VfsRom(uctypes.bytearray_at({_XIP_BASE + BENCH_OFFSET}, %d)), "/bench")
sys.path.insert(0, "/bench")
# The base's timer would be part of what is measured. The watchdog that it feeds is off here.
from tidemark.port import rp2
for timer in rp2._timers:
    timer.deinit()
del sys, uctypes, vfs, rp2, timer
"""
# Runs on the board beside the job; its cost outside of the two marks does not count.
_BENCH = f"""
import gc
from machine import mem32
from micropython import const

_MARK = const({MARK_ADDRESS})
names = []
notes = {{}}


def measure(name, function, *args):
    # Call function(*args) and return its result; the host has the cycles of the call as `name`.
    gc.collect()
    names.append(name)
    before = gc.mem_alloc()
    mem32[_MARK] = 1
    result = function(*args)
    mem32[_MARK] = 2
    after = gc.mem_alloc()
    gc.collect()
    notes[name] = (after - before, gc.mem_alloc() - before)
    return result


def calibrate():
    mem32[_MARK] = 1
    mem32[_MARK] = 2
"""
_EPILOGUE = """
import bench, json
print("\\n" + json.dumps([bench.names, bench.notes, result]))
"""


@dataclass(frozen=True)
class Cost:
    """What one call of `bench.measure` cost.

    cycles: what a caller pays, from the lookup of the function to its return; the marks' own are
    taken off. allocated: bytes of heap taken, exact as long as the heap was not exhausted. kept:
    those still in use after a collection, the result among them.
    """

    cycles: int
    allocated: int
    kept: int


@dataclass(frozen=True)
class Measured:
    """What a job on the emulated board gave: `result`, its value as JSON; costs by name."""

    result: Any
    costs: Mapping[str, Cost]
    output: str

    @property
    def cycles(self) -> dict[str, int]:
        """Return name: cycles."""
        return {name: cost.cycles for name, cost in self.costs.items()}


class EmulatedPico:
    """A Pico that runs a UF2 image; its console is in the hands of the caller's process.

    Nothing of it runs in the background: emulated time stands still between two calls.
    """

    def __init__(
        self, uf2: Path, flash: Mapping[int, bytes] | None = None, *, watchdog: bool = True
    ) -> None:
        """Power on and wait for the REPL. `flash`: content by offset, put there before;
        with a part at 0 it is all of it.

        `watchdog`: False for one that never bites. Raises BoardTimeout when no prompt comes
        within 5 emulated seconds.
        """
        runtime = with_runtime(b"", flash_of(uf2.read_bytes()))
        content = flash if flash and 0 in flash else {0: runtime, **(flash or {})}
        self._begin(Chip(content, watchdog=watchdog))
        self._wait(b">>> ", 5.0, "the REPL's prompt")

    def _begin(self, chip: Chip) -> None:
        self.chip = chip
        self.chip.on_byte = self._on_byte
        self._wanted: bytes | None = None
        self._output = bytearray()
        self._raw = False

    @property
    def cycles(self) -> int:
        """Cycles executed since the last reset."""
        return self.chip.cycles

    @property
    def nanoseconds(self) -> float:
        """Emulated time since power-on."""
        return self.chip.nanoseconds

    def exec(self, code: str, timeout: float = 10.0) -> str:
        """Run `code` at the raw REPL and return what it printed, lines ended by a bare newline.

        timeout: emulated seconds. Raises BoardError: `exec` with the board's traceback; `fault`;
        BoardTimeout.
        """
        if not self._raw:
            self.chip.send(b"\x03\x01")
            self._wait(_RAW_PROMPT, 2.0, "the raw REPL")
            self._raw = True
        sent = code.encode()
        # What is sent takes its time on the line too.
        arrives = len(sent) / 10_000 + 1.0
        self.chip.send(sent + b"\x04")
        self._wait(b"OK", arrives, "the start of the code")
        out = self._wait(b"\x04", timeout, "the end of the code")
        error = self._wait(b"\x04", 2.0, "the end of the traceback")
        self._wait(b">", 2.0, "the raw prompt")
        if error:
            raise BoardError("exec", text(error))
        return text(out)

    def _on_byte(self, uart: int, byte: int) -> None:
        if uart != 0:
            return
        self._output.append(byte)
        if len(self._output) > _MAX_OUTPUT:
            raise BoardError("output", f"the board printed more than {_MAX_OUTPUT} bytes")
        if self._wanted and self._output.endswith(self._wanted):
            self.chip.stop()

    def _wait(self, end: bytes, seconds: float, what: str) -> bytes:
        """Run up to the output `end`; return what came before it."""
        self._output.clear()
        self._wanted = end
        try:
            if not self.chip.run(seconds):
                said = text(bytes(self._output[-500:]))
                raise BoardTimeout(f"no sign of {what} in {seconds} emulated seconds: {said!r}")
        finally:
            self._wanted = None
        return bytes(self._output[: -len(end)])


def cross_compile(name: str, source: str) -> bytes:
    """Return a module's .mpy for the RP2040; native, viper and asm_thumb code included.

    name: what tracebacks say. Raises BoardError `compile`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "module.py"), Path(folder, "module.mpy")
        path.write_text(source)
        command = [str(toolchain.mpy_cross()), "-march=armv6m", "-s", name, "-o", str(out)]
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise BoardError("compile", done.stderr.strip())
        return out.read_bytes()


def measure(
    files: Mapping[str, bytes],
    code: str,
    timeout: float = 120.0,
    uf2: Path | None = None,
    flash: Mapping[int, bytes] | None = None,
) -> Measured:
    """Boot an emulated Pico, run `code` there and return what it cost.

    files: what `code` can import or open below /bench, by path, most of them from
    `cross_compile`; they win over frozen modules of the same name, and run in place but for
    native code, which is copied to RAM. code: may call `bench.measure(name, function, *args)`,
    and leaves in `result` what the host gets, through JSON. timeout: emulated seconds for all of
    it. uf2: another image than TIDEMARK_PICO's. flash: what else is in the flash, by offset,
    behind the files. Two calls with the same arguments give the same
    cycles, exactly. Raises BoardError, BoardTimeout.
    """
    job = f"import bench\nresult = None\n{code}\n{_EPILOGUE}"
    image = pack(
        {
            **files,
            "bench.mpy": cross_compile("bench.py", _BENCH),
            f"{_JOB}.mpy": cross_compile("job.py", job),
        }
    )
    content: dict[int, bytes] = {**(flash or {}), BENCH_OFFSET: image}
    end = min((at for at in content if at > BENCH_OFFSET), default=BENCH_OFFSET + BENCH_SIZE)
    if len(image) > end - BENCH_OFFSET:
        raise BoardError("too-big", f"{len(image)} bytes of modules, {end - BENCH_OFFSET} fit")
    built = uf2 or toolchain.firmware("TIDEMARK_PICO")
    pico = EmulatedPico(built, content, watchdog=False)
    marks: list[tuple[int, int]] = []
    pico.chip.on_mark = lambda value: marks.append((value, pico.cycles))
    pico.exec(_MOUNT % len(image))
    pico.exec("import bench\nbench.calibrate()")
    empty = _intervals(marks)[0]
    marks.clear()
    output = pico.exec(f"import {_JOB}", timeout)
    said, _, last = output.rstrip("\n").rpartition("\n")
    names, notes, result = cast(
        "tuple[list[str], dict[str, tuple[int, int]], Any]", json.loads(last)
    )
    intervals = _intervals(marks)
    if len(intervals) != len(names) or len(set(names)) != len(names):
        raise BoardError("marks", f"{len(intervals)} intervals for the names {names}")
    costs = {
        name: Cost(cycles - empty, *notes[name])
        for name, cycles in zip(names, intervals, strict=True)
    }
    return Measured(result, costs, said)


def _intervals(marks: list[tuple[int, int]]) -> list[int]:
    """Return the cycles between each mark 1 and the mark 2 behind it."""
    if [value for value, _ in marks] != [1, 2] * (len(marks) // 2):
        raise BoardError("marks", "measurements inside of measurements")
    return [end - begin for (_, begin), (_, end) in zip(marks[::2], marks[1::2], strict=True)]
