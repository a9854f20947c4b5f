# Numbered, hash-chained ring of what happened (invariant I11): 64-byte records over raw sectors.
# Layout and the reasons for each rule: docs/flash-state.md. In short:
# - A record's place follows from its number. Its number is programmed first and alone, so that a
#   slot whose record was torn and reads blank later is never written over with other bytes.
# - Each record carries SHA-256(hash before + body), cut to 16 bytes. After records that can't be
#   read any more the next one is marked as the start of a chain segment.
# - Events that peers can trigger at will are counted in RAM and written seldom, and may fill only
#   a quarter of a sector: they never make the ring go on to the next one.

import binascii
import hashlib
import struct

from tidemark.compat import const
from tidemark.errors import FlashError, StateError

SECURITY = const(0)
SLOT = const(1)
SYSTEM = const(2)
REMOTE = const(3)

SIZE = const(64)
MAX_CODE = const(24)  # as errors.TidemarkError says
MAX_DETAIL = const(16)
MAX_READ = const(64)
CAUSES = ("", "power-on", "watchdog", "soft", "reset", "brownout", "unknown", "lease")

_BODY = ">IBB12s16sIII"
_BODY_SIZE = const(46)
_FIELD = const(12)  # of the code; the rest of a longer one is in the detail
_LONG = const(0x80)  # in the byte of the cause: it is
_COUNT = const(4)
_HASH = const(16)
_CRC_OFF = const(62)
_SEGMENT = const(4)
_ZEROS = b"\x00" * _HASH
_BLANK = b"\xff" * SIZE
_MAX_NUMBER = 0xFFFFFFFE
_MAX_WORD = 0xFFFFFFFF
# Slots of one sector that may fail to take a record before the next sector is tried.
_MAX_FAILURES = const(4)
# Records with a good sum that may turn out not to continue the chain, when recovering.
_MAX_STRAYS = const(8)
_MAX_LOOKS = const(4)
# Codes that are counted apart; further ones share the code "other".
_MAX_CODES = const(16)
_OTHER = "other"


class Evidence:
    """The ring. `recover` comes first.

    `region`: tidemark.flash.Region of at least two sectors, this ring's alone. `guard`: called
    with False before and True after each write; or None. `coalesce_ms`: a remote event of one code
    is written at most once in that time. `gaps`: int, records that the flash did not take in this
    boot, or no longer holds: the numbers of those are missing in the ring.
    """

    def __init__(self, region, guard=None, coalesce_ms=60000):
        if region.sectors < 2 or region.sector % SIZE or region.sector < 2 * SIZE:
            raise StateError("evidence-region", "needs two sectors of whole records")
        self._region = region
        self._guard = guard
        self._coalesce_ms = coalesce_ms
        self._per_sector = region.sector // SIZE
        self._slots = region.size // SIZE
        self._quota = max(1, self._per_sector // 4)
        self._number = 0  # of the last record that can be read
        self._hash = _ZEROS
        self._used = 0  # greatest number whose slot was touched
        self._remote = 0  # remote records in the current sector
        self._firm = False
        self._worn = False  # no sector took a record in this boot
        self._pending = {}  # code: [count, detail, epoch, seq, cause, written at or None]
        self.gaps = 0

    def recover(self):
        """Find the newest record and return its number (int, 0 if none). Writes nothing."""
        self._firm = False
        below = _MAX_NUMBER + 1
        for _ in range(_MAX_STRAYS):
            number = self._newest(below)
            record = self._record(number) if number else None
            if not number or (record and self._continues(record, number)):
                break
            below = number
        self._used = number
        self._take(record, number)
        self._remote = self._count_remote()
        return number

    def head(self):
        """Return (number, 16-byte hash) of the newest record, made firm; (0, zeros) if none."""
        if self._guard:
            self._guard(False)
        try:
            self._affirm()
        finally:
            if self._guard:
                self._guard(True)
        return self._number, self._hash

    def add(self, code, detail=b"", kind=SYSTEM, epoch=0, seq=0, uptime_ms=0, cause=""):
        """Record an event and return its number; 0 if it was only counted.

        `code`: printable ASCII str, at most 24; anything else is "invalid". `detail`: bytes, at
        most 16, cut beyond. `kind`: SECURITY, SLOT, SYSTEM or REMOTE. `epoch`, `seq`: ints up to
        32 bits. `cause`: one of CAUSES. A REMOTE record's detail is the count of events (4 bytes,
        big-endian), then at most 12 bytes of the last one's detail. A code longer than 12 is kept
        whole and takes its room from the detail. Never raises for a full or worn ring: see `gaps`.
        """
        if kind == REMOTE:
            return self._count(code, detail, epoch, seq, uptime_ms, cause)
        return self._write(kind, code, detail, epoch, seq, uptime_ms, cause)

    def poll(self, uptime_ms):
        """Write the counts of remote events that are due, as far as their quota goes."""
        for code in sorted(self._pending):
            self._write_count(code, uptime_ms)

    def read(self, first, count):
        """Return the records numbered `first` to `first + count - 1` that can be read, as bytes.

        One after another, 64 bytes each, at most 64 records; numbers that are missing were lost.
        """
        count = min(count, MAX_READ)
        out = bytearray()
        for number in range(max(1, first), min(first + count, self._number + 1)):
            out.extend(self._record(number) or b"")
        return bytes(out)

    def oldest(self):
        """Return the number of the oldest record that can still be read, 0 if there is none."""
        for number in range(max(1, self._number - self._slots + 1), self._number + 1):
            if self._valid(number):
                return number
        return 0

    # Inside

    def _count(self, code, detail, epoch, seq, uptime_ms, cause):
        code = _checked(code)
        if code not in self._pending and len(self._pending) >= _MAX_CODES:
            code = _OTHER
        entry = self._pending.get(code)
        if entry is None:
            entry = self._pending[code] = [0, b"", 0, 0, "", None]
        entry[0] = min(entry[0] + 1, _MAX_WORD)
        entry[1] = bytes(detail[: MAX_DETAIL - _COUNT])
        entry[2] = epoch
        entry[3] = seq
        entry[4] = cause
        return self._write_count(code, uptime_ms)

    def _write_count(self, code, uptime_ms):
        count, detail, epoch, seq, cause, written = self._pending[code]
        if not count or (written is not None and uptime_ms - written < self._coalesce_ms):
            return 0
        detail = struct.pack(">I", count) + detail
        number = self._write(REMOTE, code, detail, epoch, seq, uptime_ms, cause)
        if number:
            self._pending[code][0] = 0
            self._pending[code][5] = uptime_ms
        return number

    def _write(self, kind, code, detail, epoch, seq, uptime_ms, cause):
        if self._guard:
            self._guard(False)
        try:
            self._affirm()
            if not self._worn:
                number = self._place(kind, code, detail, epoch, seq, uptime_ms, cause)
                if number >= 0:
                    return number
        finally:
            if self._guard:
                self._guard(True)
        # Tried no more in this boot: erases that lead to nothing cost time and wear.
        self._worn = True
        if kind != REMOTE:  # those are counted where they wait
            self.gaps += 1
        return 0

    def _place(self, kind, code, detail, epoch, seq, uptime_ms, cause):
        """Return the number that the record got, 0 if it has to wait, -1 if no sector takes it."""
        home = self._off(self._number) // self._region.sector if self._number else -1
        for _ in range(self._region.sectors):
            for _ in range(_MAX_FAILURES):
                number = self._next_number()
                if number > _MAX_NUMBER:
                    return -1
                first = number % self._per_sector == 1
                if kind == REMOTE and (first or self._remote >= self._quota):
                    # Its turn comes when another kind has opened a sector.
                    return 0
                if first and self._off(number) // self._region.sector == home:
                    return -1  # went round: this erase would take the newest record
                self._used = number
                if self._try(number, kind, code, detail, epoch, seq, uptime_ms, cause):
                    return number
            # A sector that takes nothing is left, or each boot would lose its first records there.
            self._used += -self._used % self._per_sector
        return -1

    def _try(self, number, kind, code, detail, epoch, seq, uptime_ms, cause):
        off = self._off(number)
        segment = _SEGMENT if number != self._number + 1 or not self._number else 0
        code, detail, long = _lay_out(kind, _checked(code).encode(), bytes(detail))
        if cause not in CAUSES:
            cause = "unknown"
        body = struct.pack(
            _BODY,
            number,
            kind | segment | len(detail) << 3,
            CAUSES.index(cause) | long,
            code,
            detail,
            epoch & _MAX_WORD,
            seq & _MAX_WORD,
            min(uptime_ms // 100, _MAX_WORD),
        )
        chain = _chain(self._hash, body)
        rest = body[4:] + chain + _sum(body + chain)
        try:
            if number % self._per_sector == 1:
                # Even if it reads blank: an erase that was cut off can look complete.
                self._region.erase(off // self._region.sector)
                self._remote = 0
            self._region.write_checked(off, body[:4])
            self._region.write_checked(off + 4, rest)
        except FlashError as error:
            if error.code != "readback":
                raise
            return False
        self._number = number
        self._hash = chain
        if kind == REMOTE:
            self._remote += 1
        return True

    def _affirm(self):
        """Program the newest record again, once a boot: the chain goes on from what stays.

        One that does not read back is counted as a gap, and the one before it takes its place.
        """
        if self._firm:
            return
        self._firm = True
        # As far as a sector that fails as a whole reaches.
        for _ in range(self._per_sector + 1):
            if not self._number or self._holds(self._number):
                return
            self.gaps += 1
            self._before()
        # Nothing to go on from: what can still be read is not erased, what happens is counted.
        self._take(None, 0)
        self._worn = True

    def _holds(self, number):
        record = self._record(number)
        # Torn cells may read differently by now: what is programmed is what was found.
        if not record or record[_BODY_SIZE:_CRC_OFF] != self._hash:
            return False
        try:
            self._region.write_checked(self._off(number), record)
        except FlashError as error:
            if error.code != "readback":
                raise
            return False
        return True

    def _before(self):
        """Go on from the greatest number below this one of a record that can be read."""
        record = None
        for number in range(self._number - 1, max(0, self._number - self._slots), -1):
            record = self._record(number)
            if record:
                break
        self._take(record, number if record else 0)

    def _take(self, record, number):
        """Have the chain go on from `record`, None: from nothing."""
        self._number = number if record else 0
        self._hash = record[_BODY_SIZE:_CRC_OFF] if record else _ZEROS

    def _next_number(self):
        """Return the next number whose slot was never touched, or the first of the next sector."""
        number = self._used + 1
        while number % self._per_sector != 1 and self._view(number) != _BLANK:
            number += 1
        return number

    def _newest(self, below):
        """Return the greatest number below `below` of a record with a good sum, 0 if none."""
        best = 0
        region = self._region
        # Downwards: of a run of records only the greatest needs its sum checked.
        for sector in range(region.sectors - 1, -1, -1):
            first = sector * self._per_sector
            if region.is_blank(first * SIZE, region.sector):
                continue
            view = region.view(first * SIZE, region.sector)
            for slot in range(first + self._per_sector - 1, first - 1, -1):
                number = struct.unpack_from(">I", view, (slot - first) * SIZE)[0]
                if best < number < below and (number - 1) % self._slots == slot:
                    if self._valid(number):
                        best = number
        return best

    def _continues(self, record, number):
        """Return whether the chain does not speak against `record`, the one of this number."""
        before = self._record(number - 1) if number > 1 and not record[4] & _SEGMENT else None
        if not before:
            return True
        chain = _chain(before[_BODY_SIZE:_CRC_OFF], record[:_BODY_SIZE])
        return chain == record[_BODY_SIZE:_CRC_OFF]

    def _record(self, number):
        """Return record `number` as one look finds it (64 bytes), None where none finds it."""
        for _ in range(_MAX_LOOKS):
            record = self._region.read(self._off(number), SIZE)
            if is_valid(record, number):
                return record
        return None

    def _valid(self, number):
        return is_valid(self._view(number), number)

    def _count_remote(self):
        if not self._number:
            return 0
        first = self._number - (self._number - 1) % self._per_sector
        count = 0
        for number in range(first, self._number + 1):
            if self._valid(number) and self._view(number)[4] & 3 == REMOTE:
                count += 1
        return count

    def _off(self, number):
        return (number - 1) % self._slots * SIZE

    def _view(self, number):
        return self._region.view(self._off(number), SIZE)


def is_valid(record, number=None):
    """Return whether 64 bytes are a whole record, of `number` if given."""
    if len(record) != SIZE or record[_CRC_OFF:] != _sum(record[:_CRC_OFF]):
        return False
    found = struct.unpack_from(">I", record, 0)[0]
    if not 0 < found <= _MAX_NUMBER or (number is not None and found != number):
        return False
    return record[4] >> 3 <= MAX_DETAIL and record[5] & ~_LONG < len(CAUSES)


def parse(record):
    """Return the parts of a 64-byte record as a tuple.

    (number, kind, code, detail, epoch, seq, uptime_ms, cause, segment, chain): ints; `code` and
    `cause` str; `detail` bytes; `segment` True when the chain does not go on from number - 1;
    `chain` 16 bytes. Raises StateError `evidence-record` for bytes that are none.
    """
    if not is_valid(record):
        raise StateError("evidence-record", "not an evidence record")
    number, flags, cause, code, detail, epoch, seq, uptime = struct.unpack(
        _BODY, record[:_BODY_SIZE]
    )
    detail = detail[: flags >> 3]
    code = code.rstrip(b"\x00")
    if cause & _LONG:
        at = _COUNT if flags & 3 == REMOTE else 0
        rest, _, behind = detail[at:].partition(b"\x00")
        code += rest
        detail = detail[:at] + behind
    text = ""
    for byte in code:
        text += chr(byte) if 32 < byte < 127 else "?"
    return (
        number,
        flags & 3,
        text,
        detail,
        epoch,
        seq,
        uptime * 100,
        CAUSES[cause & ~_LONG],
        bool(flags & _SEGMENT),
        bytes(record[_BODY_SIZE:_CRC_OFF]),
    )


def follows(record, before):
    """Return whether `record` continues the chain from `before`: a 16-byte hash, or None.

    None stands for nothing readable before it in the whole ring: 16 zero bytes.
    """
    chain = _chain(before or _ZEROS, bytes(record[:_BODY_SIZE]))
    return chain == bytes(record[_BODY_SIZE:_CRC_OFF])


def _chain(before, body):
    digest = hashlib.sha256(before)
    digest.update(body)
    return digest.digest()[:_HASH]


def _sum(data):
    return struct.pack(">H", binascii.crc32(data) & 0xFFFF)


def _lay_out(kind, code, detail):
    """Return (field of the code, detail, _LONG or 0) as a record has them, from bytes.

    A code longer than its field goes on in the detail, behind a remote event's count, up to a zero
    byte or the end of the detail.
    """
    if len(code) <= _FIELD:
        return code, detail[:MAX_DETAIL], 0
    at = _COUNT if kind == REMOTE else 0
    rest = code[_FIELD:]
    if len(detail) > at:
        rest += b"\x00" + detail[at:]
    return code[:_FIELD], (detail[:at] + rest)[:MAX_DETAIL], _LONG


def _checked(code):
    """Return `code`, or "invalid" for one that is too long or not of printable ASCII."""
    for character in code:
        if not " " < character < "\x7f":
            return "invalid"
    return code if len(code) <= MAX_CODE else "invalid"
