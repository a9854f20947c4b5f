"""Virtual boards that run a test's own firmware."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boards.maker import Maker
from tidemark_host import toolchain


@pytest.fixture(scope="session")
def runtime() -> Path:
    return toolchain.runtime("VIRTUAL")


@pytest.fixture
def make(runtime: Path) -> Iterator[Maker]:
    maker = Maker(runtime)
    yield maker
    for board in maker.boards:
        board.close()
