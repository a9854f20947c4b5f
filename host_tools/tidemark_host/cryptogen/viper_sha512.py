"""Writes the compression function of SHA-512 (FIPS 180-4, 6.4.2) in viper, on 32-bit halves.

Sums keep the lower 32 bits as two 16-bit columns, `s0` and `s1`, whose carries are taken once at
the end: no comparison and so no branch depends on the data, and long sums cost no more than with
one. Viper keeps its first two locals in registers, arguments first: the first two are copied, and
become the term at hand `t` and `s0`. They stay pointers by type, so that each use of them as a
number is a cast, which costs nothing.

Words lie in memory as lower half, upper half. Eight rounds are written out, so that the working
variables change places by name.
"""

from __future__ import annotations

import re

from tidemark_host.cryptogen.source import Source

_VARIABLES = "abcdefgh"


def _rotate(x: str, n: int, half: str) -> str:
    """Return the expression for one half ("l" or "h") of x rotated right by n."""
    low, high = (x + "l", x + "h") if half == "l" else (x + "h", x + "l")
    if n >= 32:
        low, high = high, low
    return f"({low} >> {n & 31} | {high} << {32 - (n & 31)})"


def _shift(x: str, n: int, half: str) -> str:
    return f"({x}l >> {n} | {x}h << {32 - n})" if half == "l" else f"({x}h >> {n})"


def _sigma(x: str, rotations: tuple[int, ...], shift: int, half: str) -> str:
    parts = [_rotate(x, n, half) for n in rotations]
    if shift:
        parts.append(_shift(x, shift, half))
    return " ^ ".join(parts)


class _Sum:
    """A sum of 64-bit terms: its lower columns in the locals s0 and s1, its upper half a text."""

    def __init__(self, w: Source, columns: list[str], high: str) -> None:
        """Begin with the 16-bit pairs found at `columns` and the upper half `high`."""
        self._w = w
        w.line("s0 = " + " + ".join(f"uint({p}[{i}])" for p, i in _pairs(columns)))
        w.line("s1 = " + " + ".join(f"uint({p}[{i + 1}])" for p, i in _pairs(columns)))
        self.highs = [high]

    def add(self, low: str, high: str) -> None:
        """Add a term."""
        self._w.line(f"t = {low}", "#MASK t", "s0 = (t & m) + s0", "s1 = (t >> 16) + s1")
        self.highs.append(f"({high})")

    def finish(self, low: str, high: str) -> None:
        """Put the sum where it belongs."""
        w = self._w
        w.line("s1 = (s0 >> 16) + s1", f"{low} = s0 & m | s1 << 16", f"#MASK {low}")
        w.line(f"{high} = (s1 >> 16) + {' + '.join(self.highs)}", f"#MASK {high}")


def _pairs(columns: list[str]) -> list[tuple[str, int]]:
    """Split "p 3" into the pointer's name and the index."""
    return [(text.split()[0], int(text.split()[1])) for text in columns]


def _expand(w: Source) -> None:
    """The message schedule: words 16 to 79."""
    w.line("p = ptr32(int(words))", "i = 64")
    with w.block("while i:"):
        w.line("p16 = ptr16(int(p))")
        total = _Sum(w, ["p16 0", "p16 36"], "uint(p[1]) + uint(p[19])")
        w.line("xl = uint(p[2])", "xh = uint(p[3])")
        total.add(_sigma("x", (1, 8), 7, "l"), _sigma("x", (1, 8), 7, "h"))
        w.line("yh = " + " + ".join(total.highs))
        total.highs = ["yh"]
        w.line("xl = uint(p[28])", "xh = uint(p[29])")
        total.add(_sigma("x", (19, 61), 6, "l"), _sigma("x", (19, 61), 6, "h"))
        w.line("p = ptr32(int(p) + 8)")
        total.finish("zl", "zh")
        w.line("p[30] = zl", "p[31] = zh", "i -= 1")


def _round(w: Source, i: int) -> None:
    a, b, c, d, e, f, g, h = (_VARIABLES[j - i & 7] for j in range(8))
    total = _Sum(
        w, [f"k16 {4 * i}", f"p16 {4 * i}"], f"uint(k[{2 * i + 1}]) + uint(p[{2 * i + 1}])"
    )
    total.add(f"{h}l", f"{h}h")
    total.add(_sigma(e, (14, 18, 41), 0, "l"), _sigma(e, (14, 18, 41), 0, "h"))
    total.add(*(f"({f}{q} ^ {g}{q}) & {e}{q} ^ {g}{q}" for q in "lh"))
    # The sum so far serves twice: with d it is the new e, with two more terms the new a.
    w.line("yh = " + " + ".join(total.highs), "y0 = s0")
    w.line(f"t = {d}l", "s0 = (t & m) + s0", "y1 = (s0 >> 16) + (t >> 16) + s1")
    w.line(f"{d}l = s0 & m | y1 << 16", f"#MASK {d}l")
    w.line(f"{d}h = (y1 >> 16) + yh + {d}h", f"#MASK {d}h", "s0 = y0")
    total.highs = ["yh"]
    total.add(_sigma(a, (28, 34, 39), 0, "l"), _sigma(a, (28, 34, 39), 0, "h"))
    total.add(*(f"({a}{q} | {b}{q}) & {c}{q} | {a}{q} & {b}{q}" for q in "lh"))
    total.finish(f"{h}l", f"{h}h")


OUTPUT = '''
@micropython.viper
def output(out: ptr8, state: ptr8):
    """Write the 64 bytes of the hash."""
    i = 0
    while i < 64:
        out[i] = state[i ^ 7]
        i += 1
'''


def _primes(count: int) -> list[int]:
    found: list[int] = []
    n = 2
    while len(found) < count:
        if all(n % p for p in found):
            found.append(n)
        n += 1
    return found


def _root(n: int, k: int) -> int:
    """Return the k-th root of n, rounded down."""
    root = 1 << -(-n.bit_length() // k)
    while root**k > n:
        root = ((k - 1) * root + n // root ** (k - 1)) // k
    return root


def constants() -> dict[str, object]:
    """Return FIPS 180-4's constants, 64 bits each, little-endian: 4.2.3 and 5.3.5."""

    def fraction(n: int, k: int) -> bytes:
        """The first 64 bits of the fractional part of the k-th root of n."""
        return (_root(n << 64 * k, k) & 2**64 - 1).to_bytes(8, "little")

    return {
        "K": b"".join(fraction(p, 3) for p in _primes(80)),
        "INITIAL": b"".join(fraction(p, 2) for p in _primes(8)),
    }


def sha512_source(*, wide: bool) -> str:
    """Return the functions `block` and `output` as source."""
    w = Source()
    w.line("@micropython.viper")
    with w.block("def block(t: ptr8, s0: ptr32, work: ptr32, count: int):"):
        w.line(
            '"""Mix `count` blocks of 128 bytes, first argument, into the state, the second.',
            "",
            "work: K, and room for as many words.",
            '"""',
        )
        w.line("#WIDE", "m = uint(0xFFFF)", "data = ptr8(int(t))", "state = ptr32(int(s0))")
        w.line("words = ptr32(int(work) + 640)")
        with w.block("while count:"):
            _block(w)
            w.line("count -= 1")
    return _casts(mask_words(w.text(), wide=wide)) + OUTPUT


def _casts(text: str) -> str:
    """Cast what goes into the pointers t and s0, and what comes out of them."""
    text = re.sub(r"\b(t|s0)\b(?!: | = )", r"uint(\1)", text)
    text = re.sub(r"^( *)t = (.*)", r"\1t = ptr8(\2)", text, flags=re.MULTILINE)
    return re.sub(r"^( *)s0 = (.*)", r"\1s0 = ptr32(\2)", text, flags=re.MULTILINE)


def _block(w: Source) -> None:
    """One block; `data` moves on."""
    w.line("p = ptr32(int(words))", "k = ptr32(int(work))", "i = 16")
    with w.block("while i:"):
        for at, half in ((4, 0), (0, 1)):
            first, *others = range(at, at + 4)
            bytes_ = [f"data[{first}] << 24"]
            bytes_ += [
                f"data[{j}] << {s}" if s else f"data[{j}]"
                for j, s in zip(others, (16, 8, 0), strict=True)
            ]
            w.line(f"p[{half}] = {' | '.join(bytes_)}")
        w.line("p = ptr32(int(p) + 8)", "data = ptr8(int(data) + 8)", "i -= 1")
    _expand(w)
    for i, v in enumerate(_VARIABLES):
        w.line(f"{v}l = uint(state[{2 * i}])", f"{v}h = uint(state[{2 * i + 1}])")
    w.line("p = ptr32(int(words))", "i = 10")
    with w.block("while i:"):
        w.line("k16 = ptr16(int(k))", "p16 = ptr16(int(p))")
        for i in range(8):
            _round(w, i)
        w.line("p = ptr32(int(p) + 64)", "k = ptr32(int(k) + 64)", "i -= 1")
    w.line("state16 = ptr16(int(state))")
    for i, v in enumerate(_VARIABLES):
        total = _Sum(w, [f"state16 {4 * i}"], f"uint(state[{2 * i + 1}])")
        total.add(f"{v}l", f"{v}h")
        total.finish("xl", "xh")
        w.line(f"state[{2 * i}] = xl", f"state[{2 * i + 1}] = xh")


def mask_words(text: str, *, wide: bool) -> str:
    """Make lines `#MASK x` cut local x to 32 bits where words are `wide`, else drop them."""
    lines: list[str] = []
    for line in text.splitlines():
        head, mark, rest = line.partition("#")
        word, _, local = rest.partition(" ")
        if not mark:
            lines.append(line)
        elif wide and word == "MASK":
            lines.append(f"{head}{local} = {local} & ones")
        elif wide:
            lines.append(f"{head}ones = (uint(1) << 32) - 1")
    return "\n".join(lines) + "\n"
