# ESP-IDF's otadata: two entries, one a sector, that name the runtime slot to boot. What the
# bootloader makes of them, and what it leaves to us: docs/esp32-bootloader.md.

import binascii
import struct

from tidemark.compat import const
from tidemark.errors import FlashError

NEW = const(0)  # chosen, never booted
PENDING = const(1)  # in its one boot before it is confirmed
VALID = const(2)
INVALID = const(3)
ABORTED = const(4)
UNDEFINED = 0xFFFFFFFF

SIZE = const(32)  # of an entry
_ENTRY = "<I20sII"  # sequence, label, state, CRC-32 of the sequence begun at 0xFFFFFFFF
_NO_SEQUENCE = 0xFFFFFFFF
_SLOTS = const(2)


def parse(raw):
    """(sequence, state) of the 32 bytes of an entry that the bootloader may choose, else None.

    Source: ESP-IDF bootloader_common_loader.c, bootloader_common_ota_select_valid.
    """
    sequence, _, state, crc = struct.unpack(_ENTRY, raw)
    if sequence == _NO_SEQUENCE or state in (INVALID, ABORTED):
        return None
    if binascii.crc32(raw[:4], 0xFFFFFFFF) & 0xFFFFFFFF != crc:
        return None
    return sequence, state


def in_charge(entries):
    """(number of the entry, slot, state) that the bootloader goes by, or None.

    entries: the 32 bytes of each. The higher sequence, entry 0 if they are equal: ESP-IDF
    bootloader_common_loader.c, bootloader_common_select_otadata.
    """
    first, second = parse(entries[0]), parse(entries[1])
    if first is None and second is None:
        return None
    number = 0 if second is None or (first is not None and first[0] >= second[0]) else 1
    sequence, state = second if number else first
    return number, ((sequence - 1) & 0xFFFFFFFF) % _SLOTS, state


class Otadata:
    """The two entries in `region`, a flash.Region of two sectors. Nothing is kept in RAM."""

    def __init__(self, region):
        self._region = region

    def read(self):
        """The 32 bytes of both entries."""
        region = self._region
        return region.read(0, SIZE), region.read(region.sector, SIZE)

    def in_charge(self):
        """As the function of this name, of what the flash holds."""
        return in_charge(self.read())

    def affirm(self):
        """Programs the entry in charge again, byte for byte.

        One whose write was cut off may read well now and blank at the next boot. Raises FlashError
        `readback`.
        """
        entries = self.read()
        charge = in_charge(entries)
        if charge:
            self._region.write_checked(charge[0] * self._region.sector, entries[charge[0]])

    def clear_other(self):
        """Erases the entry that is not in charge, whatever it reads: it may name the slot that is
        written next. Without one in charge nothing is erased. Raises FlashError `readback`."""
        charge = self.in_charge()
        if charge:
            other = 1 - charge[0]
            self._region.erase(other)
            # Not whether it is blank: with flash encryption an erased entry reads as noise.
            if parse(self.read()[other]) is not None:
                raise FlashError("readback", "the entry is still there")
