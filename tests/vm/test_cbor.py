# CBOR: every example of RFC 8949, Appendix A, and what a strict reader refuses.

import math

from tidemark import cbor
from tidemark.errors import CodecError

# RFC 8949, Appendix A, all 82 examples. Those within the profile: encoding, value.
_INSIDE = (
    ("00", 0),
    ("01", 1),
    ("0a", 10),
    ("17", 23),
    ("1818", 24),
    ("1819", 25),
    ("1864", 100),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1),
    ("29", -10),
    ("3863", -100),
    ("3903e7", -1000),
    ("f90000", 0.0),
    ("f98000", -0.0),
    ("f93c00", 1.0),
    ("fb3ff199999999999a", 1.1),
    ("f93e00", 1.5),
    ("f97bff", 65504.0),
    ("fa47c35000", 100000.0),
    ("fa7f7fffff", 16777215.0 * 2.0**104),
    ("fb7e37e43c8800759c", 0x17E43C8800759C * 2.0**944),
    ("f90001", 5.960464477539063e-8),
    ("f90400", 6.103515625e-5),
    ("f9c400", -4.0),
    ("fbc010666666666666", -4.1),
    ("f97c00", float("inf")),
    ("f97e00", float("nan")),
    ("f9fc00", float("-inf")),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("6161", "a"),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "\u00fc"),
    ("63e6b0b4", "\u6c34"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}),
    ("a201020304", {1: 2, 3: 4}),
)

# Those outside the profile: encoding, code of the refusal.
_OUTSIDE = (
    ("c249010000000000000000", "cbor-tag"),
    ("c349010000000000000000", "cbor-tag"),
    ("fa7f800000", "cbor-not-shortest"),
    ("fa7fc00000", "cbor-not-shortest"),
    ("faff800000", "cbor-not-shortest"),
    ("fb7ff0000000000000", "cbor-not-shortest"),
    ("fb7ff8000000000000", "cbor-not-shortest"),
    ("fbfff0000000000000", "cbor-not-shortest"),
    ("f7", "cbor-simple"),
    ("f0", "cbor-simple"),
    ("f818", "cbor-simple"),
    ("f8ff", "cbor-simple"),
    ("c074323031332d30332d32315432303a30343a30305a", "cbor-tag"),
    ("c11a514b67b0", "cbor-tag"),
    ("c1fb41d452d9ec200000", "cbor-tag"),
    ("d74401020304", "cbor-tag"),
    ("d818456449455446", "cbor-tag"),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "cbor-tag"),
    ("a26161016162820203", "cbor-key"),
    ("826161a161626163", "cbor-key"),
    ("a56161614161626142616361436164614461656145", "cbor-key"),
    ("5f42010243030405ff", "cbor-indefinite"),
    ("7f657374726561646d696e67ff", "cbor-indefinite"),
    ("9fff", "cbor-indefinite"),
    ("9f018202039f0405ffff", "cbor-indefinite"),
    ("9f01820203820405ff", "cbor-indefinite"),
    ("83018202039f0405ff", "cbor-indefinite"),
    ("83019f0203ff820405", "cbor-indefinite"),
    ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", "cbor-indefinite"),
    ("bf61610161629f0203ffff", "cbor-indefinite"),
    ("826161bf61626163ff", "cbor-indefinite"),
    ("bf6346756ef563416d7421ff", "cbor-indefinite"),
)

# More that must be refused: encoding, code.
_REFUSED = (
    # Nothing, or not enough.
    ("", "cbor-short"),
    ("18", "cbor-short"),
    ("1b00000001000000", "cbor-short"),
    ("41", "cbor-short"),
    ("6261", "cbor-short"),
    ("8201", "cbor-short"),
    ("a101", "cbor-short"),
    ("f9", "cbor-short"),
    ("fb3ff1999999", "cbor-short"),
    # Counts far above what is there.
    ("5bffffffffffffffff", "cbor-short"),
    ("7bffffffffffffffff00", "cbor-short"),
    ("9bffffffffffffffff", "cbor-short"),
    ("9a0fffffff0000", "cbor-short"),
    ("bbffffffffffffffff", "cbor-short"),
    ("bb800000000000000000", "cbor-short"),
    ("a3010203", "cbor-short"),
    # Too much.
    ("0000", "cbor-trailing"),
    ("8000", "cbor-trailing"),
    ("f600", "cbor-trailing"),
    # Longer than needed.
    ("1800", "cbor-not-shortest"),
    ("1817", "cbor-not-shortest"),
    ("1900ff", "cbor-not-shortest"),
    ("1a0000ffff", "cbor-not-shortest"),
    ("1b00000000ffffffff", "cbor-not-shortest"),
    ("3817", "cbor-not-shortest"),
    ("390000", "cbor-not-shortest"),
    ("5800", "cbor-not-shortest"),
    ("580161", "cbor-not-shortest"),
    ("780161", "cbor-not-shortest"),
    ("980100", "cbor-not-shortest"),
    ("b8010000", "cbor-not-shortest"),
    ("a1180000", "cbor-not-shortest"),
    ("fa3fc00000", "cbor-not-shortest"),
    ("fb3ff8000000000000", "cbor-not-shortest"),
    ("fb3fb99999a0000000", "cbor-not-shortest"),
    ("fa33800000", "cbor-not-shortest"),
    ("fb3e70000000000000", "cbor-not-shortest"),
    ("fb36a0000000000000", "cbor-not-shortest"),
    ("fb0000000000000000", "cbor-not-shortest"),
    ("fa80000000", "cbor-not-shortest"),
    # NaN has one encoding.
    ("f97e01", "cbor-nan"),
    ("f97c01", "cbor-nan"),
    ("f9fe00", "cbor-nan"),
    ("fa7fc00001", "cbor-nan"),
    ("fb7ff8000000000001", "cbor-nan"),
    # Reserved and indefinite.
    ("1c", "cbor-reserved"),
    ("3d", "cbor-reserved"),
    ("5e", "cbor-reserved"),
    ("fc", "cbor-reserved"),
    ("1f", "cbor-indefinite"),
    ("5f", "cbor-indefinite"),
    ("bfff", "cbor-indefinite"),
    ("ff", "cbor-indefinite"),
    ("81ff", "cbor-indefinite"),
    # Simple values.
    ("e0", "cbor-simple"),
    ("f3", "cbor-simple"),
    ("f814", "cbor-simple"),
    ("f820", "cbor-simple"),
    # Map keys: unsigned, each once, sorted by encoding.
    ("a22001", "cbor-short"),
    ("a12000", "cbor-key"),
    ("a1f400", "cbor-key"),
    ("a1400000", "cbor-key"),
    ("a18000", "cbor-key"),
    ("a1f9000000", "cbor-key"),
    ("a201000100", "cbor-duplicate"),
    ("a20200010000", "cbor-order"),
    ("a218180017f6", "cbor-order"),
    ("a30100020001f6", "cbor-order"),
    # Tags.
    ("c000", "cbor-tag"),
    ("d18440a04040", "cbor-tag"),
    ("81c000", "cbor-tag"),
    ("a100c100", "cbor-tag"),
    # UTF-8 (RFC 3629): overlong, surrogates, beyond U+10FFFF, cut, stray.
    ("62c080", "cbor-utf8"),
    ("62c1bf", "cbor-utf8"),
    ("63e08080", "cbor-utf8"),
    ("63e09fbf", "cbor-utf8"),
    ("63eda080", "cbor-utf8"),
    ("63edbfbf", "cbor-utf8"),
    ("64f0808080", "cbor-utf8"),
    ("64f08fbfbf", "cbor-utf8"),
    ("64f4908080", "cbor-utf8"),
    ("64f5808080", "cbor-utf8"),
    ("61ff", "cbor-utf8"),
    ("6180", "cbor-utf8"),
    ("61c3", "cbor-utf8"),
    ("62c328", "cbor-utf8"),
    ("63e6b0", "cbor-short"),
    ("63e6b041", "cbor-utf8"),
)

# Borders of the three float sizes: value as (sign and) mantissa and binary exponent, encoding.
_FLOATS = (
    (1, -24, "f90001"),
    (1023, -24, "f903ff"),
    (1, -25, "fa33000000"),
    (3, -25, "fa33c00000"),
    (2047, 5, "f97bff"),
    (4095, 4, "fa477ff000"),
    (1, 16, "fa47800000"),
    (2049, 0, "fa45001000"),
    (1, -149, "fa00000001"),
    (0x7FFFFF, -149, "fa007fffff"),
    (1, -126, "fa00800000"),
    (1, -150, "fb3690000000000000"),
    (3, -150, "fb36a8000000000000"),
    (0xFFFFFF, 104, "fa7f7fffff"),
    (1, 128, "fb47f0000000000000"),
    (0x1FFFFFF, 103, "fb47effffff0000000"),
    (0x1000001, 0, "fb4170000010000000"),
    (1, -1074, "fb0000000000000001"),
    (1, -1022, "fb0010000000000000"),
)


def _refuses(code, call, *args):
    try:
        value = call(*args)
    except CodecError as e:
        assert e.code == code, (e.code, code, args)
        return
    assert False, (code, args, value)


def _same(a, b):
    # 1, 1.0 and True are equal, so are 0.0 and -0.0; NaN is not equal to itself.
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return a == b and repr(a)[:1] == repr(b)[:1]


def test_appendix_a_within_the_profile():
    for text, value in _INSIDE:
        data = bytes.fromhex(text)
        assert cbor.encode(value) == data, text
        got = cbor.decode(data)
        assert _same(got, value), (text, got, value)
        assert cbor.encode(got) == data, text


def test_appendix_a_outside_the_profile():
    for text, code in _OUTSIDE:
        _refuses(code, cbor.decode, bytes.fromhex(text))


def test_all_of_appendix_a_is_here():
    assert len(_INSIDE) + len(_OUTSIDE) == 82


def test_refuses_all_but_the_deterministic_encoding():
    for text, code in _REFUSED:
        _refuses(code, cbor.decode, bytes.fromhex(text))


def test_every_prefix_is_refused():
    whole = cbor.encode([1, {1: b"abc", 300: "text", 70000: [1.1, None]}, -5, 1.5])
    for n in range(len(whole)):
        _refuses("cbor-short", cbor.decode, whole[:n])


def test_floats_take_the_shortest_size_that_keeps_them():
    for mantissa, exponent, text in _FLOATS:
        value = float(mantissa)
        while exponent:
            step = max(-1000, min(1000, exponent))
            value *= 2.0**step
            exponent -= step
        for sign in (0, 1):
            data = bytearray(bytes.fromhex(text))
            data[1] |= sign << 7
            assert cbor.encode(-value if sign else value) == data, (text, value)
            assert cbor.decode(data) == (-value if sign else value), text


def test_maps_are_sorted_by_encoding_whatever_the_order_of_insertion():
    keys = (70000, 24, 23, 256, 0, 255, 65536, 65535, 1 << 32, 10)
    out = {}
    for key in keys:
        out[key] = key
    data = cbor.encode(out)
    assert data.hex().startswith("aa00000a0a1717181818181")
    assert cbor.decode(data) == out


def test_depth_is_bounded_both_ways():
    obj = 1
    for _ in range(6):
        obj = [obj]
    assert cbor.decode(cbor.encode(obj)) == obj
    _refuses("cbor-depth", cbor.encode, [obj])
    _refuses("cbor-depth", cbor.decode, bytes.fromhex("81818181818181" + "01"))
    _refuses("cbor-depth", cbor.decode, bytes.fromhex("a100a100a100a100a100a100a100" + "01"))
    _refuses("cbor-depth", cbor.decode, b"\x81" * 1000)
    _refuses("cbor-depth", cbor.decode, b"\x80", 0)
    assert cbor.decode(b"\x01", 0) == 1


def test_size_is_bounded():
    data = cbor.encode(bytes(1021))
    assert len(data) == 1024
    assert cbor.decode(data) == bytes(1021)
    _refuses("cbor-size", cbor.decode, cbor.encode(bytes(1022)))
    assert cbor.decode(cbor.encode(bytes(1022)), 6, 4096) == bytes(1022)
    _refuses("cbor-size", cbor.decode, b"\x00\x00", 6, 1)


def test_bytes_like_and_tuples_encode_as_bytes_and_lists():
    assert cbor.encode(bytearray(b"ab")) == cbor.encode(memoryview(b"ab")) == b"\x42ab"
    assert cbor.encode((1, 2)) == cbor.encode([1, 2])
    assert cbor.decode(memoryview(b"\x42ab")) == b"ab"
    got = cbor.decode(bytearray(b"\x42ab"))
    assert isinstance(got, bytes)


def test_encode_refuses_what_has_no_encoding():
    for obj, code in (
        (1 << 64, "cbor-range"),
        (-1 - (1 << 64), "cbor-range"),
        ([object()], "cbor-type"),
        ({"a": 1}, "cbor-key"),
        ({-1: 1}, "cbor-key"),
        ({True: 1}, "cbor-key"),
        ({1.0: 1}, "cbor-key"),
        ({b"": 1}, "cbor-key"),
        ([cbor.Tagged(17, 0)], "cbor-type"),
        ("\ud800", "cbor-utf8"),
    ):
        _refuses(code, cbor.encode, obj)


def test_tags_only_where_asked_and_only_at_the_top():
    data = cbor.encode(cbor.Tagged(17, [1]))
    assert data == b"\xd1\x81\x01"
    got = cbor.decode(data, 6, 1024, (17, 18))
    assert isinstance(got, cbor.Tagged)
    assert got.tag == 17
    assert got.value == [1]
    _refuses("cbor-tag", cbor.decode, data)
    _refuses("cbor-tag", cbor.decode, data, 6, 1024, (18,))
    _refuses("cbor-tag", cbor.decode, data[1:], 6, 1024, (17,))
    _refuses("cbor-tag", cbor.decode, b"\xd1" + data, 6, 1024, (17,))
    _refuses("cbor-not-shortest", cbor.decode, b"\xd8\x11\x01", 6, 1024, (17,))
    _refuses("cbor-trailing", cbor.decode, data + b"\0", 6, 1024, (17,))
