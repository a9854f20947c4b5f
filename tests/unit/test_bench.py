"""The benchmark runner: rows, goals, the file it leaves, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidemark_host.bench import registry
from tidemark_host.bench.registry import Results
from tidemark_host.boards.emulated import Cost, Measured
from tidemark_host.cli.bench import command


@pytest.fixture
def two_suites(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.suites()  # the real ones are registered once a process, and not in what follows
    monkeypatch.setattr(registry, "_suites", {})
    costs = {"verify": Cost(12_000_000, 40, 0), "sign": Cost(7_000_000, 0, 0)}

    @registry.suite("alpha")
    def alpha(results: Results) -> None:
        goals = {"verify": 13_750_000, "sign": 6_300_000}
        results.add_cycles(Measured(None, costs, ""), variant="viper", goals=goals)

    @registry.suite("beta")
    def beta(results: Results) -> None:
        results.add("verify", 23_500_000, "cycles", variant="Monocypher", peer=True)

    del alpha, beta
    yield


@pytest.mark.usefixtures("two_suites")
def test_every_suite_runs_and_leaves_its_rows_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench.json"
    done = CliRunner().invoke(command, ["-o", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["rows"]
    assert {"alpha", "beta"} == {row["suite"] for row in rows}
    mine = [row for row in rows if row["suite"] == "alpha"]
    assert [(row["name"], row["met"]) for row in mine] == [("verify", True), ("sign", False)]
    assert "12,000,000" in done.output and "96.00 ms" in done.output
    assert "NOT MET" in done.output and "Monocypher (peer)" in done.output


@pytest.mark.usefixtures("two_suites")
def test_check_fails_for_a_goal_that_is_not_met_and_names_it(tmp_path: Path) -> None:
    out = str(tmp_path / "bench.json")
    done = CliRunner().invoke(command, ["alpha", "--check", "-o", out])
    assert done.exit_code == 1
    assert "1 goals not met: sign (viper)" in done.output
    assert CliRunner().invoke(command, ["beta", "--check", "-o", out]).exit_code == 0


@pytest.mark.usefixtures("two_suites")
def test_unknown_suite_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["gamma", "-o", str(tmp_path / "bench.json")])
    assert done.exit_code == 1
    assert "alpha" in done.output
    assert not (tmp_path / "bench.json").exists()
