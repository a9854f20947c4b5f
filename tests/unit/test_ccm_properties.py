"""AES-CCM against the `cryptography` package."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark import ccm


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32),
    st.binary(min_size=7, max_size=13),
    st.binary(max_size=80) | st.sampled_from([bytes(14), bytes(15), bytes(300)]),
    st.binary(max_size=80) | st.sampled_from([bytes(16), bytes(1000)]),
    st.sampled_from([4, 6, 8, 10, 12, 14, 16]),
)
def test_sealed_bytes_are_the_same(
    key: bytes, nonce: bytes, aad: bytes, text: bytes, size: int
) -> None:
    sealed = AESCCM(key, size).encrypt(nonce, text, aad)
    assert ccm.seal(key, nonce, aad, text, size) == sealed
    assert ccm.open(key, nonce, aad, sealed, size) == text
