"""The models of specs/: each is well-formed, holds where it is small, and its twins are refuted.

The larger searches are `make model`'s.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemark_host.modelcheck import SPECS, Job, ModelError, assertions, check, held, jobs, only
from tidemark_host.toolchain_spin import spin

MODELS = sorted(SPECS.glob("*.pml"), key=lambda path: path.name)
QUICK = [
    Job("counter", ("AGING=0",), ""),
    Job("counter", ("NO_AFFIRM",), "rule 3", "issued"),
    Job("slots", (), ""),
    Job("slots", ("NO_AFFIRM",), "affirm", "confirmed) >= reported"),
    Job("commands", (), ""),
    Job("commands", ("EFFECT_FIRST",), "intent first", "effects[n] == 1"),
    Job("delivery", ("ACK_FIRST",), "persist before acknowledge", "upstream[in_flight[q]"),
    Job("hello", ("NEW_WELCOME",), "same hello, same welcome", "session_before)"),
]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_names_its_invariants_and_has_runs_and_twins(path: Path) -> None:
    assert held(path)
    assert len([job for job in jobs(path) if job.broken]) >= 4


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_each_assertion_has_a_twin_that_it_alone_refutes(path: Path) -> None:
    text = path.read_text()
    written = {text[begin:end] for begin, end in assertions(text)}
    named: set[str] = set()
    for job in jobs(path):
        if job.broken:
            kept = only(text, job.fails)
            named |= {kept[begin:end] for begin, end in assertions(kept)}
    assert named == written


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


TWO = "int n;\nactive proctype p() { assert(n == 1); assert((n + 0) == 0); assert(n == 0) }\n"


def test_a_twin_that_fails_elsewhere_is_not_refuted(tmp_path: Path) -> None:
    (tmp_path / "two.pml").write_text(TWO)
    checker = spin()
    for fails, verdict in (("n == 1", "refuted"), ("n == 0", "holds"), ("(n + 0) =", "holds")):
        outcome = check(Job("two", (), "a rule", fails), checker, tmp_path)
        assert outcome.verdict == verdict
        assert outcome.is_as_wanted is (verdict == "refuted")


@pytest.mark.parametrize("fails", ["n == 2", "n"])
def test_a_twin_names_one_assertion(tmp_path: Path, fails: str) -> None:
    (tmp_path / "two.pml").write_text(TWO)
    with pytest.raises(ModelError, match=r"names [03] assertions"):
        check(Job("two", (), "a rule", fails), spin(), tmp_path)


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
