"""The otadata partition: two entries, one a sector, that name the application slot to boot.

Layout and states: ESP-IDF esp_flash_partitions.h, esp_ota_select_entry_t and esp_ota_img_states_t.
Rules: bootloader_support's bootloader_common_loader.c, the function named at each of ours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tidemark_host.esp32.flash import SECTOR, Flash, Region, program_padded

ENTRY_SIZE = 32
SIZE = 2 * SECTOR  # the least that the partition must have
NO_SEQ = 0xFFFFFFFF  # the sequence of an erased entry
_ENTRY = struct.Struct("<I20sII")
_BLANK_LABEL = b"\xff" * 20


class State(IntEnum):
    """What is known of the image that an entry names."""

    NEW = 0  # chosen, never booted
    PENDING_VERIFY = 1  # in its first boot
    VALID = 2  # found to work, by itself
    INVALID = 3  # found not to work, by itself
    ABORTED = 4  # its first boot ended without a word
    UNDEFINED = 0xFFFFFFFF  # without rollback: boots without limit


class OtadataError(Exception):
    """Otadata that can't be. `code`: `size` (bytes missing) or `sequence` (none left)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def seq_crc(seq: int) -> int:
    """Return a sequence's CRC-32, begun at 0xFFFFFFFF (bootloader_common_ota_select_crc)."""
    return zlib.crc32(seq.to_bytes(4, "little"), 0xFFFFFFFF)


@dataclass(frozen=True)
class Entry:
    """One entry, whatever its bytes say. `state` may be none of State: no CRC covers it."""

    seq: int
    state: int
    crc: int
    label: bytes = _BLANK_LABEL

    @classmethod
    def made(cls, seq: int, state: int, label: bytes = _BLANK_LABEL) -> Entry:
        """Return the entry for a sequence, with the CRC that it needs."""
        return cls(seq, state, seq_crc(seq), label)

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Return the entry in the first 32 bytes. Raises OtadataError `size` if there are less."""
        if len(data) < ENTRY_SIZE:
            raise OtadataError("size", f"an entry has {ENTRY_SIZE} bytes, not {len(data)}")
        seq, label, state, crc = _ENTRY.unpack_from(data)
        return cls(seq, state, crc, label)

    def encode(self) -> bytes:
        """Return the entry's 32 bytes."""
        return _ENTRY.pack(self.seq, self.label, self.state, self.crc)

    @property
    def has_crc(self) -> bool:
        """Tell whether the CRC is that of the sequence."""
        return self.crc == seq_crc(self.seq)

    @property
    def is_invalid(self) -> bool:
        """Tell whether it is erased or given up (bootloader_common_ota_select_invalid).

        The CRC has no say: a torn entry is neither invalid nor valid.
        """
        return self.seq == NO_SEQ or self.state in (State.INVALID, State.ABORTED)

    @property
    def is_valid(self) -> bool:
        """Tell whether it may be chosen (bootloader_common_ota_select_valid)."""
        return self.has_crc and not self.is_invalid

    @property
    def is_initial(self) -> bool:
        """Tell whether it says nothing: erased or torn, whatever its state.

        From bootloader_utility.c, bootloader_utility_get_selected_boot_partition.
        """
        return self.seq == NO_SEQ or not self.has_crc


BLANK = Entry.decode(b"\xff" * ENTRY_SIZE)


def select(entries: Sequence[Entry], usable: Sequence[bool], highest: bool = True) -> int | None:
    """Return the usable entry with the highest (or lowest) sequence; entry 0 if they are equal.

    From bootloader_common_select_otadata. None if neither is usable.
    """
    if usable[0] and usable[1]:
        pick = max if highest else min
        return 0 if entries[0].seq == pick(entries[0].seq, entries[1].seq) else 1
    return 0 if usable[0] else 1 if usable[1] else None


def active(entries: Sequence[Entry]) -> int | None:
    """Return which entry is in charge, if one is (bootloader_common_get_active_otadata)."""
    return select(entries, [entry.is_valid for entry in entries])


def slot_of(seq: int, count: int) -> int:
    """Return the slot that a sequence names among `count`; the subtraction wraps at 32 bits."""
    return ((seq - 1) & 0xFFFFFFFF) % count


def next_seq(seq: int, slot: int, count: int) -> int:
    """Return the least sequence at or above `seq` that names `slot` (esp_rewrite_ota_data).

    Equal to `seq` when that names the slot already. Raises OtadataError `sequence` at the end of
    the 32 bits, where ESP-IDF would write an erased sequence or count for ever.
    """
    found = seq + ((slot + 1 - seq) % count)
    if found >= NO_SEQ:
        raise OtadataError("sequence", "no sequence is left")
    return found


def read(flash: Flash, otadata: Region) -> list[Entry]:
    """Return both entries. Raises OtadataError `size` (read_otadata in bootloader_utility.c)."""
    if otadata.size < SIZE:
        raise OtadataError("size", f"otadata needs {SIZE} bytes, not {otadata.size}")
    return [
        Entry.decode(bytes(flash.view(otadata.offset + i * SECTOR, ENTRY_SIZE))) for i in (0, 1)
    ]


def write(flash: Flash, otadata: Region, index: int, entry: Entry) -> None:
    """Erase an entry's sector, then program the entry: two operations, power may go in between.

    As write_otadata of bootloader_utility.c and rewrite_ota_seq of esp_ota_ops.c do it.
    """
    addr = otadata.offset + index * SECTOR
    flash.erase(addr)
    program_padded(flash, addr, entry.encode())
