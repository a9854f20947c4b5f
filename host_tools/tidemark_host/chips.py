"""The chips that boards are built around: one row each, looked up by `chip` in board.toml.

What differs between two boards of one port stands here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """`port`: MicroPython's port (`unix`, `rp2`, `esp32`). `march`: the processor as mpy-cross
    names it, None for the machine's own or for no machine code. `watchdog_max_ms`: the longest
    time-out that chip and port take. `platform`: pico-sdk's name. `family`: UF2 family id.
    `drive`: Board-ID in INFO_UF2.TXT of the boot ROM's drive. `xip`: address of the flash's first
    byte. `network`: it has one of its own, without a radio that a board must name. `bootloader`:
    where an ESP32's boot ROM looks for ESP-IDF's, an offset into the flash."""

    name: str
    port: str
    march: str | None
    watchdog_max_ms: int
    flash_max: int
    platform: str = ""
    family: int = 0
    drive: str = ""
    xip: int = 0
    network: bool = False
    bootloader: int = 0


_ROWS = (
    Chip("unix", "unix", None, 8_388, 64 << 20, network=True),
    # The watchdog counts 24 bits, twice a microsecond (RP2040-E1).
    Chip("rp2040", "rp2", "armv6m", 8_388, 16 << 20, "rp2040", 0xE48BFF56, "RPI-RP2", 0x10000000),
    # The chip counts twice as far; machine.WDT of MicroPython 1.25 takes no more than this.
    Chip(
        "rp2350", "rp2", "armv7emsp", 8_388, 16 << 20, "rp2350", 0xE48BFF59, "RP2350", 0x10000000
    ),
    # The names are ESP-IDF's targets, and esptool's.
    Chip("esp32", "esp32", "xtensawin", 60_000, 16 << 20, network=True, bootloader=0x1000),
    Chip("esp32s3", "esp32", "xtensawin", 60_000, 16 << 20, network=True),
    # No native modules: none has run on a RISC-V yet, and Python's cryptography is as right.
    Chip("esp32c3", "esp32", None, 60_000, 16 << 20, network=True),
)

CHIPS: Mapping[str, Chip] = {chip.name: chip for chip in _ROWS}
