# `esp32.Partition` of MicroPython 1.25 (ports/esp32/esp32_partition.c) over ESP-IDF's
# esp_partition (partition.c, partition_target.c), which checks bounds and nothing else. What it
# does to otadata is done on the host, by esp_ota_ops' rules (tidemark_host/esp32/ota_ops.py).

import struct

import esp32_chip
import unix_chip

_TABLE = 0x8000  # CONFIG_PARTITION_TABLE_OFFSET
_TABLE_SIZE = 0xC00
_ROW = "<HBBII16sI"
_ROW_SIZE = 32
_ROW_MAGIC = 0x50AA
_ANY = 0xFF
_BLOCK = 4096
_PAGE = 256
_PROGRAM = 2
_ERASE = 3

_ESP_FAIL = -1
_INVALID_ARG = (0x102, "ESP_ERR_INVALID_ARG")
_INVALID_SIZE = (0x104, "ESP_ERR_INVALID_SIZE")
_NOT_ALLOWED = (0x10D, "ESP_ERR_NOT_ALLOWED")
_ENOENT = 2
_EINVAL = 22


def _error(number, name):
    # check_esp_err_, ports/esp32/mphalport.c: the number with the other sign.
    return OSError(-number, name)


def rows():
    """[(type, subtype, offset, size, label, flags)] of the table in the flash, whose digest the
    bootloader has looked at (load_partitions)."""
    table = memoryview(esp32_chip.state["flash"])[_TABLE : _TABLE + _TABLE_SIZE]
    found = []
    for at in range(0, _TABLE_SIZE, _ROW_SIZE):
        magic, kind, subtype, offset, size, label, flags = struct.unpack_from(_ROW, table, at)
        if magic != _ROW_MAGIC:
            break
        found.append((kind, subtype, offset, size, label.rstrip(b"\0").decode(), flags))
    return found


def _ask(op, arg=0, data=None):
    try:
        return unix_chip.ask(op, arg, data)
    except unix_chip.Refused as refused:
        number = refused.value - (1 << 32) if refused.value >> 31 else refused.value
        raise _error(number or _ESP_FAIL, refused.code)


class Partition:
    """A partition by its label, or BOOT, or RUNNING."""

    BOOT = 0
    RUNNING = 1
    TYPE_APP = 0
    TYPE_DATA = 1

    def __init__(self, what, block_size=_BLOCK):
        if block_size != _BLOCK:
            raise ValueError("only blocks of a sector here")
        if isinstance(what, str):
            named = [row for kind in (0, 1) for row in rows() if row[0] == kind and row[4] == what]
        elif what == self.RUNNING:
            named = [row for row in rows() if row[2] == esp32_chip.state["running"]]
        else:
            raise ValueError()
        if not named:
            raise OSError(_ENOENT)
        self._row = named[0]

    @staticmethod
    def find(type=TYPE_APP, subtype=_ANY, label=None, block_size=_BLOCK):
        """List of those that fit."""
        return [
            Partition(row[4], block_size)
            for row in rows()
            if row[0] == type and subtype in (_ANY, row[1]) and label in (None, row[4])
        ]

    def info(self):
        """(type, subtype, address, size, label, encrypted)."""
        # While the chip's encryption is off a flag means nothing (load_partitions).
        return self._row[:5] + (False,)

    def _at(self, offset, size):
        # esp_partition_read, esp_partition_write, esp_partition_erase_range.
        if offset < 0 or offset > self._row[3]:
            raise _error(*_INVALID_ARG)
        if offset + size > self._row[3]:
            raise _error(*_INVALID_SIZE)
        return self._row[2] + offset

    def _writable(self):
        if self._row[5] & 2:
            raise _error(*_NOT_ALLOWED)

    def readblocks(self, block, buf, offset=0):
        """Any offset, any length."""
        at = self._at(block * _BLOCK + offset, len(buf))
        memoryview(buf)[:] = memoryview(esp32_chip.state["flash"])[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=None):
        """Program `buf`; without an offset erase as much first."""
        self._writable()
        start = block * _BLOCK + (offset or 0)
        at = self._at(start, len(buf))
        if offset is None:
            self._erase(start, len(buf))
        # The driver splits at pages of the chip (spi_flash_chip_generic_write).
        buf = memoryview(buf)
        done = 0
        while done < len(buf):
            into = (at + done) % _PAGE
            take = min(_PAGE - into, len(buf) - done)
            page = bytearray(b"\xff" * _PAGE)
            page[into : into + take] = buf[done : done + take]
            _ask(_PROGRAM, at + done - into, page)
            done += take

    def _erase(self, start, size):
        self._writable()
        at = self._at(start, size)
        if size % _BLOCK:
            raise _error(*_INVALID_SIZE)
        if start % _BLOCK:
            raise _error(*_INVALID_ARG)
        for addr in range(at, at + size, _BLOCK):
            _ask(_ERASE, addr)

    def ioctl(self, op, arg):
        """3: nothing to do; 4: blocks; 5: their size; 6: erase one."""
        if op in (1, 2, 3):
            return 0
        if op == 4:
            return self._row[3] // _BLOCK
        if op == 5:
            return _BLOCK
        if op == 6:
            self._erase(arg * _BLOCK, _BLOCK)
            return 0
        return None

    def set_boot(self):
        """esp_ota_set_boot_partition."""
        _ask(esp32_chip.SET_BOOT, self._row[2])

    @staticmethod
    def mark_app_valid_cancel_rollback():
        """esp_ota_mark_app_valid_cancel_rollback."""
        _ask(esp32_chip.MARK_VALID)
