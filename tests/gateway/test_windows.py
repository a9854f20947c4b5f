"""Replay windows against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemark_host.gateway.windows import (
    EPOCHS,
    WIDTH,
    Readings,
    ReadingWindow,
    ReplayWindow,
    Standing,
)

# From the highest so far: few slots of the ring, several turns of it, and now and then a leap.
steps = st.one_of(
    st.sampled_from([1, 2, 510, 511, 512, 513, WIDTH - 1, WIDTH, WIDTH + 1, 1 << 20]),
    st.sampled_from([0, -1, -2, -511, -512, -513, 1 - WIDTH, -WIDTH, -1 - WIDTH]),
)
tags = st.sampled_from([b"\0\0\0\0\0\0\0\0", b"aaaaaaaa", b"aaaabbbb", b"bbbbbbbb"])


@given(st.lists(st.tuples(steps, tags), max_size=60))
def test_a_counter_is_new_at_most_once_and_known_within_the_window(
    seen: list[tuple[int, bytes]],
):
    window, model, top = ReplayWindow(), dict[int, bytes](), 0
    for step, tag in seen:
        n = max(1, top + step)
        if n <= top - WIDTH:
            expected = Standing.STALE
        elif n not in model:
            expected = Standing.NEW
        else:
            expected = Standing.SAME if model[n] == tag[:4] else Standing.OTHER
        assert window.standing(n, tag) is expected
        if expected is Standing.NEW:
            assert window.mark(n, tag) == max(0, n - top)
            model[n] = tag[:4]
            top = max(top, n)
        window = ReplayWindow.from_bytes(window.to_bytes())
        assert window.top == top


@given(st.lists(steps, max_size=30), steps, tags)
def test_a_look_up_changes_nothing(seen: list[int], step: int, tag: bytes):
    window = ReplayWindow()
    for step_up in seen:
        n = max(1, window.top + step_up)
        if window.standing(n, tag) is Standing.NEW:
            window.mark(n, tag)
    before = window.to_bytes()
    window.standing(max(1, window.top + step), tag)
    assert window.to_bytes() == before


@given(st.lists(steps, max_size=60))
def test_a_reading_is_new_at_most_once(seen: list[int]):
    window, model, top = ReadingWindow(), set[int](), -1
    for step in seen:
        index = max(0, top + step)
        if index <= top - WIDTH:
            expected = Standing.STALE
        else:
            expected = Standing.SAME if index in model else Standing.NEW
        assert window.standing(index) is expected
        if expected is Standing.NEW:
            window.mark(index)
            model.add(index)
            top = max(top, index)
        window = ReadingWindow.from_bytes(window.to_bytes())


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=120))
def test_the_highest_creation_epochs_are_remembered_and_no_reading_is_new_twice(
    seen: list[tuple[int, int]],
):
    readings, taken = Readings(), set[tuple[int, int]]()
    for epoch, index in seen:
        standing = readings.standing(epoch, index)
        if standing is Standing.NEW:
            assert (epoch, index) not in taken
            readings.mark(epoch, index)
        taken.add((epoch, index))
        assert len(readings.windows) <= EPOCHS
        if standing is Standing.STALE:
            assert epoch < min(readings.windows)


@pytest.mark.parametrize("kind", [ReplayWindow, ReadingWindow])
@pytest.mark.parametrize("data", [b"", bytes(7), bytes(8 + WIDTH + 1)])
def test_what_is_no_window_is_refused(kind: type[ReplayWindow | ReadingWindow], data: bytes):
    with pytest.raises(ValueError, match="not a re"):
        kind.from_bytes(data)


def test_a_skipped_counter_is_new_though_its_slot_was_used():
    window = ReplayWindow()
    for n in (1, 513, 1026):
        window.mark(n, b"tag.")
    # 1025 shares the slot of 1; the jump to 1026 passed over it.
    assert window.standing(1025, b"tag.") is Standing.NEW
    readings = ReadingWindow()
    for index in (0, 512, 1025):
        readings.mark(index)
    assert readings.standing(1024) is Standing.NEW
