# The group of Ed25519 over Python's big integers: the reference, and what runs where no native
# engine is (curve25519.py has the same functions). Not constant-time.

from .field25519 import P, invert, power_p58

L = 2**252 + 27742317777372353535851937790883648493
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_D2 = 2 * _D % P
_SQRT_M1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_SIGN = 1 << 255

# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z; addends are cached as
# (Y + X, Y - X, 2Z, 2d*T), so that one form of the complete addition law serves all.


def _double(p):
    """Return 2p as (X, Y, Z, T) (RFC 8032, 5.1.4)."""
    x, y, z, _ = p
    a = x * x % P
    b = y * y % P
    h = a + b
    s = x + y
    e = h - s * s % P
    g = a - b
    f = 2 * z * z % P + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _add(p, q):
    """Return p + q for a point `p` and a cached `q`; right for any two points."""
    x, y, z, t = p
    plus, minus, z2, t2 = q
    a = (y - x) * minus % P
    b = (y + x) * plus % P
    c = t * t2 % P
    d = z * z2 % P
    e = b - a
    f = d - c
    g = d + c
    h = b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _cache(p):
    x, y, z, t = p
    return (y + x) % P, (y - x) % P, 2 * z % P, t * _D2 % P


def _negate(q):
    """Return the cached form of -q for a cached `q`."""
    return q[1], q[0], q[2], P - q[3]


_NEUTRAL = (0, 1, 1, 0)
_comb = []


def _base_comb(feed):
    """Return the 16 cached sums of {1, 2^64, 2^128, 2^192} times the base point.

    Made at the first use (192 doublings) and kept: about 4 KB.
    """
    if not _comb:
        table = [_cache(_NEUTRAL)]
        p = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)
        points = [_NEUTRAL]
        for row in range(4):
            q = _cache(p)
            for i in range(1 << row):
                points.append(_add(points[i], q))
                table.append(_cache(points[-1]))
            if row < 3:
                for i in range(64):
                    p = _double(p)
                    if feed and not i & 15:
                        feed()
        _comb.extend(table)
    return _comb


def _column(k, j):
    """Return which of the bits j, j + 64, j + 128, j + 192 of `k` are set, as an index 0..15."""
    return k >> j & 1 | (k >> j + 64 & 1) << 1 | (k >> j + 128 & 1) << 2 | (k >> j + 192 & 1) << 3


def _multiply_base(k, feed):
    """Return k times the base point, for 0 <= k < 2^256."""
    table = _base_comb(feed)
    p = _NEUTRAL
    for j in range(63, -1, -1):
        p = _add(_double(p), table[_column(k, j)])
        if feed and not j & 7:
            feed()
    return p


def _signed_digits(k):
    """Return `k` below 2^253 as signed digits, lowest first, one byte each, modulo 32.

    A digit is 0, or odd in -15..15 and followed by four zeros (width-5 NAF).
    """
    digits = bytearray(256)
    i = 0
    while k:
        if k & 1:
            digit = k & 31
            digits[i] = digit
            k -= digit if digit < 16 else digit - 32
        k >>= 1
        i += 1
    return digits


def _multiply_two(s, k, q, feed):
    """Return s times the base point plus k times `q`, for 0 <= s, k < 2^253."""
    table = _base_comb(feed)
    twice = _cache(_double(q))
    odd = [_cache(q)]
    for _ in range(7):
        q = _add(q, twice)
        odd.append(_cache(q))
    digits = _signed_digits(k)
    p = _NEUTRAL
    for j in range(253, -1, -1):
        p = _double(p)
        digit = digits[j]
        if digit:
            p = _add(p, odd[digit >> 1] if digit < 16 else _negate(odd[31 - digit >> 1]))
        if j < 64:
            p = _add(p, table[_column(s, j)])
        if feed and not j & 7:
            feed()
    return p


def _encode(p, feed):
    """Return the 32 bytes of a point (RFC 8032, 5.1.2)."""
    x, y, z, _ = p
    inverse = invert(z, feed)
    x = x * inverse % P
    return (y * inverse % P | (x & 1) << 255).to_bytes(32, "little")


def decode(data, feed):
    """Return the point of 32 bytes, their y below the prime, or None (RFC 8032, 5.1.3)."""
    y = int.from_bytes(data, "little")
    sign = y >> 255
    y &= _SIGN - 1
    yy = y * y % P
    u = yy - 1
    v = (_D * yy + 1) % P
    v3 = v * v % P * v % P
    x = u * v3 % P * power_p58(u * v3 % P * v3 % P * v % P, feed) % P
    vxx = v * x % P * x % P
    if (vxx + u) % P == 0:
        x = x * _SQRT_M1 % P
    elif (vxx - u) % P:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def reduce(digest):
    """Return 64 bytes, little-endian, modulo the order L as 32 bytes."""
    return (int.from_bytes(digest, "little") % L).to_bytes(32, "little")


def multiply_add(k, a, r):
    """Return k * a + r modulo L; all of them 32 bytes."""
    k = int.from_bytes(k, "little")
    a = int.from_bytes(a, "little")
    return ((k * a + int.from_bytes(r, "little")) % L).to_bytes(32, "little")


def multiply_base(k, feed):
    """Return the encoded point of `k` (32 bytes) times the base point."""
    return _encode(_multiply_base(int.from_bytes(k, "little"), feed), feed)


def equation_holds(public, r, s, k, feed):
    """Return whether [s]B = R + [k]A, without the cofactor, all of them 32 bytes.

    `public` and `r`: y below the prime and not of small order; `s` and `k`: below L.
    """
    point = decode(public, feed)
    if point is None:
        return False
    x, y, _, t = point
    s = int.from_bytes(s, "little")
    k = int.from_bytes(k, "little")
    minus_a = (P - x, y, 1, P - t)
    return _encode(_multiply_two(s, k, minus_a, feed), feed) == r
