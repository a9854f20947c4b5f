# Frames on a serial line: cut out of noise, checked, and built, without a loop over bytes.
# docs/uart-link.md has the format.

from binascii import crc32
from struct import pack_into

from .compat import const

# COBS keeps one link per 254 bytes: a frame within that is unstuffed where it lies.
_CONTENT_MAX = const(254)
_HEADER = "<BBHIII"
HEADER_SIZE = const(16)
_CRC_SIZE = const(4)
_CONTENT_MIN = const(20)
PAYLOAD_MAX = const(234)
WIRE_MAX = const(257)  # delimiter, first link, content, delimiter
_RAW_SIZE = const(1024)
_FILLS_MAX = const(4)  # reads of the stream in search of one frame
_START = const(2)  # of the content in `out`
_DELIMITER = b"\0"
# CRC-32 over a content and its own CRC, least byte first (the "residue" of the IEEE 802.3 CRC).
_RESIDUE = const(0x2144DF1C)


class Reader:
    """Finds the good frames in what a stream gives. Bounded: one buffer of 1 KiB.

    `raw`: the buffer; `view`: a memoryview of it; `bad`: frames and noise that were dropped (int).
    """

    def __init__(self):
        self.raw = bytearray(_RAW_SIZE)
        self.view = memoryview(self.raw)
        self._at = 0  # start of what is not yet looked at
        self._have = 0  # end of what came
        self._lost = False  # within something longer than a frame
        self.bad = 0
        self.read = 0  # bytes ever read

    def next(self, stream):
        """Go to the next good frame and return the offset of its content in `raw`, 0 if none came.

        `end` is then the end of its payload; both hold until the next call. Reads from `stream`
        (non-blocking `readinto(buf)`: bytes read, 0 or None when there are none) only when the
        buffer holds no whole frame.
        """
        raw = self.raw
        fills = 0
        while True:
            start = self._at
            end = raw.find(_DELIMITER, start, self._have)
            if end < 0:
                # Bounded: noise may come faster than it is read.
                if fills == _FILLS_MAX or not self._fill(stream):
                    return 0
                fills += 1
                continue
            self._at = end + 1
            if self._lost:
                self._lost = False
                self.bad += 1
            elif end > start:
                if self._unstuff(start, end):
                    self.end = end - _CRC_SIZE
                    return start + 1
                self.bad += 1

    def _fill(self, stream):
        rest = self._have - self._at
        if rest == _RAW_SIZE or rest > WIRE_MAX:
            rest = 0  # no frame is as long: noise, up to the next delimiter
            self._lost = True
        if rest and self._at:
            self.view[:rest] = self.view[self._at : self._have]
        self._at = 0
        self._have = rest
        got = stream.readinto(self.view[rest:] if rest else self.view)
        if not got:
            return False
        self._have += got
        self.read += got
        return True

    def _unstuff(self, start, end):
        """Undo the stuffing of raw[start:end] in place; return whether it is a good frame."""
        if not _CONTENT_MIN < end - start <= _CONTENT_MAX + 1:
            return False
        raw = self.raw
        i = start
        while i < end:
            step = raw[i]
            raw[i] = 0
            i += step
        return i == end and crc32(self.view[start + 1 : end]) == _RESIDUE


class Writer:
    """Builds one frame at a time and hands it to a stream, in as many pieces as that takes."""

    def __init__(self):
        self._out = bytearray(WIRE_MAX)
        self._view = memoryview(self._out)
        self._at = self._end = 0

    def build(self, first, channel, turn, tag, seq, ack, payload, size):
        """Build the frame that `flush` then sends; the former one must be gone.

        `first`: kind and flag (u8); `channel` u8; `turn` u16; `tag`, `seq`, `ack` u32; `payload`:
        memoryview whose first `size` bytes (0 to 234) are meant.
        """
        out = self._out
        pack_into(_HEADER, out, _START, first, channel, turn, tag, seq, ack)
        end = _START + HEADER_SIZE
        if size:
            out[end : end + size] = payload[:size]
            end += size
        pack_into("<I", out, end, crc32(self._view[_START:end]))
        end += _CRC_SIZE
        out[0] = 0
        i = 1
        while True:
            j = out.find(_DELIMITER, i + 1, end)
            if j < 0:
                out[i] = end - i
                break
            out[i] = j - i
            i = j
        out[end] = 0
        self._at = 0
        self._end = end + 1

    def flush(self, stream):
        """Write what is left of the frame; return whether all of it went.

        `stream.write(buf)`, non-blocking: bytes taken, 0 or None when there is no room.
        """
        while self._at < self._end:
            sent = stream.write(self._view[self._at : self._end])
            if not sent:
                return False
            self._at += sent
        return True
