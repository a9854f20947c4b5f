"""What an ESP32 adds to the simulated board: ESP-IDF's bootloader, two runtimes, and otadata.

Bootloader and `esp_ota_ops` are the host's models (docs/esp32-bootloader.md). Each of their flash
operations is one of the life's, so power can be cut at each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidemark_host.boardfile import Board, parse_board, runtime_mark
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32 import bootloader
from tidemark_host.esp32.bootloader import Bootloader, Layout
from tidemark_host.esp32.flash import Region
from tidemark_host.esp32.image import ESP32, ImageError, Segment, make_image, verify
from tidemark_host.esp32.ota_ops import OtaError, OtaOps
from tidemark_host.esp32.otadata import OtadataError

NAME = "SIMULATED_ESP32"
# As boards/TIDEMARK_ESP32, in the smallest flash that ESP-IDF has a setting for; the regions of
# the base as small as those of the board in world.py.
_BOARD = """
name = "SIMULATED_ESP32"
chip = "esp32"
[flash]
size = 0x200000
sector = 4096
page = 256
[regions]
runtime = [0x10000, 0x10000]
slot_a = [0x30000, 0x06000]
slot_b = [0x36000, 0x06000]
provisioning = [0x3C000, 0x01000]
counter = [0x3D000, 0x02000]
journal = [0x3F000, 0x04000]
evidence = [0x43000, 0x02000]
outbox = [0x45000, 0x03000]
vfs = [0x48000, 0x11000]
[partitions]
nvs = [0x09000, 0x04000]
otadata = [0x0D000, 0x02000]
phy_init = [0x0F000, 0x01000]
ota_1 = [0x20000, 0x10000]
[watchdog]
timeout_ms = 4000
[trial]
hold_ms = 300
limit_ms = 60000
backoff_ms = 1000
[lease]
boot_ms = 30000
repl_ms = 60000
[health]
heap_floor = 16384
[limits]
runtime_max = 0x10000
heap = 262144
"""
_TRIAL_LIMIT_MS = 10_000
RTC_WATCHDOG_MS = 9000  # boards/esp32/sdkconfig.tidemark: bootloader and start-up code
OPERATION_MS = 23  # of the bootloader: an erase and a program are two
_HANGS = b"hangs"
_MARK = re.compile(re.escape(runtime_mark(NAME, 0)).replace(b"0", rb"(\d+)") + b"(hangs)?")
_FILLER = 4608  # bytes: with the header more than one sector


@dataclass(frozen=True)
class Runtime:
    """A runtime image. `sound`: it reaches stage 0; the other hangs until the watchdog bites."""

    index: int
    sound: bool
    image: bytes


def runtime(index: int, sound: bool = True) -> Runtime:
    """Make a runtime: bytes that the bootloader takes, of what the world runs in their place."""
    blocks = (hashlib.sha256(f"{index} {n}".encode()).digest() for n in range(_FILLER // 32))
    content = runtime_mark(NAME, index) + (b"" if sound else _HANGS)
    content = content.ljust(64) + b"".join(blocks)
    return Runtime(index, sound, make_image([Segment(ESP32.ram, content)]))


def read(image: bytes) -> tuple[int, bool]:
    """Return index and soundness of a runtime. Raises ValueError if `runtime` did not make it."""
    found = _MARK.search(image)
    if not found:
        raise ValueError("no runtime of the simulated board")
    return int(found[1]), not found[2]


def make_board() -> Board:
    """Return the simulated ESP32: its flash ends behind what its map uses, as forks copy it, and
    its trials are shorter than a board in the field may have them."""
    board = parse_board(_BOARD.encode())
    constants = {**board.constants, "TRIAL_LIMIT_MS": _TRIAL_LIMIT_MS}
    return dataclasses.replace(board, flash_size=board.regions["vfs"].end, constants=constants)


def layout_of(board: Board) -> Layout:
    """Return what bootloader and otadata need of a board's partitions."""
    assert board.esp32
    return bootloader.layout_of(board.esp32.partitions)


def with_runtime(board: Board, content: bytes, image: bytes) -> bytes:
    """Return a flash as a factory image has it: a runtime in ota_0, otadata blank."""
    start = layout_of(board).ota[0].offset
    return content[:start] + image + content[start + len(image) :]


class Power(Protocol):
    """A flash whose operations are counted, and can be where the power fails (life.Life)."""

    nor: NorFlash

    def operate(self, address: int, data: bytes | None) -> None: ...


class _Flash:
    """The living flash, for the models."""

    def __init__(self, power: Power) -> None:
        self._power = power
        self.page = power.nor.page
        self.size = power.nor.size

    def view(self, start: int, size: int) -> memoryview:
        return self._power.nor.view(start, size)

    def erase(self, addr: int) -> None:
        self._power.operate(addr, None)

    def program(self, addr: int, data: bytes) -> None:
        self._power.operate(addr, data)


class Chip:
    """The chip's own side of a boot. `slot`, `index`: of the runtime that was started last."""

    def __init__(self, board: Board, power: Power) -> None:
        self.layout = layout_of(board)
        self._power = power
        self.slot = 0
        self.index = 0

    def boot(self) -> bool:
        """Do what follows a hard reset; say whether the runtime gets to stage 0.

        Raises bootloader.BootError when nothing starts, and what the flash raises.
        """
        boot = Bootloader(_Flash(self._power), self.layout).boot()
        self.slot = boot.index
        self.index, sound = read(image_in(self._power.nor, self.layout.ota[boot.index]))
        return sound

    def set_boot(self, slot: int) -> str:
        """esp32.Partition.set_boot of the running application; return ESP-IDF's refusal or ""."""
        return self._call(lambda ota: ota.set_boot_partition(slot))

    def mark_valid(self) -> str:
        """esp32.Partition.mark_app_valid_cancel_rollback; return ESP-IDF's refusal or ""."""
        return self._call(lambda ota: ota.mark_app_valid_cancel_rollback())

    def _call(self, call: Callable[[OtaOps], None]) -> str:
        try:
            call(OtaOps(_Flash(self._power), self.layout, self.slot))
        except (OtaError, OtadataError) as error:
            return str(error)
        return ""


def image_in(flash: NorFlash, region: Region) -> bytes:
    """Return the bytes of the image that a slot holds, b"" if it would not start."""
    try:
        length = verify(flash, region).length
    except ImageError:
        return b""
    return bytes(flash.view(region.offset, length))
