# Ed25519 signatures (RFC 8032, 5.1), strict.
# `group` is the arithmetic below: native code where there is some, else big integers.

from .errors import CryptoError
from .field25519 import P
from .sha512 import sha512

try:
    from . import curve25519 as group
except ImportError:
    from . import edwards25519 as group

_L = 2**252 + 27742317777372353535851937790883648493
_SIGN = 1 << 255

# y of the eight points whose order divides 8 (each y of two points, but 1 and p - 1).
_Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = (0, 1, P - 1, _Y8, P - _Y8)


def _is_strict(data):
    """Return whether 32 bytes are no second encoding of a point and none of small order."""
    y = int.from_bytes(data, "little") & (_SIGN - 1)
    return y < P and y not in _SMALL_ORDER_Y


def _expand(seed, feed):
    """Return (secret scalar, prefix), 32 bytes each, of a 32-byte seed (RFC 8032, 5.1.5)."""
    if len(seed) != 32:
        raise CryptoError("ed25519-seed")
    h = sha512(seed, feed).digest()
    a = bytearray(h[:32])
    a[0] &= 0xF8
    a[31] = a[31] & 0x3F | 0x40
    return a, h[32:]


def _hash_to_scalar(parts, feed):
    h = sha512(b"", feed)
    for part in parts:
        h.update(part)
    return group.reduce(h.digest())


def public_key(seed, feed=None):
    """Return the 32-byte public key of a 32-byte `seed` (RFC 8032, 5.1.5).

    `feed`: called with no argument between slices of work, or None.
    Raises CryptoError("ed25519-seed") for another length. What it leaks: see `sign`.
    """
    a, _ = _expand(seed, feed)
    return group.multiply_base(a, feed)


def sign(seed, message, public=None, feed=None):
    """Return the 64-byte signature of `message` (bytes-like) under `seed` (RFC 8032, 5.1.6).

    `public`: the seed's own public key, to save computing it. Never one from elsewhere: two
    signatures of one message under two public keys give the secret away.
    `feed`: called with no argument between slices of work, or None.
    Raises CryptoError("ed25519-seed") for a seed of another length. Under a native engine no
    branch and no address depends on the seed (docs/cryptography.md says how far that goes);
    without one, on big integers, the time taken depends on it.
    """
    a, prefix = _expand(seed, feed)
    if public is None:
        public = group.multiply_base(a, feed)
    r = _hash_to_scalar((prefix, message), feed)
    r_bytes = group.multiply_base(r, feed)
    k = _hash_to_scalar((r_bytes, public, message), feed)
    return r_bytes + group.multiply_add(k, a, r)


def verify(public, message, signature, feed=None):
    """Return whether `signature` (64 bytes) of `message` holds under `public` (32 bytes).

    RFC 8032, 5.1.7, in its strict form, so that every implementation which agrees on a
    signature agrees on its one encoding: S below L; A and R of canonical encoding and not of
    small order; the equation without the cofactor, [S]B = R + [k]A.
    Wrong lengths are False, never an exception. `feed`: called with no argument between slices
    of work, at most about 35 ms apart on a 125 MHz Cortex-M0+, or None.
    """
    if len(public) != 32 or len(signature) != 64:
        return False
    r_bytes = bytes(signature[:32])
    s = bytes(signature[32:])
    if int.from_bytes(s, "little") >= _L or not _is_strict(r_bytes) or not _is_strict(public):
        return False
    k = _hash_to_scalar((r_bytes, public, message), feed)
    return group.equation_holds(public, r_bytes, s, k, feed)
