"""What the image of the Pico costs: boot, hand-over, heap, imports, hashing from flash."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tidemark_host import toolchain
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.bench.registry import Results, suite
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.emulated import EmulatedPico, measure
from tidemark_host.boards.emulated_chip import Chip
from tidemark_host.boards.emulated_life import provisioned
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_cache import REPO

_BOARD = "TIDEMARK_PICO"
_HAND_OVER_MS = 150
_BASE_HEAP = 60 * 1024
_FREE_HEAP = 120 * 1024
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


@suite("board")
def board(results: Results) -> None:
    """Measure the image on the emulated Pico."""
    image = rp2.firmware(_BOARD, toolchain.mpy_cross(), toolchain.umqtt_dir())
    results.add("image", image.size, "bytes of flash")
    pico = EmulatedPico(image.uf2)
    results.add("boot of a blank board to the REPL", pico.nanoseconds / 1e6, "ms")
    used = int(pico.exec("import gc; gc.collect(); print(gc.mem_alloc())"))
    results.add("heap in use, base imported", used, "bytes", goal=_BASE_HEAP)
    _life(results, image.uf2)
    results.add_cycles(measure({}, _JOB))


def _life(results: Results, uf2: Path) -> None:
    """Boot a provisioned board into its agent, then look at its heap from the REPL."""
    definition = load_board(REPO / "boards" / _BOARD / "board.toml")
    with tempfile.TemporaryDirectory() as name:
        made = provisioned(definition, uf2, firmware_dir() / "agent", Path(name))
    board = _Running({0: made.flash})
    hashing = int(board.exec(_CHECK)) / 1000
    results.add(
        "reset to hand-over",
        board.hand_over_ms - hashing,
        "ms",
        goal=_HAND_OVER_MS,
        note=f"and {hashing:.1f} ms to hash its image",
    )
    free = int(board.exec("import gc; gc.collect(); print(gc.mem_free())"))
    results.add("heap free, agent up", free, "bytes", goal=_FREE_HEAP, at_least=True)


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
