"""The board's reading of metadata files, against the json module and securesystemslib's form."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from tidemark.errors import CodecError
from tidemark.signedjson import open_signed

SIZE, DEPTH = 20_000, 12
SHAPE = {"a": None, "b": {"*": {"c": None}}, "d": {"a": None}}

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
keys = st.one_of(st.sampled_from(["a", "b", "c", "d", "signed", "signatures"]), text)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


def project(value: Any, shape: Any) -> Any:
    """Return what `open_signed` promises to read of a value."""
    if shape is None:
        return value
    if isinstance(value, list):
        return [project(item, shape) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {
            key: project(item, shape[key] if key in shape else shape["*"])
            for key, item in value.items()  # pyright: ignore[reportUnknownVariableType]
            if key in shape or "*" in shape
        }
    return value


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(keys, values, max_size=5),
    st.lists(values, max_size=3),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_same_value_and_same_bytes_as_the_references(
    signed: dict[str, Any],
    signatures: list[Any],
    indent: int | None,
    sort: bool,
    separators: tuple[str, str],
    ascii: bool,
) -> None:
    document = {"signatures": signatures, "signed": signed}
    data = json.dumps(
        document, indent=indent, sort_keys=sort, separators=separators, ensure_ascii=ascii
    ).encode()
    found, read, message = open_signed(data, SIZE, DEPTH, SHAPE)
    assert found == signatures
    assert read == project(signed, SHAPE)
    assert bytes(message) == encode_canonical(signed).encode()


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_mean_what_json_says(data: st.DataObject) -> None:
    signed = data.draw(st.dictionaries(keys, values, max_size=4))
    form = json.dumps({"signatures": [], "signed": signed}, separators=(",", ":"), sort_keys=True)
    raw = bytearray(form.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b'"', b"\\", b"{", b"}", b" "]))
        )
    try:
        _, read, message = open_signed(bytes(raw), SIZE, DEPTH, SHAPE)
    except CodecError:
        return
    # What was taken is JSON, and both the value and the signed bytes are that JSON's.
    document = json.loads(raw)
    if read is None:
        assert not isinstance(document, dict) or not isinstance(document.get("signed"), dict)  # pyright: ignore[reportUnknownMemberType]
        return
    assert read == project(document["signed"], SHAPE)
    assert bytes(message) == encode_canonical(document["signed"]).encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_at_all_are_read_or_refused(raw: bytes) -> None:
    for data in (raw, b'{"signatures":' + raw, b'{"signatures":[],"signed":' + raw + b"}"):
        try:
            open_signed(data, SIZE, DEPTH, SHAPE)
        except CodecError:
            continue
        json.loads(data)
