"""Runs of the bench in a process of its own, on a desk in a folder, and what they must leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPO
from tidemark_host.boardfile import load_board

# What is under test may be a copy, which comes first.
PYTHONPATH = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPO))))
_FOUND = ("provisioning", "slot_a", "slot_b", "vfs")  # the rest goes on with a board that runs


def suite(
    folder: Path, *options: str, tests: str | Path = "tests/system"
) -> subprocess.CompletedProcess[str]:
    """Run tests on the serial boards of `folder`/bench.toml. Copies of boards go to `state`."""
    words = (sys.executable, "-m", "pytest", str(tests), "-q", "-n", "0", "-p", "no:cacheprovider")
    chosen = ("--board", "serial", "--bench", str(folder / "bench.toml"))
    state = {"XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(
        [*words, "-c", str(REPO / "pyproject.toml"), *chosen, *options],
        cwd=REPO,
        env={**os.environ, **state, "DESK": str(folder), "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def leaves_as_found(found: Path, left: Path) -> None:
    """Compare two files with a board's flash, but for what a board writes that runs."""
    before, after = found.read_bytes(), left.read_bytes()
    definition = load_board(REPO / "boards" / "VIRTUAL" / "board.toml")
    for name in _FOUND:
        region = definition.regions[name]
        assert before[region.offset : region.end] == after[region.offset : region.end], name
