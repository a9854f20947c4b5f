"""A repository that is served, and the client program that trusts its first root."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.conformance.simulator import Program, Simulator


@pytest.fixture
def simulator() -> Generator[Simulator]:
    made = Simulator()
    with made.served():
        yield made


@pytest.fixture
def client(simulator: Simulator, tmp_path: Path) -> Program:
    program = Program(tmp_path, simulator)
    assert program.init() == 0
    return program
