"""The evidence ring over random events, resets and cuts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import nor
from tidemark.errors import StateError
from tidemark.evidence import REMOTE, SECURITY, SIZE, SLOT, SYSTEM, Evidence, follows, parse
from tidemark.flash import Region

_EVENT = st.tuples(
    st.sampled_from([SECURITY, SLOT, SYSTEM, REMOTE]),
    st.text(max_size=20),
    st.binary(max_size=24),
    st.integers(-1, 6),
    st.sampled_from(nor.VARIANTS),
)


@settings(max_examples=120, deadline=None)
@given(events=st.lists(_EVENT, max_size=60), boots=st.integers(1, 20))
def test_chain_and_numbers_hold_through_random_cuts(
    events: list[tuple[int, str, bytes, int, str]], boots: int
) -> None:
    flash = nor.NorFlash(4 * 512, sector=512, page=64)
    ring = Evidence(Region(flash, 0, flash.size), coalesce_ms=5)
    ring.recover()
    last = 0
    for now, (kind, code, detail, at, variant) in enumerate(events):
        if now % boots == 0:
            ring = Evidence(Region(flash, 0, flash.size), coalesce_ms=5)
            ring.recover()
        flash.plan_cut(at, variant)
        try:
            number = ring.add(code, detail, kind, now, 0, now)
            assert number > last or (number == 0 and kind == REMOTE)
            last = max(last, number)
        except nor.PowerCut:
            flash.no_cut()
            ring = Evidence(Region(flash, 0, flash.size), coalesce_ms=5)
            assert ring.recover() >= last
    raw = ring.read(ring.oldest(), 64)
    before = None
    for i in range(0, len(raw), SIZE):
        parts = parse(raw[i : i + SIZE])
        if before and (parts[8] or parts[0] == before[0] + 1):
            assert follows(raw[i : i + SIZE], before[9])
        before = parts
    assert (before[0] if before else 0) == ring.head()[0]


@given(record=st.binary(min_size=0, max_size=80))
def test_parse_takes_any_bytes(record: bytes) -> None:
    try:
        parse(record)
    except StateError as error:
        assert error.code == "evidence-record"
