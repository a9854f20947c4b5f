# `vfs` with the ROMFS segment of the esp32 port: the partition `romfs`, mapped into memory
# (ports/esp32/esp32_partition.c, mp_vfs_rom_ioctl).

import chip_esp32
import esp32_chip
import uctypes
from vfs import *  # noqa: F403

_NUMBER_OF_SEGMENTS = 1
_GET_SEGMENT = 2
_EINVAL = 22


def rom_ioctl(op, *args):
    """Number of segments (1), or the segment itself (2), which has the buffer protocol."""
    found = [row for row in chip_esp32.rows() if row[0] == 1 and row[4] == "romfs"]
    if op == _NUMBER_OF_SEGMENTS:
        return len(found)
    if op != _GET_SEGMENT or not found:
        return -_EINVAL
    _, _, offset, size, _, _ = found[0]
    at = uctypes.addressof(esp32_chip.state["flash"]) + offset
    return memoryview(uctypes.bytearray_at(at, size))
