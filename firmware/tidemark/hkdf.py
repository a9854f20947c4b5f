# HMAC-SHA-256 (RFC 2104), HKDF-SHA-256 (RFC 5869) and comparison in constant time.

import hashlib

from .errors import CryptoError

_HASH = 32
_BLOCK = 64


def _key_pad(key, mask):
    pad = bytearray(_BLOCK)
    pad[: len(key)] = key
    for i in range(_BLOCK):
        pad[i] ^= mask
    return pad


def hmac_sha256(key, msg):
    """Return the 32-byte HMAC-SHA-256 of `msg` under `key` (both bytes-like, any length)."""
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    inner = hashlib.sha256(_key_pad(key, 0x36))
    inner.update(msg)
    outer = hashlib.sha256(_key_pad(key, 0x5C))
    outer.update(inner.digest())
    return outer.digest()


def hkdf_sha256(salt, ikm, info, length):
    """Return `length` bytes derived from `ikm` (RFC 5869: extract, then expand).

    `salt`, `ikm`, `info`: bytes; an empty salt stands for 32 zero bytes.
    Raises CryptoError("hkdf-length") when `length` is not in 1 to 8160.
    """
    if not 0 < length <= 255 * _HASH:
        raise CryptoError("hkdf-length")
    prk = hmac_sha256(salt, ikm)
    out = b""
    block = b""
    counter = 1
    while len(out) < length:
        block = hmac_sha256(prk, block + info + bytes((counter,)))
        out += block
        counter += 1
    return out[:length]


def equal(a, b):
    """Return whether two bytes-like values are the same, in time that depends on lengths only."""
    if len(a) != len(b):
        return False
    different = 0
    for i in range(len(a)):
        different |= a[i] ^ b[i]
    return different == 0
