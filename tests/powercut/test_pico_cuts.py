"""A few of the power cuts of pico_cuts.py; all of them: python -m tests.powercut.pico_cuts."""

from __future__ import annotations

import pytest

from tests.powercut import pico_cuts

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("scenario", "every", "least"), [("update", 9, 6), ("confirm", 1, 8), ("crash", 9, 4)]
)
def test_a_cut_leaves_a_board_that_boots_and_never_goes_back(
    scenario: str, every: int, least: int
) -> None:
    cuts = pico_cuts.play(scenario, every)
    assert [cut for cut in cuts if cut.wrong] == []
    assert len(cuts) >= least


def test_a_judge_sees_a_board_that_went_back_or_lost_its_floor() -> None:
    factory = pico_cuts._fresh(pico_cuts._factory())
    assert pico_cuts._judge((pico_cuts.A,), factory, ("old", "old")) == [["a 1 normal"] * 2, ""]
    came, wrong = pico_cuts._judge((pico_cuts.TRIAL,), factory, ("old", "old"))
    assert came == ["a 1 normal"] * 2
    assert wrong == "'a 1 normal' came up"
