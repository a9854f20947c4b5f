"""The smoke subset of tests/system through `--board serial`, on a desk made of this machine:

    .venv/bin/python -m tests.hil [--no-switch] [OPTION OF PYTEST...]

once on a board whose supply can be switched, or with --no-switch on one that can only be reset.
Takes some minutes. What else is given goes to pytest: `-k watchdog`, or `-m ''` for all tests.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.hil.desk import bench_toml


def main(arguments: list[str]) -> int:
    switch = "--no-switch" not in arguments
    own = [word for word in arguments if word != "--no-switch"]
    with tempfile.TemporaryDirectory(prefix="tidemark-desk-") as name:
        folder = Path(name)
        bench = folder / "bench.toml"
        bench.write_text(bench_toml(folder, switch))
        os.environ["DESK"] = name
        options = ["-p", "tests.hil.desk", "--board", "serial", "--bench", str(bench), "-n", "0"]
        return pytest.main(["tests/system", "-m", "smoke", *options, *own])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
