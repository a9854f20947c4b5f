# CRC'd key/value log over raw sectors: boot control, trust marks, floors, credentials.
# Layout and the reasons for each rule: docs/flash-state.md. In short:
# - Two units, halves of the region, each an array of blocks. A block is claimed (16 zero bytes,
#   read back) before a record goes into it, so that a torn record that reads blank later is never
#   written over. The last valid record of a key counts; later ones rule over all before them.
# - `affirm` appends a fresh copy of a recovered value before anybody relies on it.
# - A full unit is rewritten to the other one. The change from A to B is a record in A's log,
#   COMMIT, when B is complete: the log alone decides, so that no torn stamp can bring B back
#   later. B's first record then is SETTLED; only when that is firm may A be erased.
# - Birth never erases: an erase that was cut off can look complete, and no log can tell.

import binascii
import struct

from tidemark.compat import const
from tidemark.errors import FlashError, StateError
from tidemark.mark import MAX_SCOPE, build_mark, is_mark, parse_mark

MAX_VALUE = const(640)
MAX_KEY = const(15)
MAX_KEYS = const(48)
_MAX_NUMBER = (1 << 64) - 1

_BLOCK = const(128)
_CLAIM = const(16)
_ROOM = const(112)  # _BLOCK - _CLAIM
_CLAIMED = b"\x00" * _CLAIM
_BLANK = b"\xff" * _BLOCK
_STAMP = const(16)
_MAGIC = const(0x544D4A31)  # "TMJ1"
_MAX_GENERATION = 0xFFFFFFFE

# Record: kind, both lengths, CRC-32 over generation, block and all the rest; key; value.
_RECORD = ">BBHI"
_RECORD_SIZE = const(8)
_HEAD = const(24)  # _CLAIM + _RECORD_SIZE
_VALUE = const(0x56)
_MARK = const(0x4D)
_DELETED = const(0x44)
# Records about the log itself, without a key of the user's.
_SETTLED = const(0x53)  # this unit counts by itself
_COMMIT = const(0x43)  # as the last record: the other unit, of the next generation, counts
_ABORT = const(0x42)  # nothing; rules over a torn COMMIT before it
_CONTROL = "~"
_KINDS = (_VALUE, _MARK, _DELETED, _SETTLED, _COMMIT, _ABORT)
# Blocks at a unit's end for such records only: two for each COMMIT torn in a row, one to succeed.
_MIN_RESERVE = const(7)
# Blocks of a sector that may fail before the next one is tried; behind a unit's last, the other.
_MAX_FAILURES = const(3)
_MAX_LOOKS = const(4)


class Journal:
    """Durable keys that survive a power cut at any instant.

    Promise: a value whose `put`, `raise_mark` or `affirm` has returned stays the value of its key
    until a later call on that key; a call cut off by power leaves the former value or the new one.

    `region`: tidemark.flash.Region of an even number of sectors, this journal's alone. `guard`:
    called with False before and True after each write, to keep Ctrl-C out; or None. Keys: ASCII
    str, 1 to 15; values: bytes, at most 640; at most 48 keys. `recover` comes first.
    """

    def __init__(self, region, guard=None):
        if region.sectors < 2 or region.sector % _BLOCK or region.sector < 11 * _BLOCK:
            raise StateError("journal-region", "needs two sectors of at least eleven whole blocks")
        self._region = region
        self._guard = guard
        self._unit_sectors = region.sectors // 2
        self._blocks = self._unit_sectors * region.sector // _BLOCK
        self._forget(0)

    # Reading

    def recover(self):
        """Find the current unit and index it. Writes nothing. Returns whether there was one."""
        size = self._blocks * _BLOCK
        # The later generation first: where that unit is settled, the other one is not looked at.
        later = size if self._header_at(size) > self._header_at(0) else 0
        for base in (later, size - later):
            self._scan(base)
            if self._settled:
                break
        else:
            self._forget(0)
            return False
        other = self._other()
        if self._last[1] == _COMMIT and self._header_at(other) == self._generation + 1:
            # Complete, but nothing in it says so yet: the COMMIT is made firm by the first write.
            commit = self._last[0]
            self._scan(other)
            self._commit = commit
        return True

    def is_blank(self):
        """Return whether the journal was never born: nothing was ever acknowledged here."""
        return not self._generation

    def keys(self):
        """Return the keys that have a value, as a sorted list of str."""
        return sorted(key for key in self._index if self._index[key][1] != _DELETED)

    def get(self, key):
        """Return the value of `key` (bytes) or None. Not to be relied upon: see `affirm`, also for
        what it raises."""
        entry = self._index.get(key)
        if not entry or entry[1] == _DELETED:
            return None
        return self._value(key, entry)

    def mark(self, key, scope=b""):
        """Return (number, payload) of a mark in `scope`, (0, b"") when there is none in it."""
        entry = self._index.get(key)
        if not entry or entry[1] != _MARK:
            return 0, b""
        number, payload, found = parse_mark(self._value(key, entry))
        return (number, payload) if found == scope else (0, b"")

    # Writing

    def affirm(self, key):
        """Make the value of `key` firm and return it, or None.

        The first time in a boot a fresh copy is appended and read back, so that what is done on
        the strength of the value can't outlive it. A key written in this boot is firm already.
        A blank one stays blank, None from it is not firm. Raises StateError `journal-worn`.
        """
        if key not in self._affirmed:
            entry = self._index.get(key)
            if entry:
                value = b"" if entry[1] == _DELETED else self._value(key, entry)
                self._store(key, entry[1], value)
            elif self._hidden:
                # A torn first record may come to light in a later boot: settle that there is none.
                self._store(key, _DELETED, b"")
            elif self._generation:
                # There is none in this unit, which may be the current one by a torn COMMIT.
                self._guarded(self._settle)
        return self.get(key)

    def put(self, key, value):
        """Make `value` the value of `key`. Nothing happens if it is so and firm.

        Raises StateError `journal-key`, `journal-value`, `journal-full`, all with unchanged state,
        and `journal-worn`: then the outcome is open until the key is affirmed.
        """
        _check_key(key)
        if len(value) > MAX_VALUE:
            raise StateError("journal-value", "a value is at most 640 bytes")
        self._set(key, _VALUE, bytes(value))

    def delete(self, key):
        """Remove `key`. Raises as `put` does; StateError `mark-falls` for a mark."""
        _check_key(key)
        entry = self._index.get(key)
        if entry and entry[1] == _MARK:
            raise StateError("mark-falls", "a mark can't be deleted")
        if entry or self._hidden:
            self._set(key, _DELETED, b"")

    def raise_mark(self, key, number, payload=b"", scope=b""):
        """Raise the mark `key` to `number` (0 to 2^64 - 1) with `payload`, within `scope`.

        The same number with the same payload is affirmed. Another scope starts anew. Raises
        StateError `mark-falls` for a smaller number, `mark-conflict` for the same number with
        another payload, and what `put` raises.
        """
        _check_key(key)
        if not 0 <= number <= _MAX_NUMBER or len(scope) > MAX_SCOPE:
            raise StateError("journal-value", "mark out of range")
        value = build_mark(number, payload, scope)
        if len(value) > MAX_VALUE:
            raise StateError("journal-value", "a value is at most 640 bytes")
        entry = self._index.get(key)
        if entry and entry[1] == _VALUE:
            raise StateError("mark-conflict", "the key holds a value that is no mark")
        if entry and entry[1] == _MARK:
            had, had_payload, had_scope = parse_mark(self._value(key, entry))
            if had_scope == scope:
                if number < had:
                    raise StateError("mark-falls", "a mark only rises")
                if number == had and payload != had_payload:
                    raise StateError("mark-conflict", "same number, other payload")
        self._set(key, _MARK, value)

    # Inside

    def _forget(self, base):
        self._base = base  # offset of the current unit
        self._generation = 0
        self._tail = 1  # first block behind everything that was ever written
        self._last = (0, 0)  # block and kind of the last valid record
        self._settled = 0  # block of the last SETTLED record
        self._commit = -1  # block of the COMMIT in the other unit that this one rests on
        self._firm = False  # what makes this unit the current one was affirmed in this boot
        self._hidden = False  # a touched block without a valid record: a torn one may be there
        self._open = False  # such a block lies behind the last valid record
        self._index = {}  # key: (first block, kind, value length)
        self._affirmed = set()

    def _set(self, key, kind, value):
        entry = self._index.get(key)
        if entry:
            if kind == _VALUE and entry[1] == _MARK:
                raise StateError("mark-falls", "the key holds a mark")
            if key in self._affirmed and entry[1] == kind and self._value(key, entry) == value:
                return
        elif kind != _DELETED and len(self.keys()) >= MAX_KEYS:
            raise StateError("journal-full", "no room for another key")
        live = self._live(None)
        needed = self._live(key) + (_blocks_of(key, value) if kind != _DELETED else 0)
        if needed > live and needed > self._capacity():
            raise StateError("journal-full", "the live values fill a unit")
        self._store(key, kind, value)

    def _store(self, key, kind, value):
        """Append one record, by way of compaction where the unit is full; read it back."""
        # Until this has returned, nobody may take the key's value for firm.
        self._affirmed.discard(key)
        self._guarded(self._record, key, kind, value)
        self._affirmed.add(key)

    def _record(self, key, kind, value):
        if not self._generation:
            self._bear()
        self._settle()
        if not self._append(key, kind, value):
            self._compact(key, kind, value)

    def _guarded(self, work, *args):
        if self._guard:
            self._guard(False)
        try:
            work(*args)
        except FlashError as error:
            raise StateError("journal-worn", error.code)
        finally:
            if self._guard:
                self._guard(True)

    def _limit(self):
        return self._blocks - max(_MIN_RESERVE, self._blocks // 8)

    def _capacity(self):
        # A unit that is all but full would be rewritten for each change.
        room = self._limit() - 1
        return room - room // 8

    def _live(self, without):
        """Return the blocks that all live records take, but for the one of key `without`."""
        total = 0
        for key, entry in self._index.items():
            if key != without and entry[1] != _DELETED:
                total += _blocks_for(len(key), entry[2])
        return total

    def _bear(self):
        """Make a unit the first one: where all is blank, else where an attempt was cut off.

        The second unit first when its header can be read: a SETTLED may have been torn there, and
        would rule over the first unit when it comes to light.
        """
        size = self._blocks * _BLOCK
        second = self._header_at(size) == 2
        if not second and self._header_at(0) != 1 and not self._region.is_blank(0, size):
            if not self._region.is_blank(size, size):
                raise StateError("journal-unborn", "erase the journal's region first")
            second = True
        base = size if second else 0
        self._scan(base)
        # Also where it reads valid: it may have been torn.
        self._generation = 2 if second else 1
        self._region.write_checked(base, _header(self._generation))
        self._control(_SETTLED)

    def _settle(self):
        """Make firm, once a boot, what says that this unit is the current one."""
        if self._firm:
            return
        if self._commit >= 0:
            # Same bytes, same place, in the unit that decides.
            other = self._other()
            self._write(other, self._generation - 1, self._commit, _CONTROL, _COMMIT, b"")
        if self._settled:
            self._write(self._base, self._generation, self._settled, _CONTROL, _SETTLED, b"")
        else:
            self._control(_SETTLED)
        self._firm = True

    def _control(self, kind):
        if not self._append(_CONTROL, kind, b""):
            raise StateError("journal-worn", "no room for the log's own records")

    def _other(self):
        return self._blocks * _BLOCK - self._base

    def _append(self, key, kind, value):
        """Write a record at the tail; False when it does not fit or the blocks do not take it."""
        count = _blocks_of(key, value)
        limit = self._blocks if key == _CONTROL else self._limit()
        failures = 0
        while True:
            block = self._tail
            if failures == _MAX_FAILURES:
                failures = 0  # a sector that takes nothing is left
                block += -block % (self._region.sector // _BLOCK)
            if block + count > limit:
                return False
            self._tail = block + count
            try:
                # Claims first, and read back: the content of a claimed block is written only by
                # the boot that claimed it, so it is never written twice.
                for i in range(count):
                    self._region.write_checked(self._at(self._base, block + i), _CLAIMED)
                self._write(self._base, self._generation, block, key, kind, value)
            except FlashError as error:
                self._hidden = self._open = True
                if error.code != "readback":
                    raise
                failures += 1
                continue
            self._note(block, key, kind, value)
            return True

    def _note(self, block, key, kind, value):
        """Keep in RAM where the record that is now the last of its key lies."""
        self._last = (block, kind)
        self._open = False
        if kind == _SETTLED:
            self._settled = block
        if key != _CONTROL:
            self._index[key] = (block, kind, len(value))

    def _compact(self, key, kind, value):
        """Write all live values, with `key` as told, to the other unit; its header comes last."""
        generation = self._generation + 1
        if generation > _MAX_GENERATION:
            raise StateError("journal-worn", "no generation is left")
        # A COMMIT that was torn may come to light later: behind it stands a firm record.
        last = None if self._open else self._record_at(self._last[0])
        if last:
            self._write(self._base, self._generation, self._last[0], *last)
        else:
            self._control(_ABORT)
        base = self._other()
        region = self._region
        for i in range(self._unit_sectors):  # also blank ones: a cut-off erase can look complete
            region.erase(base // region.sector + i)
        index = {}
        block = 1
        for other in sorted(set(self._index) | {key}):
            if other == key:
                other_kind, data = kind, value
            else:
                entry = self._index[other]
                other_kind, data = entry[1], self._value(other, entry)
            if other_kind == _DELETED:
                continue
            block = self._place(base, generation, block, other, other_kind, data)
            index[other] = (block, other_kind, len(data))
            block += _blocks_of(other, data)
        region.write_checked(base, _header(generation))
        self._control(_COMMIT)
        self._forget(base)
        self._generation = generation
        self._tail = block
        self._index = index
        self._affirmed = set(index)
        self._control(_SETTLED)
        self._firm = True

    def _place(self, base, generation, block, key, kind, value):
        """Write a record at the first block from `block` on that takes it, and return that one."""
        count = _blocks_of(key, value)
        while block + count <= self._limit():
            try:
                self._write(base, generation, block, key, kind, value)
                return block
            except FlashError as error:
                if error.code != "readback":
                    raise
            block += count
        raise FlashError("readback", "the unit takes no more")

    def _write(self, base, generation, block, key, kind, value):
        """Program a record's blocks; harmless where the same record stands already."""
        name = key.encode()
        body = name + value
        crc = _crc(generation, block, kind, len(name), len(value), body)
        record = struct.pack(_RECORD, kind, len(name), len(value), crc) + body
        for i in range(0, len(record), _ROOM):
            at = self._at(base, block + i // _ROOM) + _CLAIM
            self._region.write_checked(at, record[i : i + _ROOM])

    def _scan(self, base):
        """Index the unit at `base`: of each key the last valid record, past all that is not."""
        self._forget(base)
        self._generation = self._header_at(base)
        block = 1
        sector = self._region.sector
        viewed = -1
        while block < self._blocks:
            at = block * _BLOCK
            off = at % sector
            if at - off != viewed:
                viewed = at - off
                view = self._region.view(base + viewed, sector)
            if not off and self._region.is_blank(base + at, sector):
                block += sector // _BLOCK
                continue
            part = view[off : off + _BLOCK]
            if part == _BLANK:
                block += 1
                continue
            found = self._record_in(block, part)
            if found:
                self._note(block, *found)
                block += _blocks_of(found[0], found[2])
            else:
                self._hidden = self._open = True
                block += 1
            self._tail = block

    def _record_at(self, block):
        return self._record_in(block, self._region.view(self._at(self._base, block), _BLOCK))

    def _record_in(self, block, view):
        """Return (key, kind, value) of a valid record that begins at `block`, whose bytes are
        `view`, or None."""
        kind, klen, vlen, crc = struct.unpack_from(_RECORD, view, _CLAIM)
        if kind not in _KINDS or not 0 < klen <= MAX_KEY or vlen > MAX_VALUE:
            return None
        end = _HEAD + klen + vlen
        if end <= _BLOCK:
            body = bytes(view[_HEAD:end])
        elif block + _blocks_for(klen, vlen) <= self._blocks:
            body = self._body(block, klen + vlen)
        else:
            return None
        if crc != _crc(self._generation, block, kind, klen, vlen, body):
            return None
        value = body[klen:]
        if kind == _MARK and not is_mark(value):
            return None
        name = body[:klen]
        if min(name) <= 0x20 or max(name) >= 0x7F:
            return None
        key = str(name, "ascii")
        # The log's own records are written again as they must be: key, and no value.
        control = kind in (_SETTLED, _COMMIT, _ABORT)
        if (key == _CONTROL) != control or (control and value):
            return None
        return key, kind, value

    def _value(self, key, entry):
        # Checked at each look: torn cells may read differently, and a copy gets its own sum.
        (block, kind, vlen), klen = entry, len(key)
        at = self._at(self._base, block) + _CLAIM
        for _ in range(_MAX_LOOKS):
            body = self._body(block, klen + vlen)
            crc = struct.unpack(_RECORD, self._region.view(at, _RECORD_SIZE))[3]
            if crc == _crc(self._generation, block, kind, klen, vlen, body):
                return body[klen:]
        raise StateError("journal-worn", "a record does not read twice the same")

    def _body(self, block, length):
        """Return the `length` bytes behind the head of the record at `block`."""
        total = _RECORD_SIZE + length
        buf = bytearray(total)
        view = memoryview(buf)
        for i in range(0, total, _ROOM):
            at = self._at(self._base, block + i // _ROOM) + _CLAIM
            self._region.read_into(at, view[i : min(i + _ROOM, total)])
        return bytes(view[_RECORD_SIZE:])

    def _at(self, base, block):
        return base + block * _BLOCK

    def _header_at(self, base):
        """Return the generation of a valid header at `base`, 0 if there is none."""
        header = self._region.view(base, _STAMP)
        generation = struct.unpack_from(">I", header, 4)[0]
        if not 0 < generation <= _MAX_GENERATION or header != _header(generation):
            return 0
        return generation


def _header(generation):
    head = struct.pack(">III", _MAGIC, generation, generation ^ 0xFFFFFFFF)
    return head + struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF)


def _crc(generation, block, kind, klen, vlen, body):
    # The place is part of the sum: a record of a former generation is none in this one.
    head = struct.pack(">IHBBH", generation, block, kind, klen, vlen)
    return binascii.crc32(body, binascii.crc32(head))


def _blocks_for(klen, vlen):
    return (_RECORD_SIZE + klen + vlen + _ROOM - 1) // _ROOM


def _blocks_of(key, value):
    return _blocks_for(len(key), len(value))


def _check_key(key):
    good = isinstance(key, str) and 0 < len(key) <= MAX_KEY and key != _CONTROL
    if not good or min(key) <= " " or max(key) >= "\x7f":
        raise StateError("journal-key", "a key is 1 to 15 ASCII characters")
