"""The outbox against a list, over random work, resets and cuts with definite cells."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import nor
from tidemark.flash import Region
from tidemark.outbox import Outbox

_STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 256)),
    st.tuples(st.just("ack"), st.integers(0, 30)),
    st.tuples(st.just("ack_id"), st.integers(0, 30)),
    st.tuples(st.just("reset"), st.just(0)),
    st.tuples(st.just("cut"), st.integers(0, 5)),
)


def _open(flash: nor.NorFlash) -> Outbox:
    box = Outbox(Region(flash, 0, flash.size))
    box.recover()
    return box


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEP, max_size=60), torn=st.integers(0, 256))
def test_outbox_is_a_bounded_queue_that_outlives_cuts(
    steps: list[tuple[str, int]], torn: int
) -> None:
    flash = nor.NorFlash(4 * 2048, sector=2048, page=256)
    box = _open(flash)
    promised: dict[tuple[int, int], bytes] = {}
    possible: dict[tuple[int, int], bytes] = {}
    count = 0
    for kind, number in steps:
        try:
            if kind == "cut":
                flash.plan_cut(number, nor.TORN, torn)
            elif kind == "reset":
                box = _open(flash)
            elif kind == "add":
                count += 1
                key, body = (count % 3, count), bytes([count]) * number
                possible[key] = body
                dropped = box.dropped
                _forget(box, promised, flash)
                box.add(*key, body)
                promised[key] = body
                assert box.dropped - dropped <= 128
            else:
                waiting = box.pending(limit=99)
                if waiting:
                    handle, epoch, index, _ = waiting[number % len(waiting)]
                    promised.pop((epoch, index), None)
                    assert box.ack(handle) if kind == "ack" else box.ack_id(epoch, index)
                    possible.pop((epoch, index))
        except nor.PowerCut:
            flash.no_cut()
            box = _open(flash)
        found = {(epoch, index): body for _, epoch, index, body in box.pending(limit=999)}
        assert len(box) == len(found)
        assert promised.items() <= found.items() <= possible.items()
        assert list(found) == sorted(found, key=lambda key: key[1])


def _forget(box: Outbox, promised: dict[tuple[int, int], bytes], flash: nor.NorFlash) -> None:
    """Take the readings of the oldest sector for lost when the next one may need it."""
    waiting = box.pending(limit=999)
    if not waiting:
        return
    newest = waiting[-1][0] // flash.sector
    for handle, epoch, index, _ in waiting:
        if handle // flash.sector <= newest + 1 - flash.size // flash.sector + 1:
            promised.pop((epoch, index), None)
