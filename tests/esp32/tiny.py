"""A flash of eight sectors with otadata, three places for images and images to put there."""

from __future__ import annotations

from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.bootloader import FACTORY, Layout
from tidemark_host.esp32.flash import SECTOR, Region, program_padded
from tidemark_host.esp32.image import ESP32, Segment, make_image
from tidemark_host.esp32.otadata import Entry, State

OTADATA = Region(1 * SECTOR, 2 * SECTOR)
OTA = (Region(3 * SECTOR, SECTOR), Region(4 * SECTOR, SECTOR))
THIRD = Region(5 * SECTOR, SECTOR)
FACTORY_REGION = Region(6 * SECTOR, SECTOR)
TEST_REGION = Region(7 * SECTOR, SECTOR)
SIZE = 8 * SECTOR

TWO = Layout(OTADATA, OTA)  # as our boards: two slots, no factory image
WITH_FACTORY = Layout(OTADATA, OTA, FACTORY_REGION)
THREE = Layout(OTADATA, (*OTA, THIRD))
LAYOUTS = {"two slots": TWO, "factory and two slots": WITH_FACTORY}


def image(number: int) -> bytes:
    """Return an image that can be told by its number."""
    return make_image([Segment(ESP32.ram, number.to_bytes(4, "little") * 4)])


def number_of(data: bytes) -> int:
    """Return the number of an image's first segment."""
    return int.from_bytes(data[:4], "little")


def put(flash: NorFlash, region: Region, data: bytes) -> None:
    """Put bytes at the start of a region, whatever was there."""
    flash.erase(region.offset)
    program_padded(flash, region.offset, data)


def put_entries(flash: NorFlash, entries: tuple[Entry | None, Entry | None]) -> None:
    """Put two entries of otadata; None leaves a sector erased."""
    for index, entry in enumerate(entries):
        flash.erase(OTADATA.offset + index * SECTOR)
        if entry:
            program_padded(flash, OTADATA.offset + index * SECTOR, entry.encode())


def made(layout: Layout, slots: dict[int, int], *, weak: bool = False) -> NorFlash:
    """Return a flash with images by slot (or FACTORY): slot to image number; the rest blank."""
    flash = NorFlash(SIZE, weak=weak)
    for index, number in slots.items():
        region = layout.region(index)
        assert region
        put(flash, region, image(number))
    return flash


def entries_of(flash: NorFlash) -> tuple[Entry, Entry]:
    """Return both entries as they read."""
    first, second = (
        Entry.decode(bytes(flash.view(OTADATA.offset + i * SECTOR, 32))) for i in (0, 1)
    )
    return first, second


ALL = {0: 100, 1: 101, FACTORY: 99}  # image numbers of a full board
VALID, NEW, PENDING = State.VALID, State.NEW, State.PENDING_VERIFY
