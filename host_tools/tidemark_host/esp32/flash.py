"""What the ESP32 model needs of a flash, and a piece of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SECTOR = 4096  # bytes that one erase takes


class Flash(Protocol):
    """A NOR flash: `tidemark_host.boards.nor.NorFlash`, or what keeps its rules.

    `page`: bytes of a program, each byte 0xFF in it left as it is. `size`: bytes.
    """

    page: int
    size: int

    def view(self, start: int, size: int) -> memoryview: ...

    def erase(self, addr: int) -> None: ...

    def program(self, addr: int, data: bytes) -> None: ...


@dataclass(frozen=True)
class Region:
    """A partition's place in the flash, both in bytes (esp_partition_pos_t)."""

    offset: int
    size: int


def erase_region(flash: Flash, region: Region) -> None:
    """Erase a region sector by sector, from its start on. Raises what the flash raises."""
    for addr in range(region.offset, region.offset + region.size, SECTOR):
        flash.erase(addr)


def program_padded(flash: Flash, addr: int, data: bytes) -> None:
    """Program `data` at `addr`, filled up to whole pages with 0xFF, which change nothing."""
    flash.program(addr, data + b"\xff" * (-len(data) % flash.page))
