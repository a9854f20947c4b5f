"""Cases of ECDSA P-256 and RSA-PSS verification, with the verdicts of `cryptography`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.crypto.case import Case

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SCALARS = (1, 2, 3, N - 1, N - 2, 1 << 255, N >> 1, (N >> 1) + 1)
_RSA_BITS = (2048, 2050, 2054, 3072)  # OpenSSL makes no odd ones


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _scalar(rng: random.Random) -> int:
    return rng.choice(_SCALARS) if rng.random() < 0.2 else rng.randrange(1, N)


def _p256(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> Case:
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        holds = True
    except InvalidSignature:
        holds = False
    parts = (_pem(key), message, signature)
    return Case(["p256", *(part.hex() for part in parts)], str(holds))


def _p256_signature(secret: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return secret.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def p256_edges() -> Iterator[Case]:
    secret = ec.derive_private_key(0x7F, ec.SECP256R1())
    key, message = secret.public_key(), b"edge"
    signature = _p256_signature(secret, message)
    r, s = decode_dss_signature(signature)
    yield _p256(key, message, signature)
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit >> 3] ^= 1 << (bit & 7)
        case = _p256(key, message, bytes(changed))
        assert case.want == "False"
        yield case
    for pair in ((r, N - s), (0, s), (r, 0), (N, s), (r, N), (r + N, s), (r, s + N), (s, r)):
        yield _p256(key, message, encode_dss_signature(*pair))
    for number in _SCALARS:
        for other in _SCALARS:
            yield _p256(key, b"", encode_dss_signature(number, other))
        secret = ec.derive_private_key(min(number, N - 1), ec.SECP256R1())
        yield _p256(secret.public_key(), message, _p256_signature(secret, message))


def p256(rng: random.Random) -> Case:
    secret = ec.derive_private_key(_scalar(rng), ec.SECP256R1())
    message = rng.randbytes(rng.randrange(200))
    signature = bytearray(_p256_signature(secret, message))
    change = rng.choice(("none", "none", "none", "bit", "message", "numbers", "low"))
    if change == "bit":
        signature[rng.randrange(len(signature))] ^= 1 << rng.randrange(8)
    elif change == "message":
        message += b"\0"
    elif change == "numbers":
        signature[:] = encode_dss_signature(_scalar(rng), _scalar(rng))
    elif change == "low":
        r, s = decode_dss_signature(bytes(signature))
        signature[:] = encode_dss_signature(r, N - s)
    return _p256(secret.public_key(), message, bytes(signature))


@cache
def _rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def _rsa(key: rsa.RSAPublicKey, message: bytes, signature: bytes) -> Case:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    try:
        key.verify(signature, message, pss, hashes.SHA256())
        # OpenSSL takes a signature without its leading zeros; RFC 8017, 8.1.2, step 1 does not.
        holds = len(signature) == (key.key_size + 7) // 8
    except InvalidSignature:
        holds = False
    parts = (_pem(key), message, signature)
    return Case(["rsa-pss", *(part.hex() for part in parts)], str(holds))


def _rsa_signature(rng: random.Random, secret: rsa.RSAPrivateKey, message: bytes) -> bytes:
    salt = rng.choice((0, 32, 32, 32, rng.randrange(200)))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    return secret.sign(message, pss, hashes.SHA256())


def rsa_edges() -> Iterator[Case]:
    rng = random.Random("rsa edges")
    for bits in _RSA_BITS:
        secret = _rsa_key(bits)
        key, message = secret.public_key(), b"edge"
        n = key.public_numbers().n
        size = (key.key_size + 7) // 8
        signature = _rsa_signature(rng, secret, message)
        while bits == 2054 and signature[0]:
            signature = _rsa_signature(rng, secret, message)
        yield _rsa(key, message, signature)
        for bit in range(0, 8 * size, 37):
            changed = bytearray(signature)
            changed[bit >> 3] ^= 1 << (bit & 7)
            yield _rsa(key, message, bytes(changed))
        for number in (0, 1, n - 1, n, n - int.from_bytes(signature, "big")):
            yield _rsa(key, message, number.to_bytes(size, "big"))
        for wrong in (b"", signature[1:], signature[:-1], b"\0" + signature, signature + b"\0"):
            yield _rsa(key, message, wrong)
        plain = secret.sign(message, padding.PKCS1v15(), hashes.SHA256())
        yield _rsa(key, message, plain)


def rsa_pss(rng: random.Random) -> Case:
    secret = _rsa_key(rng.choice(_RSA_BITS))
    message = rng.randbytes(rng.randrange(200))
    signature = bytearray(_rsa_signature(rng, secret, message))
    if rng.random() < 0.4:
        target = rng.choice((signature, bytearray(message)))
        if target is signature:
            target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
        else:
            message += b"\0"
    return _rsa(secret.public_key(), message, bytes(signature))
