"""A few of the power cuts of pico_cuts.py; all of them: python -m tests.powercut.pico_cuts."""

from __future__ import annotations

import pytest

from tests.powercut import pico_cuts
from tests.powercut.pico_cuts import TRIAL, A, B

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


def test_a_cut_is_replayed_by_the_line_that_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "confirm/2:weak:on"
    assert [(cut.path, cut.wrong) for cut in pico_cuts.replay(path)] == [(path, "")]
    monkeypatch.setattr(pico_cuts, "_judge", lambda *_seen: [["a 1 normal"], "went back"])
    assert pico_cuts._replayed(path) == 1
    assert f"  make powercut TARGET=emulated REPLAY={path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "nowhere",
        "crash/x:after",
        "crash/0:after",
        "crash/1:before",
        "crash/1:torn:3",
        "crash/1:weak:o",
        "crash/1:after/2:after",
    ],
)
def test_path_that_names_no_cut_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pico_cuts._replayed(path) == 2
    assert "can't be replayed" in capsys.readouterr().err


def test_judge_sees_a_board_on_which_the_wrong_slot_comes_up() -> None:
    factory = pico_cuts._fresh(pico_cuts._factory())
    assert pico_cuts._judge((pico_cuts.A,), factory, ("old", "old")) == [["a 1 normal"] * 2, ""]
    came, wrong = pico_cuts._judge((pico_cuts.TRIAL,), factory, ("old", "old"))
    assert came == ["a 1 normal"] * 2
    assert wrong == "'a 1 normal' came up"


@pytest.mark.parametrize(
    ("came", "confirmed", "floor", "wrong"),
    [
        ((TRIAL, TRIAL), "a", 1, ""),
        ((TRIAL, B), "b", 2, ""),
        ((B, B), "b", 2, ""),
        ((A, B), "b", 2, "'a 1 normal' came up"),
        (("rescue", B), "b", 2, "'rescue' came up"),
        ((B, TRIAL), "a", 1, "went back at the second boot"),
        ((B, B), "a", 1, "slot a is confirmed"),
        ((B, B), "none", 0, "slot none is confirmed"),
        ((B, B), "b", 1, "floor 1, slot b confirmed"),
        ((TRIAL, TRIAL), "a", 2, "floor 2, slot a confirmed"),
        ((TRIAL, TRIAL), "none", 0, "floor 0, slot none confirmed"),
    ],
)
def test_judge_sees_a_board_that_went_back_or_lost_its_slot_or_floor(
    came: tuple[str, str], confirmed: str, floor: int, wrong: str
) -> None:
    assert pico_cuts.verdict((TRIAL, B), came, confirmed, floor) == wrong
