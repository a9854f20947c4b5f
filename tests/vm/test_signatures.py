# ECDSA P-256 and RSA-PSS verification, their keys and encodings, on both interpreters. Random
# cases against the `cryptography` package are in tests/unit/test_signature_properties.py.

import signature_vectors as vectors

from tidemark import der, ecdsa_p256, rsa_pss, tuf_keys
from tidemark.errors import CodecError

N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
P = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffff


def uint(value):
    """DER INTEGER of a non-negative int below 2^1016."""
    size = 1
    while value >> (8 * size - 1):
        size += 1
    return bytes((2, size)) + value.to_bytes(size, "big")


def sequence(*parts):
    body = b"".join(parts)
    return bytes((0x30, len(body))) + body


def p256():
    key = ecdsa_p256.decode(vectors.P256_KEY)
    signature = bytes.fromhex(vectors.P256_SIGNATURE)
    at, end = der.read_all(signature, 0, len(signature), der.SEQUENCE)
    r, at = der.read_uint(signature, at, end)
    s, at = der.read_uint(signature, at, end)
    return key, signature, r, s


def test_p256_signature_holds_for_its_message_only():
    key, signature, _, _ = p256()
    assert ecdsa_p256.verify(key, vectors.MESSAGE, signature)
    assert not ecdsa_p256.verify(key, vectors.MESSAGE + b"\0", signature)
    assert not ecdsa_p256.verify(key, b"", signature)


def test_p256_signature_with_a_flipped_bit_is_refused():
    key, signature, _, _ = p256()
    for at in range(0, len(signature), 7):
        changed = bytearray(signature)
        changed[at] ^= 1 << (at & 7)
        assert not ecdsa_p256.verify(key, vectors.MESSAGE, bytes(changed)), at


def test_p256_takes_high_and_low_s():
    key, _, r, s = p256()
    assert ecdsa_p256.verify(key, vectors.MESSAGE, sequence(uint(r), uint(N - s)))


def test_p256_numbers_outside_the_group_are_refused():
    key, _, r, s = p256()
    for a, b in ((0, s), (r, 0), (0, 0), (N, s), (r, N), (r + N, s), (r, s + N), (P, s)):
        assert not ecdsa_p256.verify(key, vectors.MESSAGE, sequence(uint(a), uint(b)))


def test_p256_signature_in_another_encoding_is_refused():
    key, signature, r, s = p256()
    body = uint(r) + uint(s)
    padded = b"\x02" + bytes((len(uint(r)) - 1, 0)) + uint(r)[2:]
    for wrong in (
        b"",
        b"\x30",
        b"\x30\x00",
        signature[:-1],
        signature + b"\0",
        b"\x31" + signature[1:],
        b"\x30\x81" + bytes((len(body),)) + body,
        b"\x30\x80" + body + b"\0\0",
        sequence(padded, uint(s)),
        sequence(uint(r), uint(s), uint(1)),
        sequence(uint(r)),
        sequence(b"\x02\x00", uint(s)),
        sequence(b"\x02\x01\xff", uint(s)),
        sequence(b"\x03" + uint(r)[1:], uint(s)),
        r.to_bytes(32, "big") + s.to_bytes(32, "big"),
    ):
        assert not ecdsa_p256.verify(key, vectors.MESSAGE, wrong), wrong


def test_p256_verification_lets_others_run():
    key, signature, _, _ = p256()
    turns = []
    assert ecdsa_p256.verify(key, vectors.MESSAGE, signature, lambda: turns.append(1))
    assert len(turns) == 256


def test_p256_sums_that_meet_special_points_are_right():
    # Keys at which the double-and-add pass meets equal and opposite points: the base point
    # itself, its negative and its double.
    x, y = ecdsa_p256._G
    for key in ((x, y), (x, P - y), ecdsa_p256._affine(ecdsa_p256._double((x, y, 1)))):
        for a, b in ((1, 1), (2, 1), (1, 2), (3, 3), (N - 1, 1), (N - 2, 1), (5, N - 5)):
            point = ecdsa_p256._affine(ecdsa_p256._combine(a, b, key, None))
            slow = (1, 1, 0)
            for _ in range(a % 7 if a < 7 else 0):
                slow = ecdsa_p256._add(slow, (x, y))
            for _ in range(N - a if a > 7 else 0):
                slow = ecdsa_p256._add(slow, (x, P - y))
            for _ in range(b if b < 7 else 0):
                slow = ecdsa_p256._add(slow, key)
            for _ in range(N - b if b > 7 else 0):
                slow = ecdsa_p256._add(slow, (key[0], P - key[1]))
            assert point == ecdsa_p256._affine(slow), (a, b)


def rsa(bits):
    key = rsa_pss.decode(getattr(vectors, "RSA%d_KEY" % bits))
    return key, bytes.fromhex(getattr(vectors, "RSA%d_SIGNATURE" % bits))


def test_rsa_signatures_hold_for_their_message_only():
    for bits in (2048, 2051, 3072, 4096):
        key, signature = rsa(bits)
        assert rsa_pss.verify(key, vectors.MESSAGE, signature), bits
        assert not rsa_pss.verify(key, vectors.MESSAGE + b"\0", signature)


def test_rsa_signature_with_a_flipped_bit_is_refused():
    key, signature = rsa(2048)
    for at in range(0, len(signature), 31):
        changed = bytearray(signature)
        changed[at] ^= 1 << (at & 7)
        assert not rsa_pss.verify(key, vectors.MESSAGE, bytes(changed)), at


def test_rsa_signature_of_another_length_or_size_is_refused():
    key, signature = rsa(2048)
    n = int.from_bytes(key[4:], "big")
    s = int.from_bytes(signature, "big")
    for wrong in (b"", signature[:-1], b"\0" + signature, signature + b"\0"):
        assert not rsa_pss.verify(key, vectors.MESSAGE, wrong)
    for wrong in (0, 1, n - 1, n, n - s):
        assert not rsa_pss.verify(key, vectors.MESSAGE, wrong.to_bytes(256, "big"))
    if s + n < 1 << 2048:
        assert not rsa_pss.verify(key, vectors.MESSAGE, (s + n).to_bytes(256, "big"))


def test_rsa_verification_lets_others_run():
    key, signature = rsa(2048)
    turns = []
    assert rsa_pss.verify(key, vectors.MESSAGE, signature, lambda: turns.append(1))
    assert len(turns) == 2 * 17


def test_keys_of_other_kinds_are_not_taken():
    assert ecdsa_p256.decode(vectors.P384_KEY) is None
    assert ecdsa_p256.decode(vectors.RSA2048_KEY) is None
    assert rsa_pss.decode(vectors.P256_KEY) is None
    assert rsa_pss.decode(vectors.RSA1024_KEY) is None
    assert rsa_pss.decode(vectors.RSA_E3_KEY) is None
    for text in (None, 5, "", "ab" * 32, "-----BEGIN PUBLIC KEY-----", "x" * 5000):
        assert ecdsa_p256.decode(text) is None
        assert rsa_pss.decode(text) is None


def test_point_off_the_curve_is_not_a_key():
    key = der.public_key(vectors.P256_KEY)
    assert key[1][0] == 4
    lines = vectors.P256_KEY.strip().split("\n")
    for at in range(30, len(lines[1]), 7):
        text = lines[1][:at] + ("A" if lines[1][at] != "A" else "B") + lines[1][at + 1 :]
        changed = "\n".join([lines[0], text] + lines[2:])
        if changed != vectors.P256_KEY.strip():
            assert ecdsa_p256.decode(changed) is None, at


def test_armour_is_read_strictly():
    good = vectors.P256_KEY
    assert der.public_key(good.strip()) == der.public_key(good.replace("\n", "\r\n"))
    body = "".join(good.strip().split("\n")[1:-1])
    head, tail = "-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----"
    assert der.public_key(head + body + tail) == der.public_key(good)
    for wrong in (
        body,
        head + body,
        body + tail,
        head + body[:-2] + "=" + tail,
        head + body + "=" + tail,
        head + "=" + body + tail,
        head + body[:-4] + tail,
        head + body + "AAAA" + tail,
        head + " " + body + tail,
        head + body.replace("A", "-", 1) + tail,
        head + tail,
    ):
        try:
            der.public_key(wrong)
            assert False, wrong
        except CodecError as error:
            assert error.code in ("pem", "der")


def test_one_key_is_one_key_whatever_its_type_or_line_ends():
    ids = []
    for keytype in ("ecdsa", "ecdsa-sha2-nistp256"):
        for text in (vectors.P256_KEY, vectors.P256_KEY.strip()):
            key = {"keytype": keytype, "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": text}}
            ids.append(tuf_keys.identify(key))
    assert ids[0] is not None and ids == [ids[0]] * 4
    key["scheme"] = "rsassa-pss-sha256"
    assert tuf_keys.identify(key) is None
