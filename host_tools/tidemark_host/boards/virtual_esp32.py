"""The virtual ESP32: the virtual board with ESP-IDF's flash map, bootloader and reset causes.

What runs is what lies in ota_0 or ota_1, as the bootloader chooses at each hard reset. The same
port runs on it as on the chip, `firmware/tidemark/port/esp32.py`, over modules `esp32`, `machine`
and `network` that follow MicroPython's and ESP-IDF's sources (boards/VIRTUAL_ESP32/modules).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidemark_host import toolchain_virtual_esp32 as toolchain
from tidemark_host.boardfile import Board as Definition
from tidemark_host.boards.base import BoardError, Reset
from tidemark_host.boards.esp32_hardware import Esp32Hardware
from tidemark_host.boards.hardware import Hardware
from tidemark_host.boards.nor import PowerCut
from tidemark_host.boards.processor import Processor
from tidemark_host.boards.served import HUNG, OFF, RUNNING
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.esp32 import partitions
from tidemark_host.esp32.bootloader import BootError
from tidemark_host.esp32.image import ESP32, Segment, make_image
from tidemark_host.toolchain_build import board_of

BOARDS = ("TIDEMARK_ESP32", "TIDEMARK_ESP32_8MB")
BOARD = BOARDS[0]
_HEAP = "576k"  # as the virtual board's, and what chip and C runtime take, which are Python here
_SIZE_AT = 3  # in the image header: speed, and size of the flash in the upper half
_STARTS = 3  # after which a chip that finds nothing to start is called hung


def parts(board: Definition, image: bytes) -> dict[int, bytes]:
    """Return what is flashed beside a factory image: flash offset to content.

    A stand-in of ESP-IDF's bootloader, whose header says the size of the flash; the partition
    table; `image` as the runtime in ota_0.
    """
    assert board.esp32 is not None
    stand_in = bytearray(make_image([Segment(ESP32.ram, struct.pack("<I", 0))], ESP32))
    size = (board.flash_size >> 20).bit_length() - 1
    stand_in[_SIZE_AT] = size << 4 | stand_in[_SIZE_AT] & 0x0F
    table = partitions.encode(board.esp32.partitions, board.flash_size)
    return {
        board.chip.bootloader: bytes(stand_in),
        partitions.TABLE_OFFSET: table,
        board.regions["runtime"].offset: image,
    }


def board_with(flash_size: int) -> str:
    """Return the board with an ESP32 and this much flash. Raises BoardError `size`."""
    for name in BOARDS:
        if board_of(name).flash_size == flash_size:
            return name
    raise BoardError("size", f"no ESP32 of ours has {flash_size} bytes of flash")


class VirtualEsp32Board(VirtualBoard):
    """As `VirtualBoard`, which see. The pin EN is a power-on, as on the chip."""

    pin = "power-on"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        board: str = BOARD,
        image: bytes | None = None,
        heap: str = _HEAP,
        unique_id: bytes | None = None,
        auto_power: bool = False,
        weak: bool = False,
    ) -> None:
        """Make a board that is switched off. A new one has bootloader, table and runtime.

        `board`: a folder of boards/ with chip `esp32`. `image`: the application image in ota_0;
        by default the base as it is now. b"": the flash is blank. Raises BoardError `runtime`.
        """
        self.definition = board_of(board)
        if self.definition.chip.name != "esp32":
            raise BoardError("runtime", f"nothing here plays a {self.definition.chip.name}")
        super().__init__(
            folder,
            size=self.definition.flash_size,
            heap=heap,
            unique_id=unique_id,
            auto_power=auto_power,
            weak=weak,
        )
        if image != b"" and bytes(self._map) == b"\xff" * self.definition.flash_size:
            made = toolchain.runtime_image(self.definition) if image is None else image
            for start, content in parts(self.definition, made).items():
                self._map[start : start + len(content)] = content

    @property
    def running(self) -> int | None:
        """The slot of the runtime that the bootloader started last, None if it found none."""
        booted = self._esp32.booted
        return booted.index if booted else None

    @property
    def watchdog_left(self) -> float:
        """Seconds until one of the chip's watchdogs bites; 0 when none is armed."""
        due = self._hardware.bites_at()
        return 0.0 if due is None else max(0.0, due - time.monotonic())

    def cut_in(self, label: str, n: int, variant: str = "before") -> None:
        """Cut the power at the n-th flash operation from now in a partition, by whoever it is."""
        assert self.definition.esp32
        row = next(row for row in self.definition.esp32.partitions if row.label == label)
        self._service.do(lambda: self._esp32.cut_in(row.offset, row.size, n, variant))

    def brownout(self) -> None:
        """Let the supply fall for a moment: the chip resets itself. Raises BoardError `off`."""

        def dip() -> None:
            if self._state == OFF:
                raise BoardError("off", "a board without power has no brownout")
            self._restart("brownout")

        self._service.do(dip)

    # -- the service thread -------------------------------------------------------------------

    @property
    def _esp32(self) -> Esp32Hardware:
        assert isinstance(self._hardware, Esp32Hardware)
        return self._hardware

    def _start(self, cause: str, raw: bool = False) -> None:
        if cause == "soft" or self._bootloader(cause):
            super()._start(cause, raw)

    def _bootloader(self, cause: str) -> bool:
        """Have the bootloader choose; tell whether there is something to start."""
        self._state = RUNNING
        error: BootError | None = None
        for _ in range(_STARTS):
            try:
                boot = self._esp32.boot(cause if error is None else "reset")
            except PowerCut:
                self._resets.append(Reset(time.monotonic(), cause))
                self._interrupted(self._esp32.interrupted, self._esp32.variant)
                return False
            except BootError as found:
                error = found  # bootloader_reset: the chip tries again
                continue
            for index, code in boot.refused:
                self.serial_log.note(f"bootloader: ota_{index} refused: {code}")
            self.serial_log.note(f"bootloader: ota_{boot.index}")
            return True
        self._resets.append(Reset(time.monotonic(), cause))
        self._state = HUNG
        self.serial_log.note(f"nothing starts: {error}")
        self._service.notify()
        return False

    # -- making one ---------------------------------------------------------------------------

    def _make_processor(
        self,
        runtime: Path | Sequence[str] | None,
        heap: str,
        firmware: Path | None,
        code: str | Mapping[str, str] | None,
    ) -> Processor:
        chip = toolchain.chip_dir()
        return Processor(toolchain.processor(), heap, self._folder, None, None, chip)

    def _make_hardware(self, unique_id: bytes) -> Hardware:
        return Esp32Hardware(self._new_nor(), unique_id, self.definition.chip.watchdog_max_ms)
