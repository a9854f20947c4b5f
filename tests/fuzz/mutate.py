"""Changes of bytes that keep most of an input's structure: the same steps give the same bytes.

A step is three numbers below 65,536: what to do, where, with what. Hypothesis draws and shrinks
such steps; atheris draws them from its seed, beside the changes that it makes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Step = tuple[int, int, int]
SPAN = 65_536

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MARKS = frozenset(b'{}[],:"\r\n =/.-')


def mutate(
    data: bytes, steps: Sequence[Step], others: Sequence[bytes], words: Sequence[bytes]
) -> bytes:
    """Return `data` changed step by step.

    `others`: inputs to splice with; `words`: what means something in this format.
    """
    out = bytearray(data)
    for what, where, value in steps:
        at = where * (len(out) + 1) // SPAN
        _CHANGES[what % len(_CHANGES)](out, at, value, others, words)
    return bytes(out)


def _flip(out: bytearray, at: int, value: int, *_: object) -> None:
    if at < len(out):
        out[at] ^= 1 << value % 8


def _set(out: bytearray, at: int, value: int, *_: object) -> None:
    if at < len(out):
        out[at] = value & 0xFF


def _cut(out: bytearray, at: int, value: int, *_: object) -> None:
    del out[at : at + 1 + value % 16]


def _end(out: bytearray, at: int, *_: object) -> None:
    del out[at:]


def _insert(out: bytearray, at: int, value: int, *_: object) -> None:
    out[at:at] = bytes([value & 0xFF]) * (1 + (value >> 8) % 8)


def _repeat(out: bytearray, at: int, value: int, *_: object) -> None:
    part = out[at : at + 1 + value % 64]
    out[at:at] = part * (1 + value % 3)


def _splice(out: bytearray, at: int, value: int, others: Sequence[bytes], *_: object) -> None:
    if others:
        other = others[value % len(others)]
        # The same place: headers stay where a parser looks for them.
        out[at:] = other[at:]


def _word(out: bytearray, at: int, value: int, _: Sequence[bytes], words: Sequence[bytes]) -> None:
    if words:
        word = words[value % len(words)]
        out[at : at + (len(word) if value & 0x8000 else 0)] = word


def _field(out: bytearray, at: int, value: int, *_: object) -> None:
    """Change a number of 1, 2 or 4 bytes in either order: a step, or one at a limit."""
    size = (1, 2, 4)[value % 3]
    order = "little" if value & 0x100 else "big"
    part = bytes(out[at : at + size])
    if len(part) < size:
        return
    choice = (value >> 9) % (len(_EDGES) + 2)
    number = int.from_bytes(part, order)
    number = number + 1 if choice == 0 else number - 1 if choice == 1 else _EDGES[choice - 2]
    out[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, order)


def _token(out: bytearray, at: int, value: int, *_: object) -> None:
    """Repeat, drop or exchange what stands between two marks of a text: keys come twice so."""
    start = next((i for i in range(at, -1, -1) if i < len(out) and out[i] in _MARKS), 0)
    ends = [i for i in range(at + 1, min(len(out), at + 200)) if out[i] in _MARKS]
    if not ends:
        return
    end = ends[value % min(len(ends), 8)]
    part = bytes(out[start:end])
    if value & 0x4000:
        out[start:end] = b""
    else:
        out[end:end] = part


_CHANGES: tuple[Callable[..., None], ...] = (
    _flip,
    _set,
    _cut,
    _end,
    _insert,
    _repeat,
    _splice,
    _word,
    _word,
    _field,
    _field,
    _token,
)
