# The durable counter (invariant I1): epochs that never come twice, sequence numbers in RAM.
# Value = epoch (32 bits) . seq (32 bits). One flash record a boot, none a message.
#
# The five rules, each of which the search in tests/powercut shows to be necessary:
# 1. A record's address and bytes are pure functions of its epoch: writing it again is harmless.
# 2. The recovered value is the maximum over a full scan, past blanks; junk counts as used (in the
#    first slot of a sector as long as there is another sector to go on in).
# 3. Affirm: the recovered maximum's bytes are programmed again before anything rests on it.
# 4. A sector is erased before its first slot is written, even if it reads blank; and before that
#    erase its first slots are cleared: a cut-off one would let a torn record show on cells that
#    hold none.
# 5. Write, read back, then issue; an epoch found on flash is never issued.

import binascii
import struct

from tidemark.compat import const
from tidemark.errors import FlashError, StateError

_SLOT = const(16)
_MAGIC = const(0x544D4331)  # "TMC1"
_BLANK = b"\xff" * _SLOT
_CLEARED = bytes(_SLOT)
_SPACES = const(4)
_MAX_EPOCH = 0xFFFFFFFE
_MAX_SEQ = 1 << 30
# Slots of one sector that may fail to take a record before the next sector is tried.
_MAX_FAILURES = const(4)


class Counter:
    """Values (epoch, seq) of which none is ever issued twice, through power cuts and torn writes.

    `region`: tidemark.flash.Region of at least two sectors, this counter's alone. `guard`: called
    with False before and True after each flash write, to keep Ctrl-C out; or None.
    `epoch`: int, this boot's; 0 until `open_epoch`.
    """

    def __init__(self, region, guard=None):
        if region.sectors < 2 or region.sector % _SLOT:
            raise StateError("counter-region", "needs two sectors of whole slots")
        self._region = region
        self._guard = guard
        self._per_sector = region.sector // _SLOT
        self._slots = region.size // _SLOT
        self._found = -1
        self._refused = False
        self._seq = [0] * _SPACES
        self.epoch = 0

    def recover(self):
        """Return the greatest epoch on flash (int, 0 if none). Writes nothing."""
        best = 0
        sector = self._region.sector
        step = sector // _SLOT
        step = step if step % _SLOT == 0 else _SLOT
        blank = b"\xff" * step
        layout = ">" + "4xI8x" * (step // _SLOT)
        # Downwards, so that of a run of records only the greatest needs to be checked; much at
        # once, since most slots are blank or below.
        for base in range(self._region.size - sector, -1, -sector):
            if self._region.is_blank(base, sector):
                continue
            for start in range(base + sector - step, base - 1, -step):
                view = self._region.view(start, step)
                if view == blank:
                    continue
                epochs = struct.unpack(layout, view)
                if max(epochs) <= best:
                    continue
                for slot in range(len(epochs) - 1, -1, -1):
                    if best < epochs[slot] <= _MAX_EPOCH:
                        best = max(best, self._epoch_at(start // _SLOT + slot))
        self._found = best
        return best

    def open_epoch(self):
        """Make a new epoch durable and return it; in the same boot the same one again.

        Raises StateError `counter-worn` when the flash takes no record, from then on always.
        """
        if self.epoch:
            return self.epoch
        if self._refused:
            raise StateError("counter-worn", "no further epoch can be promised")
        if self._found < 0:
            self.recover()
        if self._guard:
            self._guard(False)
        try:
            # Refused unless proven otherwise: an exception on the way leaves no half promise.
            self._refused = True
            self.epoch = self._open()
            self._refused = False
        finally:
            if self._guard:
                self._guard(True)
        return self.epoch

    def next(self, space):
        """Return the next unused (epoch, seq) of `space` (0 to 3): seq = n << 2 | space, n from 1.

        Raises StateError `counter-closed` before `open_epoch`, `seq-exhausted` after 2^30 - 1
        values of a space in one boot.
        """
        if not self.epoch:
            raise StateError("counter-closed", "no epoch is open")
        if not 0 <= space < _SPACES:
            raise StateError("counter-space", "no such space")
        n = self._seq[space] + 1
        if n >= _MAX_SEQ:
            raise StateError("seq-exhausted", "no sequence number is left in this boot")
        self._seq[space] = n
        return self.epoch, n << 2 | space

    def _open(self):
        found = self._found
        if found and not self._write(found):
            # Rule 3 failed: what was read may be gone at the next boot.
            raise StateError("counter-worn", "the last record can't be affirmed")
        home = self._slot(found) // self._per_sector if found else -1
        epoch = self._past_junk(self._after(found), home)
        for _ in range(self._region.sectors):
            for _ in range(_MAX_FAILURES):
                if epoch > _MAX_EPOCH:
                    break
                index, first = divmod(self._slot(epoch), self._per_sector)
                if not first:
                    if index == home:
                        # Went round: this erase would take the record that all rests on.
                        raise StateError("counter-worn", "no sector takes a record")
                    if not self._erase(index):
                        epoch += 1
                        break
                if self._write(epoch):
                    return epoch
                epoch = self._after(epoch)
            # On to the first slot of the next sector.
            epoch += -self._slot(epoch) % self._per_sector
        raise StateError("counter-worn", "no sector takes a record")

    def _after(self, epoch):
        """Return the next epoch that may be tried: past used slots of a sector already in use."""
        epoch += 1
        while self._slot(epoch) % self._per_sector:
            off = self._slot(epoch) * _SLOT
            if self._region.view(off, _SLOT) == _BLANK:
                break
            epoch += 1
        return epoch

    def _past_junk(self, epoch, home):
        """Return `epoch`, or the first one of a later sector where its own would begin on junk.

        Junk there may be a cut-off write, or an issued epoch whose cells have aged. Where all
        sectors but `home`, that of the last record, begin so, the former is taken for true.
        """
        later = epoch
        for _ in range(self._region.sectors):
            slot = self._slot(later)
            if slot % self._per_sector:
                return later
            if slot // self._per_sector == home:
                return epoch
            view = self._region.view(slot * _SLOT, _SLOT)
            if self._epoch_at(slot) or view in (_BLANK, _CLEARED):
                return later
            later += self._per_sector
        return epoch

    def _erase(self, index):
        """Erase a sector; what may have been written there for the coming lap is cleared first.

        False when the flash's driver reports that it failed: nothing may be written there.
        """
        start = index * self._region.sector
        # One after the other: a slot that is half cleared must not look free beside a record.
        for slot in range(min(_MAX_FAILURES, self._per_sector)):
            try:
                self._region.write(start + slot * _SLOT, _CLEARED)
            except FlashError as error:
                if error.code != "flash-io":
                    raise
                return False
        return self._region.erase_checked(index)

    def _write(self, epoch):
        """Program the record of `epoch` and return whether it reads back."""
        try:
            self._region.write_checked(self._slot(epoch) * _SLOT, _record(epoch))
        except FlashError as error:
            if error.code != "readback":
                raise
            return False
        return True

    def _slot(self, epoch):
        return (epoch - 1) % self._slots

    def _epoch_at(self, slot):
        record = self._region.view(slot * _SLOT, _SLOT)
        if record == _BLANK:
            return 0
        epoch = struct.unpack_from(">I", record, 4)[0]
        if not 0 < epoch <= _MAX_EPOCH or self._slot(epoch) != slot:
            return 0
        return epoch if record == _record(epoch) else 0


def _record(epoch):
    """Return the 16 bytes of `epoch`: magic, epoch, its complement, CRC-32; never 0xFF alone."""
    head = struct.pack(">III", _MAGIC, epoch, epoch ^ 0xFFFFFFFF)
    return head + struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF)
