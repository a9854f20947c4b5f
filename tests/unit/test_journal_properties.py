"""The journal against a dictionary, over random work, resets and cuts with definite cells."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import nor
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.journal import Journal

_KEYS = ["a", "boot", "a-key-15-charac"]
_STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(_KEYS), st.binary(max_size=640)),
    st.tuples(st.just("delete"), st.sampled_from(_KEYS), st.just(b"")),
    st.tuples(st.just("affirm"), st.sampled_from(_KEYS), st.just(b"")),
    st.tuples(st.just("raise"), st.just("mark"), st.binary(min_size=1, max_size=2)),
    st.tuples(st.just("reset"), st.just(""), st.just(b"")),
    st.tuples(st.just("cut"), st.integers(0, 12), st.sampled_from([b"", b"torn"])),
)


def _open(flash: nor.NorFlash) -> Journal:
    journal = Journal(Region(flash, 0, flash.size))
    journal.recover()
    return journal


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(_STEP, max_size=40))
def test_journal_is_a_dictionary_that_outlives_cuts(
    steps: list[tuple[str, object, bytes]],
) -> None:
    flash = nor.NorFlash(8192)
    journal = _open(flash)
    known: dict[str, set[bytes | None]] = {key: {None} for key in _KEYS}
    mark, most = 0, 0
    for kind, key, data in steps:
        if kind == "cut":
            flash.plan_cut(int(str(key)), nor.TORN if data else nor.BEFORE)
            continue
        assert isinstance(key, str)
        value = data if kind == "put" else None
        try:
            if kind == "reset":
                journal = _open(flash)
            elif kind == "affirm":
                got = journal.affirm(key)
                assert got in known[key]
                known[key] = {got}
            elif kind == "raise":
                number = int.from_bytes(data, "big")
                most = max(most, number)
                try:
                    journal.raise_mark("mark", number)
                    mark = number
                except StateError as error:
                    assert error.code == "mark-falls" and number < most
            else:
                known[key] = known[key] | {value}
                if value is None:
                    journal.delete(key)
                else:
                    journal.put(key, value)
                known[key] = {value}
        except nor.PowerCut:
            flash.no_cut()
            journal = _open(flash)
        assert mark <= journal.mark("mark")[0] <= most
        for one in _KEYS:
            assert journal.get(one) in known[one]


@settings(max_examples=60, deadline=None)
@given(garbage=st.binary(min_size=200, max_size=4096), at=st.integers(0, 4000))
def test_garbage_never_raises_and_never_adds_a_value(garbage: bytes, at: int) -> None:
    flash = nor.NorFlash(bytearray(b"\xff" * 8192))
    journal = _open(flash)
    for i in range(5):
        journal.put("a", bytes([i]) * 50)
    content = bytearray(flash.view(0, 8192))
    content[at : at + len(garbage)] = garbage
    journal = _open(nor.NorFlash(content[:8192]))
    assert set(journal.keys()) <= {"a"}
    assert journal.get("a") in {None, *(bytes([i]) * 50 for i in range(5))}
