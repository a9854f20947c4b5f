"""NOR flash as the firmware sees it, with the power cuts and torn cells of the real thing.

One file for CPython and MicroPython, without any import: the tests of the cores use it over a
bytearray, the virtual board over a file's memory map. It enforces the rules of a chip and fails
loudly where a chip would fail silently.

Rules: an erase sets one sector to 0xFF. A program takes whole aligned pages; a 0xFF byte in it
leaves its byte as it is, any other byte may go over an erased one or again over itself. Identical
bytes may always be programmed again, different ones over them never, but for zeros: those clear
what is left of a byte, whatever it was, and are firm.

Power cuts: `plan_cut` makes the n-th operation from now fail. With `weak=True` the cells that an
interrupted operation touched have no value of their own from then on: `power_up` gives them one
for the boot that starts, another one for the next, until they are programmed again with the same
bytes or erased. Different bytes over weak ones succeed and read back, and leave the cells weak:
just what makes such a write treacherous on the chip. A cut-off erase is taken to move cells
towards 0xFF only, so that bytes which still read and are programmed again stay. With `hard=True`
it also disturbs blank cells, as chips that program a sector before erasing it do, and only another
erase mends the sector.

Wear: `fail` gives a sector one of FAULTS, at once or from a number of erases on. The chip reports
none of them. In such a sector a program does what it can and breaks no rule: it only clears bits.
"""

# Readings of weak cells, one a boot for each interrupted operation.
OLD = "old"  # as if the operation had not begun
NEW = "new"  # as if it had been completed
JUNK = "junk"  # some bits this way, some that way
MIXED = "mixed"  # half as completed, half as not begun
READINGS = (OLD, NEW, JUNK, MIXED)

# Variants of a cut.
BEFORE = "before"  # nothing happens, power is gone
TORN = "torn"  # a program stops within; a half-done erase
AFTER = "after"  # done, but nobody is told
VARIANTS = (BEFORE, TORN, AFTER)

# What can be wrong with a worn sector.
NO_PROGRAM = "no-program"  # a program changes nothing
NO_ERASE = "no-erase"  # an erase changes nothing
DEAD = "dead"  # neither changes anything
FEW_BITS = "few-bits"  # a program leaves half of the bits that it should clear
STUCK_0 = "stuck-0"  # single bits stay programmed, whatever is erased
STUCK_1 = "stuck-1"  # single bits can't be programmed
FAULTS = (NO_PROGRAM, NO_ERASE, DEAD, FEW_BITS, STUCK_0, STUCK_1)
_STUCK_EVERY = 7  # bytes, so that each record has some
_STUCK_MASK = 0x12
_FEW_MASK = 0x55

_SCRAMBLE = b"\xa5\x3c\x5a\xc3"


class NorError(Exception):
    """A flash access that the chip's rules forbid: a bug in the caller, never to be caught.

    `code`: `bounds`, `align`, `overwrite`, `size` or `fault`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code + ": " + text)
        self.code = code


class PowerCut(BaseException):
    """Power is gone. No `except Exception` may survive it, so it is none."""


class Fault:
    """What is wrong with a sector, from its `after`-th erase since the flash was made.

    `at`: offsets in the sector of the bytes with a stuck bit; empty: one byte in seven.
    """

    def __init__(self, kind: str, after: int, at: "tuple[int, ...]") -> None:
        self.kind = kind
        self.after = after
        self._at = at

    def programs(self, off: int, cell: int, want: int) -> int:
        """Return what a program of `want` makes of the byte `cell` at `off`."""
        if self.kind in (NO_PROGRAM, DEAD):
            return cell
        made = cell & want
        if self.kind == FEW_BITS:
            return made | (cell & _FEW_MASK)
        if self.kind == STUCK_1 and self._is_stuck(off):
            return made | (cell & _STUCK_MASK)
        return made

    def erases(self, off: int, cell: int) -> int:
        """Return what an erase makes of the byte `cell` at `off`."""
        if self.kind in (NO_ERASE, DEAD):
            return cell
        if self.kind == STUCK_0 and self._is_stuck(off):
            return 0xFF ^ _STUCK_MASK
        return 0xFF

    def _is_stuck(self, off: int) -> bool:
        return off in self._at if self._at else off % _STUCK_EVERY == 3


class NorFlash:
    """A NOR flash over `buf`, a size in bytes (then blank) or a writable buffer (then as it is).

    `page` divides `sector`, `sector` divides the size. Counts `programs` (pages), `erases`,
    `erase_counts` (a sector each) and `operations` (both). Sectors in `worn` no longer take
    programs: nothing changes, nothing is reported. `faults`: by sector, see `fail`.
    """

    def __init__(
        self,
        buf: "int | bytearray | memoryview",
        sector: int = 4096,
        page: int = 256,
        weak: bool = False,
        hard: bool = False,
    ) -> None:
        if isinstance(buf, int):
            size = buf
            buf = bytearray(size)
            for start in range(0, size, sector):
                buf[start : start + sector] = b"\xff" * min(sector, size - start)
        self._buf = memoryview(buf)
        self.size = len(self._buf)
        self.sector = sector
        self.page = page
        if sector % page or self.size % sector or not self.size:
            raise NorError("size", "pages must fill sectors, sectors the flash")
        self.worn: "set[int]" = set()
        self.faults: "dict[int, Fault]" = {}
        self.programs = 0
        self.erases = 0
        self.erase_counts = [0] * (self.size // sector)
        self._with_weak = weak or hard
        self._hard = hard
        # address of a weak byte: (old, new, number of the interrupted operation)
        self._weak: "dict[int, tuple[int, int, int]]" = {}
        self._cut_at = -1
        self._cut_variant = BEFORE
        self._cut_bytes = -1
        self._cut_mask = 0xFF

    @property
    def operations(self) -> int:
        """Return the number of operations so far: pages programmed and sectors erased."""
        return self.programs + self.erases

    def view(self, start: int, size: int) -> memoryview:
        """Return the bytes from `start` in place. On CPython it can't be written through."""
        self._inside(start, size)
        part = self._buf[start : start + size]
        try:
            return part.toreadonly()
        except AttributeError:
            return part

    def read_into(self, addr: int, buf: "bytearray | memoryview") -> None:
        """Fill `buf` from `addr` on. Raises NorError `bounds`."""
        self._inside(addr, len(buf))
        buf[:] = self._buf[addr : addr + len(buf)]

    def program(self, addr: int, data: "bytes | bytearray | memoryview") -> None:
        """Program whole pages at `addr`, one operation each.

        Raises NorError `bounds`, `align`, `overwrite`, before anything has changed; PowerCut.
        """
        data = memoryview(data)
        self._inside(addr, len(data))
        if addr % self.page or len(data) % self.page or not len(data):
            raise NorError("align", "a program takes whole aligned pages")
        if bytes(self._buf[addr : addr + len(data)]) != b"\xff" * len(data):
            for i in range(len(data)):
                want, cell = data[i], self._buf[addr + i]
                # Over weak cells any program goes through: _settle tells which it makes firm.
                if want in (0xFF, 0, cell) or cell == 0xFF or addr + i in self._weak:
                    continue
                if not self._fault(addr + i):
                    raise NorError("overwrite", "different bytes over programmed ones")
        for start in range(0, len(data), self.page):
            self._program_page(addr + start, data[start : start + self.page])

    def erase(self, addr: int) -> None:
        """Erase the sector that starts at `addr`. Raises NorError `bounds`, `align`; PowerCut."""
        self._inside(addr, self.sector)
        if addr % self.sector:
            raise NorError("align", "an erase takes one aligned sector")
        variant = self._due()
        if variant != BEFORE:
            self.erases += 1
            self.erase_counts[addr // self.sector] += 1
        if variant == TORN:
            self._tear_erase(addr)
        elif variant != BEFORE:
            fault = self._fault(addr)
            if fault:
                for i in range(self.sector):
                    self._buf[addr + i] = fault.erases(i, self._buf[addr + i])
            else:
                for start in range(addr, addr + self.sector, self.page):
                    self._buf[start : start + self.page] = b"\xff" * self.page
            if self._weak:
                end = addr + self.sector
                for cell in [cell for cell in self._weak if addr <= cell < end]:
                    del self._weak[cell]
        if variant:
            raise PowerCut("erase")

    def plan_cut(self, at: int, variant: str = BEFORE, count: int = -1, mask: int = 0xFF) -> None:
        """Cut the power at the `at`-th operation from now (0: the next).

        `variant`: BEFORE, TORN or AFTER. Without weak cells TORN applies the first `count` bytes
        of a page or, in the byte behind them, the bits in `mask`; of an erase the first `count`
        bytes. `count` -1: half of it.
        """
        self._cut_at = at
        self._cut_variant = variant
        self._cut_bytes = count
        self._cut_mask = mask

    def set_weak(self, weak: bool) -> None:
        """Have interrupted operations leave weak cells from now on, or firm ones."""
        self._with_weak = weak

    def fail(self, sector: int, kind: str, after: int = 0, at: "tuple[int, ...]" = ()) -> None:
        """Give a sector one of FAULTS, from its `after`-th erase on (counted as `erase_counts`).

        `at`: see Fault. A fault is no part of a snapshot.
        """
        if kind not in FAULTS:
            raise NorError("fault", kind)
        self.faults[sector] = Fault(kind, after, at)

    def no_cut(self) -> None:
        """Forget the planned cut."""
        self._cut_at = -1

    def weak_groups(self) -> "list[int]":
        """Return the numbers of the interrupted operations that left weak cells, sorted."""
        return sorted({weak[2] for weak in self._weak.values()})

    def power_up(self, readings: "dict[int, str]") -> None:
        """Start a boot in which the weak cells of each group read as told; OLD when not told."""
        self._cut_at = -1
        ends: "dict[int, list[int]]" = {}
        for addr in sorted(self._weak):
            ends.setdefault(self._weak[addr][2], []).append(addr)
        for group, cells in ends.items():
            reading = readings.get(group, OLD)
            for i in range(len(cells)):
                old, new, _ = self._weak[cells[i]]
                self._buf[cells[i]] = _reading(reading, old, new, i, len(cells))

    def snapshot(self) -> "tuple[object, ...]":
        """Return all of the flash's physical state, hashable: equal states behave alike."""
        weak = tuple(sorted(self._weak.items()))
        return (bytes(self._buf), weak, tuple(sorted(self.worn)))

    def restore(self, state: "tuple[object, ...]") -> None:
        """Go back to a snapshot of a flash of the same size. Counters stay."""
        content, weak, worn = state
        self._buf[:] = content  # type: ignore[index]
        self._weak = dict(weak)  # type: ignore[arg-type]
        self.worn = set(worn)  # type: ignore[arg-type]
        self._cut_at = -1

    def _inside(self, addr: int, size: int) -> None:
        if addr < 0 or size < 0 or addr + size > self.size:
            raise NorError("bounds", "outside the flash")

    def _fault(self, addr: int) -> "Fault | None":
        """Return the fault in effect in the sector of `addr`."""
        fault = self.faults.get(addr // self.sector) if self.faults else None
        if fault and self.erase_counts[addr // self.sector] >= fault.after:
            return fault
        return None

    def _due(self) -> str:
        """Count down to the planned cut and return its variant when it is this operation's."""
        if self._cut_at < 0:
            return ""
        self._cut_at -= 1
        return self._cut_variant if self._cut_at < 0 else ""

    def _program_page(self, addr: int, data: memoryview) -> None:
        variant = self._due()
        if variant != BEFORE:
            self.programs += 1
        fault = self._fault(addr)
        if addr // self.sector in self.worn:
            pass
        elif fault and variant != BEFORE:
            for i in range(len(data)):
                cell = self._buf[addr + i]
                self._buf[addr + i] = fault.programs((addr + i) % self.sector, cell, data[i])
        elif variant == TORN:
            self._tear_program(addr, data)
        elif variant != BEFORE:
            self._settle(addr, data)
        if variant:
            raise PowerCut("program")

    def _settle(self, addr: int, data: memoryview) -> None:
        blank = b"\xff" * self.page
        if not self._weak and bytes(self._buf[addr : addr + self.page]) == blank:
            self._buf[addr : addr + self.page] = data
            return
        for i in range(len(data)):
            want = data[i]
            if want == 0xFF:
                continue
            self._buf[addr + i] = want
            weak = self._weak.get(addr + i)
            # A program makes firm what it completes, and what a cut-off erase has only begun to
            # take away; not what a cut-off program has begun to clear.
            again = weak and weak[:2] == (want, 0xFF) and not self._hard
            if weak and (want in (0, weak[1]) or again):
                del self._weak[addr + i]
            elif weak:
                self._weak[addr + i] = (weak[0], want if weak[1] else 0, weak[2])

    def _tear_program(self, addr: int, data: memoryview) -> None:
        group = self._next_group()
        count = len(data) // 2 if self._cut_bytes < 0 else self._cut_bytes
        for i in range(len(data)):
            want, cell = data[i], self._buf[addr + i]
            if want == 0xFF:
                continue
            if not self._with_weak:
                if i < count:
                    self._buf[addr + i] = want
                elif i == count and cell == 0xFF:
                    self._buf[addr + i] = want | (self._cut_mask ^ 0xFF)
            elif addr + i in self._weak:
                old, new, number = self._weak[addr + i]
                # Half-cleared, what was programmed in part may read as if it had been whole.
                old = new if want == 0 and new != 0xFF else old
                self._weak[addr + i] = (old, want, number)
            elif cell != want:
                self._weak[addr + i] = (cell, want, group)

    def _tear_erase(self, addr: int) -> None:
        group = self._next_group()
        count = self.sector // 2 if self._cut_bytes < 0 else self._cut_bytes
        for i in range(self.sector):
            if self._with_weak:
                before = self._weak.get(addr + i)
                old = self._buf[addr + i]
                if before:
                    # What is programmed in part comes out of the erase as it may.
                    old = before[0] if before[1] == 0xFF else before[1]
                if old != 0xFF or self._hard:
                    self._weak[addr + i] = (old, 0xFF, group)
            elif i < count:
                self._buf[addr + i] = 0xFF

    def _next_group(self) -> int:
        groups = self.weak_groups()
        return groups[-1] + 1 if groups else 1


def _reading(reading: str, old: int, new: int, index: int, count: int) -> int:
    if reading == MIXED:
        # Of an erase (its cells end as 0xFF) the first half stays: headers without their content.
        reading = NEW if (index * 2 < count) == (new != 0xFF) else OLD
    if reading == NEW:
        return new
    if reading == OLD:
        return old
    # Blank cells that an erase disturbed may read programmed.
    other = 0 if old == new == 0xFF else new
    return old ^ ((old ^ other) & _SCRAMBLE[index % 4])
