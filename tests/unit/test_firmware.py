"""`make firmware`: what it puts out, what it says of it, what it refuses before it compiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import REPO, firmware_dir
from tidemark_host import firmware, toolchain, toolchain_build, toolchain_esp32, uf2_file
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.boardfile import Board, load_board
from tidemark_host.chips import CHIPS
from tidemark_host.cli.firmware import command
from tidemark_host.factory import FactoryError, factory_image
from tidemark_host.firmware import development_release, make_firmware, named_release
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_cache import ToolchainError, bytes_digest

PICO = load_board(REPO / "boards" / "TIDEMARK_PICO" / "board.toml")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for build/, and a compiler that is quick: it only says a size."""
    (tmp_path / "boards").symlink_to(REPO / "boards")
    monkeypatch.setattr(firmware, "REPO", tmp_path)
    runtime = tmp_path / "runtime.uf2"
    runtime.write_bytes(uf2_file.encode({0: bytes(range(256)) * 1000}, PICO.chip))
    modules = (("tidemark/big", 5000), ("tidemark/small", 10))

    def compiled(board: str, mpy_cross: Path, umqtt: Path, runtime_index: int) -> rp2.Firmware:
        return rp2.Firmware(runtime, 256_000, 250_000, f"{runtime_index:02x}" * 32, modules)

    monkeypatch.setattr(rp2, "firmware", compiled)
    return tmp_path / "build" / "TIDEMARK_PICO"


def flash_of(path: Path, board: Board = PICO) -> bytearray:
    """Return a blank flash after a boot ROM took the file."""
    flash = bytearray(b"\xff" * board.flash_size)
    for offset, content in uf2_file.decode(path.read_bytes(), board.chip).items():
        flash[offset : offset + len(content)] = content
    return flash


def test_factory_image_is_runtime_slot_a_and_metadata_and_nothing_else(build: Path) -> None:
    report = make_firmware("TIDEMARK_PICO")
    flash = flash_of(build / "factory.uf2")
    runtime = flash_of(build / "firmware.uf2")
    assert flash[:256_000] == runtime[:256_000] == bytes(range(256)) * 1000
    path = app_path("TIDEMARK_PICO", report.signed.index)
    whole = factory_image(PICO, report.signed.repository, path)
    assert flash[256_000:] == whole[256_000:]
    assert flash[PICO.regions["slot_a"].offset :].startswith(b"TIDEMARK-SLOT-1\0")
    for name in ("provisioning", "counter", "journal", "evidence", "outbox", "slot_b"):
        region = PICO.regions[name]
        touched = uf2_file.decode((build / "factory.uf2").read_bytes(), PICO.chip)
        assert not [at for at in touched if region.offset <= at < region.end], name


def test_same_inputs_give_the_same_images(build: Path) -> None:
    first = make_firmware("TIDEMARK_PICO").images
    assert make_firmware("TIDEMARK_PICO").images == first
    for path, digest in first.items():
        assert bytes_digest((build / Path(path).name).read_bytes()) == digest


def test_report_has_sizes_against_limits_largest_modules_and_who_signed(build: Path) -> None:
    done = CliRunner().invoke(command, ["TIDEMARK_PICO"])
    assert done.exit_code == 0, done.output
    limit = PICO.constants["RUNTIME_MAX"]
    assert f"runtime {100 * 256_000 / limit:.0f} % full, slot A " in done.output
    assert f"  {'heap':<8}   250,000 bytes, at least {PICO.constants['HEAP']:,}" in done.output
    assert "    5,000  tidemark/big\n" in done.output
    assert "signed by DEVELOPMENT keys made on this machine" in done.output
    said = json.loads(CliRunner().invoke(command, ["TIDEMARK_PICO", "--json"]).output)
    assert (said["runtime"], said["runtime_index"]) == ("01" * 32, 1)
    assert said["sizes"][0] == {
        "part": "runtime",
        "used": 256_000,
        "limit": limit,
        "percent": round(100 * 256_000 / limit, 1),
    }
    assert said["signed"]["development"] is True
    assert [row[0] for row in said["modules"]] == ["tidemark/big", "tidemark/small"]


def test_runtime_says_the_index_it_was_built_with(build: Path) -> None:
    done = CliRunner().invoke(command, ["TIDEMARK_PICO", "--runtime-index", "2", "--json"])
    said = json.loads(done.output)
    assert (said["runtime"], said["runtime_index"]) == ("02" * 32, 2)
    assert (
        f"runtime 2, made of {'02' * 8}" in make_firmware("TIDEMARK_PICO", None, None, 2).lines()
    )
    done = CliRunner().invoke(command, ["TIDEMARK_PICO", "--runtime-index", "0"])
    assert done.exit_code == 2


@pytest.mark.parametrize("name", ["TIDEMARK_PICO", "TIDEMARK_ESP32_S3"])
def test_runtime_index_is_one_of_the_inputs_that_a_build_is_known_by(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IDF_PATH", str(tmp_path))
    monkeypatch.setattr(rp2, "_compiler_version", lambda: "")
    module = rp2 if name == "TIDEMARK_PICO" else toolchain_esp32
    # The key is private to each toolchain, and is what an image is kept under.
    key: Any = getattr(module, "_key")  # noqa: B009
    folder, sources = REPO / "boards" / name, firmware_dir()
    keys = [
        key(*words)
        for index in (1, 2, 1)
        for board in [toolchain_build.board_of(name, index)]
        for words in [
            (folder, board, sources, tmp_path, tmp_path)
            if module is rp2
            else (board, folder, sources, tmp_path, tmp_path)
        ]
    ]
    assert keys[0] == keys[2] != keys[1]


def test_development_keys_stay_below_build_which_git_does_not_take(build: Path) -> None:
    make_firmware("TIDEMARK_PICO")
    keys = list((build / "development" / "keys").glob("*.pem"))
    assert keys
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert "/build/" in (REPO / ".gitignore").read_text().splitlines()


def test_changed_agent_is_a_new_release_and_the_same_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = development_release(PICO, out)
    assert development_release(PICO, out) == first
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "more.py").write_text("MORE = 1\n")
    second = development_release(PICO, out, [extra])
    assert (first.index, second.index) == (1, 2)


def test_named_repository_is_taken_with_its_own_keys(build: Path, tmp_path: Path) -> None:
    app = build_image([firmware_dir() / "agent"], None, tmp_path / "app.romfs")
    made = Repository.create(tmp_path / "repo", KeyStore.create(tmp_path / "keys"))
    for version in ("1.0.0", "1.1.0"):
        made.add(app, board="TIDEMARK_PICO", version=version)
    made.publish()
    report = make_firmware("TIDEMARK_PICO", made.folder)
    assert (report.signed.index, report.signed.version) == (2, "1.1.0")
    assert not report.signed.development
    assert not (build / "development").exists()
    assert make_firmware("TIDEMARK_PICO", made.folder, 1).signed.version == "1.0.0"
    with pytest.raises(FactoryError) as caught:
        named_release(load_board(REPO / "boards" / "VIRTUAL" / "board.toml"), made.folder, None)
    assert caught.value.code == "no-release"


def test_agent_that_does_not_fit_its_slot_is_refused_before_the_compiler_runs(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiler(*_: object) -> None:
        raise AssertionError("the compiler was started")

    monkeypatch.setattr(rp2, "firmware", compiler)
    copy = tmp_path / "firmware" / "agent"
    copy.mkdir(parents=True)
    (copy / "app.py").write_text("def tasks(base):\n    return []\n")
    (copy / "table.bin").write_bytes(bytes(PICO.regions["slot_a"].size))
    monkeypatch.setenv("TIDEMARK_FIRMWARE", str(copy.parent))
    done = CliRunner().invoke(command, ["TIDEMARK_PICO"])
    assert done.exit_code == 1
    assert "(too-large)" in done.output
    assert not (build / "firmware.uf2").exists()


def test_image_above_the_limits_of_board_toml_is_refused(tmp_path: Path) -> None:
    limits = PICO.constants
    for size, heap, code in (
        (limits["RUNTIME_MAX"] + 1, limits["HEAP"], "firmware-size"),
        (limits["RUNTIME_MAX"], limits["HEAP"] - 1, "firmware-heap"),
    ):
        facts = {"size": size, "heap": heap, "runtime": "", "modules": []}
        (tmp_path / "facts.json").write_text(json.dumps(facts))
        with pytest.raises(ToolchainError) as caught:
            rp2._built(tmp_path, PICO)  # pyright: ignore[reportPrivateUsage]
        assert caught.value.code == code


def test_board_without_a_build_says_so() -> None:
    for board, code in (("NOWHERE", "unknown-board"), ("../boards/VIRTUAL", "unknown-board")):
        done = CliRunner().invoke(command, [board])
        assert done.exit_code == 1
        assert code in done.output


def test_virtual_board_gets_its_program_and_a_factory_flash(build: Path) -> None:
    report = make_firmware("VIRTUAL")
    out = build.parent / "VIRTUAL"
    assert (out / "micropython").read_bytes() == toolchain.runtime().read_bytes()
    board = load_board(REPO / "boards" / "VIRTUAL" / "board.toml")
    assert len((out / "factory.bin").read_bytes()) == board.flash_size
    assert report.heap is None


def test_chip_table_has_the_numbers_of_the_data_sheets() -> None:
    assert {name: chip.family for name, chip in CHIPS.items() if chip.family} == {
        "rp2040": 0xE48BFF56,
        "rp2350": 0xE48BFF59,
    }
    assert {chip.xip for chip in CHIPS.values() if chip.family} == {0x10000000}
    assert max(chip.watchdog_max_ms for chip in CHIPS.values() if chip.port == "rp2") == 8388
