"""What the image of the Pico costs: boot, hand-over, heap, imports, hashing from flash."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tidemark_host import toolchain
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.bench.aged import aged
from tidemark_host.bench.registry import Results, suite
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.emulated import EmulatedPico, measure
from tidemark_host.boards.emulated_chip import Chip
from tidemark_host.boards.emulated_life import provisioned
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_cache import REPO

BOARD = "TIDEMARK_PICO"
HAND_OVER_MS = 150
BASE_HEAP = 60 * 1024
FREE_HEAP = 120 * 1024
_UP_S = 5.0  # emulated; by then the agent has tried its link and taken readings
_JOB = """
import hashlib, uctypes

def sha256_of_64k():
    # In place, as a slot is checked.
    return hashlib.sha256(uctypes.bytearray_at(0x10000000, 65536)).digest()

def loop():
    for _ in range(10000):
        pass

bench.measure("SHA-256 of 64 KiB of flash", sha256_of_64k)
bench.measure("10,000 rounds of an empty loop", loop)
bench.measure("import tidemark.cbor", __import__, "tidemark.cbor")
"""
_CHECK = """
import time
from tidemark import image, stage0
base = stage0.base
release = base.slots.release(0)
begin = time.ticks_us()
image.check(base.regions["slot_a"], release)
print(time.ticks_diff(time.ticks_us(), begin))
"""


@dataclass(frozen=True)
class Costs:
    """What a running board costs. `base_heap`: bytes that hold all modules of the base, `free`:
    bytes left to an agent that is up; `hand_over_ms`: from reset to the application, without the
    `hashing_ms` of its image; `aged_ms`: the same where all of its flash state is full. The same
    image gives the same figures."""

    base_heap: int
    free: int
    hand_over_ms: float
    hashing_ms: float
    aged_ms: float


def base_heap(pico: EmulatedPico) -> int:
    """Return the bytes of heap in use with all of the base imported, on a blank board."""
    for path in sorted((firmware_dir() / "tidemark").glob("*.py")):
        if path.stem != "__init__":
            pico.exec(f"import tidemark.{path.stem}")
    return int(pico.exec("import gc; gc.collect(); print(gc.mem_alloc())"))


def costs(uf2: Path) -> Costs:
    """Boot a blank board with all of its base, and a provisioned one into its agent."""
    definition = load_board(REPO / "boards" / BOARD / "board.toml")
    with tempfile.TemporaryDirectory() as name:
        made = provisioned(definition, uf2, firmware_dir() / "agent", Path(name))
    board = _Running({0: made.flash})
    hashing = int(board.exec(_CHECK)) / 1000
    free = int(board.exec("import gc; gc.collect(); print(gc.mem_free())"))
    return Costs(
        base_heap(EmulatedPico(uf2)),
        free,
        board.hand_over_ms - hashing,
        hashing,
        _Running({0: aged(made.flash, definition)}).hand_over_ms - hashing,
    )


@suite("board")
def board(results: Results) -> None:
    """Measure the image on the emulated Pico."""
    image = rp2.firmware(BOARD, toolchain.mpy_cross(), toolchain.umqtt_dir())
    results.add("image", image.size, "bytes of flash")
    pico = EmulatedPico(image.uf2)
    results.add("boot of a blank board to the REPL", pico.nanoseconds / 1e6, "ms")
    used = int(pico.exec("import gc; gc.collect(); print(gc.mem_alloc())"))
    results.add("heap in use, blank board", used, "bytes")
    found = costs(image.uf2)
    results.add("heap in use, all of the base imported", found.base_heap, "bytes", goal=BASE_HEAP)
    note = f"and {found.hashing_ms:.1f} ms to hash its image"
    results.add("reset to hand-over", found.hand_over_ms, "ms", goal=HAND_OVER_MS, note=note)
    note = "counter, evidence and outbox have gone round, the journal is nearly full"
    results.add("reset to hand-over, aged board", found.aged_ms, "ms", note=note)
    results.add("heap free, agent up", found.free, "bytes", goal=FREE_HEAP, at_least=True)
    results.add_cycles(measure({}, _JOB))


class _Running(EmulatedPico):
    """A board whose application is interrupted after a while, with all that it has in its heap."""

    def __init__(self, flash: dict[int, bytes]) -> None:
        self._begin(Chip(flash))
        self._wait(b"tidemark: slot a", 5.0, "the hand-over")
        # The text was begun when the line had taken its first byte.
        self.hand_over_ms = (self.nanoseconds - 16 * self.chip.byte_ns(0)) / 1e6
        if self.chip.run(_UP_S):
            raise BoardError("stopped", "the board stopped by itself")
        self.chip.send(b"\x03")
        self._wait(b">>> ", 5.0, "the REPL's prompt")
