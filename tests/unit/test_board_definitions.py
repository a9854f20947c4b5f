"""What MicroPython's build is told about a board is what its board.toml says."""

from __future__ import annotations

import dataclasses
import re
import struct
from pathlib import Path

import pytest

from tests.conftest import REPO
from tidemark_host import toolchain_native, toolchain_rp2
from tidemark_host.boardfile import (
    Board,
    BoardFileError,
    generate_header,
    load_board,
    parse_board,
)
from tidemark_host.chips import CHIPS
from tidemark_host.toolchain_cache import ToolchainError

RP2 = [
    board
    for board in map(load_board, sorted(REPO.glob("boards/*/board.toml")))
    if board.chip.port == "rp2"
]
RADIO = [board for board in RP2 if board.radio != "none"]
# Flash sizes that pico-sdk's own header of each board has.
SDK_FLASH = {"pico": 2 << 20, "pico_w": 2 << 20, "pico2": 4 << 20, "pico2_w": 4 << 20}

each_rp2 = pytest.mark.parametrize("board", RP2, ids=lambda board: board.name)
each_radio = pytest.mark.parametrize("board", RADIO, ids=lambda board: board.name)


def defines(text: str) -> dict[str, str]:
    return dict(re.findall(r"^#define (\w+) (.+)$", text, re.MULTILINE))


def settings(board: Board) -> dict[str, str]:
    text = (REPO / "boards" / board.name / "mpconfigboard.cmake").read_text()
    return {key: value.strip('"') for key, value in re.findall(r"set\((\w+) (\S+)\)", text)}


def test_every_board_is_there() -> None:
    assert {board.name: board.chip.name for board in RP2} == {
        "TIDEMARK_PICO": "rp2040",
        "TIDEMARK_PICO_W": "rp2040",
        "TIDEMARK_PICO2": "rp2350",
        "TIDEMARK_PICO2_W": "rp2350",
    }


@each_rp2
def test_storage_begins_where_the_runtime_ends_and_romfs_is_its_last_sector(board: Board) -> None:
    header = defines(generate_header(board))
    storage = int(header["MICROPY_HW_FLASH_STORAGE_BYTES"].strip("()"))
    romfs = int(header["MICROPY_HW_ROMFS_BYTES"].strip("()"))
    # As ports/rp2/rp2_flash.c places them.
    assert board.flash_size - storage == board.regions["runtime"].end
    assert board.flash_size - storage - romfs >= board.constants["RUNTIME_MAX"]
    assert header["MICROPY_HW_BOARD_NAME"] == f'"{board.label}"'


@each_rp2
def test_values_of_board_toml_stand_nowhere_else(board: Board) -> None:
    own = (REPO / "boards" / board.name / "mpconfigboard.h").read_text()
    assert not defines(own).keys() & defines(generate_header(board)).keys()
    assert '#include "tidemark_board.h"' in own


@each_rp2
def test_chip_and_flash_are_those_that_pico_sdk_is_told(board: Board) -> None:
    told = settings(board)
    assert told["PICO_PLATFORM"] == board.chip.platform
    assert board.flash_size == SDK_FLASH[told["PICO_BOARD"]]
    # ... and the compiler checks it against the SDK's own number.
    assert f"#if PICO_FLASH_SIZE_BYTES != {board.flash_size}\n#error" in generate_header(board)


@each_rp2
def test_regions_fill_the_flash(board: Board) -> None:
    assert sum(region.size for region in board.regions.values()) == board.flash_size


@each_rp2
def test_pins_are_those_the_board_has(board: Board) -> None:
    rows = (REPO / "boards" / board.name / "pins.csv").read_text().splitlines()
    names = dict(row.split(",") for row in rows)
    # On the W boards the radio has GP23 to GP25 and GP29, and the LED.
    assert ("GP25" in names) == (board.radio == "none")
    assert names["LED"] == ("GPIO25" if board.radio == "none" else "EXT_GPIO0")


@each_radio
def test_radio_board_without_its_driver_is_a_typed_error_that_says_what_to_do(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MICROPY_DIR", raising=False)
    with pytest.raises(ToolchainError, match="MICROPY_DIR") as caught:
        toolchain_rp2.need_radio(board)
    assert caught.value.code == "radio-driver"
    monkeypatch.setenv("MICROPY_DIR", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"lacks lib/cyw43-driver, lib/lwip\.") as caught:
        toolchain_rp2.need_radio(board)
    assert caught.value.code == "radio-driver"
    for part in ("lib/cyw43-driver/src/cyw43.h", "lib/lwip/src/include/lwip/opt.h"):
        (tmp_path / part).parent.mkdir(parents=True)
        (tmp_path / part).write_text("")
    toolchain_rp2.need_radio(board)


@each_radio
def test_radio_board_is_refused_before_anything_is_fetched_or_built(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MICROPY_DIR", raising=False)
    monkeypatch.setenv("TIDEMARK_CACHE", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        toolchain_rp2.firmware(board.name, Path("none"), Path("none"))
    assert caught.value.code == "radio-driver"
    assert list(tmp_path.iterdir()) == []


def test_image_is_built_only_for_a_chip_whose_registers_the_port_has() -> None:
    for board in RP2:
        toolchain_rp2.need_port(board)
    other = dataclasses.replace(RP2[0].chip, name="rp2450")
    with pytest.raises(ToolchainError, match="RP2450") as caught:
        toolchain_rp2.need_port(dataclasses.replace(RP2[0], chip=other))
    assert caught.value.code == "port-chip"


def test_native_modules_are_compiled_for_the_processor_of_each_chip() -> None:
    # The byte behind the version: architecture, as py/persistentcode.h numbers them.
    for chip, number in (("rp2040", 4), ("rp2350", 7)):
        for name, code in toolchain_native.native_modules(CHIPS[chip].march).items():
            magic, version, flags = struct.unpack_from("<BBB", code)
            assert (magic, version, flags >> 2 & 0x0F) == (ord("M"), 6, number), name


PICO = (REPO / "boards" / "TIDEMARK_PICO" / "board.toml").read_text()
PICO_MAX = re.search(r"runtime_max = (\S+)", PICO)
PICO_RUNTIME = re.search(r"runtime = \[0x000000, (\S+)\]", PICO)
assert PICO_MAX
assert PICO_RUNTIME


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('chip = "rp2040"', 'chip = "rp2041"', "range"),
        ('chip = "rp2040"', "", "missing"),
        ('chip = "rp2040"', "chip = 7", "type"),
        ('chip = "rp2040"', 'chip = "rp2040"\nradio = "lora"', "range"),
        ('label = "Tidemark Pico"', "label = 'a \"b'", "name"),
        ('label = "Tidemark Pico"', "label = 7", "type"),
        ("timeout_ms = 4000", "timeout_ms = 9000", "range"),
        # Seconds are a bench's, which sets them when it provisions.
        ("limit_ms = 180000", "limit_ms = 59999", "range"),
        # The last sector of the runtime's region is MicroPython's ROMFS, and stays blank.
        (PICO_MAX[0], f"runtime_max = {PICO_RUNTIME[1]}", "range"),
    ],
)
def test_board_that_its_chip_could_not_run_is_refused(old: str, new: str, code: str) -> None:
    assert PICO.count(old) == 1
    with pytest.raises(BoardFileError) as caught:
        parse_board(PICO.replace(old, new).encode())
    assert caught.value.code == code


def test_runtime_that_the_boot_rom_would_not_start_is_refused() -> None:
    moved = re.sub(r"runtime = \[0x000000, 0x0*(\w+)\]", r"runtime = [0x001000, 0x001000]", PICO)
    moved = moved.replace(PICO_MAX[0], "runtime_max = 1")  # pyright: ignore[reportOptionalSubscript]
    with pytest.raises(BoardFileError) as caught:
        parse_board(moved.encode())
    assert caught.value.code == "misplaced"
