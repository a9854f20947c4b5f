# X25519 against RFC 7748, and the points that give no secret.

from engines import native, on_each_engine, plain

from tidemark import x25519
from tidemark.errors import CryptoError

# RFC 7748, 5.2: scalar, u, result.
RFC_7748 = (
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
)
_ITERATED_1 = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
_ITERATED_1000 = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"

# RFC 7748, 6.1.
_ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
_ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
_BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
_BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
_SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"

# u of every point whose order divides 8, canonical and not.
_SMALL_ORDER_U = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def _hex(text):
    return bytes.fromhex(text)


@on_each_engine
def test_vectors_of_rfc_7748():
    for scalar, u, result in RFC_7748:
        assert x25519.x25519(_hex(scalar), _hex(u)) == _hex(result)


def test_a_thousand_iterations_of_rfc_7748():
    k = u = b"\x09" + bytes(31)
    for i in range(1000):
        k, u = x25519.x25519(k, u), k
        if i == 0:
            assert k == _hex(_ITERATED_1)
    assert k == _hex(_ITERATED_1000)


@on_each_engine
def test_key_agreement_of_rfc_7748():
    alice = _hex(_ALICE)
    bob = _hex(_BOB)
    alice_public = x25519.public_key(alice)
    bob_public = x25519.public_key(bob)
    assert alice_public == _hex(_ALICE_PUBLIC)
    assert bob_public == _hex(_BOB_PUBLIC)
    assert x25519.x25519(alice, bob_public) == _hex(_SHARED)
    assert x25519.x25519(bob, alice_public) == _hex(_SHARED)


@on_each_engine
def test_points_of_small_order_are_refused():
    for u in _SMALL_ORDER_U:
        for top in (0, 0x80):
            point = bytearray(_hex(u))
            point[31] |= top
            try:
                x25519.x25519(_hex(RFC_7748[0][0]), point)
                assert False, u
            except CryptoError as e:
                assert e.code == "x25519-zero"


@on_each_engine
def test_top_bit_is_ignored_and_large_u_reduced():
    scalar = _hex(RFC_7748[0][0])
    base = x25519.public_key(scalar)
    # 9 + p and 9 + 2^255.
    assert x25519.x25519(scalar, _hex("f6" + "ff" * 30 + "7f")) == base
    assert x25519.x25519(scalar, _hex("09" + "00" * 30 + "80")) == base


@on_each_engine
def test_other_lengths_are_refused():
    good = bytes(31) + b"\x01"
    for scalar, u in ((good[:31], good), (good, good + b"\0"), (b"", good), (good, b"")):
        try:
            x25519.x25519(scalar, u)
            assert False
        except CryptoError as e:
            assert e.code == "x25519-length"


def test_feeds_during_the_ladder():
    calls = [0]

    def feed():
        calls[0] += 1

    plain()
    try:
        x25519.public_key(bytes(32), feed)
        assert calls[0] >= 16
    finally:
        native()
    calls[0] = 0
    # 12 million cycles on the native ladder, 6.25 million in 50 ms.
    x25519.public_key(bytes(32), feed)
    assert calls[0] >= 8
