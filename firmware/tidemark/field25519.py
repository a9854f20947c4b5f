# Arithmetic modulo 2^255 - 19 that Ed25519 and X25519 share, over Python's big integers.
# This is the readable reference; it is not constant-time.

P = 2**255 - 19


def _squarings(x, n, feed):
    """Return x^(2^n)."""
    for _ in range(n):
        x = x * x % P
    if feed:
        feed()
    return x


def power_chain(x, feed=None):
    """Return (x^11, x^(2^250 - 1)) mod P: where inversion and square root part ways.

    `x`: int. `feed`: called between slices of at most 100 squarings, or None.
    """
    x2 = x * x % P
    x9 = _squarings(x2, 2, None) * x % P
    x11 = x9 * x2 % P
    e5 = x11 * x11 % P * x9 % P
    e10 = _squarings(e5, 5, None) * e5 % P
    e20 = _squarings(e10, 10, feed) * e10 % P
    e40 = _squarings(e20, 20, feed) * e20 % P
    e50 = _squarings(e40, 10, feed) * e10 % P
    e100 = _squarings(e50, 50, feed) * e50 % P
    e200 = _squarings(e100, 100, feed) * e100 % P
    return x11, _squarings(e200, 50, feed) * e50 % P


def invert(x, feed=None):
    """Return 1/x mod P, and 0 for 0: x^(P - 2)."""
    x11, e250 = power_chain(x, feed)
    return _squarings(e250, 5, feed) * x11 % P


def power_p58(x, feed=None):
    """Return x^((P - 5) / 8) mod P, from which a square root follows (RFC 8032, 5.1.3)."""
    _, e250 = power_chain(x, feed)
    return _squarings(e250, 2, feed) * x % P
