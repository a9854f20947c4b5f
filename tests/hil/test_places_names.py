"""Which port is a board of bench.toml: by a serial number of its own, else by its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.boards.usb_serial import Port
from tidemark_host.boards.base import BoardError
from tidemark_host.hil import places, plugin

TWINS = [
    Port("/dev/ttyUSB1", "0001", 0x10C4, "CP2102", "1-2"),
    Port("/dev/ttyUSB0", "0001", 0x10C4, "CP2102", "1-1"),
]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(places, "serial_ports", lambda: TWINS)

    def made(line: str) -> places.Place:
        path = tmp_path / "bench.toml"
        path.write_text(f'[[board]]\nnickname = "desk-1"\nboard = "VIRTUAL"\n{line}\n')
        return places.read(path)[0]

    return made


def test_board_of_the_bench_is_named_by_its_place(read: Any) -> None:
    target = places.SerialTarget(read('location = "1-2"'))
    assert target.here
    assert "at /dev/ttyUSB1" in target.describe()
    assert not places.SerialTarget(read('location = "1-3"')).here


@pytest.mark.parametrize(
    "line",
    ["", 'serial = "0001"\nlocation = "1-2"', 'location = "ttyUSB0"', "location = 1"],
)
def test_place_that_is_none_is_refused(read: Any, line: str) -> None:
    with pytest.raises(places.PlaceError) as refused:
        read(line)
    assert refused.value.code == "bench-format"


def test_of_two_boards_with_one_number_the_bench_takes_neither(read: Any, tmp_path: Path) -> None:
    target = places.SerialTarget(read('serial = "0001"'))
    with pytest.raises(BoardError, match=r"/dev/ttyUSB0 at 1-1, .*location =") as refused:
        target.wake()
    assert refused.value.code == "several"
    options = {"--board": "serial", "--board-name": "", "--bench": tmp_path / "bench.toml"}
    config: Any = SimpleNamespace(getoption=options.__getitem__, stash={})
    with pytest.raises(pytest.UsageError, match=r"^several: 2 ports"):
        plugin.targets_of(config)
