"""The counter over random histories of cuts, readings and geometries."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import nor
from tidemark.counter import Counter
from tidemark.errors import StateError
from tidemark.flash import Region

_CUT = st.tuples(st.integers(-1, 4), st.sampled_from(nor.VARIANTS), st.sampled_from(nor.READINGS))


@settings(max_examples=150, deadline=None)
@given(sectors=st.integers(2, 4), slots=st.integers(1, 5), boots=st.lists(_CUT, max_size=40))
def test_epochs_rise_through_random_cuts(
    sectors: int, slots: int, boots: list[tuple[int, str, str]]
) -> None:
    flash = nor.NorFlash(sectors * slots * 16, sector=slots * 16, page=16, weak=True)
    issued = 0
    for at, variant, reading in [*boots, (-1, nor.BEFORE, nor.OLD), (-1, nor.BEFORE, nor.NEW)]:
        flash.power_up(dict.fromkeys(flash.weak_groups(), reading))
        flash.plan_cut(at, variant)
        counter = Counter(Region(flash, 0, flash.size))
        try:
            epoch = counter.open_epoch()
        except nor.PowerCut:
            continue
        assert epoch > issued
        issued = epoch


@settings(max_examples=50, deadline=None)
@given(garbage=st.binary(min_size=512, max_size=512))
def test_any_flash_content_gives_a_fresh_epoch_or_a_typed_refusal(garbage: bytes) -> None:
    flash = nor.NorFlash(bytearray(garbage), sector=256, page=64)
    counter = Counter(Region(flash, 0, 512))
    found = counter.recover()
    try:
        assert counter.open_epoch() > found
    except StateError as error:
        assert error.code == "counter-worn"
    except nor.NorError as error:
        raise AssertionError("the counter broke a rule of the flash") from error


@given(spaces=st.lists(st.integers(0, 3), max_size=200))
def test_sequence_numbers_never_repeat_and_name_their_space(spaces: list[int]) -> None:
    counter = Counter(Region(nor.NorFlash(512, sector=256, page=64), 0, 512))
    counter.open_epoch()
    values = [counter.next(space) for space in spaces]
    assert len(set(values)) == len(values)
    for space, (epoch, seq) in zip(spaces, values, strict=True):
        assert epoch == counter.epoch and seq & 3 == space
    for space in range(4):
        own = [seq >> 2 for seq in (v[1] for v in values) if seq & 3 == space]
        assert own == list(range(1, len(own) + 1))
