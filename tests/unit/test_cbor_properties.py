"""CBOR against cbor2, JSON against json and securesystemslib, on inputs of hypothesis's choice."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import cbor2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from tidemark import canonjson, cbor
from tidemark.compat import utf8
from tidemark.errors import CodecError

few = settings(max_examples=300, deadline=None)

LIMIT = 1 << 16
uint = st.integers(0, 2**64 - 1) | st.integers(0, 300)
scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.integers(-300, 300)
    | st.floats()
    | st.floats(width=32)
    | st.floats(width=16)
    | st.binary(max_size=40)
    | st.text(max_size=20)
)
values = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(uint, inner, max_size=5),
    max_leaves=20,
)


def _encode(value: Any) -> bytes:
    return cbor.encode(value, 30)


def _decode(data: bytes) -> Any:
    return cbor.decode(data, 30, LIMIT)


def _hold(data: bytes) -> None:
    """Whatever is taken is its own encoding, and cbor2 reads the same; else a typed error."""
    try:
        value = _decode(data)
    except CodecError as e:
        assert e.code.startswith("cbor-")
        assert len(e.code) <= 24
        return
    assert _encode(value) == data
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data


@few
@given(values)
def test_encodes_as_cbor2_does_canonically(value: Any) -> None:
    data = _encode(value)
    assert data == cbor2.dumps(value, canonical=True)
    assert _encode(_decode(data)) == data
    assert repr(cbor2.loads(data)) == repr(_decode(data))


@few
@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_or_deterministic(data: bytes) -> None:
    _hold(data)


@few
@given(values, st.data())
def test_altered_encodings_are_refused_or_deterministic(value: Any, data: st.DataObject) -> None:
    raw = bytearray(_encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    if how == "flip":
        raw[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del raw[at]
    elif how == "insert":
        raw.insert(at, data.draw(st.integers(0, 255)))
    else:
        raw += data.draw(st.binary(min_size=1, max_size=3))
    _hold(bytes(raw))


@few
@given(values)
def test_encodings_that_are_not_canonical_are_refused(value: Any) -> None:
    """cbor2 without `canonical` writes 64-bit floats and keeps the order of insertion."""
    data = cbor2.dumps(value)
    if data != cbor2.dumps(value, canonical=True):
        try:
            _decode(data)
        except CodecError as e:
            assert e.code in ("cbor-not-shortest", "cbor-order", "cbor-nan")
        else:
            raise AssertionError(data.hex())


@few
@given(st.integers(0, 2**64 - 1))
@example(0x36A0000000000000)
@example(0x3E6FFFFFFFFFFFFF)
@example(0x40EFFC0000000001)
def test_any_pattern_of_64_bits_takes_its_shortest_form(bits: int) -> None:
    value = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    data = _encode(value)
    assert data == cbor2.dumps(value, canonical=True)
    back = _decode(data)
    assert math.isnan(back) if math.isnan(value) else struct.pack(">d", back) == bits.to_bytes(8)


def test_every_half_precision_pattern_decodes_and_encodes() -> None:
    for bits in range(0x10000):
        data = b"\xf9" + bits.to_bytes(2, "big")
        value = struct.unpack(">e", data[1:])[0]
        if math.isnan(value) and bits != 0x7E00:
            _hold(data)
            continue
        assert repr(_decode(data)) == repr(value)
        assert _encode(value) == data


@few
@given(st.binary(max_size=12) | st.text(max_size=8).map(str.encode))
def test_utf8_takes_what_cpython_takes(data: bytes) -> None:
    try:
        want = data.decode()
    except UnicodeDecodeError:
        want = None
    try:
        got = utf8(data)
    except ValueError:
        got = None
    assert got == want


# JSON

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=20,
)


@few
@given(documents)
def test_canonical_json_is_securesystemslibs(value: Any) -> None:
    assert canonjson.encode(value) == encode_canonical(value).encode()


@few
@given(documents, st.sampled_from([None, 1]), st.booleans())
def test_reads_whatever_json_writes(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    got = canonjson.loads(text, LIMIT, 40)
    assert got == value
    assert repr(got) == repr(json.loads(text))


jsonish = st.text('[]{}:,"\\u0aefbtrnlsE+-. \n19é', max_size=24).map(str.encode)


@few
@given(jsonish | st.binary(max_size=24))
def test_takes_nothing_that_json_refuses(text: bytes) -> None:
    try:
        got = canonjson.loads(text, LIMIT)
    except CodecError as e:
        assert e.code.startswith("json-")
        return
    assert got == json.loads(text)


@few
@given(documents, st.data())
def test_altered_texts_are_refused_or_read_as_json_reads_them(
    value: Any, data: st.DataObject
) -> None:
    raw = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] = data.draw(st.sampled_from(b'[]{}:,"\\0e.\x00\xff'))
    else:
        del raw[at]
    try:
        got = canonjson.loads(raw, LIMIT, 40)
    except CodecError as e:
        assert e.code.startswith("json-")
        return
    assert got == json.loads(bytes(raw))
