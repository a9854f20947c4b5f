# ECDSA over P-256 with SHA-256, verification only (FIPS 186-5, 6.4.2; SP 800-186, 3.2.1.3): for
# update metadata that an HSM or an existing repository signs. Everything here is public: no
# constant time.

import hashlib

from tidemark import der
from tidemark.errors import CodecError

_P = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffff
_N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
_B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b
_G = (
    0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296,
    0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5,
)
_INFINITY = (1, 1, 0)

# AlgorithmIdentifier: id-ecPublicKey with the named curve secp256r1 (RFC 5480, 2.1.1).
_ALGORITHM = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"


def decode(text):
    """Public key (64 bytes, x and y big-endian) of a PEM SubjectPublicKeyInfo with an
    uncompressed point on the curve, or None for anything else.
    """
    try:
        algorithm, point = der.public_key(text)
    except CodecError:
        return None
    if algorithm != _ALGORITHM or len(point) != 65 or point[0] != 4:
        return None
    x = int.from_bytes(point[1:33], "big")
    y = int.from_bytes(point[33:], "big")
    # The curve has cofactor 1: a point on it is in the group.
    if x >= _P or y >= _P or (y * y - (x * x - 3) * x - _B) % _P:
        return None
    return point[1:]


def verify(public, message, signature, feed=None):
    """True if `signature` (DER, strict) is one of `message` (bytes) by `public`, as `decode`
    returns it. High and low s count alike. feed: called with no argument, some hundred times.
    """
    try:
        at, end = der.read_all(signature, 0, len(signature), der.SEQUENCE)
        r, at = der.read_uint(signature, at, end)
        s, at = der.read_uint(signature, at, end)
    except CodecError:
        return False
    if at != end or not 0 < r < _N or not 0 < s < _N:
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = _invert(s, _N)
    key = (int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big"))
    x, _, z = _combine(digest * inverse % _N, r * inverse % _N, key, feed)
    if not z:
        return False
    # x / z^2 mod p, taken mod n, must be r: compared without a division.
    zz = z * z % _P
    return not (r * zz - x) % _P or (r + _N < _P and not ((r + _N) * zz - x) % _P)


def _combine(a, b, key, feed):
    """a * G + b * key in Jacobian coordinates, both scalars in one pass."""
    both = _affine(_add(_add(_INFINITY, _G), key))
    point = _INFINITY
    for bit in range(255, -1, -1):
        point = _double(point)
        one = (a >> bit) & 1
        if one and (b >> bit) & 1:
            if both:
                point = _add(point, both)
        elif one:
            point = _add(point, _G)
        elif (b >> bit) & 1:
            point = _add(point, key)
        if feed:
            feed()
    return point


def _invert(a, p):
    """1 / a mod the prime `p`, 0 < a < p, by Euclid's algorithm: pow() would hold the VM for more
    than 50 ms.
    """
    r, next_r = p, a
    t, next_t = 0, 1
    while next_r:
        q = r // next_r
        r, next_r = next_r, r - q * next_r
        t, next_t = next_t, t - q * next_t
    return t % p


def _affine(point):
    x, y, z = point
    if not z:
        return None
    z = _invert(z, _P)
    zz = z * z % _P
    return x * zz % _P, y * zz * z % _P


def _double(point):
    x, y, z = point
    zz = z * z % _P
    yy = y * y % _P
    beta = x * yy % _P
    alpha = 3 * (x - zz) * (x + zz) % _P
    x3 = (alpha * alpha - 8 * beta) % _P
    return x3, (alpha * (4 * beta - x3) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(point, other):
    """A Jacobian point plus an affine one, (x, y)."""
    x, y, z = point
    if not z:
        return other[0], other[1], 1
    zz = z * z % _P
    h = (other[0] * zz - x) % _P
    r = (other[1] * zz * z - y) % _P
    if not h:
        return _INFINITY if r else _double(point)
    hh = h * h % _P
    hhh = h * hh % _P
    v = x * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - y * hhh) % _P, z * h % _P
