"""ESP32 boards: MicroPython's build is told what board.toml says, and says what it lacks.

ESP-IDF itself is not here. Its place is taken by a program that makes the partition table as
Espressif's generator does (tests/esp32/test_partitions.py) and writes down how it was called.
"""

from __future__ import annotations

import dataclasses
import re
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import REPO
from tidemark_host import toolchain_esp32
from tidemark_host.boardfile import OPTIONS, Board, load_board
from tidemark_host.cli.firmware import command
from tidemark_host.esp32.partitions import encode, to_csv
from tidemark_host.toolchain_cache import ToolchainError

BOARDS = [load_board(path) for path in sorted(REPO.glob("boards/TIDEMARK_ESP32*/board.toml"))]
BY_NAME = {board.name: board for board in BOARDS}
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def folder(board: Board) -> Path:
    assert board.esp32
    return REPO / "boards" / board.esp32.definition


def settings(text: str) -> dict[str, str]:
    """Return ESP-IDF's settings; of two of one name the last counts."""
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def with_options(board: Board, *options: str) -> Board:
    assert board.esp32
    return dataclasses.replace(board, esp32=dataclasses.replace(board.esp32, options=options))


@each_board
def test_definition_names_the_chip_and_the_files_that_are_laid_beside_it(
    board: Board, tmp_path: Path
) -> None:
    laid = toolchain_esp32.define(board, folder(board), tmp_path / "board")
    cmake = (laid / "mpconfigboard.cmake").read_text()
    assert re.findall(r"set\(IDF_TARGET (\w+)\)", cmake) == [board.chip.name]
    named = re.findall(r"\$\{MICROPY_BOARD_DIR\}/(\S+)", cmake)
    assert named == ["sdkconfig.tidemark", "sdkconfig.board", "sdkconfig.tidemark_board"]
    assert all((laid / name).is_file() for name in named)
    assert (laid / "mpconfigboard.h").read_text().count('#include "tidemark_board.h"') == 1
    assert board.esp32
    assert (laid / "partitions.csv").read_text() == to_csv(board.esp32.partitions, board.name)
    told = settings("".join((laid / name).read_text() for name in named))
    assert told["CONFIG_PARTITION_TABLE_CUSTOM_FILENAME"] == f'"{laid / "partitions.csv"}"'
    # A file that is no part of the definition any more goes, one that stays keeps its time.
    (laid / "stale.h").write_text("")
    before = (laid / "tidemark_board.h").stat().st_mtime_ns
    toolchain_esp32.define(board, folder(board), laid)
    assert not (laid / "stale.h").exists()
    assert (laid / "tidemark_board.h").stat().st_mtime_ns == before


@each_board
def test_esp_idf_is_told_the_flash_size_and_the_table_of_board_toml(board: Board) -> None:
    told = settings(toolchain_esp32.sdkconfig(board, Path("partitions.csv")))
    size = f"CONFIG_ESPTOOLPY_FLASHSIZE_{board.flash_size >> 20}MB"
    # MicroPython's own file has 4 MB on: exactly one may be.
    assert [key for key, value in told.items() if "FLASHSIZE" in key and value == "y"] == [size]
    assert told["CONFIG_ESPTOOLPY_FLASHSIZE_4MB"] == ("y" if board.flash_size == 4 << 20 else "n")
    assert int(told["CONFIG_PARTITION_TABLE_OFFSET"], 16) == 0x8000
    header = toolchain_esp32.header(board)
    assert f"#if !{size}\n#error" in header
    assert f'#define MICROPY_HW_BOARD_NAME "{board.label}"' in header


@each_board
def test_values_of_board_toml_stand_nowhere_else(board: Board) -> None:
    defines = r"^#define (\w+)"
    own = (folder(board) / "mpconfigboard.h").read_text()
    made = toolchain_esp32.header(board)
    assert not set(re.findall(defines, own, re.M)) & set(re.findall(defines, made, re.M))
    fragments = (REPO / "boards" / "esp32" / "sdkconfig.tidemark").read_text()
    fragments += (folder(board) / "sdkconfig.board").read_text()
    assert (
        not settings(fragments).keys()
        & settings(toolchain_esp32.sdkconfig(board, Path("x"))).keys()
    )


def test_what_the_updates_rely_on_is_on_in_every_image() -> None:
    told = settings((REPO / "boards" / "esp32" / "sdkconfig.tidemark").read_text())
    assert told["CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE"] == "y"
    # It would start an image that is not confirmed again.
    assert told["CONFIG_BOOTLOADER_SKIP_VALIDATE_IN_DEEP_SLEEP"] == "n"
    assert told["CONFIG_ESP_TASK_WDT_INIT"] == told["CONFIG_BOOTLOADER_WDT_ENABLE"] == "y"
    for board in BOARDS:
        own = (folder(board) / "mpconfigboard.h").read_text()
        assert "#define MICROPY_VFS_ROM (1)" in own
        assert "#define MICROPY_PY_BLUETOOTH (0)" in own
        manifest = (folder(board) / "manifest.py").read_text()
        assert 'include("../../manifest.py")' in manifest
        assert "PORT_DIR" not in manifest


def test_an_option_is_in_the_image_only_where_it_is_chosen() -> None:
    switch = {
        "secure-boot": "CONFIG_SECURE_BOOT_V2_ENABLED",
        "flash-encryption": "CONFIG_SECURE_FLASH_ENC_ENABLED",
    }
    assert set(switch) == set(OPTIONS)
    board = BY_NAME["TIDEMARK_ESP32"]
    for chosen in ((), *((option,) for option in OPTIONS), OPTIONS):
        text = toolchain_esp32.sdkconfig(with_options(board, *chosen), Path("x"))
        on = {option for option in OPTIONS if settings(text).get(switch[option]) == "y"}
        assert on == set(chosen)
        # The last word in ESP-IDF's settings: it can't be had by a board's own either.
        assert settings(text)["CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK"] == "n"
    for shipped in BOARDS:
        assert shipped.esp32 and shipped.esp32.options == ()


def test_radios_calibration_is_not_encrypted_with_keys_that_no_partition_has() -> None:
    """ESP-IDF would turn it on, and find no partition of keys: no nvs, no radio."""
    board = with_options(BY_NAME["TIDEMARK_ESP32"], "flash-encryption")
    text = toolchain_esp32.sdkconfig(board, Path("x"))
    assert settings(text)["CONFIG_NVS_ENCRYPTION"] == "n"
    assert board.esp32 and all((row.type, row.subtype) != (1, 4) for row in board.esp32.partitions)


# -- what is missing


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder for tools; nothing names one yet."""
    for name in ("MICROPY_DIR", "IDF_PATH", "IDF_PYTHON_ENV_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDEMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def make_port(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = place / "firmware" / "tidemark" / "port"
    port.mkdir(parents=True)
    (port / "esp32.py").write_text("")
    for name in ("_boot.py", "main.py"):
        (place / "firmware" / name).write_text("")
    monkeypatch.setenv("TIDEMARK_FIRMWARE", str(place / "firmware"))


def make_tree(place: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.25.0") -> Path:
    tree = place / "micropython"
    names = zip(("MAJOR", "MINOR", "MICRO"), version.split("."), strict=True)
    for name in ("py/mpconfig.h", "lib/berkeley-db-1.xx/README", "lib/tinyusb/src/tusb.c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    text = "".join(f"#define MICROPY_VERSION_{name} {number}\n" for name, number in names)
    (tree / "py/mpconfig.h").write_text(text)
    (tree / "ports/esp32").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("MICROPY_DIR", str(tree))
    return tree


_IDF_PY = """#!{python}
import pathlib, sys
from esp_idf_defs import PartitionTable
words = sys.argv[1:]
assert words[-1] == "build", words
work = pathlib.Path(words[words.index("-B") + 1])
told = dict(word.split("=", 1) for flag, word in zip(words, words[1:]) if flag == "-D")
board = pathlib.Path(told["MICROPY_BOARD_DIR"])
for folder in ("bootloader", "partition_table"):
    (work / folder).mkdir(parents=True, exist_ok=True)
table = PartitionTable.from_csv((board / "partitions.csv").read_text())
table.verify(0x8000)
(work / "partition_table/partition-table.bin").write_bytes(table.to_binary())
(work / "bootloader/bootloader.bin").write_bytes(b"\\xe9boot")
(work / "micropython.bin").write_bytes(b"\\xe9runtime")
names = ("sdkconfig.tidemark", "sdkconfig.board", "sdkconfig.tidemark_board")
(work / "sdkconfig").write_text("\\n".join((board / name).read_text() for name in names))
(work / "told").write_text("\\n".join([str(pathlib.Path.cwd()), *sorted(told)]))
for name in ("MICROPY_LIB_DIR", "MICROPY_MANIFEST_FIRMWARE", "MICROPY_MANIFEST_GENERATED"):
    assert pathlib.Path(told[name]).is_dir(), name
assert pathlib.Path(told["MICROPY_FROZEN_MANIFEST"]).is_file()
"""


def make_idf(place: Path, monkeypatch: pytest.MonkeyPatch, version: str = "5.2.2") -> Path:
    idf = place / "esp-idf"
    names = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    (idf / "tools/cmake").mkdir(parents=True, exist_ok=True)
    text = "".join(f"set(IDF_VERSION_{name} {number})\n" for name, number in names)
    (idf / "tools/cmake/version.cmake").write_text(text)
    program = idf / "tools" / "idf.py"
    program.write_text(_IDF_PY.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IDF_PATH", str(idf))
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return idf


def refusal(board: Board) -> ToolchainError:
    with pytest.raises(ToolchainError) as caught:
        toolchain_esp32.need(board)
    return caught.value


@each_board
def test_build_without_its_tools_names_all_of_them_and_builds_nothing(
    board: Board, no_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_port(no_tools, monkeypatch)
    done = CliRunner().invoke(command, [board.name])
    assert done.exit_code == 1
    for said in ("MICROPY_DIR", "1.25.0", "ESP-IDF 5.2.2", "export.sh", "micropython-dir"):
        assert said in done.output
    assert not (no_tools / "cache").exists()


def test_each_missing_tool_has_its_code_and_says_what_is_wrong(
    no_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = BY_NAME["TIDEMARK_ESP32_C3"]
    (no_tools / "firmware").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("TIDEMARK_FIRMWARE", str(no_tools / "firmware"))
        assert refusal(board).code == "port-missing"
    make_port(no_tools / "own", monkeypatch)
    assert refusal(board).code == "micropython-dir"
    tree = make_tree(no_tools, monkeypatch, "1.26.0")
    assert "is 1.26.0" in str(refusal(board))
    make_tree(no_tools, monkeypatch)
    (tree / "lib/tinyusb/src/tusb.c").unlink()
    assert "lacks lib/tinyusb)" in str(refusal(board))
    make_tree(no_tools, monkeypatch)
    assert refusal(board).code == "esp-idf"
    monkeypatch.setenv("IDF_PATH", str(no_tools))
    assert "is no ESP-IDF" in str(refusal(board))
    idf = make_idf(no_tools, monkeypatch, "5.5.0")
    assert "is 5.5.0" in str(refusal(board))
    make_idf(no_tools, monkeypatch)
    toolchain_esp32.need(board)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no idf.py" in str(refusal(board))
    assert idf.is_dir()


def test_esp_idf_runs_with_its_own_python_where_it_names_one(
    no_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idf = make_idf(no_tools, monkeypatch)
    asked = toolchain_esp32._idf_py  # pyright: ignore[reportPrivateUsage]
    assert asked() == ["idf.py"]
    python = no_tools / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    monkeypatch.setenv("IDF_PYTHON_ENV_PATH", str(no_tools / "env"))
    assert asked() == [python, idf / "tools" / "idf.py"]


# -- the build, with a program in ESP-IDF's place


@pytest.mark.parametrize("name", ["TIDEMARK_ESP32_C3", "TIDEMARK_ESP32_C3_8MB"])
def test_build_runs_esp_idf_and_takes_its_parts(
    name: str, no_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = BY_NAME[name]
    make_port(no_tools, monkeypatch)
    tree = make_tree(no_tools, monkeypatch)
    make_idf(no_tools, monkeypatch)
    umqtt = no_tools / "umqtt"
    umqtt.mkdir()
    built = toolchain_esp32.firmware(board, Path("mpy-cross"), umqtt)
    assert board.esp32
    table = encode(board.esp32.partitions, board.flash_size)
    assert built.parts == {0x0: b"\xe9boot", 0x8000: table, 0x10000: b"\xe9runtime"}
    assert built.signed
    content = toolchain_esp32.flash_content(built.parts)
    assert content[0x8000:0x8C00] == table
    assert content[0x8C00:0x10000] == b"\xff" * 0x7400
    assert content[0x10000:] == b"\xe9runtime"
    (told,) = (no_tools / "cache").glob("build-*/told")
    place, *names = told.read_text().splitlines()
    assert place == str(tree / "ports" / "esp32")
    assert {"MICROPY_BOARD", "MICROPY_BOARD_DIR", "MICROPY_FROZEN_MANIFEST"} <= set(names)


def test_settings_that_esp_idf_did_not_take_are_named(tmp_path: Path) -> None:
    board = with_options(BY_NAME["TIDEMARK_ESP32_C3"], "secure-boot", "flash-encryption")
    laid = toolchain_esp32.define(board, folder(board), tmp_path / "board")
    wanted = settings("".join(path.read_text() for path in sorted(laid.glob("sdkconfig.*"))))
    # As kconfgen writes them; a setting of another chip it has never heard of.
    made = {name: value for name, value in wanted.items() if "_ESP32_REV" not in name}
    assert len(made) == len(wanted) - 1

    def built(changes: dict[str, str]) -> None:
        lines = [
            f"# {name} is not set" if value == "n" else f"{name}={value}"
            for name, value in {**made, "CONFIG_OTHER": "y", **changes}.items()
        ]
        (tmp_path / "sdkconfig").write_text("\n".join(lines) + "\n")
        toolchain_esp32.check_settings(board, laid, tmp_path)

    built({})
    for name, value, said in (
        ("CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE", "n", "is n, not y"),
        ("CONFIG_NVS_ENCRYPTION", "y", "is y, not n"),
        ("CONFIG_BOOTLOADER_WDT_TIME_MS", "90000", "is 90000, not 9000"),
        ("CONFIG_ESPTOOLPY_FLASHSIZE_8MB", "y", "is y, not n"),
    ):
        with pytest.raises(ToolchainError, match=f"{name} {said}") as caught:
            built({name: value})
        assert caught.value.code == "sdkconfig"


def test_what_esp_idf_made_is_checked_against_board_toml(tmp_path: Path) -> None:
    board = BY_NAME["TIDEMARK_ESP32"]
    assert board.esp32
    for name in ("bootloader", "partition_table"):
        (tmp_path / name).mkdir()
    table = tmp_path / "partition_table/partition-table.bin"
    table.write_bytes(encode(board.esp32.partitions, board.flash_size))
    loader, runtime = tmp_path / "bootloader/bootloader.bin", tmp_path / "micropython.bin"

    def code() -> str:
        with pytest.raises(ToolchainError) as caught:
            toolchain_esp32.collect(board, tmp_path, "")
        return caught.value.code

    loader.write_bytes(b"b" * 0x7000)
    runtime.write_bytes(b"r" * board.constants["RUNTIME_MAX"])
    assert toolchain_esp32.collect(board, tmp_path, "").size == board.constants["RUNTIME_MAX"]
    # It begins at 0x1000 on this chip, and the table at 0x8000.
    loader.write_bytes(b"b" * 0x7001)
    assert code() == "firmware-size"
    loader.write_bytes(b"b")
    runtime.write_bytes(b"r" * (board.constants["RUNTIME_MAX"] + 1))
    assert code() == "firmware-size"
    runtime.write_bytes(b"r")
    unsigned = with_options(board, "secure-boot")
    assert not toolchain_esp32.collect(unsigned, tmp_path, "").signed
    other = BY_NAME["TIDEMARK_ESP32_8MB"].esp32
    assert other
    table.write_bytes(encode(other.partitions, 8 << 20))
    assert code() == "partition-table"
