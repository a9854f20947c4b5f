"""The virtual ESP32's hardware: what an ESP32 has beside flash, watchdog and reset logic.

At each hard reset ESP-IDF's bootloader chooses the runtime, from the flash and by its own rules
(`tidemark_host.esp32.bootloader`); what an application asks of otadata is done by esp_ota_ops'
(`ota_ops`). Their flash operations are operations of the chip like all others.
"""

from __future__ import annotations

import hashlib
import struct
import time
from enum import IntEnum

from tidemark_host.boards.base import Violation
from tidemark_host.boards.hardware import FRAME, PAYLOAD_MAX, Frame, Hardware, Op, refusal
from tidemark_host.boards.nor import NorError, NorFlash
from tidemark_host.esp32 import partitions
from tidemark_host.esp32.bootloader import Boot, BootError, Bootloader, Layout, layout_of
from tidemark_host.esp32.flash import Region
from tidemark_host.esp32.image import ESP32, MAGIC
from tidemark_host.esp32.ota_ops import OtaError, OtaOps
from tidemark_host.esp32.otadata import OtadataError
from tidemark_host.esp32.partitions import PartitionError
from tidemark_host.toolchain_virtual_esp32 import base_of

BOOTLOADER = 0x1000  # where the ESP32's boot ROM looks for it
RTC_MEMORY_MAX = 2048  # MICROPY_HW_RTC_USER_MEM_MAX of ports/esp32/machine_rtc.c
_SIZES = {0: 1 << 20, 1: 2 << 20, 2: 4 << 20, 3: 8 << 20, 4: 16 << 20}  # esp_image_flash_size_t
# soc/reset_reasons.h: what the boot ROM says, by what has happened. A brownout is noticed by an
# interrupt, which resets by software (esp_system/port/brownout.c, rtc_brownout_isr_handler).
_REASONS = {"power-on": 1, "brownout": 3, "reset": 3, "watchdog": 8, "deep-sleep": 5, "soft": 3}
_BOOT = struct.Struct("<IIIB")
BOOT_WATCHDOG_S = 9.0  # CONFIG_BOOTLOADER_WDT_TIME_MS of boards/esp32/sdkconfig.tidemark


class Esp32Op(IntEnum):
    """Operations that only this board has."""

    BOOTED = 9
    SET_BOOT = 10
    MARK_VALID = 11
    RTC_WRITE = 12
    RTC_READ = 13
    DEEP_SLEEP = 14
    END_BOOT = 15


class _Flash:
    """The chip's flash for bootloader and esp_ota_ops: each operation is logged and may be cut."""

    def __init__(self, hardware: Esp32Hardware) -> None:
        self._hardware = hardware
        self.page = hardware.nor.page
        self.size = hardware.nor.size

    def view(self, start: int, size: int) -> memoryview:
        return self._hardware.nor.view(start, size)

    def erase(self, addr: int) -> None:
        self._hardware.operate(addr, None)

    def program(self, addr: int, data: bytes) -> None:
        self._hardware.operate(addr, data)


class Esp32Hardware(Hardware):
    """As `Hardware`. `boot` comes before each start of the processor but a soft one."""

    def __init__(self, nor: NorFlash, unique_id: bytes, watchdog_max_ms: int) -> None:
        super().__init__(nor, unique_id, watchdog_max_ms)
        # By the image that wrote it: each has it where its own linker put it, and finds there what
        # it left itself.
        self._rtc_memory: dict[bytes, bytes] = {}
        self._image = b""  # SHA-256 of the one that runs
        self.booted: Boot | None = None
        self._layout = Layout(None)
        self._reason = _REASONS["power-on"]
        self._boot_due: float | None = None
        self._place = (0, 0, 0)  # of a planned cut: start, end, operations until then

    def start(self, cause: str, raw: bool = False) -> None:
        """As `Hardware.start`. The bootloader's watchdog runs until an application ends it."""
        super().start(cause, raw)
        if cause != "soft":
            self._boot_due = time.monotonic() + BOOT_WATCHDOG_S

    def bites_at(self) -> float | None:
        """As `Hardware.bites_at`, of both watchdogs."""
        return min(
            (due for due in (super().bites_at(), self._boot_due) if due is not None), default=None
        )

    def stood_still(self, seconds: float) -> None:
        """As `Hardware.stood_still`, of both watchdogs."""
        super().stood_still(seconds)
        if self._boot_due is not None:
            self._boot_due += seconds

    def boot(self, cause: str) -> Boot:
        """Do what boot ROM and bootloader do at a reset. Raises BootError; PowerCut."""
        if cause == "power-on":
            self._rtc_memory.clear()
        self._reason = _REASONS[cause]
        self.booted = None
        # A hard reset ends both watchdogs, also where nothing starts afterwards.
        self.watchdog_s = self._boot_due = None
        self._layout = self._table()
        boot = Bootloader(_Flash(self), self._layout, ESP32).boot()
        self.booted = boot
        region = self._layout.region(boot.index)
        assert region is not None
        data = self.nor.view(region.offset, boot.image.length)
        self._image = hashlib.sha256(data).digest()
        return boot

    def _table(self) -> Layout:
        head = bytes(self.nor.view(BOOTLOADER, 4))
        if head[0] != MAGIC:
            raise BootError("no-bootloader", f"invalid header: 0x{head[::-1].hex()}")
        size = _SIZES.get(head[3] >> 4, 0)
        if size > self.nor.size:
            # spi_flash/esp_flash_spi_init.c, esp_flash_init_main: the application's start aborts.
            raise BootError(
                "flash-size", f"the header says {size} bytes, {self.nor.size} are there"
            )
        table = bytes(self.nor.view(partitions.TABLE_OFFSET, partitions.TABLE_SIZE))
        try:
            return layout_of(partitions.decode(table, size))
        except PartitionError as error:
            raise BootError("partition-table", f"{error.code}: {error}") from error

    def handle_more(self, frame: Frame) -> bytes:
        """As `Hardware.handle`, of this board's own operations. Raises PowerCut."""
        payload = b""
        match frame.op:
            case Esp32Op.BOOTED:
                payload = self._told()
            case Esp32Op.SET_BOOT | Esp32Op.MARK_VALID:
                try:
                    self._choose(frame)
                except OtaError as error:
                    return refusal(frame, error.code, error.number)
                except OtadataError as error:
                    return refusal(frame, error.code, -1)
                except NorError as error:
                    return refusal(frame, error.code)
            case Esp32Op.RTC_WRITE if len(frame.payload) <= RTC_MEMORY_MAX <= PAYLOAD_MAX:
                self._rtc_memory[self._image] = frame.payload
            case Esp32Op.RTC_READ:
                payload = self._rtc_memory.get(self._image, b"")
            case Esp32Op.END_BOOT:
                self._boot_due = None
            case Esp32Op.DEEP_SLEEP:
                self.wants = "deep-sleep"
                return b""
            case _:
                return refusal(frame, "op")
        return FRAME.pack(0, frame.id, len(payload), 0) + payload

    def _told(self) -> bytes:
        boot = self.booted
        assert boot is not None, "no processor runs before the bootloader"
        region = self._layout.region(boot.index)
        assert region is not None
        offset, size = base_of(boot.image.segments[0].data)
        return _BOOT.pack(region.offset, region.offset + offset, size, self._reason)

    def _choose(self, frame: Frame) -> None:
        assert self.booted is not None
        ops = OtaOps(_Flash(self), self._layout, self.booted.index, ESP32)
        if frame.op == Esp32Op.MARK_VALID:
            ops.mark_app_valid_cancel_rollback()
            return
        slots = [region.offset for region in self._layout.ota]
        if frame.arg not in slots:
            raise OtaError("ESP_ERR_INVALID_ARG", f"{frame.arg:#x} is no slot of the runtime")
        ops.set_boot_partition(slots.index(frame.arg))

    def cut_in(self, start: int, size: int, n: int, variant: str) -> None:
        """Plan a power cut at the `n`-th operation from now (1: the next) in a part of the flash,
        whoever does it."""
        self._place = (start, start + size, n)
        self.variant = variant

    def operate(self, addr: int, data: bytes | None) -> None:
        """As `Hardware.operate`."""
        start, end, n = self._place
        if n and start <= addr < end:
            self._place = (start, end, n - 1)
            if n == 1:
                self.cut_at(1, self.variant, -1, 0)
        super().operate(addr, data)

    def power_off(self) -> None:
        """As `Hardware.power_off`."""
        super().power_off()
        self._place = (0, 0, 0)

    def _flash(self, frame: Frame) -> str:
        """As `Hardware._flash`; what ESP-IDF keeps an application from is out of reach.

        From spi_flash (is_safe_write_address) and esp_partition_main_flash_region_safe: bootloader
        and table, and the partition that runs. ESP-IDF aborts there; here it is a violation.
        """
        end = frame.arg + max(len(frame.payload), 1)
        boot = self.booted
        running = self._layout.region(boot.index) if boot else None
        guarded = [Region(0, partitions.TABLE_OFFSET + partitions.TABLE_SECTOR)]
        guarded += [running] if running else []
        if any(frame.arg < place.offset + place.size and end > place.offset for place in guarded):
            kind = "program" if frame.op == Op.PROGRAM else "erase"
            found = Violation(time.monotonic(), kind, frame.arg, len(frame.payload), "running")
            self.violations.append(found)
            return found.code
        return super()._flash(frame)
