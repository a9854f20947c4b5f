"""The ways in which power can fail at one flash operation, and their names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from tidemark_host.boards.nor import AFTER, BEFORE, JUNK, MIXED, NEW, OLD, TORN, NorFlash, PowerCut

_LETTERS = {"o": OLD, "n": NEW, "j": JUNK, "m": MIXED}
# What the cells of an interrupted operation read as, from boot to boot; the last one stays.
_READINGS = ("on", "no", "jo", "mn")


@dataclass(frozen=True)
class Variant:
    """`name`: as in a replay. `kind`: of nor. `count`, `mask`: of a cut whose result is stable.
    `readings`: of one whose cells are weak, one a boot."""

    name: str
    kind: str
    count: int = -1
    mask: int = 0
    readings: tuple[str, ...] = ()

    def apply(self, nor: NorFlash, address: int, data: bytes | None) -> set[int]:
        """Do an operation that fails like this: a program of `data`, None for an erase.

        Returns the groups of the cells that it left weak.
        """
        before = nor.weak_groups()
        nor.set_weak(bool(self.readings))
        nor.plan_cut(0, self.kind, self.count, self.mask)
        with contextlib.suppress(PowerCut):
            if data is None:
                nor.erase(address)
            else:
                nor.program(address, data)
        nor.no_cut()
        return set(nor.weak_groups()).difference(before)


def parse(name: str) -> Variant:
    """Return the variant of a name. Raises ValueError."""
    if name in (BEFORE, AFTER):
        return Variant(name, name)
    kind, _, rest = name.partition(":")
    if kind == "weak" and rest and set(rest) <= set(_LETTERS):
        return Variant(name, TORN, readings=tuple(_LETTERS[letter] for letter in rest))
    if kind == "torn":
        count, _, mask = rest.partition(".")
        return Variant(name, TORN, int(count), int(mask or "0", 16))
    raise ValueError(f"no such variant: {name}")


def of(data: bytes | None, sector: int, told: bool) -> list[Variant]:
    """Return the variants at an operation: `data` of a program, None for an erase.

    `told`: whether the outside saw the board do something since the operation before. Otherwise
    "before" is the same state as "after" that one, and is left out.
    """
    names = [BEFORE] if told else []
    if data is None:
        names += [f"torn:{count}" for count in (256, sector // 2, sector - 256)]
    else:
        used = [at for at, byte in enumerate(data) if byte != 0xFF]
        if used:
            first, last, middle = used[0], used[-1], used[len(used) // 2]
            # Bytes that came, then the bits of the one in which it stopped.
            names += _unique([(first, 0xF0), (first + 1, 0), (middle, 0x5A), (last, 0x0F)])
    names += [f"weak:{row}" for row in _READINGS]
    return [parse(name) for name in (*names, AFTER)]


def distinct(
    nor: NorFlash, address: int, data: bytes | None, variants: Sequence[Variant]
) -> list[Variant]:
    """Return the variants that leave the flash in another state than each one before them."""
    state = nor.snapshot()
    seen: set[object] = set()
    found: list[Variant] = []
    for variant in variants:
        weak = variant.apply(nor, address, data)
        left = (nor.snapshot(), variant.readings if weak else ())
        if left not in seen:
            seen.add(left)
            found.append(variant)
        nor.restore(state)
    return found


def _unique(cuts: Sequence[tuple[int, int]]) -> list[str]:
    return list(dict.fromkeys(f"torn:{count}.{mask:02x}" for count, mask in cuts))
