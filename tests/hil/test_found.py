"""What a board was found with: copied, taken off it while it is stopped, given back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import REPO
from tests.hil.desk import Desk, bench_toml
from tests.hil.runs import leaves_as_found, suite
from tidemark_host import remote
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.hil import found, places

VIRTUAL = load_board(REPO / "boards" / "VIRTUAL" / "board.toml")
STATE = ("provisioning", "journal", "counter")
_WRITE = """
from tidemark import stage0
for _name in {names!r}:
    stage0.base.regions[_name].erase(0)
    stage0.base.regions[_name].write(0, {text!r})
"""


@pytest.fixture
def copy(tmp_path: Path) -> found.Copy:
    return found.Copy("E6603/8", tmp_path / "copies")


def put(board: SerialBoard, text: bytes, names: tuple[str, ...] = STATE) -> None:
    """Have the stopped board hold `text` at the start of regions of its state."""
    with board.stopped(resume=False) as console:
        console.exec(_WRITE.format(names=names, text=text))


def part(flash: bytes, name: str) -> bytes:
    region = VIRTUAL.regions[name]
    return flash[region.offset : region.end]


def quiet(text: str) -> None:
    pass


def test_board_is_copied_and_left_without_its_state_and_does_not_run(
    desk: Desk, board: SerialBoard, copy: found.Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[object] = []
    monkeypatch.setattr(remote, "resume", resumed.append)
    put(board, b"its key")
    before = desk.board.flash_path.read_bytes()
    assert found.keep(board, VIRTUAL, copy, quiet) == before == copy.path.read_bytes()
    assert copy.path.parent.name == "copies"
    assert copy.path.stat().st_mode & 0o777 == 0o600
    after = desk.board.flash_path.read_bytes()
    for name in STATE:
        assert part(before, name).startswith(b"its key")
        assert not part(after, name).strip(b"\xff"), name
    assert part(before, "slot_a") == part(after, "slot_a")
    # Had it gone on, its counter would go back when this is written back (I1).
    assert not resumed
    board.read_flash(0, 4096)
    assert resumed


def test_nothing_is_taken_off_a_board_whose_copy_can_not_be_written(
    desk: Desk, board: SerialBoard, tmp_path: Path
) -> None:
    put(board, b"its key")
    (tmp_path / "1.new").mkdir()  # in the way
    with pytest.raises(BoardError) as refused:
        found.keep(board, VIRTUAL, found.Copy("1", tmp_path), quiet)
    assert refused.value.code == "copy"
    assert part(desk.board.flash_path.read_bytes(), "counter").startswith(b"its key")


@pytest.mark.parametrize("is_raw", [False, True], ids=["as it starts", "raw"])
def test_board_that_starts_after_it_was_copied_keeps_its_state(
    desk: Desk,
    board: SerialBoard,
    copy: found.Copy,
    monkeypatch: pytest.MonkeyPatch,
    is_raw: bool,
) -> None:
    """It may have used its counter: the copy is older than the board then, and goes nowhere.

    Not even when its REPL runs what the session sends (`is_raw`), which its start alone would not
    keep it from: bytes that it takes for a paste are enough.
    """
    write, enter = copy.write, Repl._enter
    consoles: list[Repl] = []

    def entered(console: Repl, soft_reset: bool, timeout: float) -> None:
        enter(console, soft_reset, timeout)
        consoles.append(console)

    def slow(content: bytes) -> None:
        write(content)
        said = len(desk.board.serial_log)
        desk.board.reset()
        desk.board.serial_log.wait_for("waits on this console", since=said)
        if is_raw:
            enter(consoles[-1], False, 10)

    put(board, b"its count", ("counter",))
    monkeypatch.setattr(copy, "write", slow)
    monkeypatch.setattr(Repl, "_enter", entered)
    with pytest.raises(BoardError) as refused:
        found.keep(board, VIRTUAL, copy, quiet)
    assert refused.value.code == "keep"
    assert str(copy.path) in str(refused.value)
    assert part(desk.board.flash_path.read_bytes(), "counter").startswith(b"its count")


def test_copy_that_an_earlier_run_left_is_what_the_board_was_found_with(
    board: SerialBoard, copy: found.Copy
) -> None:
    left = b"the key".ljust(VIRTUAL.flash_size, b"\xff")
    copy.write(left)
    put(board, b"a test's key")
    said: list[str] = []
    assert found.keep(board, VIRTUAL, copy, said.append) == left == copy.path.read_bytes()
    assert "did not give back" in said[0] and str(copy.path) in said[0]


def test_board_that_has_got_its_key_back_and_run_since_is_copied_anew(
    desk: Desk, board: SerialBoard, copy: found.Copy
) -> None:
    put(board, b"its key")
    older = desk.board.flash_path.read_bytes()
    copy.write(older)
    put(board, b"a later count", ("counter",))
    said: list[str] = []
    kept = found.keep(board, VIRTUAL, copy, said.append)
    assert part(kept, "counter").startswith(b"a later count")
    assert copy.path.read_bytes() == kept
    # Had only a part of it been given back, the rest would be gone with the older copy.
    (aside,) = set(copy.path.parent.iterdir()) - {copy.path}
    assert aside.read_bytes() == older
    assert str(aside) in said[0]


def test_copy_of_another_kind_of_board_is_refused(board: SerialBoard, copy: found.Copy) -> None:
    copy.write(b"the key")
    with pytest.raises(BoardError) as refused:
        found.keep(board, VIRTUAL, copy, quiet)
    assert refused.value.code == "copy"
    assert copy.path.read_bytes() == b"the key"


def test_board_that_runs_nothing_of_ours_is_not_overwritten_unless_that_is_said(
    board: SerialBoard, copy: found.Copy
) -> None:
    with board.stopped(resume=False) as console:
        console.exec("import sys\nsys.modules['tidemark.port'] = sys.modules['tidemark'] = None")
    with pytest.raises(BoardError, match="restore = false") as refused:
        found.keep(board, VIRTUAL, copy, quiet)
    assert refused.value.code == "foreign"
    assert not copy.path.exists()
    # A test may have left it like this: then there is a copy.
    left = b"the key".ljust(VIRTUAL.flash_size, b"\xff")
    copy.write(left)
    assert found.keep(board, VIRTUAL, copy, quiet) == left


def test_what_is_unplugged_is_told_and_what_its_switch_has_off_is_not(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "BACK_S", 0.1)
    path = tmp_path / "bench.toml"
    path.write_text(bench_toml(tmp_path, switch=False) + 'link = "A50285BI"\n')
    target = places.SerialTarget(places.read(path)[0])
    link = "the adapter on its link (A50285BI)"
    assert target.missing(off=False) == link
    monkeypatch.setattr(places, "serial_ports", list)
    assert target.missing(off=False) == f"its console (E66038B713952A31) and {link}"
    assert target.missing(off=True) == link


# -- a run

CASES = """
import pytest
from tidemark_host.hil import places
from tidemark_host.hil.waiting import Timeout


def test_writes_over_what_it_found(held, tmp_path):
    with held.open(tmp_path) as board:
        region = held.definition.regions["slot_b"]
        image = bytearray(board.read_flash(0, held.definition.flash_size, resume=False))
        image[region.offset : region.offset + 4096] = bytes(range(256)) * 16
        board.flash(bytes(image))


def test_unplugged(held, monkeypatch):
    monkeypatch.setattr(places, "BACK_S", 0.1)
    monkeypatch.setattr(places, "serial_ports", list)
    raise Timeout("not within 150 s: the first readings")


def test_own_fault(held):
    raise Timeout("not within 150 s: the first readings")
"""
FAILS = """
@pytest.fixture(scope="session", autouse=True)
def unplugged_at_the_end(held):
    yield
    places.WATCHDOG_S = 0

    def silent(board):
        raise places.BoardError("absent", "no REPL")

    places.recover = silent
"""


def run(folder: Path, cases: str, name: str) -> tuple[int, str]:
    (folder / "bench.toml").write_text(bench_toml(folder, switch=False))
    (folder / "test_cases.py").write_text(cases)
    reports = f"--junit-xml={folder}/junit.xml", f"--html={folder}/report.html"
    done = suite(
        folder, "-p", "tests.hil.desk", *reports, "-k", name, tests=folder / "test_cases.py"
    )
    return done.returncode, done.stdout + done.stderr


def summary(said: str) -> str:
    """Return what the end of a run says of boards."""
    return said.partition(" boards =")[2]


@pytest.mark.timeout(300)
def test_board_is_left_as_found_and_terminal_and_reports_say_so(tmp_path: Path) -> None:
    code, said = run(tmp_path, CASES, "test_")
    assert code == 1, said
    assert re.search(r"1 failed, 1 passed.*1 error", said), said
    leaves_as_found(tmp_path / "found.bin", tmp_path / "left.bin")
    assert not list((tmp_path / "state").rglob("*.bin"))
    # The board had gone, or had not: a time-out says nothing of that.
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    kinds: dict[Any, list[str]] = {
        case.get("name"): [child.tag for child in case if child.tag != "properties"]
        for case in cases.iter("testcase")
    }
    assert kinds["test_unplugged[desk-1]"] == ["error"]
    assert kinds["test_own_fault[desk-1]"] == ["failure"]
    values = {str(entry.get("value")) for entry in cases.iter("property")}
    page = (tmp_path / "report.html").read_text("utf-8")
    for words in (
        "desk-1: recovered by its console",
        "desk-1: its console (E66038B713952A31) is gone",
        "desk-1: flashed with what it was found with",
    ):
        assert summary(said).count(words) == 1, said
        assert words in values
        assert words in page


@pytest.mark.timeout(300)
def test_board_that_was_not_given_back_is_by_the_next_run(tmp_path: Path) -> None:
    code, said = run(tmp_path, CASES + FAILS, "writes_over")
    assert code == 1, said
    assert "desk-1: NOT given back" in summary(said), said
    (kept,) = (tmp_path / "state").rglob("*.bin")
    assert str(kept) in summary(said)
    shutil.copy(tmp_path / "found.bin", tmp_path / "first.bin")
    code, said = run(tmp_path, CASES, "writes_over")
    assert code == 0, said
    assert "did not give back what it was found with; this one will" in summary(said), said
    leaves_as_found(tmp_path / "first.bin", tmp_path / "left.bin")
    assert not kept.exists()
