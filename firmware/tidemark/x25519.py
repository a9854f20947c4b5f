# X25519 key agreement (RFC 7748): on the native ladder where there is one, else on Python's big
# integers, which is the reference and not constant-time.

from .errors import CryptoError
from .field25519 import P, invert

try:
    from .curve25519 import ladder
except ImportError:
    ladder = None

_A24 = 121665
_BASE = b"\x09" + bytes(31)


def plain_ladder(scalar, u, feed):
    """Return the u-coordinate of the clamped `scalar` times the point `u` (RFC 7748, 5)."""
    k = int.from_bytes(scalar, "little")
    x1 = (int.from_bytes(u, "little") & ((1 << 255) - 1)) % P
    x2, z2, x3, z3 = 1, 0, x1, 1
    swap = 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap != bit:
            x2, x3 = x3, x2
            z2, z3 = z3, z2
        swap = bit
        a = x2 + z2
        b = x2 - z2
        da = (x3 - z3) * a % P
        cb = (x3 + z3) * b % P
        aa = a * a % P
        bb = b * b % P
        e = aa - bb
        x3 = da + cb
        x3 = x3 * x3 % P
        z3 = da - cb
        z3 = z3 * z3 % P * x1 % P
        x2 = aa * bb % P
        z2 = e * (aa + _A24 * e) % P
        if feed and not t & 15:
            feed()
    # The lowest bits of a clamped scalar are 0: nothing is left to swap back.
    return (x2 * invert(z2, feed) % P).to_bytes(32, "little")


def x25519(scalar, u, feed=None):
    """Return the 32-byte shared u-coordinate of `scalar` times the point `u` (RFC 7748, 5).

    `scalar`, `u`: 32 bytes each, little-endian; the scalar is clamped, the top bit of `u` is
    ignored and a `u` above the prime is reduced, as the RFC asks. `feed`: called with no
    argument at most about 34 ms apart on a 125 MHz Cortex-M0+, or None.
    Raises CryptoError: "x25519-length" for other lengths, "x25519-zero" when the result is all
    zero, which a peer's point of small order gives (RFC 7748, 6.1).
    On a native ladder no branch and no address depends on the scalar; on big integers the time
    does.
    """
    if len(scalar) != 32 or len(u) != 32:
        raise CryptoError("x25519-length")
    k = bytearray(scalar)
    k[0] &= 0xF8
    k[31] = k[31] & 0x7F | 0x40
    shared = (ladder or plain_ladder)(k, u, feed)
    # A comparison would stop at the first byte that differs, and tell how many are zero.
    seen = 0
    for byte in shared:
        seen |= byte
    if not seen:
        raise CryptoError("x25519-zero")
    return shared


def public_key(scalar, feed=None):
    """Return the 32-byte public share of a 32-byte random `scalar` (RFC 7748, 6.1)."""
    return x25519(scalar, _BASE, feed)
