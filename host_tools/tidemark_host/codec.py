"""Deterministic CBOR in the profile of docs/protocol.md, over cbor2, and the refusals of the wire.

Bounded: what is handed to the general decoder is short, shallow and free of tags.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import cbor2

MAX_MESSAGE: Final = 1024  # bytes of one message, envelope included
MAX_DEPTH: Final = 6  # arrays and maps within one another

# The words of docs/protocol.md, "Refusals"; `redelivery` and `jump` are counted, not refused.
CODES: Final = (
    "shape",
    "size",
    "kind",
    "unknown-device",
    "revoked",
    "quarantined",
    "no-session",
    "mac",
    "signature",
    "stale",
    "redelivery",
    "clone",
    "space",
    "nonce",
    "epoch",
    "share",
    "rate",
    "jump",
    "internal",
)


class Refused(Exception):
    """A message without effect. `code`: one of `CODES`; `text`: for people, no peer's bytes."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code
        self.text = text


def encode(value: object) -> bytes:
    """Return the deterministic encoding of a value of the profile. Raises Refused("shape")."""
    _profile(value, MAX_DEPTH)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, limit: int = MAX_MESSAGE) -> Any:
    """Decode one value of the profile, and only its one encoding.

    Raises Refused: "size" beyond `limit` bytes, "shape" for anything outside the profile.
    """
    if len(data) > limit:
        raise Refused("size", f"{len(data)} bytes, at most {limit}")
    _screen(data)
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, allow_indefinite=False)
    except (cbor2.CBORError, ValueError, OverflowError) as error:
        raise Refused("shape", "not CBOR") from error
    if encode(value) != data:
        raise Refused("shape", "not the deterministic encoding")
    return value


def _screen(data: bytes) -> None:
    """Refuse tags, indefinite lengths and excessive counts before the general decoder runs.

    A tag can make a general decoder build anything: dates, regular expressions, huge decimals.
    """
    at, end = 0, len(data)
    while at < end:
        major, info = data[at] >> 5, data[at] & 31
        at += 1
        argument = info
        if info >= 28 or major == 6:
            raise Refused("shape", "a tag or an indefinite length")
        if info >= 24:
            size = 1 << (info - 24)
            argument = int.from_bytes(data[at : at + size], "big")
            at += size
        if major in (2, 3):
            at += argument
        if (major >= 2 and major != 7) and argument > end:
            raise Refused("shape", "ends within an item")


def _profile(value: object, depth: int) -> None:
    """Check that `value` is made of what the profile allows, `depth` containers deep at most."""
    if value is None or isinstance(value, bool | str | bytes | float):
        return
    if isinstance(value, int):
        if not -(1 << 64) <= value < 1 << 64:
            raise Refused("shape", "integer beyond 64 bits")
        return
    if not depth:
        raise Refused("shape", "nested too deep")
    if isinstance(value, list | tuple):
        for item in cast("list[object]", value):
            _profile(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 1 << 64:
                raise Refused("shape", "map keys are unsigned integers")
            _profile(item, depth - 1)
    else:
        raise Refused("shape", "a type outside the profile")


def is_uint(value: object) -> bool:
    """Say whether `value` is an unsigned integer of CBOR (bool is none)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_bytes(value: object, size: int) -> bool:
    """Say whether `value` is a byte string of `size` bytes."""
    return isinstance(value, bytes) and len(value) == size


def json_safe(value: Any) -> Any:
    """Return `value` (of the profile) as JSON can hold it: bytes as {"bytes": hex}, no NaN."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, list):
        return [json_safe(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {str(k): json_safe(v) for k, v in cast("dict[int, Any]", value).items()}
    return value


def escaped(text: str, limit: int = 256) -> str:
    """Return a device's text as data: control and non-ASCII characters escaped, cut at `limit`."""
    return text[:limit].encode("unicode_escape").decode("ascii")[: limit * 2]
