# AES-CCM against RFC 3610 and SP 800-38C, and what it refuses. Random cases against the
# `cryptography` package are in tests/unit/test_ccm_properties.py.

from ccm_vectors import RFC_3610, SP_800_38C

from tidemark import ccm
from tidemark.errors import CryptoError

_KEY = bytes(range(0xC0, 0xD0))
_OTHER_KEY = bytes(range(0x40, 0x50))


def refused(code, *args):
    try:
        ccm.open(*args)
    except CryptoError as e:
        assert e.code == code, e.code
        return
    assert False, "not refused"


def holds(vectors):
    for key, nonce, aad, text, tag, result in vectors:
        key, nonce, aad, text = [bytes.fromhex(v) for v in (key, nonce, aad, text)]
        assert ccm.seal(key, nonce, aad, text, tag).hex() == result, nonce
        assert ccm.open(key, nonce, aad, bytes.fromhex(result), tag) == text


def test_all_packets_of_rfc_3610():
    assert len(RFC_3610) == 24
    holds(RFC_3610)


def test_examples_of_sp_800_38c():
    holds(SP_800_38C)


def test_nothing_may_change():
    nonce, aad, text = bytes(13), b"header", b"some text of more than one block"
    sealed = ccm.seal(_KEY, nonce, aad, text)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << (at & 7)
        refused("ccm-tag", _KEY, nonce, aad, bytes(changed))
    refused("ccm-tag", _OTHER_KEY, nonce, aad, sealed)
    refused("ccm-tag", _KEY, b"\1" + nonce[1:], aad, sealed)
    refused("ccm-tag", _KEY, nonce, b"Header", sealed)
    refused("ccm-tag", _KEY, nonce, b"", sealed)
    refused("ccm-tag", _KEY, nonce, aad, sealed[:-1])
    refused("ccm-tag", _KEY, nonce, aad, sealed + b"\0")
    refused("ccm-tag", _KEY, nonce, aad, sealed[:7])


def test_empty_text_and_header():
    sealed = ccm.seal(_KEY, bytes(13), b"", b"")
    assert len(sealed) == 8
    assert ccm.open(_KEY, bytes(13), b"", sealed) == b""


def test_sizes_are_bounded():
    for nonce, aad, size, tag in ((6, 0, 1, 8), (14, 0, 1, 8), (13, 0xFF00, 1, 8), (13, 0, 1, 5)):
        refused("ccm-size", _KEY, bytes(nonce), bytes(aad), bytes(size + tag), tag)
    refused("ccm-size", _KEY, bytes(13), b"", bytes(0x10008))
