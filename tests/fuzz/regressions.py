"""The inputs of regressions.hex, each with the word that its target says of it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("regressions.hex")


@dataclass(frozen=True)
class Regression:
    """A former finding. `word`: of the target's answer, its first."""

    target: str
    word: str
    data: bytes
    found: str


def load(path: Path = LIST) -> Iterator[Regression]:
    """Yield the lines: target, word, hex ..., "#", what was found. Raises ValueError."""
    for line in path.read_text("ascii").splitlines():
        if not line or line.startswith("#"):
            continue
        entry, _, found = line.partition(" # ")
        target, word, *parts = entry.split()
        yield Regression(target, word, unpack(parts), found)


def unpack(parts: list[str]) -> bytes:
    """Return the bytes of hex words; a word may end in "*" and how often it comes."""
    out = b""
    for part in parts:
        digits, star, times = part.partition("*")
        out += bytes.fromhex(digits) * (int(times) if star else 1)
    return out
