"""Each rule behind an invariant is needed: without it a test fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import engine
from tests.mutants.engine import Mutant, MutantError
from tests.mutants.nursery import Nursery
from tidemark_host import toolchain

MUTANTS = engine.load()
# The invariants that must have a mutant by now; later ones join with the code that they guard.
COVERED = ("I1", "I2", "I3", "I4", "I5", "I7", "I9", "B")


@pytest.mark.parametrize(
    "mutant",
    [
        # One worker: the emulator's first build is made once.
        pytest.param(
            mutant,
            id=mutant.id,
            marks=[pytest.mark.xdist_group("emulated")] if mutant.is_emulated else [],
        )
        for mutant in MUTANTS
    ],
)
@pytest.mark.timeout(2 * engine.EMULATED_LIMIT_S + 420)
def test_removed_rule_is_noticed(mutant: Mutant) -> None:
    if mutant.is_emulated:
        # What every image has in common may take minutes to compile: not the mutant's.
        toolchain.firmware("TIDEMARK_PICO")
    engine.check(mutant)


def test_every_covered_invariant_has_a_mutant() -> None:
    assert set(COVERED) <= {mutant.invariant for mutant in MUTANTS}


def test_every_mutant_fits_the_code() -> None:
    """All at once and in seconds, where the runs above would say one after the other."""
    unfit: list[str] = []
    for mutant in MUTANTS:
        try:
            engine.altered(mutant, engine.REPO if mutant.is_host else engine.FIRMWARE)
        except MutantError as error:
            unfit.append(str(error))
    assert not unfit


# The engine itself, tried on a rule and a test of its own.

RULE = "def floor(old, new):\n    return max(old, new)\n"


def _mutant(tmp_path: Path, test: str, old: str = "max(old, new)", new: str = "new") -> Mutant:
    path = tmp_path / "test_rule.py"
    path.write_text(test)
    return Mutant("I4-example", "the floor rises only", "rule.py", old, new, (str(path),))


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    firmware = tmp_path / "firmware"
    firmware.mkdir()
    (firmware / "rule.py").write_text(RULE)
    monkeypatch.setattr(engine, "FIRMWARE", firmware)
    return firmware


IMPORTS = "import os, sys\nsys.path.insert(0, os.environ['TIDEMARK_FIRMWARE'])\n"
GOOD = IMPORTS + "def test_rises():\n    from rule import floor\n    assert floor(5, 3) == 5\n"


def test_engine_accepts_a_noticed_mutant(tmp_path: Path, rule: Path) -> None:
    assert "test_rises" in engine.check(_mutant(tmp_path, GOOD))
    assert (rule / "rule.py").read_text() == RULE


def test_engine_reports_a_survivor(tmp_path: Path, rule: Path) -> None:
    weak = GOOD.replace("floor(5, 3)", "floor(3, 5)")
    with pytest.raises(MutantError, match="survives"):
        engine.check(_mutant(tmp_path, weak))


def test_engine_ends_tests_that_have_no_end_and_goes_on(
    tmp_path: Path, rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LIMIT_S", 6)
    waits = GOOD.replace("assert floor(5, 3) == 5", "while floor(5, 3) != 5:\n        sleep(1)")
    waits = waits.replace("import os, sys\n", "import os, sys\nfrom time import sleep\n")
    with pytest.raises(MutantError, match=r"(?s)have no end.*test_rises"):
        engine.check(_mutant(tmp_path, waits))
    assert "test_rises" in engine.check(_mutant(tmp_path, GOOD))


def test_engine_goes_on_after_a_run_that_was_interrupted(
    tmp_path: Path, rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the time-out of the test around it: that run's answer is not taken for the next's."""
    answer, answers = Nursery._answer, []

    def interrupted(nursery: Nursery, until: float) -> int:
        answers.append(until)
        if len(answers) == 2:
            raise KeyboardInterrupt
        return answer(nursery, until)

    with monkeypatch.context() as patch:
        patch.setattr(Nursery, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.check(_mutant(tmp_path, GOOD))
    assert "test_rises" in engine.check(_mutant(tmp_path, GOOD))


def test_engine_refuses_a_collection_error_as_proof(tmp_path: Path, rule: Path) -> None:
    importing = (
        IMPORTS + "from rule import floor\ndef test_rises():\n    assert floor(5, 3) == 5\n"
    )
    with pytest.raises(MutantError, match="break instead of failing"):
        engine.check(_mutant(tmp_path, importing, "def floor", "def ceiling"))


def test_engine_refuses_a_misspelt_mutant_as_proof(tmp_path: Path, rule: Path) -> None:
    with pytest.raises(MutantError, match="break instead of failing"):
        engine.check(_mutant(tmp_path, GOOD, "max(old, new)", "maxx(old, new)"))


def test_engine_refuses_tests_that_fail_unmutated(tmp_path: Path, rule: Path) -> None:
    with pytest.raises(MutantError, match="do not pass unmutated"):
        engine.check(_mutant(tmp_path, GOOD.replace("== 5", "== 6")))


def test_engine_refuses_an_old_text_that_is_gone_or_twice(tmp_path: Path, rule: Path) -> None:
    for old, count in (("min(", 0), ("old", 2)):
        with pytest.raises(MutantError, match=f"occurs {count} times"):
            engine.mutate(_mutant(tmp_path, GOOD, old, "x"), rule)


def test_engine_refuses_a_mutant_that_does_not_compile(tmp_path: Path, rule: Path) -> None:
    with pytest.raises(MutantError, match="does not compile"):
        engine.mutate(_mutant(tmp_path, GOOD, "max(old, new)", "max("), rule)
