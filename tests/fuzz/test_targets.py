"""Every parser that meets outside bytes: valid inputs, changed inputs, and all former findings.

Deterministic: the same examples in every run. `make fuzz` searches on.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import REPO
from tests.fuzz import regressions
from tests.fuzz.mutate import SPAN, mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import BY_NAME, TARGETS

_NUMBER = st.integers(0, SPAN - 1)
_STEPS = st.lists(st.tuples(st.integers(0, 11), _NUMBER, _NUMBER), min_size=1, max_size=6)
_EACH = pytest.mark.parametrize("parser", TARGETS, ids=lambda parser: parser.name)
_FORMER = tuple(regressions.load())


@_EACH
def test_every_seed_is_parsed_without_a_finding(parser: Target) -> None:
    assert parser.corpus
    words = [parser.run(seed, count=True) for seed in parser.corpus]
    # A seed that no parser takes starts nothing.
    assert any(word not in parser.codes for word in words), words


@_EACH
def test_changed_inputs_are_taken_or_refused_with_a_code(parser: Target) -> None:
    @settings(
        max_examples=parser.examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(range(len(parser.corpus))), _STEPS, st.booleans())
    def changed(seed: int, steps: list[tuple[int, int, int]], repaired: bool) -> None:
        data = mutate(parser.corpus[seed], steps, parser.corpus, parser.words)
        if repaired and parser.repair:
            data = parser.repair(data)
        parser.run(data, count=True)

    changed()


@pytest.mark.parametrize("former", _FORMER, ids=lambda former: former.found.replace(" ", "-")[:60])
def test_a_former_finding_stays_mended(former: regressions.Regression) -> None:
    assert former.found
    word = BY_NAME[former.target].run(former.data, count=True)
    assert word.split(" ", 1)[0] == former.word


def test_the_page_has_a_row_for_each_target_and_their_sums() -> None:
    page = (REPO / "docs" / "fuzzing.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| ([\d,]+) \| (.+?) \| ([\d,]+) \| \d+ \| (\d*) \|$", page, re.M
    )
    told = [(name, _number(limit), holds, _number(found)) for name, limit, holds, _, found in rows]
    former = Counter(one.target for one in _FORMER)
    assert told == [(one.name, one.limit, one.holds, former[one.name]) for one in TARGETS]
    executions = sum(_number(row[3]) for row in rows)
    assert f"That is {executions:,} executions, and {len(_FORMER)} findings so far" in page


def _number(text: str) -> int:
    return int(text.replace(",", "") or "0")
