"""Cases for the firmware's cryptography with the answers of `cryptography` and hashlib.

Every list is a function of its seed, but for RSA's keys and salts, which the library draws: a
failure shows the whole case.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from tests.crypto import signature_cases
from tests.crypto.case import Case
from tidemark import edwards25519

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
ONES = b"\xff" * 32


def le32(number: int) -> bytes:
    return (number % 2**256).to_bytes(32, "little")


# Limbs of every engine at their ends: all ones, all zeros, single bits; the prime's neighbours.
EDGES = [
    *(le32(n) for n in (0, 1, 2, 9, P - 2, P - 1, P, P + 1, 2 * P - 1, L - 1, L)),
    *(le32(1 << n) for n in (12, 13, 25, 26, 127, 128, 129, 254, 255)),
    *(le32(2**256 - 1 >> n) for n in (0, 1, 2, 128)),
    bytes.fromhex("00ff" * 16),
    bytes.fromhex("ffff0000" * 8),
    bytes.fromhex("0010" * 16),
]


def bytes32(rng: random.Random) -> bytes:
    return rng.choice(EDGES) if rng.random() < 0.2 else rng.randbytes(32)


def message(rng: random.Random) -> bytes:
    sizes = (0, 1, 47, 48, 63, 64, 111, 112, 127, 128, rng.randrange(400))
    return rng.randbytes(rng.choice(sizes))


# Ed25519: signing.


def sign(seed: bytes, data: bytes) -> Case:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    want = theirs.public_key().public_bytes_raw() + theirs.sign(data)
    return Case(["sign", seed.hex(), data.hex()], want.hex())


def sign_edges() -> Iterator[Case]:
    for seed in EDGES:
        yield sign(seed, b"edge")
    for size in (0, 1, 31, 32, 47, 48, 63, 64, 79, 80, 111, 112, 127, 128, 255, 256, 1023):
        yield sign(ONES, bytes(size))


# Ed25519: verification. The verdict is that of `cryptography`, which does without the cofactor
# too, but for what only the strict rules refuse: see `strict`.


def small_points() -> list[bytes]:
    """Return every encoding of the eight points of small order, the second ones too.

    Source: the points (0, 1), (0, -1), (+-sqrt(-1), 0) and the four of order 8; y below 19 can
    be written as y + p, and x = 0 with either sign.
    """
    y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
    found = [le32(y | sign << 255) for y in (y8, P - y8, 0, P) for sign in (0, 1)]
    return found + [le32(y | sign << 255) for y in (1, P + 1, P - 1) for sign in (0, 1)]


SMALL = small_points()


def strict(point: bytes) -> bool:
    """Say whether 32 bytes are the first encoding of a point, and not one of small order."""
    y = int.from_bytes(point, "little") % 2**255
    return y < P and point not in SMALL


def _accepts(public: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify(public: bytes, data: bytes, signature: bytes) -> Case:
    holds = strict(public) and strict(signature[:32]) and _accepts(public, data, signature)
    return Case(["verify", public.hex(), data.hex(), signature.hex()], str(holds))


def _decoded(point: bytes) -> tuple[int, int, int, int]:
    found = edwards25519.decode(point, None)
    assert found
    return found


def added(p: bytes, q: bytes) -> bytes:
    """Return the sum of two encoded points."""
    total = edwards25519._add(_decoded(p), edwards25519._cache(_decoded(q)))
    return edwards25519._encode(total, None)


def _scalar(seed: bytes) -> int:
    h = bytearray(hashlib.sha512(seed).digest()[:32])
    h[0] &= 0xF8
    h[31] = h[31] & 0x3F | 0x40
    return int.from_bytes(h, "little")


def times_base(k: int) -> bytes:
    return edwards25519.multiply_base(le32(k % L), None)


def mixed(rng: random.Random, in_key: bytes, in_nonce: bytes) -> Case:
    """A key and an R that have parts of small order, and the S that the equation wants up to
    those: it holds as it stands for one message in eight or so, with the cofactor for each."""
    a, r = rng.randrange(1, L), rng.randrange(1, L)
    public, nonce = added(times_base(a), in_key), added(times_base(r), in_nonce)
    data = rng.randbytes(8)
    k = int.from_bytes(hashlib.sha512(nonce + public + data).digest(), "little") % L
    return verify(public, data, nonce + le32((r + k * a) % L))


def verify_edges() -> Iterator[Case]:
    rng = random.Random("edges")
    seed, data = hashlib.sha256(b"edges").digest(), b"tidemark"
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = theirs.public_key().public_bytes_raw(), theirs.sign(data)
    yield verify(public, data, signature)
    # Each bit of one signature, key and message.
    whole = public + data + signature
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit >> 3] ^= 1 << (bit & 7)
        case = verify(bytes(changed[:32]), bytes(changed[32:40]), bytes(changed[40:]))
        assert case.want == "False"
        yield case
    # S above the group's order, and its neighbours.
    s = int.from_bytes(signature[32:], "little")
    for other in (*(s + n * L for n in range(1, 16)), L - s, 0, 1, L - 1, L, 2**256 - 1, s ^ 1):
        yield verify(public, data, signature[:32] + le32(other))
    # Every small point as A and as R, with the S that makes the bare equation hold.
    for point in SMALL:
        for n in range(24):
            k = hashlib.sha512(signature[:32] + point + bytes((n,))).digest()
            r = int.from_bytes(k, "little") % L
            yield verify(point, bytes((n,)), times_base(r) + le32(r))
        k = int.from_bytes(hashlib.sha512(point + public + data).digest(), "little") % L
        yield verify(public, data, point + le32(k * _scalar(seed) % L))
        for other in SMALL:
            yield verify(point, data, other + le32(0))
    # Limits of limbs, y at or above the prime, and small y with the sign bit, for A and R.
    others = [*(le32(P + n) for n in range(19)), *(le32(2**255 + n) for n in range(9))]
    for point in EDGES + others:
        yield verify(point, data, signature)
        yield verify(public, data, point + signature[32:])
    # Parts of small order in A, in R and in both.
    torsion = [point for point in SMALL if edwards25519._encode(_decoded(point), None) == point]
    for in_key in torsion:
        for in_nonce in torsion:
            for _ in range(3):
                yield mixed(rng, in_key, in_nonce)


def _verify(rng: random.Random) -> Case:
    """A signature, good or altered."""
    data = message(rng) + b"\0"
    theirs = Ed25519PrivateKey.from_private_bytes(bytes32(rng))
    public = bytearray(theirs.public_key().public_bytes_raw())
    signature = bytearray(theirs.sign(data))
    altered = bytearray(data)
    change = rng.choice(("none", "none", "bit", "bit", "s", "r", "a", "point", "random"))
    if change == "bit":
        target = rng.choice((public, signature, signature, altered))
        target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
    elif change == "s":
        s = int.from_bytes(signature[32:], "little")
        signature[32:] = le32(rng.choice((s + L, L - s, 0, L, L - 1, 2**256 - 1 - s, s ^ 1)))
    elif change == "r":
        signature[:32] = bytes32(rng)
    elif change == "a":
        public[:] = bytes32(rng)
    elif change == "point":
        # The equation with a multiple of the base point that is wrong by one.
        rng.choice((public, signature))[:32] = times_base(1)
    elif change == "random":
        signature[:] = rng.randbytes(64)
    case = verify(bytes(public), bytes(altered), bytes(signature))
    assert (case.want == "True") == (change == "none") or change == "s"
    return case


# X25519.


def x25519(scalar: bytes, u: bytes) -> Case:
    theirs = X25519PrivateKey.from_private_bytes(scalar)
    try:
        want = theirs.exchange(X25519PublicKey.from_public_bytes(u)).hex()
    except ValueError:
        want = "x25519-zero"
    return Case(["x25519", scalar.hex(), u.hex()], want)


def x25519_edges() -> Iterator[Case]:
    # Points of order 1, 2, 4 and 8 on the curve and on its twist, all their encodings.
    u8 = 325606250916557431795983626356110631294008115727848805560023387167927233504
    v8 = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    for u in (0, 1, P - 1, P, P + 1, u8, v8, u8 + P, v8 + P):
        for top in (0, 1 << 255):
            if u < 2**255:
                yield x25519(ONES, le32(u | top))
    for scalar in EDGES:
        for u in EDGES:
            yield x25519(scalar, u)


# SHA-512.


def sha512(data: bytes) -> Case:
    return Case(["sha512", data.hex()], hashlib.sha512(data).hexdigest())


def sha512_edges() -> Iterator[Case]:
    for size in (*range(0, 260), 511, 512, 895, 1023, 1024, 1025, 2048, 5000):
        yield sha512(bytes(i * 7 & 255 for i in range(size)))
    for byte in (0, 0xFF, 0x80, 0x01):
        yield sha512(bytes((byte,)) * 128)


def _sha512(rng: random.Random) -> Case:
    data = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * rng.randrange(300)
    return sha512(data if rng.random() < 0.3 else rng.randbytes(len(data)))


# AES-CCM.


def ccm(key: bytes, nonce: bytes, aad: bytes, text: bytes, tag: int) -> Case:
    sealed = AESCCM(key, tag).encrypt(nonce, text, aad)
    parts = (key, nonce, aad, text, bytes((tag,)))
    return Case(["ccm", *(part.hex() for part in parts)], sealed.hex())


def ccm_refused(rng: random.Random, case: Case) -> Case:
    """The message of a case with one bit of it, or of what it is bound to, changed."""
    key, nonce, aad, _, tag = (bytearray.fromhex(part) for part in case.call[1:])
    sealed = bytearray.fromhex(case.want)
    target = rng.choice([part for part in (key, nonce, aad, sealed, sealed) if part])
    target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
    return Case(["ccm-open", *(part.hex() for part in (key, nonce, aad, sealed, tag))], "ccm-tag")


def ccm_edges() -> Iterator[Case]:
    rng = random.Random("ccm edges")
    for size in (*range(50), 255, 256, 257, 1000):
        yield ccm(rng.randbytes(16), rng.randbytes(13), rng.randbytes(20), rng.randbytes(size), 8)
        yield ccm(rng.randbytes(16), rng.randbytes(13), rng.randbytes(size), rng.randbytes(20), 8)
    for nonce in range(7, 14):
        for tag in (4, 6, 8, 10, 12, 14, 16):
            for key in (16, 32):
                text = rng.randbytes(33)
                yield ccm(rng.randbytes(key), rng.randbytes(nonce), b"", text, tag)


def _ccm(rng: random.Random) -> Case:
    case = ccm(
        rng.randbytes(rng.choice((16, 16, 32))),
        rng.randbytes(rng.choice((7, 12, 13, 13, 13))),
        rng.randbytes(rng.choice((0, 14, 15, 16, rng.randrange(64)))),
        rng.randbytes(rng.choice((0, 15, 16, 17, rng.randrange(80)))),
        rng.choice((4, 8, 8, 8, 16)),
    )
    return case if rng.random() < 0.6 else ccm_refused(rng, case)


@dataclass(frozen=True)
class Kind:
    """`edges`: the cases that somebody thought of; `draw`: a random one."""

    edges: Callable[[], Iterator[Case]]
    draw: Callable[[random.Random], Case]


KINDS = {
    "sign": Kind(sign_edges, lambda rng: sign(bytes32(rng), message(rng))),
    "verify": Kind(verify_edges, _verify),
    "x25519": Kind(x25519_edges, lambda rng: x25519(bytes32(rng), bytes32(rng))),
    "sha512": Kind(sha512_edges, _sha512),
    "ccm": Kind(ccm_edges, _ccm),
    "p256": Kind(signature_cases.p256_edges, signature_cases.p256),
    "rsa-pss": Kind(signature_cases.rsa_edges, signature_cases.rsa_pss),
}


def cases(kind: str, count: int, seed: int = 1) -> list[Case]:
    """Return `count` cases of a kind: all its edges, but at most half of the cases."""
    rng = random.Random(f"{kind} {seed}")
    found = list(KINDS[kind].edges())
    if 2 * len(found) > count:
        found = rng.sample(found, count // 2)
    while len(found) < count:
        found.append(KINDS[kind].draw(rng))
    return found
