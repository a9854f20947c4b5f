# RSASSA-PSS with SHA-256 and MGF1-SHA-256, verification only (RFC 8017, 8.1.2 and 9.1.2), for
# update metadata of existing repositories.

import hashlib

from tidemark import der
from tidemark.compat import const
from tidemark.errors import CodecError

_BITS_MIN = const(2048)
_BITS_MAX = const(4096)
_HASH = const(32)

# AlgorithmIdentifier: rsaEncryption with NULL parameters (RFC 3279, 2.3.1).
_ALGORITHM = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"


def decode(text):
    """Public key (4 bytes of exponent, then the modulus, big-endian) of a PEM
    SubjectPublicKeyInfo, or None for anything else: a modulus of 2,048 to 4,096 bits, an odd
    exponent of 65,537 to 2^32 - 1.
    """
    try:
        algorithm, key = der.public_key(text)
        at, end = der.read_all(key, 0, len(key), der.SEQUENCE)
        start, stop = der.read(key, at, end, der.INTEGER)
        n, at = der.read_uint(key, at, end)
        e, at = der.read_uint(key, at, end)
    except CodecError:
        return None
    modulus = key[start:stop] if key[start] else key[start + 1 : stop]
    if algorithm != _ALGORITHM or at != end or not n & 1 or not e & 1:
        return None
    if not 65537 <= e < 1 << 32 or not _BITS_MIN // 8 <= len(modulus) <= _BITS_MAX // 8:
        return None
    if len(modulus) == _BITS_MIN // 8 and modulus[0] < 0x80:
        return None
    return e.to_bytes(4, "big") + modulus


def _bits(public):
    """Length of the modulus of a key that `decode` returned. Counted in its first byte:
    int.bit_length is missing in MicroPython 1.25, and shifts of a large number take long.
    """
    first = public[4]
    count = 8 * (len(public) - 5)
    while first:
        first >>= 1
        count += 1
    return count


def verify(public, message, signature, feed=None):
    """True if `signature` is one of `message` (bytes) by `public`, as `decode` returns it.

    The salt may have any length that fits, as securesystemslib takes it. feed: called with no
    argument before each operation on large numbers.
    """
    e = int.from_bytes(public[:4], "big")
    n = int.from_bytes(public[4:], "big")
    size = len(public) - 4
    s = int.from_bytes(signature, "big")
    if len(signature) != size or s >= n:
        return False
    bits = _bits(public) - 1
    encoded = _power(s, e, n, feed)
    if encoded >> bits:
        return False
    size = (bits + 7) // 8
    encoded = encoded.to_bytes(size, "big")
    if encoded[-1] != 0xBC:
        return False
    hashed = encoded[-1 - _HASH : -1]
    # emBits counts: the unused bits on the left were checked above and are cleared in the mask.
    block = bytearray(_unmask(encoded[: -1 - _HASH], hashed))
    block[0] &= 0xFF >> (8 * size - bits)
    at = 0
    while at < len(block) and not block[at]:
        at += 1
    if at == len(block) or block[at] != 1:
        return False
    digest = hashlib.sha256(message).digest()
    return hashlib.sha256(bytes(8) + digest + bytes(block[at + 1 :])).digest() == hashed


def _power(base, exponent, modulus, feed):
    # Not pow(), and not even a product and its remainder in one: at 4,096 bits either would hold
    # the VM for too long.
    result = base
    mask = 1 << 31
    while not exponent & mask:
        mask >>= 1
    while mask > 1:
        mask >>= 1
        result = _product(result, result, modulus, feed)
        if exponent & mask:
            result = _product(result, base, modulus, feed)
    return result


def _product(a, b, modulus, feed):
    product = a * b
    if feed:
        feed()
    product %= modulus
    if feed:
        feed()
    return product


def _unmask(masked, seed):
    """`masked` xor MGF1(seed) (RFC 8017, B.2.1)."""
    out = bytearray(len(masked))
    for start in range(0, len(masked), _HASH):
        mask = hashlib.sha256(seed + (start // _HASH).to_bytes(4, "big")).digest()
        for i in range(start, min(start + _HASH, len(masked))):
            out[i] = masked[i] ^ mask[i - start]
    return out
