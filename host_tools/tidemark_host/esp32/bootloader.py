"""The second-stage bootloader: what it does at a reset, on a real flash image.

From ESP-IDF's bootloader_support, bootloader_utility.c; the function is named at each of ours.
Every write is an erase of one sector and a program, two operations of the flash it is given, so
power can be cut before, within, between and after them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidemark_host.esp32 import otadata
from tidemark_host.esp32.flash import Flash, Region
from tidemark_host.esp32.image import ESP32, Chip, Image, ImageError, verify
from tidemark_host.esp32.otadata import Entry, OtadataError, State
from tidemark_host.esp32.partitions import APP, DATA, OTA_DATA, Partition

FACTORY = -1
TEST = -2
# esp_flash_partitions.h: PART_SUBTYPE_OTA_FLAG, _FACTORY, _TEST
_OTA_FLAG = 0x10
_APPS = {0x00: "factory", 0x20: "test"}


class BootError(Exception):
    """Nothing was started; the chip resets and tries again for ever.

    `code`: `otadata-size` (partition too small) or `nothing-boots`. `refused`: as in Boot.
    """

    def __init__(self, code: str, text: str, refused: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.refused = refused


@dataclass(frozen=True)
class Layout:
    """The partitions that matter here (bootloader_state_t); slot n of `ota` is ota_n."""

    otadata: Region | None
    ota: tuple[Region, ...] = ()
    factory: Region | None = None
    test: Region | None = None

    def region(self, index: int) -> Region | None:
        """Return the partition of a slot, FACTORY or TEST (index_to_partition)."""
        if index == FACTORY:
            return self.factory
        if index == TEST:
            return self.test
        return self.ota[index] if 0 <= index < len(self.ota) else None


@dataclass(frozen=True)
class Boot:
    """What was started. `index`: a slot, FACTORY or TEST.

    `refused`: (index, code of ImageError) of those that were tried before it.
    """

    index: int
    image: Image
    refused: tuple[tuple[int, str], ...] = ()


def layout_of(table: Sequence[Partition]) -> Layout:
    """Return what a partition table means to the bootloader.

    From bootloader_utility_load_partition_table: ota_n are counted, and taken for ota_0 to
    ota_(count - 1). Raises BootError `ota-gap` where ESP-IDF would start from an empty place.
    """
    slots: dict[int, Region] = {}
    named: dict[str, Region] = {}
    for row in table:
        place = Region(row.offset, row.size)
        if row.type == APP and row.subtype & 0xF0 == _OTA_FLAG:
            slots[row.subtype & 0x0F] = place
        elif row.type == APP and row.subtype in _APPS:
            named[_APPS[row.subtype]] = place
        elif row.type == DATA and row.subtype == OTA_DATA:
            named["otadata"] = place
    if sorted(slots) != list(range(len(slots))):
        raise BootError("ota-gap", f"slots {sorted(slots)} are not numbered from 0")
    ota = tuple(slots[number] for number in sorted(slots))
    return Layout(named.get("otadata"), ota, named.get("factory"), named.get("test"))


def order(start: int, count: int) -> Iterator[int]:
    """Yield what is tried from `start` on: down to FACTORY, then up, then TEST.

    From bootloader_utility_load_boot_image.
    """
    yield from range(start, FACTORY - 1, -1)
    yield from range(start + 1, count)
    yield TEST


class Bootloader:
    """The bootloader of one board. `rollback`: CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE."""

    def __init__(
        self, flash: Flash, layout: Layout, chip: Chip = ESP32, *, rollback: bool = True
    ) -> None:
        self._flash = flash
        self._layout = layout
        self._chip = chip
        self._rollback = rollback

    def boot(self) -> Boot:
        """Do all from a reset to the jump. Raises BootError, and PowerCut from the flash."""
        start, initial = self._select()
        refused: list[tuple[int, str]] = []
        for index in order(start, len(self._layout.ota)):
            region = self._layout.region(index)
            if region is None or region.size == 0:
                continue
            try:
                image = verify(self._flash, region, self._chip)
            except ImageError as error:
                refused.append((index, error.code))
                continue
            if initial and index >= 0:
                self._write(0, Entry.made(index + 1, State.VALID))  # set_actual_ota_seq
            return Boot(index, image, tuple(refused))
        raise BootError("nothing-boots", "no partition has an image that passes", tuple(refused))

    def _select(self) -> tuple[int, bool]:
        """Return what to try first, and whether otadata is to get its first record.

        Both branches come from bootloader_utility_get_selected_boot_partition, which writes before
        any image has been looked at.
        """
        region = self._layout.otadata
        if region is None or region.offset == 0:
            return FACTORY, False
        try:
            entries = otadata.read(self._flash, region)
        except OtadataError as error:
            raise BootError("otadata-size", str(error)) from error
        if self._rollback:
            # Neither the sequence nor the CRC has a say here.
            for index, entry in enumerate(entries):
                if entry.state == State.PENDING_VERIFY:
                    entries[index] = self._restate(index, entry, State.ABORTED)
        count = len(self._layout.ota)
        if count == 0 or all(entry.is_invalid for entry in entries):
            if self._layout.factory:
                return FACTORY, False
            return 0, all(entry.is_initial for entry in entries)
        index = otadata.active(entries)
        if index is None:
            return FACTORY, False  # whether there is a factory partition or not
        entry = entries[index]
        if self._rollback and entry.state == State.NEW:
            self._restate(index, entry, State.PENDING_VERIFY)
        return otadata.slot_of(entry.seq, count), False

    def _restate(self, index: int, entry: Entry, state: State) -> Entry:
        changed = dataclasses.replace(entry, state=state)
        self._write(index, changed)
        return changed

    def _write(self, index: int, entry: Entry) -> None:
        region = self._layout.otadata
        if region:
            otadata.write(self._flash, region, index, entry)
