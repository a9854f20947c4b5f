# HMAC-SHA-256 against RFC 4231, HKDF-SHA-256 against RFC 5869.

from tidemark import hkdf
from tidemark.errors import CryptoError

# RFC 4231, 4.2 to 4.5, 4.7, 4.8: key, data, HMAC-SHA-256.
_HMAC = (
    (
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "4869205468657265",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        "4a656665",
        "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
        "dddddddddddddddddddd",
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        "0102030405060708090a0b0c0d0e0f10111213141516171819",
        "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
        "cdcdcdcdcdcdcdcdcdcd",
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaa",
        "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d20"
        "48617368204b6579204669727374",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaa",
        "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b"
        "2d73697a65206b657920616e642061206c6172676572207468616e20626c6f636b2d73697a652064"
        "6174612e20546865206b6579206e6565647320746f20626520686173686564206265666f72652062"
        "65696e6720757365642062792074686520484d414320616c676f726974686d2e",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
)

# RFC 4231, 4.6: key, data, the first 128 bits.
_HMAC_TRUNCATED = (
    "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c",
    "546573742057697468205472756e636174696f6e",
    "a3b6167473100ee06e0c796c2955552b",
)

# RFC 5869, A.1 to A.3: salt, input keying material, info, output.
_HKDF = (
    (
        "000102030405060708090a0b0c",
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b88718"
        "5865",
    ),
    (
        "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687"
        "88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
        "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
        "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
        "d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
        "71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
        "1d87",
    ),
    (
        "",
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a"
        "96c8",
    ),
)


def test_hmac_as_rfc_4231():
    for key, data, want in _HMAC:
        assert hkdf.hmac_sha256(bytes.fromhex(key), bytes.fromhex(data)) == bytes.fromhex(want)
    key, data, want = [bytes.fromhex(v) for v in _HMAC_TRUNCATED]
    assert hkdf.hmac_sha256(key, data)[:16] == want


def test_hmac_key_of_exactly_a_block_is_not_hashed():
    # HMAC over keys of 63, 64, 65 bytes 0xaa and "edge".
    for size, want in (
        (63, "7e80816c018c8fceb1439d523e4ffe167b087fd3aea2f1d64f5114d0f4f9cc27"),
        (64, "6a599c2e1bd634e06e5e757c87aefabb46596905a0e71e41cd131e931dc8dd3d"),
        (65, "35b8c3e65dabe81902fa78f61def8031fb2bb3b9af41bfc2ff0c84063069e566"),
    ):
        assert hkdf.hmac_sha256(b"\xaa" * size, b"edge").hex() == want


def test_hkdf_as_rfc_5869():
    for salt, ikm, info, want in _HKDF:
        salt, ikm, info, want = map(bytes.fromhex, (salt, ikm, info, want))
        assert hkdf.hkdf_sha256(salt, ikm, info, len(want)) == want
        # Shorter output is a prefix of longer output (RFC 5869, 2.3).
        assert hkdf.hkdf_sha256(salt, ikm, info, 16) == want[:16]


def test_hkdf_length_is_bounded():
    assert len(hkdf.hkdf_sha256(b"", b"k", b"", 8160)) == 8160
    for length in (0, -1, 8161):
        try:
            hkdf.hkdf_sha256(b"", b"k", b"", length)
            assert False, length
        except CryptoError as e:
            assert e.code == "hkdf-length"


def test_equal_compares_all_bytes_and_lengths():
    assert hkdf.equal(b"", b"")
    assert hkdf.equal(b"abcd", bytearray(b"abcd"))
    assert hkdf.equal(memoryview(b"abcd"), b"abcd")
    assert not hkdf.equal(b"abcd", b"abc")
    assert not hkdf.equal(b"", b"a")
    for i in range(4):
        other = bytearray(b"abcd")
        other[i] ^= 1
        assert not hkdf.equal(b"abcd", other)
