"""Writes the field engine for 2^255 - 19 in viper: 20 signed limbs of 13 bits, |limb| <= 4096.

A column of 20 products stays below 2^31 as long as the folds of the factors multiply to 6 at most
(6 * 20 * 2^24), so that a product needs no carry inside. 2^260 = 608 mod P folds the upper half.

Viper keeps two locals in registers, its first: these are `t` and `acc`, the two dummy arguments.
`acc = x * t + acc` is its shortest multiply-accumulate.

A 64-bit host zero-extends what it loads through ptr32: there each load of a limb ends in a sign
extension (`wide`).
"""

from __future__ import annotations

from collections.abc import Callable

from tidemark_host.cryptogen import comb
from tidemark_host.cryptogen.programs import (
    ADD,
    ADD_REDUCED,
    END,
    FETCH,
    LOOKUP,
    MUL,
    MUL_A24,
    SELECT,
    SLOTS,
    SPREAD,
    SQR,
    SUB,
    P,
)
from tidemark_host.cryptogen.source import Source, extend_signs

LIMBS = 20
SLOT_BYTES = 4 * LIMBS
_HALF = LIMBS // 2
_ENTRY_WORDS = 3 * LIMBS // 2

# An addend of a column: one factor, the other one.
_Pair = tuple[str, str]


def pack_limbs(element: int) -> bytes:
    """Return an element as the comb has it: two limbs, each plus 4096, in a 32-bit word."""
    words: list[int] = []
    carry = 0
    for i in range(LIMBS):
        limb = (element >> 13 * i & 8191) + carry
        carry = limb >> 12
        words.append(limb - (carry << 13) + 4096)
    # The top limb has 8 bits: nothing is carried out of it.
    assert carry == 0 and element < P
    return b"".join(word.to_bytes(2, "little") for word in words)


class _Writer(Source):
    def load(self, local: str, slot: str, i: int) -> None:
        """local = limb i of the slot."""
        self.line(f"{local} = {slot}[{i}]", f"#SIGN {local}")

    def sum_products(self, pairs: list[_Pair]) -> None:
        """acc += the sum of the products."""
        for a, b in pairs:
            self.line(f"t = {a}", f"acc = {'t' if a == b else b} * t + acc")

    def split(self, limb: str) -> None:
        """limb = acc mod 2^13, balanced; acc = what is carried. acc has 4096 too much."""
        self.line(f"{limb} = (acc & 8191) - 4096", "acc = acc >> 13")

    def wrap(self) -> None:
        """Fold `acc`, carried out of limb 19, into the first limbs of the destination."""
        self.load("t", "d", 0)
        self.line("acc = acc * 608 + t", "t = acc + 4096 >> 13", "d[0] = acc - (t << 13)")
        self.load("acc", "d", 1)
        self.line("acc = acc + t", "t = acc + 4096 >> 13", "d[1] = acc - (t << 13)")
        self.load("acc", "d", 2)
        self.line("d[2] = acc + t")

    def reduce(self, column: Callable[[int], None]) -> None:
        """Store the product whose `column(k)` adds column k to acc, k = 0 to 38.

        The upper columns go first, into the locals h0 to h19, which need not be balanced.
        """
        self.line("acc = 0")
        for k in range(LIMBS, 2 * LIMBS - 1):
            column(k)
            self.line(f"h{k - LIMBS} = acc & 8191", "acc = acc >> 13")
        self.line(f"h{LIMBS - 1} = acc", "acc = 0")
        for k in range(LIMBS):
            self.line(f"acc = (h{k} * 608 + acc) + 4096")
            column(k)
            self.split(f"d[{k}]")
        self.wrap()


def _products(a: str, b: str, k: int, n: int) -> list[_Pair]:
    """Return the products of column k of two n-limb numbers."""
    return [(f"{a}{i}", f"{b}{k - i}") for i in range(max(0, k - n + 1), min(n - 1, k) + 1)]


def _multiply(w: _Writer) -> None:
    """One level of Karatsuba's method: 300 products instead of 400.

    With a = a0 + a1*X, X = 2^130: l = a0*b0, u = a1*b1, and column k of the middle part is that of
    (a0 + a1)(b0 + b1) minus l's and u's. The difference may overflow on the way; what it comes
    to does not.
    """
    for i in range(LIMBS):
        w.load(f"a{i}", "a", i)
    for i in range(LIMBS):
        w.load(f"b{i}", "b", i)
    columns = 2 * _HALF - 1
    for k in range(columns):
        w.line("acc = 0")
        w.sum_products(_products("a", "b", k, _HALF))
        w.line(f"l{k} = acc")
    for k in range(columns):
        w.line("acc = 0")
        w.sum_products(
            [(f"a{i + _HALF}", f"b{k - i + _HALF}") for i in range(_HALF) if 0 <= k - i < _HALF]
        )
        w.line(f"u{k} = acc")
    # From here on a0 to a9 and b0 to b9 are the sums of both halves.
    for name in "ab":
        for i in range(_HALF):
            w.line(f"{name}{i} = {name}{i} + {name}{i + _HALF}")

    def column(k: int) -> None:
        if 0 <= k - _HALF < columns:
            w.sum_products(_products("a", "b", k - _HALF, _HALF))
            w.line(f"acc = acc - l{k - _HALF} - u{k - _HALF}")
        if k < columns:
            w.line(f"acc = acc + l{k}")
        if 0 <= k - LIMBS < columns:
            w.line(f"acc = acc + u{k - LIMBS}")

    w.reduce(column)


def _square(w: _Writer) -> None:
    for i in range(LIMBS):
        w.load("t", "a", i)
        w.line(f"a{i} = t", f"b{i} = t + t")  # b is 2a

    def column(k: int) -> None:
        pairs = [(x, y) for x, y in _products("a", "b", k, LIMBS) if int(x[1:]) < int(y[1:])]
        if k % 2 == 0:
            pairs.append((f"a{k // 2}", f"a{k // 2}"))
        w.sum_products(pairs)

    w.reduce(column)


def _add_scaled(w: _Writer, factor: str) -> None:
    """d = a + factor * b, carried."""
    w.line("acc = 0")
    for i in range(LIMBS):
        w.load("t", "b", i)
        w.line(f"acc = t * {factor} + acc" if factor != "1" else "acc = acc + t")
        w.load("t", "a", i)
        w.line("acc = (acc + t) + 4096")
        w.split(f"d[{i}]")
    w.wrap()


def _fetch(w: _Writer, word: Callable[[int], str]) -> None:
    """d and the two slots after it = the comb entry whose word i is the expression word(i)."""
    for i in range(_ENTRY_WORDS):
        w.line(f"acc = {word(i)}", f"d[{2 * i}] = (acc & 0xFFFF) - 4096")
        w.line(f"d[{2 * i + 1}] = (acc >> 16) - 4096")


def _lookup(w: _Writer) -> None:
    """Fetch an entry by reading all of them."""
    words = range(_ENTRY_WORDS)
    w.line("argument = argument >> 1", "p = comb", "t = 0")
    for i in words:
        w.line(f"a{i} = 0")
    with w.block(f"while t < {comb.ENTRIES}:"):
        # -1 where t is the entry, else 0.
        w.line("acc = ((t ^ argument) - 1) >> 31")
        for i in words:
            w.line(f"a{i} = (p[{i}] & acc) | a{i}")
        w.line(f"p = ptr32(int(p) + {4 * _ENTRY_WORDS})", "t += 1")
    _fetch(w, lambda i: f"a{i}")


def _operations(w: _Writer) -> None:
    def each(*texts: str) -> None:
        for i in range(LIMBS):
            w.line(*(text.replace("#", str(i)) for text in texts))

    with w.block(f"if operation == {MUL}:"):
        _multiply(w)
    with w.block(f"elif operation == {SQR}:"):
        w.line("turns = int(row[3])")
        with w.block("while turns > 0:"):
            _square(w)
            w.line("a = d", "turns -= 1")
    with w.block(f"elif operation == {SPREAD}:"):
        each("t = a[#]", "acc = b[#]", "d[#] = t + acc", "b[#] = t - acc")
    with w.block(f"elif operation == {ADD}:"):
        each("d[#] = a[#] + b[#]")
    with w.block(f"elif operation == {SUB}:"):
        each("d[#] = a[#] - b[#]")
    with w.block(f"elif operation == {ADD_REDUCED}:"):
        _add_scaled(w, "1")
    with w.block(f"elif operation == {MUL_A24}:"):
        w.line("h0 = 121665")
        _add_scaled(w, "h0")
    with w.block(f"elif operation == {SELECT}:"):
        w.line("acc = -(argument & 1)")
        each("t = b[#]", "d[#] = (a[#] ^ t) & acc ^ t")
    with w.block(f"elif operation == {LOOKUP}:"):
        _lookup(w)
    with w.block(f"elif operation == {FETCH}:"):
        w.line(f"p = ptr32((argument >> 1) * {4 * _ENTRY_WORDS} + int(comb))")
        _fetch(w, lambda i: f"p[{i}]")


_CODEC = f'''
@micropython.viper
def load(x: int, carry: int, memory: ptr32, slot: int, data: ptr8):
    """Put 32 bytes (two more are read), little-endian, into a slot; the top bit is dropped."""
    p = ptr32(int(memory) + {SLOT_BYTES} * slot)
    carry = 0
    i = 0
    bit = 0
    while i < {LIMBS}:
        q = ptr8(int(data) + (bit >> 3))
        x = (q[0] | q[1] << 8 | q[2] << 16) >> (bit & 7) & 8191
        if i == {LIMBS - 1}:
            x = x & 255
        x = x + carry + 4096
        carry = x >> 13
        p[i] = (x & 8191) - 4096
        i += 1
        bit += 13


@micropython.viper
def store(x: int, carry: int, memory: ptr32, slot: int, scratch: int, out: ptr8):
    """Write a reduced slot as its 32 bytes below P. `scratch`: a slot that is overwritten."""
    p = ptr32(int(memory) + {SLOT_BYTES} * slot)
    s = ptr32(int(memory) + {SLOT_BYTES} * scratch)
    #WIDE
    # 2^260 - 608 is a multiple of P: with it added, no limb is negative.
    carry = -607
    i = 0
    while i < {LIMBS}:
        x = p[i]
        #SIGN x
        carry = carry + x + 8191
        s[i] = carry & 8191
        carry = carry >> 13
        i += 1
    # Fold what is above bit 255, twice; then once more if 19 more would reach 2^255.
    turn = 0
    while turn < 3:
        if turn == 2:
            carry = 19
            i = 0
            while i < {LIMBS}:
                x = carry + s[i]
                carry = x >> 13
                i += 1
            carry = x >> 8
        else:
            x = s[{LIMBS - 1}]
            carry = (x >> 8) + carry * 32
            s[{LIMBS - 1}] = x & 255
        carry = carry * 19
        i = 0
        while i < {LIMBS}:
            carry = carry + s[i]
            s[i] = carry & 8191
            carry = carry >> 13
            i += 1
        turn += 1
    s[{LIMBS - 1}] = s[{LIMBS - 1}] & 255
    i = 0
    at = 0
    x = 0
    bits = 0
    while i < 32:
        while bits < 8:
            x = x | s[at] << bits
            at += 1
            bits += 13
        out[i] = x
        x = x >> 8
        bits -= 8
        i += 1
'''


def field_source(*, wide: bool) -> str:
    """Return the functions `run`, `load`, `store` as source."""
    w = _Writer()
    w.line("@micropython.viper")
    head = (
        "def run(t: int, acc: int, memory: ptr32, script: ptr8, at: int, count: int, "
        "programs: ptr8, comb: ptr32):"
    )
    with w.block(head):
        w.line('"""Run `count` pairs (program, argument) of the script from byte `at` on."""')
        w.line("#WIDE", "end = at + count + count")
        with w.block("while at < end:"):
            w.line("t = script[at] * 2", "given = int(script[at + 1])", "at += 2")
            w.line("row = ptr8(int(programs) + (programs[t] | programs[t + 1] << 8))")
            w.line("operation = int(row[0])")
            with w.block(f"while operation != {END}:"):
                w.line("acc = int(memory)")
                w.line(f"d = ptr32(row[1] * {SLOT_BYTES} + acc)")
                w.line(f"a = ptr32(row[2] * {SLOT_BYTES} + acc)")
                w.line(f"b = ptr32(row[3] * {SLOT_BYTES} + acc)")
                w.line("argument = given")
                _operations(w)
                w.line("row = ptr8(int(row) + 4)", "operation = int(row[0])")
    return extend_signs(w.text() + _CODEC, wide=wide)


def constants() -> dict[str, object]:
    """Return the module's constants that depend on this representation."""
    return {
        "SLOT_BYTES": SLOT_BYTES,
        "MEMORY_BYTES": SLOT_BYTES * len(SLOTS),
        "COMB": comb.table(pack_limbs),
    }
