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
    return number, _slot_of(sequence), state


def _slot_of(sequence):
    return ((sequence - 1) & 0xFFFFFFFF) % _SLOTS


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

    def keep(self, slot):
        """Leaves no entry but the one that names `slot`, so that the other slot may be written.

        That one is affirmed first; the other is erased whatever it reads, since it may read
        otherwise at the next boot. If none names `slot`, both are: with no entry the bootloader
        takes what starts. Raises FlashError `readback`.
        """
        region, entries = self._region, self.read()
        kept = None
        for number in (0, 1):
            found = parse(entries[number])
            if found and _slot_of(found[0]) == slot:
                if kept is None or found[0] > parse(entries[kept])[0]:
                    kept = number
        if kept is not None:
            region.write_checked(kept * region.sector, entries[kept])
        for number in (0, 1):
            if number != kept:
                region.erase(number)
                # Not whether it is blank: with flash encryption an erased entry reads as noise.
                if parse(self.read()[number]) is not None:
                    raise FlashError("readback", "the entry is still there")
