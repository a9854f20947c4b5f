"""Writes the compression function of SHA-512 (FIPS 180-4, 6.4.2) in Thumb code for ARMv6-M.

The interface is viper_sha512's. No branch and no address depends on the data.

Registers of a round, lower half of a word first: e in 0 and 1, a in 2 and 3 (both are left there
by the round before), T2 built in 4 and 5, T1 in 2 and 3; 6 is the term at hand, 7 points to the
next word of the schedule. Eight rounds are written out, so that the working variables change
places by name. A place is two words: the first five words are in high registers, which take a
cycle where the stack takes two, the others in the stack frame.

Logical operations leave the carry alone, so that a term is made between the two halves of its sum:
Ch is e & f plus g & ~e, and Maj, with x = a ^ b, is b & ~x plus c & x: neither sum can carry.
"""

from __future__ import annotations

from tidemark_host.cryptogen import viper_sha512
from tidemark_host.cryptogen.thumb import LR, Thumb

_VARIABLES = "abcdefgh"
_HIGH = (8, 9, 10, 11, 12)
"""Registers of the first halves of working variables; the others are words of the frame."""
_STATE, _DATA, _WORK, _COUNT, _END = range(16 - len(_HIGH), 21 - len(_HIGH))
_FRAME = 16
_KEY = LR
"""Address of the next constant of a round."""
_K_BYTES = 640


class _Code(Thumb):
    """Pairs of registers, and halves of working variables in their places."""

    def fetch(self, d: int, place: int) -> None:
        """d = what is at a place; no flags."""
        if place < len(_HIGH):
            self.mov(d, _HIGH[place])
        else:
            self.load_frame(d, place - len(_HIGH))

    def put(self, d: int, place: int) -> None:
        """Leave d at a place; no flags."""
        if place < len(_HIGH):
            self.mov(_HIGH[place], d)
        else:
            self.store_frame(d, place - len(_HIGH))

    def add_half(self, half: int, d: int, m: int) -> None:
        """Add m to the lower half of pair d, or with the carry to the upper one."""
        if half:
            self.adc(d + 1, m)
        else:
            self.add(d, d, m)

    def add_pair(self, d: int, m: int) -> None:
        """Add pair m to pair d."""
        self.add_half(0, d, m)
        self.add_half(1, d, m + 1)

    def load_pair(self, d: int, n: int, word: int) -> None:
        """Load pair d from address n on; two words."""
        self.load(d, n, word)
        self.load(d + 1, n, word + 1)

    def constant(self, d: int, value: int) -> None:
        """d = a multiple of 4 up to 1020."""
        self.set(d, value >> 2)
        self.shift("lsl", d, d, 2)

    def sigma(self, d: int, m: int, rotations: tuple[int, ...], shift: int = 0) -> None:
        """Set pair d to the exclusive or of pair m rotated right, and shifted; 6 is lost."""
        for half in (0, 1):
            near, far = m + half, m + 1 - half
            terms: list[tuple[str, int, int]] = []
            for n in rotations:
                first, second = (near, far) if n < 32 else (far, near)
                terms += [("lsr", first, n & 31), ("lsl", second, 32 - (n & 31))]
            if shift:
                terms.append(("lsr", near, shift))
                terms += [] if half else [("lsl", far, 32 - shift)]
            (name, register, n), *others = terms
            self.shift(name, d + half, register, n)
            for name, register, n in others:
                self.shift(name, 6, register, n)
                self.logic("eor", d + half, 6)


def _places(variable: str, number: int) -> tuple[int, int]:
    """Return where the halves of a working variable are in round `number` of eight."""
    at = 2 * (_VARIABLES.index(variable) - number & 7)
    return at, at + 1


def _add_masked(w: _Code, total: int, variable: str, number: int, name: str, mask: int) -> None:
    """Add a working variable to a pair, its halves first put through `name` with a pair."""
    for half, place in enumerate(_places(variable, number)):
        w.fetch(6, place)
        w.logic(name, 6, mask + half)
        w.add_half(half, total, 6)


def _fetch_pair(w: _Code, d: int, variable: str, number: int) -> None:
    for half, place in enumerate(_places(variable, number)):
        w.fetch(d + half, place)


def _put_pair(w: _Code, d: int, variable: str, number: int) -> None:
    for half, place in enumerate(_places(variable, number)):
        w.put(d + half, place)


def _round(w: _Code, i: int) -> None:
    # T2 = Sigma0(a) + Maj(a, b, c); a becomes a ^ b.
    w.sigma(4, 2, (28, 34, 39))
    for half, place in enumerate(_places("b", i)):
        w.fetch(6, place)
        w.logic("eor", 2 + half, 6)
        w.logic("bic", 6, 2 + half)
        w.add_half(half, 4, 6)
    _add_masked(w, 4, "c", i, "and_", 2)
    # T1 = Sigma1(e) + Ch(e, f, g) + h + W + K
    w.sigma(2, 0, (14, 18, 41))
    _add_masked(w, 2, "f", i, "and_", 0)
    _add_masked(w, 2, "g", i, "bic", 0)
    _fetch_pair(w, 0, "h", i)
    w.add_pair(2, 0)
    w.load_many(7, (0, 1))
    w.add_pair(2, 0)
    w.mov(6, _KEY)
    w.load_many(6, (0, 1))
    w.mov(_KEY, 6)
    w.add_pair(2, 0)
    # The new e takes d's place, the new a that of h.
    _fetch_pair(w, 0, "d", i)
    w.add_pair(0, 2)
    w.add_pair(2, 4)
    _put_pair(w, 0, "d", i)
    _put_pair(w, 2, "h", i)


def _load_block(w: _Code) -> None:
    """Sixteen words of the data, which may lie anywhere: byte by byte. 1: the schedule."""
    w.load_frame(0, _DATA)
    w.set(7, 16)
    w.label("WORD")
    for d, at in ((3, 0), (2, 4)):
        w.load_byte(d, 0, at)
        for i in range(at + 1, at + 4):
            w.shift("lsl", d, d, 8)
            w.load_byte(6, 0, i)
            w.logic("orr", d, 6)
    w.store_many(1, (2, 3))
    w.add_value(0, 8)
    w.sub_value(7, 1)
    w.jump("WORD", "ne")
    w.store_frame(0, _DATA)


def _expand(w: _Code) -> None:
    """Words 16 to 79. 7: the word sixteen before, 1 at first: behind the sixteenth word."""
    w.sub_value(1, 128)
    w.mov(7, 1)
    w.constant(2, 512)
    w.add(2, 2, 1)
    w.mov(8, 2)
    w.label("EXPAND")
    for _ in range(2):
        w.load_many(7, (0, 1, 2, 3))
        w.sub_value(7, 8)
        w.sigma(4, 2, (1, 8), 7)
        w.add_pair(0, 4)
        w.load_pair(2, 7, 16)
        w.add_pair(0, 2)
        w.load_pair(2, 7, 26)
        w.sigma(4, 2, (19, 61), 6)
        w.add_pair(0, 4)
        w.store(0, 7, 30)
        w.store(1, 7, 31)
    w.mov(6, 8)
    _jump_back(w, "EXPAND", "ROUNDS")


def _jump_back(w: _Code, name: str, out: str) -> None:
    """Go to a label until 7 is equal to 6."""
    w.compare(7, 6)
    w.jump(out, "eq")
    w.jump(name)
    w.label(out)


def _block(w: _Code) -> None:
    w.enter(_FRAME)
    for register, word in enumerate((_DATA, _STATE, _WORK, _COUNT)):
        w.store_frame(register, word)
    w.label("BLOCK")
    w.load_frame(1, _WORK)
    w.constant(2, _K_BYTES)
    w.add(1, 1, 2)
    w.add(2, 2, 1)
    w.store_frame(2, _END)
    _load_block(w)
    _expand(w)
    w.load_frame(6, _STATE)
    for variable in "bcdfghae":
        pair = 2 if variable == "a" else 0
        w.load_pair(pair, 6, 2 * _VARIABLES.index(variable))
        _put_pair(w, pair, variable, 0)
    w.load_frame(7, _WORK)
    w.mov(_KEY, 7)
    w.constant(6, _K_BYTES)
    w.add(7, 7, 6)
    w.label("EIGHT")
    for i in range(8):
        _round(w, i)
    w.load_frame(6, _END)
    _jump_back(w, "EIGHT", "SUM")
    w.load_frame(6, _STATE)
    for variable in _VARIABLES:
        _fetch_pair(w, 0, variable, 0)
        w.load_pair(2, 6, 0)
        w.add_pair(0, 2)
        w.store_many(6, (0, 1))
    w.load_frame(0, _COUNT)
    w.sub_value(0, 1)
    w.store_frame(0, _COUNT)
    w.jump("END", "eq")
    w.far_jump("BLOCK")
    w.label("END")
    w.leave(_FRAME)


def sha512_source() -> str:
    """Return the functions `block` and `output` as source."""
    w = _Code()
    w.line("@micropython.asm_thumb")
    # Data, state, work, count.
    with w.block("def block(r0, r1, r2, r3):"):
        _block(w)
    return w.text() + viper_sha512.OUTPUT
