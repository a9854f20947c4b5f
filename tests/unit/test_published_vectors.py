"""The vectors of RFCs and NIST in tests/vm hold for `cryptography` and hashlib too."""

from __future__ import annotations

import hashlib
from types import ModuleType

import ccm_vectors
import pytest
import test_ed25519
import test_sha512
import test_x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM


def test_rfc_8032() -> None:
    rows = [[bytes.fromhex(v) for v in row] for row in test_ed25519.RFC_8032]
    assert [len(message) for _, _, message, _ in rows] == [0, 1, 2, 1023, 64]
    assert rows[-1][2] == hashlib.sha512(b"abc").digest()
    for seed, public, message, signature in rows:
        theirs = Ed25519PrivateKey.from_private_bytes(seed)
        assert theirs.public_key().public_bytes_raw() == public
        assert theirs.sign(message) == signature
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


def _x25519(scalar: bytes, u: bytes) -> bytes:
    theirs = X25519PrivateKey.from_private_bytes(scalar)
    return theirs.exchange(X25519PublicKey.from_public_bytes(u))


def _bytes(module: ModuleType, name: str) -> bytes:
    return bytes.fromhex(getattr(module, name))


def test_rfc_7748() -> None:
    for scalar, u, result in test_x25519.RFC_7748:
        assert _x25519(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == result
    k = u = b"\x09" + bytes(31)
    for i in range(1000):
        k, u = _x25519(k, u), k
        if i == 0:
            assert k == _bytes(test_x25519, "_ITERATED_1")
    assert k == _bytes(test_x25519, "_ITERATED_1000")
    alice, bob = _bytes(test_x25519, "_ALICE"), _bytes(test_x25519, "_BOB")
    bob_public = X25519PrivateKey.from_private_bytes(bob).public_key().public_bytes_raw()
    assert bob_public == _bytes(test_x25519, "_BOB_PUBLIC")
    assert _x25519(alice, bob_public) == _bytes(test_x25519, "_SHARED")


@pytest.mark.parametrize("name", ["RFC_3610", "SP_800_38C"])
def test_aes_ccm(name: str) -> None:
    for key, nonce, aad, text, tag, result in getattr(ccm_vectors, name):
        theirs = AESCCM(bytes.fromhex(key), tag)
        sealed = theirs.encrypt(bytes.fromhex(nonce), bytes.fromhex(text), bytes.fromhex(aad))
        assert sealed.hex() == result


def test_sha512_examples() -> None:
    def hashed(data: bytes) -> str:
        return hashlib.sha512(data).hexdigest()

    assert hashed(b"") == test_sha512._EMPTY
    assert hashed(b"abc") == test_sha512._ABC
    assert hashed(test_sha512._LONG) == test_sha512._TWO_BLOCKS
    assert hashed(b"a" * 1_000_000) == test_sha512._MILLION_LETTERS
    assert hashed(bytes(1_000_000)) == test_sha512._MILLION_ZEROS
    for byte, count, want in test_sha512._ADDITIONAL:
        assert hashed(bytes((byte,)) * count) == want
