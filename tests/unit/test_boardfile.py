"""board.toml: what is refused, with which code, and what the firmware gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemark_host.boardfile import (
    MAX_FILE,
    REGIONS,
    BoardFileError,
    generate_board_module,
    load_board,
    parse_board,
)

VIRTUAL = Path(__file__).resolve().parents[2] / "boards" / "VIRTUAL" / "board.toml"
TEXT = VIRTUAL.read_text()


def _code(text: str | bytes) -> str:
    with pytest.raises(BoardFileError) as caught:
        parse_board(text if isinstance(text, bytes) else text.encode())
    return caught.value.code


def _changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def test_virtual_board_has_every_region_and_fills_the_flash() -> None:
    board = load_board(VIRTUAL)
    assert set(board.regions) == set(REGIONS)
    assert sum(region.size for region in board.regions.values()) == board.flash_size
    assert (board.flash_size, board.sector, board.page) == (2 * 1024 * 1024, 4096, 256)


def test_every_shipped_board_is_valid_and_named_like_its_folder() -> None:
    for path in VIRTUAL.parents[1].glob("*/board.toml"):
        assert load_board(path).name == path.parent.name


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("journal = [0x086000, 0x008000]", "journal = [0x085000, 0x008000]", "overlap"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086010, 0x007000]", "misaligned"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086000, 0x007F00]", "misaligned"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086000, 0x001000]", "too-small"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086000, 0]", "too-small"),
        ("journal = [0x086000, 0x008000]", "", "missing-region"),
        ("journal = [0x086000, 0x008000]", 'journal = "all"', "type"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086000]", "type"),
        ("journal = [0x086000, 0x008000]", "journal = [0x086000, 4096.0]", "type"),
        ("journal = [0x086000, 0x008000]", "journal = [true, 0x008000]", "type"),
        ("journal = [0x086000, 0x008000]", "journal = [-4096, 0x008000]", "out-of-flash"),
        ("vfs = [0x126000, 0x0DA000]", "vfs = [0x126000, 0x0DB000]", "out-of-flash"),
        ("vfs = [0x126000, 0x0DA000]", "vfs = [0x7FFFFFFFFFFFF000, 0x1000]", "out-of-flash"),
        ("vfs = [0x126000, 0x0DA000]", "vfs = [0x126000, 0x0D9000]\nx = [0, 1]", "unknown-region"),
        ('name = "VIRTUAL"', "name = 7", "type"),
        ('name = "VIRTUAL"', 'name = "../x"', "name"),
        ('name = "VIRTUAL"', 'name = "VIRTUAL"\nextra = 1', "unknown"),
        ('name = "VIRTUAL"', 'name = "VIRTUAL', "syntax"),
        ("size = 0x200000", "size = 0x200800", "misaligned"),
        ("size = 0x200000", "size = 0x100000", "out-of-flash"),
        ("page = 256", "page = 0", "range"),
        ("page = 256", "page = 48", "misaligned"),
        ("timeout_ms = 4000", "timeout_ms = 9000", "range"),
        ("timeout_ms = 4000", "timeout_ms = true", "type"),
        ("timeout_ms = 4000", "", "missing"),
        ("[watchdog]", "[watchcat]", "unknown"),
        ("[watchdog]\ntimeout_ms = 4000", "", "missing"),
        ("hold_ms = 2000", "hold_ms = 6001", "range"),
        ("heap_floor = 16384", "heap_floor = 16384\nmore = 1", "unknown"),
    ],
)
def test_bad_board_file_is_refused_with_a_stable_code(old: str, new: str, code: str) -> None:
    assert _code(_changed(old, new)) == code


def test_oversize_unreadable_and_binary_files_are_refused(tmp_path: Path) -> None:
    assert _code(TEXT + "#" * MAX_FILE) == "oversize"
    assert _code(b"\xff\xfe") == "syntax"
    assert _code("") == "type"
    assert _code("x = " + "[" * 5000) == "syntax"
    with pytest.raises(BoardFileError) as caught:
        load_board(tmp_path / "none.toml")
    assert caught.value.code == "unreadable"


@given(st.binary(max_size=200), st.integers(0, len(TEXT)), st.integers(0, 200))
def test_damaged_file_is_a_board_or_a_typed_error(junk: bytes, at: int, cut: int) -> None:
    data = TEXT.encode()
    try:
        board = parse_board(data[:at] + junk + data[at + cut :])
    except BoardFileError as error:
        assert error.code
    else:
        generate_board_module(board)


def test_module_has_the_constants_of_the_file_and_never_varies() -> None:
    source = generate_board_module(load_board(VIRTUAL))
    assert source == generate_board_module(load_board(VIRTUAL))
    made: dict[str, object] = {}
    exec(source, made)
    assert (made["NAME"], made["CHIP"]) == ("VIRTUAL", "unix")
    assert made["WATCHDOG_MS"] == 4000
    assert (made["TRIAL_HOLD_MS"], made["TRIAL_LIMIT_MS"]) == (2000, 6000)
    assert (made["LEASE_BOOT_MS"], made["LEASE_REPL_MS"]) == (30_000, 600_000)
    assert made["HEAP_FLOOR"] == 16_384
    assert made["REGIONS"]["counter"] == (0x82000, 0x4000)  # pyright: ignore[reportIndexIssue]
