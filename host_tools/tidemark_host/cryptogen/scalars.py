"""Writes what works on scalars: arithmetic modulo the group's order, digits, scripts.

`reduce`, `multiply_add`, `comb_digits` and `ladder_script` see secrets:
no branch and no address depends on one.
"""

from __future__ import annotations

from tidemark_host.cryptogen import comb
from tidemark_host.cryptogen.programs import ODD_MULTIPLES, L
from tidemark_host.cryptogen.short_pair import short_pair_source
from tidemark_host.cryptogen.source import Source, extend_signs

_BITS = 260
"""Entries in a row of digits."""

# 2^252 + c is the order; c has 16 digits of 8 bits.
_ORDER_DIGITS = L.to_bytes(32, "little")
_TAIL_DIGITS = 16


def _reduce() -> str:
    w = Source()
    w.line("@micropython.viper")
    with w.block("def reduce(v: int, carry: int, x: ptr32, out: ptr8):"):
        w.line(
            '"""Write the 64-digit number x, digits of 8 bits, modulo the order as 32 bytes.',
            "",
            "x[i] may be up to 2^22; x is lost.",
            '"""',
            "#WIDE",
            "p = x",
            "carry = 0",
            "i = 63",
        )
        with w.block("while i:"):
            w.line("v = p[0] + carry", "p[0] = v & 255", "carry = v >> 8")
            w.line("p = ptr32(int(p) + 4)", "i -= 1")
        # Digit i + 32 is worth 16 * c less than nothing at digit i.
        w.line("p[0] = p[0] + carry", "i = 31")
        with w.block("while i >= 0:"):
            w.line("p = ptr32(int(x) + 4 * (i + 32))", "top = p[0]", "#SIGN top")
            w.line("top = top * 16", "p = ptr32(int(x) + 4 * i)", "carry = 128")
            for j in range(20):
                w.line(f"v = p[{j}]", "#SIGN v")
                taken = f" - top * {_ORDER_DIGITS[j]}" if j < _TAIL_DIGITS else ""
                w.line(f"v = v + carry{taken}", f"p[{j}] = (v & 255) - 128")
                # The next carry comes with the bias of the next digit.
                w.line("carry = (v >> 8) + 128")
            w.line("v = p[20]", "#SIGN v", "p[20] = v + carry - 128", "i -= 1")
        w.line("top = x[31]", "#SIGN top", "top = top >> 4", "turn = 2")
        with w.block("while turn:"):
            w.line("p = x", "carry = 0")
            for j in range(32):
                if j == 31:
                    w.line("p = ptr32(int(x) + 4 * 31)")
                at = 0 if j == 31 else j
                digit = _ORDER_DIGITS[j]
                w.line(f"v = p[{at}]", "#SIGN v")
                w.line(f"v = v + carry{f' - top * {digit}' if digit else ''}")
                w.line(f"p[{at}] = v & 255", "carry = v >> 8")
            w.line("top = carry", "turn -= 1")
        w.line("i = 0")
        with w.block("while i < 32:"):
            w.line("out[i] = x[i]", "i += 1")
    return w.text()


def _multiply_add() -> str:
    w = Source()
    w.line("@micropython.viper")
    with w.block("def multiply_add(v: int, t: int, x: ptr32, a: ptr8, b: ptr8):"):
        w.line('"""x += a * b, 32 bytes each, without carries; x[i] below 2^8 before."""', "i = 0")
        with w.block("while i < 32:"):
            w.line("v = a[i]", "p = ptr32(int(x) + 4 * i)")
            for j in range(32):
                # Offsets of up to 31 words are part of the load.
                w.line(f"p[{j}] = b[{j}] * v + p[{j}]")
            w.line("i += 1")
    return w.text()


_SOURCE = f'''
#REDUCE


@micropython.viper
def widen(x: ptr32, data: ptr8, count: int):
    """Fill x with `count` bytes, then zeros up to 64."""
    i = 0
    while i < count:
        x[i] = data[i]
        i += 1
    while i < 64:
        x[i] = 0
        i += 1


#MULTIPLY_ADD


@micropython.viper
def comb_digits(out: ptr8, b: ptr8):
    """Write the comb's arguments, lowest column first: (entry << 1) | is positive.

    `b`: 33 bytes, as tidemark_host/cryptogen/comb.py defines it.
    """
    j = 0
    while j < {comb.SPACING}:
        entry = 0
        bit = j + {comb.SPACING * (comb.TEETH - 1)}
        while bit >= 0:
            entry = entry << 1 | (b[bit >> 3] >> (bit & 7) & 1)
            bit -= {comb.SPACING}
        positive = entry >> {comb.TEETH - 1}
        # -1 where the top tooth is negative: then all other teeth change sign with it.
        entry = (entry ^ (positive - 1)) & {comb.ENTRIES - 1}
        out[j] = entry << 1 | positive
        j += 1


@micropython.viper
def comb_script(out: ptr8, digits: ptr8):
    """Write the script of a comb multiplication, highest column first."""
    j = 0
    at = {2 * comb.SPACING - 2}
    while j < {comb.SPACING}:
        out[at] = #COMB_STEP
        out[at + 1] = digits[j]
        at -= 2
        j += 1


@micropython.viper
def ladder_script(out: ptr8, scalar: ptr8):
    """Write the script of a ladder over bits 254 to 0 of a clamped scalar.

    An argument is odd where a bit differs from the one above it.
    """
    bit = 254
    above = 0
    at = 0
    while bit >= 0:
        v = scalar[bit >> 3] >> (bit & 7) & 1
        out[at] = #LADDER_STEP
        out[at + 1] = v ^ above
        above = v
        at += 2
        bit -= 1


@micropython.viper
def signed_digits(out: ptr8, scalar: ptr8) -> int:
    """Write digits 0 or odd in -7..7, modulo 16, lowest first; return how many are in use.

    `scalar`: 34 bytes, below 2^256; `out`: {_BITS} zero bytes. Not for secrets.
    """
    i = 0
    carry = 0
    count = 0
    while i < 257:
        v = (scalar[i >> 3] | scalar[(i >> 3) + 1] << 8) >> (i & 7)
        if (v ^ carry) & 1:
            v = (v & 15) + carry
            carry = v >> 3 & 1 | v >> 4
            out[i] = v & 15
            i += 4
            count = i
        else:
            i += 1
    return count


@micropython.viper
def sum_script(out: ptr8, at: int, high: int, low: int, key: ptr8, r: ptr8, digits: ptr8) -> int:
    """Write the script for bits high - 1 to low of key * A + r * R + comb; return its length.

    `key`, `r`: from signed_digits; `digits`: from comb_digits.
    """
    i = high - 1
    while i >= low:
        out[at] = #DOUBLE
        at += 2
        v = int(key[i])
        if v:
            out[at] = #EXTEND
            out[at + 2] = #ADD_KEY + ((v >> 1) if v < 8 else {ODD_MULTIPLES} + ((16 - v) >> 1))
            at += 4
        v = int(r[i])
        if v:
            out[at] = #EXTEND
            out[at + 2] = #ADD_R + ((v >> 1) if v < 8 else {ODD_MULTIPLES} + ((16 - v) >> 1))
            at += 4
        if i < {comb.SPACING}:
            out[at] = #EXTEND
            # An odd digit adds: ADD_COMB comes right after SUB_COMB.
            out[at + 2] = #SUB_COMB + (digits[i] & 1)
            out[at + 3] = digits[i]
            at += 4
        i -= 1
    return at
'''


def scalar_source(numbers: dict[str, int], *, wide: bool) -> str:
    """Return the functions as source. `numbers`: the programs' numbers by name."""
    text = _SOURCE.replace("#REDUCE", _reduce()).replace("#MULTIPLY_ADD", _multiply_add())
    for name in sorted(numbers, key=len, reverse=True):
        text = text.replace(f"#{name}", str(numbers[name]))
    return extend_signs(text, wide=wide) + short_pair_source()


def constants() -> dict[str, object]:
    """Return the module's constants of scalar arithmetic."""
    return {
        "HALF": comb.HALF.to_bytes(32, "little"),
        "HALF_OF_ALL_ONES": comb.HALF_OF_ALL_ONES.to_bytes(32, "little"),
        "COLUMNS": comb.SPACING,
        "DIGITS": _BITS,
    }
