"""Cases for native cryptography with the answers of `cryptography` and hashlib; edges included.

Every list is a function of its seed, so that a failure can be repeated.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tidemark import ed25519, edwards25519

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
ONES = b"\xff" * 32
# Limbs of every engine at their ends: all ones, all zeros, single bits; the prime's neighbours.
_EDGES = [
    *(n.to_bytes(32, "little") for n in (0, 1, 2, 9, P - 2, P - 1, P, P + 1, 2 * P - 1, L - 1, L)),
    *((1 << n).to_bytes(32, "little") for n in (12, 13, 25, 26, 127, 128, 129, 254, 255)),
    *((2**256 - 1 >> n).to_bytes(32, "little") for n in (0, 1, 2, 128)),
    bytes.fromhex("00ff" * 16),
    bytes.fromhex("ffff0000" * 8),
    bytes.fromhex("0010" * 16),
]


@dataclass(frozen=True)
class Case:
    """A call for the board, [operation, argument in hex...], and the answer it must give."""

    call: list[str]
    want: str


def _bytes32(rng: random.Random) -> bytes:
    return rng.choice(_EDGES) if rng.random() < 0.2 else rng.randbytes(32)


def _message(rng: random.Random) -> bytes:
    return rng.randbytes(
        rng.choice((0, 1, 47, 48, 63, 64, 111, 112, 127, 128, rng.randrange(400)))
    )


def _sign(rng: random.Random) -> Case:
    seed, message = _bytes32(rng), _message(rng)
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    want = theirs.public_key().public_bytes_raw() + theirs.sign(message)
    return Case(["sign", seed.hex(), message.hex()], want.hex())


def _accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify(rng: random.Random) -> Case:
    """A signature, good or altered. The strict reference decides, never above `cryptography`."""
    message = _message(rng) + b"\0"
    theirs = Ed25519PrivateKey.from_private_bytes(_bytes32(rng))
    public = bytearray(theirs.public_key().public_bytes_raw())
    signature = bytearray(theirs.sign(message))
    altered = bytearray(message)
    change = rng.choice(("none", "none", "bit", "bit", "s", "r", "a", "point"))
    if change == "bit":
        target = rng.choice((public, signature, signature, altered))
        target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
    elif change == "s":
        s = int.from_bytes(signature[32:], "little")
        other = rng.choice((s + L, L - s, 0, L, L - 1, 2**256 - 1 - s, s ^ 1))
        signature[32:] = (other % 2**256).to_bytes(32, "little")
    elif change == "r":
        signature[:32] = _bytes32(rng)
    elif change == "a":
        public[:] = _bytes32(rng)
    elif change == "point":
        # The equation with a multiple of the base point that is wrong by one.
        one = edwards25519.multiply_base((1).to_bytes(32, "little"), None)
        rng.choice((public, signature))[:32] = one
    public, signature, altered = bytes(public), bytes(signature), bytes(altered)
    want = _plain_verify(public, altered, signature)
    assert want == (change == "none") or change == "s"
    assert want <= _accepts(public, altered, signature)
    call = ["verify", public.hex(), altered.hex(), signature.hex()]
    return Case(call, str(want))


def _plain_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    assert ed25519.group is edwards25519
    return ed25519.verify(public, message, signature)


def _x25519(rng: random.Random) -> Case:
    scalar, u = _bytes32(rng), _bytes32(rng)
    theirs = X25519PrivateKey.from_private_bytes(scalar)
    try:
        want = theirs.exchange(X25519PublicKey.from_public_bytes(u)).hex()
    except ValueError:
        want = "x25519-zero"
    return Case(["x25519", scalar.hex(), u.hex()], want)


def _sha512(rng: random.Random) -> Case:
    data = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * rng.randrange(300)
    data = data if rng.random() < 0.3 else rng.randbytes(len(data))
    return Case(["sha512", data.hex()], hashlib.sha512(data).hexdigest())


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "sign": _sign,
    "verify": _verify,
    "x25519": _x25519,
    "sha512": _sha512,
}


def cases(kind: str, count: int, seed: int = 1) -> list[Case]:
    """Return `count` cases of a kind."""
    rng = random.Random(f"{kind} {seed}")
    return [KINDS[kind](rng) for _ in range(count)]
