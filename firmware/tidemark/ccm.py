# AES-CCM (RFC 3610, NIST SP 800-38C) over the platform's AES-ECB: COSE's algorithm 10 is AES-128
# with 13-byte nonces and 8-byte tags (RFC 9053, 4.2).

from tidemark import hkdf
from tidemark.compat import aes_ecb, const
from tidemark.errors import CryptoError

_BLOCK = const(16)
_AAD_MAX = const(0xFEFF)  # longer data would need another encoding of its length
_DATA_MAX = const(0xFFFF)


def seal(key, nonce, aad, plain, tag_size=8):
    """Return `plain` (bytes) encrypted, with the tag of `tag_size` bytes behind it.

    `key`: 16 or 32 bytes; `nonce`: 7 to 13 bytes, never twice under one key; `aad`: bytes that
    are authenticated only. Raises CryptoError("ccm-size").
    """
    _check(nonce, aad, len(plain), tag_size)
    ecb = aes_ecb(key)
    tag = _tag(ecb, nonce, aad, plain, tag_size)
    return _crypt(ecb, nonce, plain, tag)


def open(key, nonce, aad, data, tag_size=8):
    """Return the plaintext (bytes) of what `seal` returned. Raises CryptoError: "ccm-size",
    "ccm-tag" when anything of it, of the nonce or of `aad` is another.
    """
    size = len(data) - tag_size
    if size < 0:
        raise CryptoError("ccm-tag", "shorter than a tag")
    _check(nonce, aad, size, tag_size)
    ecb = aes_ecb(key)
    both = _crypt(ecb, nonce, data[:size], data[size:])
    plain = both[:size]
    if not hkdf.equal(_tag(ecb, nonce, aad, plain, tag_size), both[size:]):
        raise CryptoError("ccm-tag", "tag does not hold")
    return plain


def _check(nonce, aad, size, tag_size):
    if not 7 <= len(nonce) <= 13 or len(aad) > _AAD_MAX or size > _DATA_MAX:
        raise CryptoError("ccm-size", "nonce or data of another size")
    if tag_size not in (4, 6, 8, 10, 12, 14, 16):
        raise CryptoError("ccm-size", "no tag of this size")


def _tag(ecb, nonce, aad, plain, tag_size):
    """The first `tag_size` bytes of the CBC-MAC (RFC 3610, 2.2)."""
    width = 15 - len(nonce)
    flags = (0x40 if aad else 0) | (tag_size - 2) // 2 << 3 | (width - 1)
    state = ecb(bytes((flags,)) + nonce + len(plain).to_bytes(width, "big"))
    if aad:
        state = _chain(ecb, state, len(aad).to_bytes(2, "big") + aad)
    return _chain(ecb, state, plain)[:tag_size]


def _chain(ecb, state, data):
    """CBC over `data`, padded with zeros to whole blocks."""
    block = bytearray(_BLOCK)
    for at in range(0, len(data), _BLOCK):
        count = min(_BLOCK, len(data) - at)
        block[:] = state
        for i in range(count):
            block[i] ^= data[at + i]
        state = ecb(bytes(block))
    return state


def _crypt(ecb, nonce, data, tag):
    """`data` and then `tag` xor the key stream, whose first block is the tag's (RFC 3610, 2.3)."""
    width = 15 - len(nonce)
    head = bytes((width - 1,)) + nonce
    stream = bytearray()
    for number in range((len(data) + _BLOCK - 1) // _BLOCK + 1):
        stream.extend(ecb(head + number.to_bytes(width, "big")))
    out = bytearray(data)
    for i in range(len(data)):
        out[i] ^= stream[_BLOCK + i]
    for i in range(len(tag)):
        out.append(tag[i] ^ stream[i])
    return bytes(out)
