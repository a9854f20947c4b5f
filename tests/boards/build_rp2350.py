"""The RP2350's image from packages alone; a minute from nothing, so it runs by command:

.venv/bin/pytest tests/boards/build_rp2350.py -n 0
"""

from __future__ import annotations

import hashlib
import struct

import pytest

from tidemark_host import toolchain, toolchain_build, uf2_file
from tidemark_host.firmware import make_firmware
from tidemark_host.toolchain_cache import REPO

BOARD = "TIDEMARK_PICO2"
# RP2350 datasheet 5.9.5: an image definition that the boot ROM starts: a block's marker, then an
# item for an executable, secure, of Arm, for this chip.
MARKER, IMAGE_DEF = 0xFFFFDED3, 0x10210142


@pytest.mark.timeout(900)
def test_image_of_a_plain_pico_2_fits_its_limits_and_is_one_that_the_boot_rom_starts() -> None:
    report = make_firmware(BOARD)
    board = toolchain_build.board_of(BOARD)
    runtime = toolchain.firmware(BOARD).read_bytes()
    assert (REPO / "build" / BOARD / "firmware.uf2").read_bytes() == runtime
    parts = uf2_file.decode(runtime, board.chip)
    image = b"".join(parts[offset] for offset in sorted(parts))
    assert len(image) <= board.constants["RUNTIME_MAX"] + uf2_file.PAYLOAD
    # In the first 4 KiB, where the boot ROM looks.
    assert struct.pack("<2I", MARKER, IMAGE_DEF) in image[:4096]
    assert report.heap
    assert report.heap[0] >= report.heap[1]
    print(f"{BOARD}: {len(image)} bytes, heap {report.heap[0]}")
    print(f"sha256 {hashlib.sha256(runtime).hexdigest()}")
