"""The point formulas of Ed25519 and X25519, as programs for the native field engines.

An engine (viper_field, thumb_field) keeps field elements in numbered slots and runs programs: rows
of four bytes (operation, destination, a, b), ended by END; SQR has how many times in b. A script
is a row of pairs (program, argument). Secrets are arguments only: they never choose a program.

The 13-bit engine adds lazily: the sum of n reduced elements is an n-fold one, and only products of
folds up to 6 fit its accumulators. `Program` keeps count and refuses what would overflow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
D2 = 2 * D % P
SQRT_M1 = pow(2, (P - 1) // 4, P)

MUL, SQR, ADD, SUB, ADD_REDUCED, MUL_A24, SPREAD, SELECT, LOOKUP, FETCH = range(10)
END = 255

ODD_MULTIPLES = 4
"""The multiples 1, 3, 5, 7 of the key and of R stand ready, for signed digits of 4 bits."""

_CACHED = ("PLUS", "MINUS", "TWICE_Z", "PRODUCT")
SLOTS = {
    name: number
    for number, name in enumerate(
        [
            *("ZERO", "ONE", "D", "D2", "SQRT_M1"),  # in the order of CONSTANTS
            *("X", "Y", "Z", "T"),  # the point at work: x = X/Z, y = Y/Z, T = XY/Z
            *("A", "B", "C", "E", "F", "G", "H"),  # what the formulas need
            *("PLUS", "MINUS", "PRODUCT"),  # what LOOKUP fetches: (y + x)/2, (y - x)/2, dxy
            *(f"KEY{i}_{part}" for i in range(ODD_MULTIPLES) for part in _CACHED),
            *(f"R{i}_{part}" for i in range(ODD_MULTIPLES) for part in _CACHED),
        ]
    )
}
CONSTANTS = (0, 1, D, D2, SQRT_M1)

# The ladder's points lie where Ed25519 has its tables.
_LADDER = {"X1": "KEY0_PLUS", "X2": "X", "Z2": "Z", "X3": "KEY1_PLUS", "Z3": "KEY1_MINUS"}


@dataclass
class Program:
    """Rows of one program; checks that the 13-bit engine can hold every intermediate."""

    rows: list[tuple[int, int, int, int]] = field(default_factory=list[tuple[int, int, int, int]])
    folds: dict[str, int] = field(default_factory=dict[str, int])

    def _row(self, operation: int, d: str, a: str, b: str, fold: int) -> None:
        slot_d, slot_a, slot_b = (SLOTS[_LADDER.get(name, name)] for name in (d, a, b))
        self.rows.append((operation, slot_d, slot_a, slot_b))
        self.folds[d] = fold

    def _fold(self, name: str) -> int:
        """Return of how many reduced elements slot `name` is the sum, at most."""
        return self.folds.get(name, 1)

    def mul(self, d: str, a: str, b: str) -> None:
        """d = a * b."""
        if self._fold(a) * self._fold(b) > 6:
            raise ValueError(f"{d} = {a} * {b} overflows")
        self._row(MUL, d, a, b, 1)

    def sqr(self, d: str, a: str, times: int = 1) -> None:
        """d = a ** (2 ** times)."""
        if self._fold(a) > 2:
            raise ValueError(f"{d} = {a}^2 overflows")
        self._row(SQR, d, a, a, 1)
        self.rows[-1] = (*self.rows[-1][:3], times)

    def add(self, d: str, a: str, b: str) -> None:
        """d = a + b, not reduced."""
        self._row(ADD, d, a, b, self._fold(a) + self._fold(b))

    def sub(self, d: str, a: str, b: str) -> None:
        """d = a - b, not reduced."""
        self._row(SUB, d, a, b, self._fold(a) + self._fold(b))

    def add_reduced(self, d: str, a: str, b: str) -> None:
        """d = a + b, reduced."""
        self._row(ADD_REDUCED, d, a, b, 1)

    def mul_a24(self, d: str, a: str, b: str) -> None:
        """d = a + 121665 * b, reduced."""
        if self._fold(b) > 3:
            raise ValueError(f"121665 * {b} overflows")
        self._row(MUL_A24, d, a, b, 1)

    def spread(self, d: str, a: str, b: str) -> None:
        """d, b = a + b, a - b, not reduced."""
        fold = self._fold(a) + self._fold(b)
        self._row(SPREAD, d, a, b, fold)
        self.folds[b] = fold

    def select(self, d: str, a: str, b: str) -> None:
        """d = a if the script's argument is odd else b, without a branch."""
        self._row(SELECT, d, a, b, max(self._fold(a), self._fold(b)))

    def lookup(self) -> None:
        """PLUS, MINUS, PRODUCT = the comb's entry number (argument >> 1); every entry is read."""
        self._row(LOOKUP, "PLUS", "ZERO", "ZERO", 1)

    def fetch(self) -> None:
        """As `lookup`, but only that entry is read: not for secrets."""
        self._row(FETCH, "PLUS", "ZERO", "ZERO", 1)

    def code(self) -> bytes:
        """Return the program's bytes."""
        return b"".join(bytes(row) for row in self.rows) + bytes((END, 0, 0, 0))


def _double(p: Program) -> None:
    """Double X, Y, Z (RFC 8032, 5.1.4, with E and G negated); T would be E * H."""
    p.sqr("A", "X")
    p.sqr("B", "Y")
    p.add("C", "X", "Y")
    p.sqr("E", "C")
    p.sqr("C", "Z")
    p.add("C", "C", "C")
    p.spread("H", "B", "A")  # H = B + A, A = B - A: the formula's -G
    p.sub("E", "E", "H")
    p.sub("F", "C", "A")
    p.add_reduced("F", "F", "ZERO")
    p.mul("X", "E", "F")
    p.mul("Y", "A", "H")
    p.mul("Z", "F", "A")


def _extend(p: Program) -> None:
    """T after a doubling or an addition."""
    p.mul("T", "E", "H")


def _add(p: Program, entry: str, sign: int) -> None:
    """Add the cached `entry`, or subtract it (RFC 8032, 5.1.4); T would be E * H."""
    plus, minus = f"{entry}_PLUS", f"{entry}_MINUS"
    if sign < 0:
        plus, minus = minus, plus
    p.spread("B", "Y", "X")
    p.mul("E", "X", minus)
    p.mul("B", "B", plus)
    p.mul("C", "T", f"{entry}_PRODUCT")
    p.mul("G", "Z", f"{entry}_TWICE_Z")
    p.spread("H", "B", "E")
    p.spread("G", "G", "C")
    # Of G + C and G - C the formula's F is the second in a sum, the first in a difference.
    f, g = ("C", "G") if sign > 0 else ("G", "C")
    p.mul("X", "E", f)
    p.mul("Y", g, "H")
    p.mul("Z", f, g)


def _add_affine(p: Program, plus: str, minus: str, product: str, sign: int) -> None:
    """Add, or subtract, a comb entry. Its Z is 1 and its parts are halves: Z stands in for 2Z."""
    p.spread("B", "Y", "X")
    p.mul("E", "X", minus)
    p.mul("B", "B", plus)
    p.mul("C", "T", product)
    p.spread("H", "B", "E")
    p.spread("G", "Z", "C")
    f, g = ("C", "G") if sign > 0 else ("G", "C")
    p.mul("X", "E", f)
    p.mul("Y", g, "H")
    p.mul("Z", f, g)


def _comb_step(p: Program) -> None:
    """Double, then add the comb's entry if the argument is odd, else subtract it: one way."""
    _double(p)
    _extend(p)
    p.lookup()
    p.sub("C", "ZERO", "PRODUCT")
    p.select("C", "PRODUCT", "C")
    p.select("E", "MINUS", "PLUS")
    p.select("G", "PLUS", "MINUS")
    _add_affine(p, "G", "E", "C", 1)


def _cache(p: Program, entry: str) -> None:
    """Keep X, Y, Z, T as an addend."""
    p.add_reduced(f"{entry}_PLUS", "Y", "X")
    p.sub("A", "Y", "X")
    p.add_reduced(f"{entry}_MINUS", "A", "ZERO")
    p.add_reduced(f"{entry}_TWICE_Z", "Z", "Z")
    p.mul(f"{entry}_PRODUCT", "T", "D2")


def _odd_multiples(p: Program, name: str) -> None:
    """Cache 1, 3, 5, 7 times X, Y, Z, T. The last entry holds twice the point meanwhile."""
    _cache(p, f"{name}0")
    _double(p)
    _extend(p)
    _cache(p, f"{name}3")
    for i, addend in ((1, f"{name}0"), (2, f"{name}3"), (3, f"{name}3")):
        _add(p, addend, 1)
        _extend(p)
        _cache(p, f"{name}{i}")


def _neutral(p: Program) -> None:
    for name, value in (("X", "ZERO"), ("Y", "ONE"), ("Z", "ONE"), ("T", "ZERO")):
        p.add(name, value, "ZERO")
        p.folds[name] = 1


def _power_p58(p: Program, d: str, x: str, s: str, t: str) -> None:
    """d = x^((P - 5) / 8) = x^(2^252 - 3), with `s` and `t` for intermediates."""
    p.sqr(d, x)
    p.sqr(s, d, 2)
    p.mul(s, x, s)  # x^9
    p.mul(d, d, s)  # x^11
    p.sqr(d, d)
    p.mul(d, s, d)  # x^(2^5 - 1)
    p.sqr(s, d, 5)
    p.mul(d, s, d)  # x^(2^10 - 1)
    p.sqr(s, d, 10)
    p.mul(s, s, d)  # x^(2^20 - 1)
    p.sqr(t, s, 20)
    p.mul(s, t, s)  # x^(2^40 - 1)
    p.sqr(s, s, 10)
    p.mul(d, s, d)  # x^(2^50 - 1)
    p.sqr(s, d, 50)
    p.mul(s, s, d)  # x^(2^100 - 1)
    p.sqr(t, s, 100)
    p.mul(s, t, s)  # x^(2^200 - 1)
    p.sqr(s, s, 50)
    p.mul(d, s, d)  # x^(2^250 - 1)
    p.sqr(d, d, 2)
    p.mul(d, d, x)


def _invert(p: Program, d: str, x: str, s: str, t: str) -> None:
    """d = 1/x, 0 for 0: x^(P - 2), which is (x^((P - 5) / 8))^8 * x^3."""
    _power_p58(p, d, x, s, t)
    p.sqr(d, d, 3)
    p.sqr(s, x)
    p.mul(s, s, x)
    p.mul(d, d, s)


def _root(p: Program) -> None:
    """A candidate X for Y (RFC 8032, 5.1.3): F = 0 or G = 0 says whether it is one."""
    p.sqr("A", "Y")
    p.mul("B", "A", "D")
    p.sub("A", "A", "ONE")  # u = y^2 - 1
    p.add_reduced("B", "B", "ONE")  # v = d*y^2 + 1
    p.sqr("C", "B")
    p.mul("C", "C", "B")
    p.mul("E", "A", "C")  # u*v^3
    p.sqr("F", "C")
    p.mul("F", "F", "B")
    p.mul("G", "F", "A")  # u*v^7
    _power_p58(p, "H", "G", "C", "F")
    p.mul("X", "H", "E")
    p.sqr("H", "X")
    p.mul("H", "H", "B")  # v*x^2
    p.sub("F", "H", "A")
    p.add_reduced("F", "F", "ZERO")
    p.add_reduced("G", "H", "A")


def _ladder_step(p: Program) -> None:
    """One step of the Montgomery ladder (RFC 7748, 5).

    Swapping the points before a step changes nothing in their differential sum, only which of
    them is doubled: it is enough to select the addend of the doubling (odd argument: the second).
    """
    p.spread("A", "X2", "Z2")
    p.spread("C", "X3", "Z3")
    p.mul("E", "Z3", "A")
    p.mul("F", "C", "Z2")
    p.select("A", "C", "A")
    p.select("B", "Z3", "Z2")
    p.sqr("A", "A")
    p.sqr("B", "B")
    p.mul("X2", "A", "B")
    p.sub("G", "A", "B")
    p.mul_a24("B", "A", "G")
    p.mul("Z2", "G", "B")
    p.spread("G", "E", "F")
    p.sqr("X3", "G")
    p.sqr("F", "F")
    p.mul("Z3", "X1", "F")


def _ladder_start(p: Program) -> None:
    """X1 holds u."""
    for name, value in (("X2", "ONE"), ("Z2", "ZERO"), ("X3", "X1"), ("Z3", "ONE")):
        p.add(name, value, "ZERO")


def _build() -> dict[str, Program]:
    programs = {
        name: Program()
        for name in (
            *("DOUBLE", "EXTEND", "SUB_COMB", "ADD_COMB", "COMB_STEP", "NEUTRAL"),
            *("ROOT", "OTHER_ROOT", "NEGATE_X", "AFFINE_T", "KEY_MULTIPLES", "R_MULTIPLES"),
            *("ENCODE", "DIFFERENCE", "LADDER_START", "LADDER_STEP", "LADDER_END"),
        )
    }
    _double(programs["DOUBLE"])
    _extend(programs["EXTEND"])
    for name, plus, minus, sign in (
        ("ADD_COMB", "PLUS", "MINUS", 1),
        ("SUB_COMB", "MINUS", "PLUS", -1),
    ):
        programs[name].fetch()
        _add_affine(programs[name], plus, minus, "PRODUCT", sign)
    _comb_step(programs["COMB_STEP"])
    _neutral(programs["NEUTRAL"])
    _root(programs["ROOT"])
    programs["OTHER_ROOT"].mul("X", "X", "SQRT_M1")
    programs["NEGATE_X"].sub("X", "ZERO", "X")
    # The point of decoded Y and X, with X negated: what verification adds is -A and -R.
    affine = programs["AFFINE_T"]
    affine.add("Z", "ONE", "ZERO")
    affine.mul("T", "X", "Y")
    _odd_multiples(programs["KEY_MULTIPLES"], "KEY")
    _odd_multiples(programs["R_MULTIPLES"], "R")
    encode = programs["ENCODE"]
    _invert(encode, "A", "Z", "B", "C")
    encode.mul("B", "X", "A")
    encode.mul("C", "Y", "A")
    difference = programs["DIFFERENCE"]
    difference.sub("F", "Y", "Z")
    difference.add_reduced("F", "F", "ZERO")
    _ladder_start(programs["LADDER_START"])
    _ladder_step(programs["LADDER_STEP"])
    end = programs["LADDER_END"]
    _invert(end, "A", "Z2", "B", "C")
    end.mul("A", "A", "X2")
    # Last and in this order: the planner counts on from ADD_KEY and ADD_R.
    for name in ("KEY", "R"):
        for sign in (1, -1):
            for i in range(ODD_MULTIPLES):
                key = f"ADD_{name}" if (sign, i) == (1, 0) else f"ADD_{name}_{sign}_{i}"
                _add(programs.setdefault(key, Program()), f"{name}{i}", sign)
    return programs


def code() -> tuple[bytes, dict[str, int]]:
    """Return all programs, found through a table of 16-bit offsets, and their numbers by name."""
    programs = _build()
    offsets = bytearray()
    body = bytearray()
    for program in programs.values():
        offsets += (2 * len(programs) + len(body)).to_bytes(2, "little")
        body += program.code()
    return bytes(offsets + body), {name: number for number, name in enumerate(programs)}
