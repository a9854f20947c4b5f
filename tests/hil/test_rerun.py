"""The command that runs a failed test again names all that the run was told."""

from __future__ import annotations

import shlex
import subprocess
from types import SimpleNamespace
from typing import Any

from tests.conftest import REPO
from tidemark_host.hil import plugin


def test_command_to_run_a_test_again_takes_the_same_bench() -> None:
    options = {"--board": "serial", "--board-name": "desk-1", "--bench": "my lab/bench.toml"}
    config: Any = SimpleNamespace(getoption=options.__getitem__)
    again = plugin.rerun(config, "tests/system/test_repl.py::test_x")
    assert shlex.split(again)[:3] == ["make", "hil", "TARGET=serial"]
    done = subprocess.run(
        ["make", "-n", *shlex.split(again)[1:]],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    line = next(
        row for row in done.stdout.replace("\\\n", " ").splitlines() if "--junit-xml" in row
    )
    words = shlex.split(line)
    for name, value in options.items():
        assert words[words.index(name) + 1] == value
    assert "tests/system/test_repl.py::test_x" in words
