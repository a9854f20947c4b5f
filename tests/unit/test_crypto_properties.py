"""Our cryptography against `cryptography` and `hashlib` on inputs of hypothesis's choice."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark import cose, ed25519, hkdf, sha512, x25519
from tidemark.errors import CryptoError

VECTORS = Path(__file__).resolve().parents[1] / "conformance" / "vectors" / "cose.json"

few = settings(max_examples=300, deadline=None)
key32 = st.binary(min_size=32, max_size=32)
message = st.binary(max_size=400)


def _verifies(public: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


@few
@given(key32, message)
def test_ed25519_signs_what_cryptography_signs(seed: bytes, data: bytes) -> None:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    public = ed25519.public_key(seed)
    signature = ed25519.sign(seed, data)
    assert public == theirs.public_key().public_bytes_raw()
    assert signature == theirs.sign(data)
    assert ed25519.verify(public, data, signature)


@few
@given(key32, message, st.integers(0, 511), st.sampled_from(["public", "signature", "message"]))
def test_ed25519_refuses_a_flipped_bit_anywhere(
    seed: bytes, data: bytes, bit: int, where: str
) -> None:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    parts = {
        "public": bytearray(theirs.public_key().public_bytes_raw()),
        "message": bytearray(data + b"\0"),
        "signature": bytearray(theirs.sign(data + b"\0")),
    }
    chosen = parts[where]
    chosen[(bit >> 3) % len(chosen)] ^= 1 << (bit & 7)
    public, altered, signature = (bytes(parts[k]) for k in ("public", "message", "signature"))
    assert not ed25519.verify(public, altered, signature)
    assert not _verifies(public, altered, signature)


@few
@given(key32, message, st.binary(min_size=64, max_size=64))
def test_ed25519_takes_nothing_that_cryptography_refuses(
    public: bytes, data: bytes, signature: bytes
) -> None:
    assert ed25519.verify(public, data, signature) <= _verifies(public, data, signature)


@few
@given(key32, key32)
def test_x25519_agrees_with_cryptography(scalar: bytes, u: bytes) -> None:
    theirs = X25519PrivateKey.from_private_bytes(scalar)
    assert x25519.public_key(scalar) == theirs.public_key().public_bytes_raw()
    try:
        want = theirs.exchange(X25519PublicKey.from_public_bytes(u))
    except ValueError:
        want = None
    try:
        got = x25519.x25519(scalar, u)
    except CryptoError as e:
        assert e.code == "x25519-zero"
        got = None
    assert got == want


@few
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_sha512_in_python_agrees_with_hashlib_however_it_is_cut(pieces: list[bytes]) -> None:
    ours = sha512.Sha512()
    for piece in pieces:
        ours.update(piece)
    want = hashlib.sha512(b"".join(pieces)).digest()
    assert ours.digest() == want
    assert sha512.digest(b"".join(pieces)) == want


def test_sha512_of_a_million_letters() -> None:
    """FIPS 180's third example."""
    ours = sha512.Sha512()
    for _ in range(1000):
        ours.update(b"a" * 1000)
    assert ours.digest().hex() == (
        "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
        "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
    )


@few
@given(st.binary(max_size=200), st.binary(max_size=300))
def test_hmac_agrees_with_the_standard_library(key: bytes, data: bytes) -> None:
    assert hkdf.hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


@few
@given(st.binary(max_size=80), message, st.binary(max_size=80), st.integers(1, 300))
def test_hkdf_agrees_with_cryptography(salt: bytes, ikm: bytes, info: bytes, length: int) -> None:
    theirs = HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info)
    assert hkdf.hkdf_sha256(salt, ikm, info, length) == theirs.derive(ikm)


@few
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_equal_is_equality(a: bytes, b: bytes) -> None:
    assert hkdf.equal(a, b) == (a == b)
    assert hkdf.equal(a, bytearray(a))


# COSE, read by the text of docs/protocol.md with cbor2 and cryptography alone.


def _read_mac0(data: bytes, key: bytes, aad: bytes) -> tuple[bytes, bytes, int]:
    tagged = cbor2.loads(data)
    assert tagged.tag == 17
    protected, unprotected, payload, tag = tagged.value
    alg = cbor2.loads(protected)[1]
    structure = cbor2.dumps(["MAC0", protected, aad, payload])
    assert hmac.digest(key, structure, "sha256")[: {4: 8, 5: 32}[alg]] == tag
    assert list(unprotected) == [4]
    return payload, unprotected[4], alg


def _read_sign1(data: bytes, public: bytes, aad: bytes) -> bytes:
    tagged = cbor2.loads(data)
    assert tagged.tag == 18
    protected, unprotected, payload, signature = tagged.value
    assert cbor2.loads(protected) == {1: -8}
    assert unprotected == {}
    structure = cbor2.dumps(["Signature1", protected, aad, payload])
    assert _verifies(public, structure, signature)
    return payload


ids = st.text("0123456789abcdef", min_size=16, max_size=16)
contexts = st.tuples(
    st.sampled_from(["up", "down"]), ids, st.text(max_size=12), st.sampled_from([b"", bytes(8)])
)


@few
@given(key32, message, contexts, st.integers(0, 255), st.sampled_from([4, 5]))
def test_a_mac0_reads_with_cbor2_alone(
    key: bytes, payload: bytes, context: tuple[str, str, str, bytes], kid: int, alg: int
) -> None:
    aad = cbor2.dumps([1, *context])
    assert cose.aad(*context) == aad
    sealed = cose.mac0_seal(key, payload, aad, bytes((kid,)), alg)
    assert _read_mac0(sealed, key, aad) == (payload, bytes((kid,)), alg)
    assert cose.mac0_open(lambda _: key, sealed, aad, (alg,)) == (payload, bytes((kid,)))


@few
@given(key32, message, contexts)
def test_a_sign1_reads_with_cbor2_and_cryptography_alone(
    seed: bytes, payload: bytes, context: tuple[str, str, str, bytes]
) -> None:
    aad = cbor2.dumps([1, *context])
    sealed = cose.sign1_seal(seed, payload, aad)
    public = ed25519.public_key(seed)
    assert _read_sign1(sealed, public, aad) == payload
    assert cose.sign1_open(public, sealed, aad) == payload


def test_published_vectors_hold_for_us_and_for_the_libraries() -> None:
    """tests/conformance/vectors/cose.json: what others may test their code with."""
    cases = json.loads(VECTORS.read_text())["cases"]
    assert {case["envelope"] for case in cases} == {"mac0", "sign1"}
    for case in cases:
        direction, device_id, kind = case["direction"], case["device_id"], case["kind"]
        aad = cose.aad(direction, device_id, kind, bytes.fromhex(case["nonce"]))
        assert aad.hex() == case["external_aad"]
        payload, sealed = bytes.fromhex(case["payload"]), bytes.fromhex(case["message"])
        if case["envelope"] == "mac0":
            key, kid = bytes.fromhex(case["key"]), bytes.fromhex(case["kid"])
            assert cose.mac0_seal(key, payload, aad, kid, case["alg"]) == sealed
            assert _read_mac0(sealed, key, aad) == (payload, kid, case["alg"])
        else:
            seed, public = bytes.fromhex(case["seed"]), bytes.fromhex(case["public"])
            assert cose.sign1_seal(seed, payload, aad, public) == sealed
            assert _read_sign1(sealed, public, aad) == payload
