# AES-CCM against RFC 3610 and SP 800-38C, and what it refuses. Random cases against the
# `cryptography` package are in tests/unit/test_ccm_properties.py.

from tidemark import ccm
from tidemark.errors import CryptoError

_KEY = bytes(range(0xC0, 0xD0))
_NIST_KEY = bytes(range(0x40, 0x50))
_TAIL = "a0a1a2a3a4a5"

# RFC 3610, 8, by number: nonce, bytes of header, bytes of header and text, tag size, result.
_RFC = (
    (  # 1
        "00000003020100" + _TAIL, 8, 31, 8,
        "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0",
    ),
    (  # 2
        "00000004030201" + _TAIL, 8, 32, 8,
        "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916",
    ),
    (  # 3
        "00000005040302" + _TAIL, 8, 33, 8,
        "51b1e5f44a197d1da46b0f8e2d282ae871e838bb64da8596574adaa76fbd9fb0c5",
    ),
    (  # 4
        "00000006050403" + _TAIL, 12, 31, 8,
        "a28c6865939a9a79faaa5c4c2a9d4a91cdac8c96c861b9c9e61ef1",
    ),
    (  # 7
        "00000009080706" + _TAIL, 8, 31, 10,
        "0135d1b2c95f41d5d1d4fec185d166b8094e999dfed96c048c56602c97acbb7490",
    ),
)  # fmt: skip

# SP 800-38C, appendix C, examples 1 to 3: bytes of nonce, of header and of text, tag size, result.
_NIST = (
    (7, 8, 4, 4, "7162015b4dac255d"),
    (8, 16, 16, 6, "d2a1f0e051ea5f62081a7792073d593d1fc64fbfaccd"),
    (12, 20, 24, 8, "e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951"),
)


def counting(start, size):
    return bytes(range(start, start + size))


def refused(code, *args):
    try:
        ccm.open(*args)
    except CryptoError as e:
        assert e.code == code, e.code
        return
    assert False, "not refused"


def test_packets_of_rfc_3610():
    for nonce, header, size, tag, result in _RFC:
        nonce = bytes.fromhex(nonce)
        aad, text = counting(0, header), counting(header, size - header)
        assert ccm.seal(_KEY, nonce, aad, text, tag).hex() == result, nonce
        assert ccm.open(_KEY, nonce, aad, bytes.fromhex(result), tag) == text


def test_examples_of_sp_800_38c():
    for nonce, header, size, tag, result in _NIST:
        nonce, aad, text = counting(0x10, nonce), counting(0, header), counting(0x20, size)
        assert ccm.seal(_NIST_KEY, nonce, aad, text, tag).hex() == result
        assert ccm.open(_NIST_KEY, nonce, aad, bytes.fromhex(result), tag) == text


def test_nothing_may_change():
    nonce, aad, text = bytes(13), b"header", b"some text of more than one block"
    sealed = ccm.seal(_KEY, nonce, aad, text)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << (at & 7)
        refused("ccm-tag", _KEY, nonce, aad, bytes(changed))
    refused("ccm-tag", _NIST_KEY, nonce, aad, sealed)
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
