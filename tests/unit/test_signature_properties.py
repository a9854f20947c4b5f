"""ECDSA P-256 and RSA-PSS verification against the `cryptography` package."""

from __future__ import annotations

from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark import ecdsa_p256, rsa_pss

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SCALARS = st.integers(1, N - 1) | st.sampled_from([1, 2, 3, N - 1, N - 2, 1 << 255, N >> 1])


def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@settings(max_examples=60, deadline=None)
@given(SCALARS, st.binary(max_size=200))
def test_p256_signatures_verify(secret: int, message: bytes) -> None:
    private = ec.derive_private_key(secret, ec.SECP256R1())
    key = ecdsa_p256.decode(pem(private.public_key()))
    assert key is not None
    signature = private.sign(message, ec.ECDSA(hashes.SHA256()))
    assert ecdsa_p256.verify(key, message, signature)
    assert not ecdsa_p256.verify(key, message + b"\0", signature)


@settings(max_examples=60, deadline=None)
@given(SCALARS, SCALARS, SCALARS, st.binary(max_size=8))
def test_p256_verdicts_are_the_same(secret: int, r: int, s: int, message: bytes) -> None:
    public = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
    key = ecdsa_p256.decode(pem(public))
    assert key is not None
    signature = encode_dss_signature(r, s)
    try:
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        holds = True
    except InvalidSignature:
        holds = False
    assert ecdsa_p256.verify(key, message, signature) is holds


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([2048, 2049, 2050, 2055, 3072]),
    st.binary(max_size=200),
    st.integers(0, 200),
    st.integers(0, 10_000),
)
def test_rsa_signatures_verify_whatever_the_salt(
    bits: int, message: bytes, salt: int, flip: int
) -> None:
    private = rsa_key(bits)
    key = rsa_pss.decode(pem(private.public_key()))
    assert key is not None
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    signature = private.sign(message, pss, hashes.SHA256())
    assert rsa_pss.verify(key, message, signature)
    changed = bytearray(signature)
    changed[flip // 8 % len(changed)] ^= 1 << flip % 8
    assert not rsa_pss.verify(key, message, bytes(changed))
    other = private.sign(message, padding.PKCS1v15(), hashes.SHA256())
    assert not rsa_pss.verify(key, message, other)
