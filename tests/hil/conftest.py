"""A desk of this machine with a board on it, and that board in the bench's hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boards.usb_serial import wait
from tests.hil.desk import Desk, bench_toml
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.hil import places


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.use(monkeypatch)
    yield desk
    desk.close()


@pytest.fixture
def board(desk: Desk, tmp_path: Path) -> Iterator[SerialBoard]:
    path = tmp_path / "bench.toml"
    path.write_text(bench_toml(tmp_path, switch=False))
    with places.SerialTarget(places.read(path)[0]).open(tmp_path) as board:
        wait(lambda: board.port, "port")
        yield board
