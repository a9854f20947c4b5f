"""The models of specs/: each is well-formed, holds where it is small, and its twins are refuted.

The larger searches are `make model`'s.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemark_host.modelcheck import SPECS, Job, ModelError, check, held, jobs
from tidemark_host.toolchain_spin import spin

MODELS = sorted(SPECS.glob("*.pml"), key=lambda path: path.name)
QUICK = [
    Job("counter", ("AGING=0",), ""),
    Job("counter", ("NO_AFFIRM",), "rule 3", "issued"),
    Job("slots", (), ""),
    Job("slots", ("NO_AFFIRM",), "affirm", "reported"),
    Job("commands", (), ""),
    Job("commands", ("EFFECT_FIRST",), "intent first", "effects[n] == 1"),
    Job("delivery", ("ACK_FIRST",), "persist before acknowledge", "upstream"),
    Job("hello", ("NEW_WELCOME",), "same hello, same welcome", "keys[b]"),
]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_names_its_invariants_and_has_runs_and_twins(path: Path) -> None:
    assert held(path)
    assert len([job for job in jobs(path) if job.broken]) >= 4


@pytest.mark.parametrize("job", QUICK, ids=lambda job: " ".join((job.model, *job.defines)))
def test_a_small_search_ends_as_wanted(job: Job) -> None:
    outcome = check(job, spin())
    assert outcome.is_as_wanted, outcome
    assert outcome.states > 0


def test_a_search_that_does_not_end_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "deep.pml").write_text(
        "int n;\nactive proctype p() { do :: n < 2000000 -> n++ :: else -> break od }\n"
    )
    assert check(Job("deep", (), ""), spin(), tmp_path).verdict == "incomplete"


def test_a_twin_that_fails_elsewhere_is_not_refuted(tmp_path: Path) -> None:
    (tmp_path / "two.pml").write_text("int n;\nactive proctype p() { assert(n == 1) }\n")
    checker = spin()
    for fails, is_as_wanted in (("n == 1", True), ("n == 2", False)):
        outcome = check(Job("two", (), "a rule", fails), checker, tmp_path)
        assert outcome.verdict == "refuted"
        assert outcome.is_as_wanted is is_as_wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/* run:\n   twin: NAME\n*/", "in words"),
        ("/* run:\n   twin: NAME words\n*/", "in brackets"),
        ("/* run:\n   twin: NAME words [()]\n*/", "in brackets"),
        ("/* run:\n   twin: NAME words [n\n*/", "in brackets"),
        ("/*\n   run: NAME and words\n   twin: NAME words [n]\n*/", "in words"),
        ("/*\n   run:\n*/", "broken twin"),
    ],
)
def test_a_comment_that_proves_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "odd.pml").write_text(text)
    with pytest.raises(ModelError, match=words):
        jobs(tmp_path / "odd.pml")


def test_a_model_that_does_not_parse_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "odd.pml").write_text("active proctype p( {\n")
    with pytest.raises(ModelError):
        check(Job("odd", (), ""), spin(), tmp_path)
