"""Writes the compression function of SHA-512 (FIPS 180-4, 6.4.2) in Thumb code for ARMv6-M.

The interface is viper_sha512's. No branch and no address depends on the data.

Registers of a round, lower half of a word first: e in r0 and r1, a in r2 and r3 (both are left
there by the round before), T2 and then T1 built in r4, r5 and r2, r3; r6 is the term at hand, r7
the next word of the schedule. Eight rounds are written out, so that the working variables change
places by name. A place is two words: the first five words are in high registers, which take a
cycle where the stack takes two, the others on the stack.

Logical operations leave the carry alone, so that a term is made between the two halves of its sum:
Ch is e & f plus g & ~e, and Maj, with x = a ^ b, is b & ~x plus c & x: neither sum can carry.
"""

from __future__ import annotations

from tidemark_host.cryptogen import viper_sha512
from tidemark_host.cryptogen.source import Source

_VARIABLES = "abcdefgh"
_PLACES = ("r8", "r9", "r10", "r11", "r12", *range(0, 44, 4))
"""Where the sixteen halves are: a high register, or an offset from the stack pointer."""
_STATE, _DATA, _WORK, _COUNT, _END = range(44, 64, 4)
_FRAME = 64
_KEY = "r14"  # address of the next constant; the return address is on the stack
_HIGH = ("r8", "r9", "r10", "r11")
_LOW = (4, 5, 6, 7)
_K_BYTES = 640


class _Code(Source):
    """Source of an asm_thumb function; what its assembler has no word for goes in as data."""

    def op(self, name: str, *arguments: int | str) -> None:
        """Add an instruction; an int is a low register."""
        self.line(f"{name}({', '.join(f'r{a}' if isinstance(a, int) else a for a in arguments)})")

    def _data(self, code: int, comment: str) -> None:
        self.line(f"data(2, 0x{code:04x})  # {comment}")

    def load(self, register: int, place: int | str) -> None:
        """Load from a high register or from the stack."""
        if isinstance(place, str):
            self.op("mov", register, place)
        else:
            self._data(0x9800 | register << 8 | place >> 2, f"ldr r{register}, [sp, {place}]")

    def store(self, register: int, place: int | str) -> None:
        """Store to a high register or to the stack."""
        if isinstance(place, str):
            self.op("mov", place, register)
        else:
            self._data(0x9000 | register << 8 | place >> 2, f"str r{register}, [sp, {place}]")

    def pull(self, pointer: int, low: int, count: int = 2) -> None:
        """Load `count` registers from `low` on; the pointer moves on."""
        code = 0xC800 | pointer << 8 | (1 << count) - 1 << low
        self._data(code, f"ldm r{pointer}!, {{r{low} to r{low + count - 1}}}")

    def push(self, pointer: int, low: int) -> None:
        """Store `low` and the register behind it; the pointer moves on."""
        self._data(0xC000 | pointer << 8 | 3 << low, f"stm r{pointer}!, {{r{low}, r{low + 1}}}")

    def frame(self, *, open_: bool) -> None:
        """Make room on the stack, or give it back."""
        self._data(0xB000 | open_ << 7 | _FRAME >> 2, f"{'sub' if open_ else 'add'} sp, {_FRAME}")

    def add(self, target: int, term: int) -> None:
        """Add a pair of registers to another."""
        self.op("add", target, target, term)
        self.op("adc", target + 1, term + 1)

    def sigma(self, out: int, x: int, rotations: tuple[int, ...], shift: int = 0) -> None:
        """Set a pair to the exclusive or of pair x rotated right, and shifted; r6 is lost."""
        for half in (0, 1):
            near, far = x + half, x + 1 - half
            terms: list[tuple[str, int, int]] = []
            for n in rotations:
                first, second = (near, far) if n < 32 else (far, near)
                terms += [("lsr", first, n & 31), ("lsl", second, 32 - (n & 31))]
            if shift:
                terms.append(("lsr", near, shift))
                terms += [] if half else [("lsl", far, 32 - shift)]
            for i, (name, register, n) in enumerate(terms):
                self.op(name, 6 if i else out + half, register, str(n))
                if i:
                    self.op("eor", out + half, 6)


def _places(variable: str, number: int) -> tuple[int | str, int | str]:
    """Return where the halves of a working variable are in round `number` of eight."""
    at = 2 * (_VARIABLES.index(variable) - number & 7)
    return _PLACES[at], _PLACES[at + 1]


def _term(w: _Code, total: int, variable: str, number: int, masks: tuple[str, int]) -> None:
    """Add a working variable to a pair, each half masked by an instruction and a pair."""
    name, mask = masks
    for half, place in enumerate(_places(variable, number)):
        w.load(6, place)
        w.op(name, 6, mask + half)
        w.op("adc" if half else "add", *((total + half,) if half else (total, total)), 6)


def _pair(w: _Code, low: int, variable: str, number: int) -> None:
    for half, place in enumerate(_places(variable, number)):
        w.load(low + half, place)


def _round(w: _Code, i: int) -> None:
    # T2 = Sigma0(a) + Maj(a, b, c)
    w.sigma(4, 2, (28, 34, 39))
    for half, place in enumerate(_places("b", i)):
        w.load(6, place)
        w.op("eor", 2 + half, 6)
        w.op("bic", 6, 2 + half)
        w.op("adc" if half else "add", *((5,) if half else (4, 4)), 6)
    _term(w, 4, "c", i, ("and_", 2))
    # T1 = Sigma1(e) + Ch(e, f, g) + h + W + K
    w.sigma(2, 0, (14, 18, 41))
    _term(w, 2, "f", i, ("and_", 0))
    _term(w, 2, "g", i, ("bic", 0))
    _pair(w, 0, "h", i)
    w.add(2, 0)
    w.pull(7, 0)
    w.add(2, 0)
    w.op("mov", 6, _KEY)
    w.pull(6, 0)
    w.op("mov", _KEY, 6)
    w.add(2, 0)
    # The new e takes d's place, the new a that of h.
    _pair(w, 0, "d", i)
    w.add(0, 2)
    w.add(2, 4)
    for variable, low in (("d", 0), ("h", 2)):
        for half, place in enumerate(_places(variable, i)):
            w.store(low + half, place)


def _load_block(w: _Code) -> None:
    """Sixteen words of the data, which may lie anywhere: byte by byte. r1: the schedule."""
    w.load(0, _DATA)
    w.op("mov", 7, "16")
    w.op("label", "WORD")
    for low, at in ((3, 0), (2, 4)):
        w.line(f"ldrb(r{low}, [r0, {at}])")
        for i in range(at + 1, at + 4):
            w.op("lsl", low, low, "8")
            w.line(f"ldrb(r6, [r0, {i}])")
            w.op("orr", low, 6)
    w.push(1, 2)
    w.op("add", 0, "8")
    w.op("sub", 7, "1")
    w.op("bne", "WORD")
    w.store(0, _DATA)


def _expand(w: _Code) -> None:
    """Words 16 to 79. r7: the word sixteen before, r1 at first: behind the sixteenth word."""
    w.line("sub(r1, 128)")
    w.op("mov", 7, 1)
    w.op("mov", 2, "128")
    w.op("lsl", 2, 2, "2")
    w.op("add", 2, 2, 1)
    w.op("mov", "r8", 2)
    w.op("label", "EXPAND")
    for _ in range(2):
        w.pull(7, 0, 4)
        w.op("sub", 7, "8")
        w.sigma(4, 2, (1, 8), 7)
        w.add(0, 4)
        w.line("ldr(r2, [r7, 64])", "ldr(r3, [r7, 68])")
        w.add(0, 2)
        w.line("ldr(r2, [r7, 104])", "ldr(r3, [r7, 108])")
        w.sigma(4, 2, (19, 61), 6)
        w.add(0, 4)
        w.line("str(r0, [r7, 120])", "str(r1, [r7, 124])")
    _back(w, "r8", "EXPAND", "ROUNDS")


def _back(w: _Code, end: int | str, label: str, out: str) -> None:
    """Branch to `label` until r7 is at `end`."""
    w.load(6, end)
    w.op("cmp", 7, 6)
    w.op("beq", out)
    w.op("b", label)
    w.op("label", out)


def _block(w: _Code) -> None:
    for high, low in zip(_HIGH, _LOW, strict=True):
        w.op("mov", low, high)
    w.line("push({r4, r5, r6, r7})")
    w.frame(open_=True)
    for register, place in enumerate((_DATA, _STATE, _WORK, _COUNT)):
        w.store(register, place)
    w.op("label", "BLOCK")
    w.load(1, _WORK)
    w.op("mov", 2, str(_K_BYTES >> 2))
    w.op("lsl", 2, 2, "2")
    w.op("add", 1, 1, 2)
    w.op("add", 2, 2, 1)
    w.store(2, _END)
    _load_block(w)
    _expand(w)
    w.load(6, _STATE)
    for variable in "bcdfghae":
        low = 2 if variable == "a" else 0
        at = 8 * _VARIABLES.index(variable)
        for half, place in enumerate(_places(variable, 0)):
            w.line(f"ldr(r{low + half}, [r6, {at + 4 * half}])")
            w.store(low + half, place)
    w.load(7, _WORK)
    w.op("mov", _KEY, 7)
    w.op("mov", 6, str(_K_BYTES >> 2))
    w.op("lsl", 6, 6, "2")
    w.op("add", 7, 7, 6)
    w.op("label", "EIGHT")
    for i in range(8):
        _round(w, i)
    _back(w, _END, "EIGHT", "SUM")
    w.load(6, _STATE)
    for variable in _VARIABLES:
        _pair(w, 0, variable, 0)
        w.line("ldr(r2, [r6, 0])", "ldr(r3, [r6, 4])")
        w.add(0, 2)
        w.push(6, 0)
    w.load(0, _COUNT)
    w.op("sub", 0, "1")
    w.store(0, _COUNT)
    w.op("beq", "END")
    w.op("bl", "BLOCK")  # too far for a plain branch; the return address is on the stack
    w.op("label", "END")
    w.frame(open_=False)
    w.line("pop({r4, r5, r6, r7})")
    for high, low in zip(_HIGH, _LOW, strict=True):
        w.op("mov", high, low)


def sha512_source() -> str:
    """Return the functions `block` and `output` as source."""
    w = _Code()
    w.line("@micropython.asm_thumb")
    # Data, state, work, count.
    with w.block("def block(r0, r1, r2, r3):"):
        _block(w)
    return w.text() + viper_sha512.OUTPUT
