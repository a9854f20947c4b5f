"""The table of multiples of Ed25519's base point for the comb of TEETH rows.

A scalar k becomes b = (k + 2^n - 1) / 2 mod L, n = TEETH * SPACING: then k is the sum over all n
bits of b of +2^i for a set bit and -2^i for a clear one. No digit is zero, so that every column
costs the same addition, and the top tooth's sign factors out: the table has half the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tidemark_host.cryptogen.programs import D, L, P

TEETH = 6
SPACING = 43
ENTRIES = 1 << TEETH - 1

# RFC 8032, 5.1.
_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)

HALF = pow(2, -1, L)
HALF_OF_ALL_ONES = (2 ** (TEETH * SPACING) - 1) * HALF % L
"""b = k * HALF + HALF_OF_ALL_ONES mod L."""

Point = tuple[int, int]


def _add(p: Point, q: Point) -> Point:
    (x1, y1), (x2, y2) = p, q
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + y1 * x2) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def _negate(p: Point) -> Point:
    return -p[0] % P, p[1]


def entries() -> list[tuple[int, int, int]]:
    """Return the entries as ((y + x)/2, (y - x)/2, d*x*y).

    Entry i is tooth 5 plus or minus each of teeth 0 to 4, plus where i has the tooth's bit.
    """
    teeth: list[Point] = [_BASE]
    for _ in range(TEETH - 1):
        p = teeth[-1]
        for _ in range(SPACING):
            p = _add(p, p)
        teeth.append(p)
    table: list[tuple[int, int, int]] = []
    half = pow(2, -1, P)
    for i in range(ENTRIES):
        p = teeth[-1]
        for j in range(TEETH - 1):
            p = _add(p, teeth[j] if i >> j & 1 else _negate(teeth[j]))
        x, y = p
        table.append(((y + x) * half % P, (y - x) * half % P, D * x * y % P))
    return table


def table(pack: Callable[[int], Iterable[int]]) -> bytes:
    """Return the entries packed by `pack` (an element to bytes), one after the other."""
    return b"".join(bytes(pack(part)) for entry in entries() for part in entry)
