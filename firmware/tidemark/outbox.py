# Readings that wait for the gateway's acknowledgement: a ring over raw sectors that survives
# resets. Layout and the reasons for each rule: docs/flash-state.md. In short:
# - Sectors carry a serial number; their header is a pure function of it and programmed again
#   (affirmed) before a later boot writes there: it may be torn and read valid only today.
# - A sector is cut into chunks. A boot writes only into chunks that it has claimed itself (a
#   stamp, read back), so a torn reading that reads blank later is never written over.
# - A reading costs one program, its acknowledgement one of a single byte, a sector one erase.

import binascii
import struct

from tidemark.compat import const
from tidemark.errors import FlashError, StateError

MAX_BODY = const(256)

_CHUNK = const(512)
_STAMP = const(16)
_MAGIC = const(0x544D4F31)  # "TMO1"
# Reading: acknowledgement (0xFF: none yet), format, length, epoch, index, CRC-32 over all behind
# the acknowledgement; body. Aligned to 4 bytes.
_HEAD = ">BBHIII"
_HEAD_SIZE = const(16)
_FORMAT = const(0x01)
_WAITING = const(0xFF)
_DONE = b"\x00"
_MAX_SERIAL = 0xFFFFFFFE
_MAX_WORD = 0xFFFFFFFF
# Chunks that may fail to take a reading before the outbox gives up.
_MAX_FAILURES = const(4)


class Outbox:
    """A bounded queue of readings in flash, oldest first. `recover` comes first.

    Promise: a reading whose `add` has returned is pending until it is acknowledged or, when the
    ring is full, dropped with its sector, the oldest first. One that was acknowledged may come
    back after a power cut within `ack`, never otherwise; a torn one is skipped.

    `region`: tidemark.flash.Region of at least two sectors, this outbox's alone. `guard`: called
    with False before and True after each write; or None. `dropped`: int, readings lost in this
    boot: to make room, or since the flash took them not. RAM use does not grow with what waits.
    """

    def __init__(self, region, guard=None):
        self._chunk = min(_CHUNK, region.sector)
        if region.sectors < 2 or region.sector % self._chunk or self._chunk < 4 * _STAMP:
            raise StateError("outbox-region", "needs two sectors of whole chunks")
        self._region = region
        self._guard = guard
        self._chunks = region.sector // self._chunk
        self._serial = 0  # of the newest sector, from 1
        self._next_chunk = 0  # first one of the newest sector that is not claimed
        self._at = 0  # where the next reading goes in this boot's chunk, 0: no chunk yet
        self._end = 0
        self._firm = False  # the newest sector's header was affirmed in this boot
        # Readings in a row that the flash took not. Given up until `recover` is through: what
        # waits is not known yet, and would be written over.
        self._failures = region.sectors
        self._waiting = 0
        self._oldest = 0  # no pending reading lies before this handle
        self._index = 0
        self.dropped = 0

    def recover(self):
        """Find what is pending and return how many readings that are (int). Writes nothing.

        One that raises leaves an outbox that knows of nothing and takes nothing.
        """
        self._failures = self._region.sectors
        self._serial = self._next_chunk = self._at = self._end = self._waiting = 0
        for index in range(self._region.sectors):
            serial = self._stamp_at(index * self._region.sector)
            if serial > self._serial and (serial - 1) % self._region.sectors == index:
                self._serial = serial
        self._firm = False
        if self._serial:
            base = self._base(self._serial)
            self._next_chunk = 1
            for chunk in range(1, self._chunks):
                # One that was ever touched is not this boot's.
                if not self._region.is_blank(base + chunk * self._chunk, self._chunk):
                    self._next_chunk = chunk + 1
        waiting = 0
        self._oldest = self._handle(self._first_serial(), 0)
        for item in self._walk(self._oldest):
            if not waiting:
                self._oldest = item[0]
            waiting += 1
        self._waiting = waiting
        self._failures = 0
        return waiting

    def __len__(self):
        return self._waiting

    def next_index(self):
        """Return the next reading's index, from 1 in each boot: unique under the boot's epoch."""
        self._index += 1
        return self._index

    def add(self, epoch, index, body):
        """Store a reading and return its handle (int). It is durable when this returns.

        `epoch`, `index`: ints up to 32 bits, at its creation. `body`: bytes, at most 256. Raises
        StateError `outbox-value` with unchanged state, `outbox-worn` when the flash does not take
        it.
        """
        if len(body) > min(MAX_BODY, self._chunk - _STAMP - _HEAD_SIZE):
            raise StateError("outbox-value", "a reading is at most 256 bytes")
        if not 0 <= epoch <= _MAX_WORD or not 0 <= index <= _MAX_WORD:
            raise StateError("outbox-value", "epoch or index out of range")
        if self._guard:
            self._guard(False)
        try:
            last = self._serial + 1
            # Each failure may cost a sector: half of the ring is not tried in this boot, and what
            # waits there is not lost with it.
            if self._failures >= max(2, self._region.sectors // 2):
                raise FlashError("readback", "given up in this boot")
            self._failures += 1
            for _ in range(_MAX_FAILURES):
                at = self._room(_aligned(len(body)), last)
                try:
                    self._region.write_checked(at, _record(epoch, index, body))
                except FlashError as error:
                    if error.code != "readback":
                        raise
                    self._at = 0
                    continue
                self._at = at + _aligned(len(body))
                handle = self._handle(self._serial, at - self._base(self._serial))
                if not self._waiting:
                    self._oldest = handle
                self._waiting += 1
                self._failures = 0
                return handle
        except FlashError as error:
            self.dropped += 1
            raise StateError("outbox-worn", error.code)
        finally:
            if self._guard:
                self._guard(True)
        self.dropped += 1
        raise StateError("outbox-worn", "no chunk takes a reading")

    def pending(self, after=None, limit=16, epoch=None, backlog=None):
        """Return up to `limit` pending readings as [(handle, epoch, index, body)], oldest first.

        `after`: a handle; only what was stored later. With `epoch` (the current one): `backlog`
        True gives only readings of other epochs, False only those of this one, None both.
        """
        out = []
        if not self._waiting:
            return out
        start = self._oldest
        if after is not None and after >= start:
            start = after
        for handle, created, index, at, length in self._walk(start):
            if handle == after:
                continue
            if backlog is not None and (created != epoch) != backlog:
                continue
            if len(out) >= limit:
                break
            out.append((handle, created, index, self._region.read(at + _HEAD_SIZE, length)))
        return out

    def ack(self, handle):
        """Mark the reading of `handle` as delivered; return whether it was pending."""
        serial, off = divmod(handle, self._region.sector)
        if not self._first_serial() <= serial <= self._serial or handle < self._oldest:
            return False
        for item in self._walk(self._handle(serial, off // self._chunk * self._chunk)):
            if item[0] >= handle:
                return item[0] == handle and self._done(item)
        return False

    def ack_id(self, epoch, index):
        """Mark the reading with this id as delivered; return whether it was pending."""
        if self._waiting:
            for item in self._walk(self._oldest):
                if item[1] == epoch and item[2] == index:
                    return self._done(item)
        return False

    # Inside

    def _done(self, item):
        if self._guard:
            self._guard(False)
        done = False
        try:
            self._region.write(item[3], _DONE)
            done = self._region.view(item[3], 1)[0] != _WAITING
        except FlashError as error:
            if error.code != "flash-io":
                raise
        finally:
            if self._guard:
                self._guard(True)
        if not done:
            # A worn cell: it is sent again after a reset, and told apart by its id upstream.
            return False
        self._waiting -= 1
        if item[0] == self._oldest:
            for following in self._walk(item[0]):
                self._oldest = following[0]
                break
        return True

    def _room(self, size, last):
        """Return where `size` bytes go: into this boot's chunk, else into a newly claimed one.

        Opens no sector beyond serial `last`: one bad reading may not cost all that waits.
        """
        if self._at and self._at + size <= self._end:
            return self._at
        for _ in range(self._chunks + _MAX_FAILURES):
            if not self._serial or self._next_chunk >= self._chunks:
                if self._serial >= last:
                    break
                at = self._open_sector()
            else:
                self._affirm()
                at = self._base(self._serial) + self._next_chunk * self._chunk
                self._next_chunk += 1
                if not self._claim(at):
                    at = -1
            if at >= 0:
                self._at = at + _STAMP
                self._end = at + self._chunk
                return self._at
        raise FlashError("readback", "no chunk can be claimed")

    def _open_sector(self):
        """Take the oldest sector, with all that waits in it; -1 if it takes no stamp."""
        self._affirm()
        serial = self._serial + 1
        if serial > _MAX_SERIAL:
            raise StateError("outbox-worn", "no serial number is left")
        base = self._base(serial)
        lost = 0
        if serial > self._region.sectors:
            end = self._handle(serial - self._region.sectors + 1, 0)
            start = self._oldest
            for item in self._walk(start):
                if item[0] >= end:
                    break
                lost += 1
            self._oldest = max(start, end)
        # Even if it reads blank: an erase that was cut off can look complete.
        erased = self._region.erase_checked(base // self._region.sector)
        self._waiting -= lost
        self.dropped += lost
        self._serial = serial
        self._next_chunk = 1
        self._firm = True
        if erased and self._claim(base):
            return base
        # Without its header nothing in this sector would be found again: it is left.
        self._next_chunk = self._chunks
        return -1

    def _affirm(self):
        """Program the newest sector's header again, once a boot."""
        if not self._firm and self._serial:
            self._region.write_checked(self._base(self._serial), _stamp(self._serial))
        self._firm = True

    def _claim(self, at):
        try:
            self._region.write_checked(at, _stamp(self._serial))
        except FlashError as error:
            if error.code != "readback":
                raise
            return False
        return True

    def _walk(self, start):
        """Yield (handle, epoch, index, offset, length) of pending readings from `start` on."""
        sector = self._region.sector
        serial, off = divmod(start, sector)
        for number in range(max(serial, self._first_serial()), self._serial + 1):
            base = self._base(number)
            if self._stamp_at(base) != number:
                continue
            for chunk in range(self._chunks):
                at = base + chunk * self._chunk
                end = at + self._chunk
                if (number == serial and end <= base + off) or self._stamp_at(at) != number:
                    continue
                at += _STAMP
                while at + _HEAD_SIZE <= end:
                    found = self._reading_at(at, end)
                    if not found:
                        # Torn, or nothing more: a later boot wrote into another chunk.
                        break
                    waiting, length, epoch, index = found
                    if waiting and (number > serial or at >= base + off):
                        yield self._handle(number, at - base), epoch, index, at, length
                    at += _aligned(length)

    def _reading_at(self, at, end):
        """Return (waiting, length, epoch, index) of the reading at `at`, None if there is none."""
        head = self._region.view(at, _HEAD_SIZE)
        done, form, length, epoch, index, crc = struct.unpack(_HEAD, head)
        if form != _FORMAT or length > MAX_BODY or at + _HEAD_SIZE + length > end:
            return None
        body = self._region.view(at + _HEAD_SIZE, length)
        if crc != _crc(length, epoch, index, body):
            return None
        return done == _WAITING, length, epoch, index

    def _first_serial(self):
        return max(1, self._serial - self._region.sectors + 1)

    def _base(self, serial):
        return (serial - 1) % self._region.sectors * self._region.sector

    def _handle(self, serial, off):
        return serial * self._region.sector + off

    def _stamp_at(self, at):
        stamp = self._region.view(at, _STAMP)
        serial = struct.unpack_from(">I", stamp, 4)[0]
        return serial if 0 < serial <= _MAX_SERIAL and stamp == _stamp(serial) else 0


def _stamp(serial):
    head = struct.pack(">III", _MAGIC, serial, serial ^ 0xFFFFFFFF)
    return head + struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF)


def _record(epoch, index, body):
    crc = _crc(len(body), epoch, index, body)
    return struct.pack(_HEAD, _WAITING, _FORMAT, len(body), epoch, index, crc) + body


def _crc(length, epoch, index, body):
    head = struct.pack(">BHII", _FORMAT, length, epoch, index)
    return binascii.crc32(body, binascii.crc32(head)) & 0xFFFFFFFF


def _aligned(length):
    return (_HEAD_SIZE + length + 3) & ~3
