"""The crypto suite: its rows are there, its peers give right results, our goals are met."""

from __future__ import annotations

import pytest

from tidemark_host.bench import crypto
from tidemark_host.bench.registry import Results
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.emulated import Measured

# One worker: a first build and the compiled emulator are made once.
pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(600)]

NAMES = {crypto.VERIFY, crypto.SIGN, crypto.AGREE, crypto.BLOCK}


def test_native_engines_meet_their_goals() -> None:
    native = [engine for engine in crypto.engines() if engine.goals]
    assert [engine.name for engine in native] == ["viper", "asm_thumb"]
    for engine in native:
        results = Results("crypto")
        crypto.measure_engine(results, engine)
        assert {row.name for row in results.rows} == NAMES
        assert [row.name for row in results.rows if not row.met] == []


def test_peers_are_compiled_and_give_right_results() -> None:
    results = Results("crypto")
    crypto.measure_peers(results)
    assert {row.name for row in results.rows} == NAMES
    assert all(row.peer and row.value > 10_000 for row in results.rows)


def test_a_figure_of_a_wrong_result_does_not_count() -> None:
    with pytest.raises(BoardError, match="verify"):
        crypto._checked("x", Measured({"verify": False}, {}, ""), {"verify": True})
