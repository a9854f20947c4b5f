"""Codecs and envelopes of the host: one encoding a value, typed refusals, bounded cost."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemark_host import protocol
from tidemark_host.protocol import Refused

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 64), (1 << 64) - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.integers(0, (1 << 64) - 1), inner, max_size=4),
    ),
    max_leaves=8,
).filter(lambda value: depth(value) <= protocol.MAX_DEPTH)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(values)
def test_a_value_survives_and_has_one_encoding(value: Any):
    data = protocol.encode(value)
    again = protocol.decode(data)
    assert protocol.encode(again) == data


@given(values)
def test_firmware_and_host_agree_on_bytes(value: Any):
    from tidemark import cbor

    data = protocol.encode(value)
    assert bytes(cbor.encode(value)) == data
    assert cbor.encode(cbor.decode(data)) == data


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_a_refusal_and_firmware_judges_the_same(data: bytes):
    from tidemark import cbor
    from tidemark.errors import CodecError

    try:
        protocol.decode(data)
        good = True
    except Refused as refused:
        assert refused.code == "shape"
        good = False
    try:
        cbor.decode(data)
        assert good, data.hex()
    except CodecError:
        assert not good, data.hex()


@pytest.mark.parametrize(
    "data",
    [
        b"\x18\x01",  # not the shortest integer
        b"\xfb" + struct.pack(">d", 1.5),  # not the shortest float
        b"\xf9\x7e\x01",  # another NaN
        b"\x9f\x01\xff",  # indefinite length
        b"\xa2\x02\x00\x01\x00",  # keys not sorted
        b"\xa2\x01\x00\x01\x00",  # a key twice
        b"\xa1\x61a\x00",  # a text key
        b"\xa1\xf5\x00",  # a bool key
        b"\xc1\x00",  # a tag: a date
        b"\xc2\x49" + bytes(9),  # a tag: a bignum
        b"\x81" * 7 + b"\x00",  # too deep
        b"\xf7",  # undefined
        b"\xe0",  # a simple value
        b"\x01\x01",  # more than one item
        b"\x62\xc3\x28",  # not UTF-8
        b"\x9b" + b"\xff" * 8,  # an array of 2^64-1
        b"\x5b" + b"\xff" * 8,
        b"",
    ],
)
def test_outside_the_profile_is_refused(data: bytes):
    with pytest.raises(Refused) as refused:
        protocol.decode(data)
    assert refused.value.code == "shape"


def test_what_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(Refused) as refused:
        protocol.decode(bytes(1025))
    assert refused.value.code == "size"


@pytest.mark.parametrize("value", [1 << 64, {"a": 1}, {-1: 1}, {True: 1}, {1, 2}, object()])
def test_outside_the_profile_is_never_sent(value: Any):
    with pytest.raises(Refused):
        protocol.encode(value)


@pytest.mark.parametrize(
    "parts",
    [
        [b"\xa1\x01\x04", {4: b"\0"}, b"", bytes(7)],
        [b"\xa1\x01\x04", {}, b"", bytes(8)],
        [b"\xa1\x01\x04", {4: b"\0\0"}, b"", bytes(8)],
        [b"\xa1\x01\x04", {4: b"\0", 5: b""}, b"", bytes(8)],
        [b"\xa1\x01\x06", {4: b"\0"}, b"", bytes(8)],
        [b"\xa1\x01\x27", {4: b"\0"}, b"", bytes(64)],
        [b"\xa2\x01\x04\x02\x80", {4: b"\0"}, b"", bytes(8)],
        [b"\xa0", {4: b"\0"}, b"", bytes(8)],
        [b"", {4: b"\0"}, b"", bytes(8)],
        [b"\xa1\x01\x04", {4: b"\0"}, None, bytes(8)],
        [b"\xa1\x01\x04", {4: b"\0"}, b""],
    ],
)
def test_other_headers_than_ours_are_refused(parts: list[Any]):
    with pytest.raises(Refused) as refused:
        protocol.open_envelope(b"\xd1" + cbor2.dumps(parts, canonical=True))
    assert refused.value.code == "shape"


def test_seal_agrees_with_the_firmware():
    from tidemark import cose

    key, external, payload = b"k" * 32, protocol.aad("up", "0" * 16, "telemetry", bytes(8)), b"p"
    assert bytes(cose.aad("up", "0" * 16, "telemetry", bytes(8))) == external
    ours = protocol.seal_mac(key, protocol.HMAC_64, b"\1", external, payload)
    assert bytes(cose.mac0_seal(key, payload, external, b"\1", cose.HMAC_64)) == ours


@given(st.text(max_size=300))
def test_escaped_text_is_short_printable_ascii(text: str):
    out = protocol.escaped(text)
    assert len(out) <= 512
    assert out.isascii()
    assert out.isprintable()
