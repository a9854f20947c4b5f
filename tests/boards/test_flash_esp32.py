"""Flashing an ESP32 by esptool: into a boot ROM on a line of this machine, whose flash is then
started by the model of its bootloader. What only hardware shows is docs/hardware-checklist.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esptool
import pytest
from click.testing import CliRunner

from tests.boards.rom_serial import RomSerial
from tests.conftest import REPO
from tidemark_host import firmware, toolchain_esp32
from tidemark_host.boardfile import Board, load_board, runtime_mark
from tidemark_host.boards.nor import NorFlash
from tidemark_host.cli import flash as flash_verb
from tidemark_host.discovery import Found
from tidemark_host.esp32 import partitions
from tidemark_host.esp32.bootloader import Bootloader, Layout
from tidemark_host.esp32.flash import SECTOR, Region
from tidemark_host.esp32.image import CHIPS, Segment, make_image
from tidemark_host.esp32.otadata import Entry, State
from tidemark_host.flashing import STATE, FlashingError, Image, read_image
from tidemark_host.flashing_esp32 import flash_esp32, write_esp32
from tidemark_host.uf2_file import sectors

NAMES = sorted(path.parent.name for path in REPO.glob("boards/TIDEMARK_ESP32*/board.toml"))
BOARDS = {name: load_board(REPO / "boards" / name / "board.toml") for name in NAMES}
ESP32 = BOARDS["TIDEMARK_ESP32"]
SIZE_ID = {4 << 20: 0x16, 8 << 20: 0x17}


def runtime(board: Board, index: int = 1) -> bytes:
    chip = CHIPS[board.chip.name]
    mark = runtime_mark(board.name, index) * 100
    return make_image([Segment(chip.ram, mark + bytes(-len(mark) % 4))], chip)


def parts(board: Board, index: int = 1) -> dict[int, bytes]:
    """Return what ESP-IDF builds: bootloader, table, runtime."""
    assert board.esp32
    chip = CHIPS[board.chip.name]
    return {
        board.chip.bootloader: make_image([Segment(chip.ram, b"boot" * 4000)], chip),
        partitions.TABLE_OFFSET: partitions.encode(board.esp32.partitions, board.flash_size),
        board.regions["runtime"].offset: runtime(board, index),
    }


def place(board: Board, label: str) -> Region:
    assert board.esp32
    row = next(row for row in board.esp32.partitions if row.label == label)
    return Region(row.offset, row.size)


def boots(board: Board, flash: bytearray) -> int:
    """Start the board once; return the runtime slot that its bootloader starts."""
    ota = (place(board, "ota_0"), place(board, "ota_1"))
    chip = NorFlash(flash)
    index = Bootloader(chip, Layout(place(board, "otadata"), ota), CHIPS[board.chip.name]).boot()
    flash[:] = chip.view(0, chip.size)
    return index.index


def put(flash: bytearray, offset: int, content: bytes) -> None:
    flash[offset : offset + len(content)] = content


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make firmware`, with bytes in the place of ESP-IDF; returns build/<board>."""
    (tmp_path / "boards").symlink_to(REPO / "boards")
    monkeypatch.setattr(firmware, "REPO", tmp_path)
    monkeypatch.setattr(toolchain_esp32, "need", lambda board: None)

    def compiled(board: Board, *_: Any) -> toolchain_esp32.Firmware:
        made = parts(board, board.runtime_index)
        return toolchain_esp32.Firmware(made, len(runtime(board)), "ab" * 32, True)

    monkeypatch.setattr(toolchain_esp32, "firmware", compiled)

    def made(name: str = ESP32.name, index: int = 1) -> Path:
        firmware.make_firmware(name, None, None, index)
        return tmp_path / "build" / name

    return made


def blank(board: Board = ESP32) -> bytearray:
    return bytearray(b"\xff" * board.flash_size)


def flashed(rom: RomSerial, path: Path, board: Board = ESP32, **other: Any) -> Any:
    return flash_esp32(Found(rom.url), read_image(path, board), **other)


def refused(code: str, words: str = "") -> Any:
    return pytest.raises(
        FlashingError, match=words or None, check=lambda error: error.code == code
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_board_holds_the_factory_image_and_starts_it(make: Make, name: str) -> None:
    board = BOARDS[name]
    factory = make(name) / "factory.bin"
    flash, wanted = blank(board), factory.read_bytes()
    with RomSerial(board.chip.name, flash, SIZE_ID[board.flash_size]) as rom:
        outcome = flashed(rom, factory, board)
        assert (outcome.how, outcome.skipped, outcome.verified) == ("esptool", False, True)
        assert flash == wanted
        assert boots(board, flash) == 0
        # Its first start writes otadata; it is the same image all the same.
        assert flash != wanted
        before = list(rom.written)
        again = flashed(rom, factory, board)
        assert (again.how, again.skipped, again.verified) == ("none", True, True)
        assert rom.written == before


def test_the_merged_image_is_what_esptool_merges(make: Make, tmp_path: Path) -> None:
    for name in NAMES:
        chip = BOARDS[name].chip.name
        esptool.merge_bin(list(parts(BOARDS[name]).items()), chip, str(tmp_path / "merged"))
        assert (make(name) / "firmware.bin").read_bytes() == (tmp_path / "merged").read_bytes()


def test_the_verb_flashes_by_a_port_and_says_so(make: Make) -> None:
    factory = make() / "factory.bin"
    with RomSerial("esp32", blank()) as rom:
        words = [rom.url, "--board", ESP32.name, "--image", str(factory)]
        done = CliRunner().invoke(flash_verb.command, [*words, "--json"])
        assert done.exit_code == 0, done.output
        said = json.loads(done.output)
        assert (said["board"], said["how"], said["skipped"], said["verified"]) == (
            *(ESP32.name, "esptool"),
            *(False, True),
        )
        done = CliRunner().invoke(flash_verb.command, words)
        assert done.exit_code == 0 and "holds it already" in done.output
        words[2] = "TIDEMARK_ESP32_C3"
        done = CliRunner().invoke(flash_verb.command, words)
        assert done.exit_code == 1 and "(image)" in done.output


def test_progress_rises_to_the_end(make: Make) -> None:
    seen: list[tuple[int, int]] = []
    with RomSerial("esp32", blank()) as rom:
        flashed(rom, make() / "factory.bin", progress=lambda *now: seen.append(now))
    assert seen == sorted(seen) and len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_a_runtime_of_the_other_slot_is_not_what_the_image_says(make: Make) -> None:
    factory = make() / "factory.bin"
    with RomSerial("esp32", blank()) as rom:
        flashed(rom, factory)
        put(rom.flash, place(ESP32, "ota_1").offset, runtime(ESP32, 2))
        put(rom.flash, place(ESP32, "otadata").offset, Entry.made(2, State.VALID).encode())
        assert boots(ESP32, rom.flash) == 1
        assert not flashed(rom, factory).skipped
        start = place(ESP32, "otadata")
        assert not rom.flash[start.offset : start.offset + start.size].strip(b"\xff")
        assert boots(ESP32, rom.flash) == 0
        # Should ota_0 break, an old runtime is no way out.
        put(rom.flash, place(ESP32, "ota_0").offset, bytes(64))
        with pytest.raises(Exception, match="nothing-boots"):
            boots(ESP32, rom.flash)


def test_a_used_board_keeps_its_key_unless_it_is_asked_for_twice(make: Make) -> None:
    factory = make() / "factory.bin"
    for name in ("provisioning", "counter", "journal"):
        with RomSerial("esp32", blank()) as rom:
            flashed(rom, factory)
            put(rom.flash, ESP32.regions[name].end - SECTOR, b"\0")
            put(rom.flash, ESP32.regions["evidence"].offset, b"\0")
            before = bytes(rom.flash)
            with refused("used", "--force"):
                flashed(rom, factory)
            assert rom.flash == before
            assert not flashed(rom, factory, force=True).skipped
            for state in STATE:
                region = ESP32.regions[state]
                assert not rom.flash[region.offset : region.end].strip(b"\xff"), state
            assert boots(ESP32, rom.flash) == 0


def test_what_other_firmware_left_in_the_regions_of_our_state_is_erased(make: Make) -> None:
    flash = bytearray(b"\x5a" * ESP32.flash_size)
    stock = (
        partitions.Partition("nvs", partitions.DATA, partitions.NVS, 0x9000, 0x6000),
        partitions.Partition("factory", partitions.APP, 0, 0x10000, 0x1F0000),
        partitions.Partition("vfs", partitions.DATA, 0x81, 0x200000, 0x200000),
    )
    for table in (partitions.encode(stock, ESP32.flash_size), bytes(0xC00)):
        put(flash, partitions.TABLE_OFFSET, table)
        with RomSerial("esp32", flash) as rom:
            assert not flashed(rom, make() / "factory.bin").skipped
            for state in STATE:
                region = ESP32.regions[state]
                assert not rom.flash[region.offset : region.end].strip(b"\xff"), state
            assert boots(ESP32, rom.flash) == 0


def own(rom: RomSerial, slot: int, state: State = State.VALID) -> None:
    """Give a board a key, and a runtime in `slot`."""
    put(rom.flash, ESP32.regions["provisioning"].offset, b"key")
    put(rom.flash, ESP32.regions["journal"].offset, b"journal")
    put(rom.flash, place(ESP32, "ota_1").offset, runtime(ESP32, 2))
    put(rom.flash, place(ESP32, "otadata").offset, Entry.made(slot + 1, state).encode())


@pytest.mark.parametrize("slot", [0, 1])
def test_a_runtime_alone_goes_where_it_starts_and_nothing_else_changes(
    make: Make, slot: int
) -> None:
    with RomSerial("esp32", blank()) as rom:
        flashed(rom, make() / "factory.bin")
        own(rom, slot)
        new = make(index=7) / "firmware.bin"
        before = bytearray(rom.flash)
        assert flashed(rom, new).how == "esptool"
        image = slice(
            place(ESP32, f"ota_{slot}").offset, place(ESP32, f"ota_{slot}").offset + 4096
        )
        assert rom.flash[image].startswith(runtime(ESP32, 7))
        before[image] = rom.flash[image]
        assert rom.flash == before
        assert boots(ESP32, rom.flash) == slot
        assert flashed(rom, new).skipped


def on_trial(rom: RomSerial, slot: int, state: State) -> None:
    """Put a candidate on trial in `slot`, with the other slot's entry behind it."""
    own(rom, slot, state)
    start = place(ESP32, "otadata").offset
    put(rom.flash, start + slot * SECTOR, Entry.made(slot + 3, state).encode())
    put(rom.flash, start + (1 - slot) * SECTOR, Entry.made(slot + 2, State.VALID).encode())


@pytest.mark.parametrize("state", [State.NEW, State.PENDING_VERIFY])
@pytest.mark.parametrize("slot", [0, 1])
def test_a_runtime_alone_waits_for_a_trial_to_end_or_ends_it(
    make: Make, slot: int, state: State
) -> None:
    """By force it is in both slots, and the one that is not on trial starts, confirmed: what the
    journal holds for confirmed there is what was brought."""
    with RomSerial("esp32", blank()) as rom:
        flashed(rom, make() / "factory.bin")
        on_trial(rom, slot, state)
        new = make(index=7) / "firmware.bin"
        before = bytes(rom.flash)
        with refused("runtime-trial", "--force"):
            flashed(rom, new)
        assert rom.flash == before
        assert not flashed(rom, new, force=True).skipped
        for label in ("ota_0", "ota_1"):
            at = place(ESP32, label).offset
            assert rom.flash[at : at + SECTOR].startswith(runtime(ESP32, 7)), label
        for _ in range(2):
            assert boots(ESP32, rom.flash) == 1 - slot
        entry = Entry.decode(rom.flash[place(ESP32, "otadata").offset + (1 - slot) * SECTOR :])
        assert (entry.is_valid, entry.state) == (True, State.VALID)
        # The key stays, and so does what the board does without a trial.
        provisioning = ESP32.regions["provisioning"].offset
        assert rom.flash[provisioning : provisioning + 3] == b"key"
        assert flashed(rom, new).skipped


@pytest.mark.parametrize("slot", [0, 1])
def test_a_cable_that_is_pulled_leaves_the_trial_to_be_seen(make: Make, slot: int) -> None:
    for where in ("ota_0", "otadata"):
        with RomSerial("esp32", blank()) as rom:
            flashed(rom, make() / "factory.bin")
            on_trial(rom, slot, State.PENDING_VERIFY)
            new = make(index=7) / "firmware.bin"
            at = place(ESP32, where).offset
            rom.fails_at = at + ((1 - slot) * SECTOR if where == "otadata" else 0) + 1
            with refused("esptool"):
                flashed(rom, new, force=True)
            rom.fails_at = None
            boots(ESP32, bytearray(rom.flash))  # something starts
            with refused("runtime-trial"):
                flashed(rom, new)
            flashed(rom, new, force=True)
            assert boots(ESP32, rom.flash) == 1 - slot


def test_a_trial_without_a_further_sequence_is_not_ended(make: Make) -> None:
    with RomSerial("esp32", blank()) as rom:
        flashed(rom, make() / "factory.bin")
        last = Entry.made(0xFFFFFFFE, State.NEW).encode()
        put(rom.flash, place(ESP32, "otadata").offset, last)
        before = bytes(rom.flash)
        with refused("runtime-trial", "factory image"):
            flashed(rom, make(index=7) / "firmware.bin", force=True)
        assert rom.flash == before


def test_a_runtime_alone_needs_the_boards_own_table(make: Make) -> None:
    with RomSerial("esp32", blank()) as rom, refused("wrong-board"):
        flashed(rom, make() / "firmware.bin", force=True)


@pytest.mark.parametrize(
    ("chip", "size_id", "code", "words", "force"),
    [
        ("esp32c3", 0x16, "wrong-chip", "Try: --board TIDEMARK_ESP32_C3$", False),
        ("esp32c3", 0x17, "wrong-chip", "Try: --board TIDEMARK_ESP32_C3_8MB$", True),
        ("esp32", 0x17, "wrong-flash", "has 8 MB.*Try: --board TIDEMARK_ESP32_8MB$", False),
        ("esp32", 0x15, "wrong-flash", "has 2 MB", True),
        ("esp32", 0x99, "wrong-flash", "does not know", False),
    ],
)
def test_a_chip_or_flash_that_the_image_is_not_for_is_refused(
    make: Make, chip: str, size_id: int, code: str, words: str, force: bool
) -> None:
    with RomSerial(chip, blank(), size_id) as rom:
        with refused(code, words):
            flashed(rom, make() / "factory.bin", force=force)
        assert not rom.written


def test_a_larger_flash_is_taken_by_force(make: Make) -> None:
    with RomSerial("esp32", bytearray(b"\xff" * (8 << 20)), 0x17) as rom:
        assert flashed(rom, make() / "factory.bin", force=True).verified
        assert boots(ESP32, rom.flash) == 0


@pytest.mark.parametrize("sizes", [("_8MB", ""), ("", "_8MB")])
def test_a_board_that_becomes_another_one_keeps_no_key_of_the_former(
    make: Make, sizes: tuple[str, str]
) -> None:
    """A key beside a counter that was written over would be used again (I1)."""
    former, latter = (BOARDS[f"TIDEMARK_ESP32{size}"] for size in sizes)
    with RomSerial("esp32", bytearray(b"\xff" * (8 << 20)), 0x17) as rom:
        flashed(rom, make(former.name) / "factory.bin", former, force=True)
        for name in STATE:
            put(rom.flash, former.regions[name].offset, b"the former's own")
        factory = make(latter.name) / "factory.bin"
        with refused("used" if latter.flash_size > 4 << 20 else "wrong-flash"):
            flashed(rom, factory, latter)
        assert flashed(rom, factory, latter, force=True).verified
        assert b"the former's own" not in rom.flash
        assert boots(latter, rom.flash) == 0


@pytest.mark.parametrize(
    ("register", "value", "words"),
    [(0x3FF5A000, 1 << 20, "flash-encryption"), (0x3FF5A018, 1 << 4, "secure-boot")],
)
def test_a_chip_whose_security_is_burned_in_is_refused(
    make: Make, register: int, value: int, words: str
) -> None:
    with RomSerial("esp32", blank(), efuses={register: value}) as rom:
        with refused("secured", words):
            flashed(rom, make() / "factory.bin", force=True)
        assert not rom.written


def test_an_image_that_would_not_start_never_reaches_the_board(make: Make) -> None:
    good = (make() / "factory.bin").read_bytes()
    for at in (ESP32.chip.bootloader + 100, partitions.TABLE_OFFSET + 5, 0x10000 + 100):
        bad = bytearray(good)
        bad[at] ^= 1
        with refused("image"):  # before a port is opened
            flash_esp32(Found("/dev/none"), Image(ESP32, {0: bytes(bad)}))


def test_a_cable_that_is_pulled_is_an_error_and_the_next_run_finishes(make: Make) -> None:
    factory = make() / "factory.bin"
    with RomSerial("esp32", blank(), fails_at=0x10000 + 1000) as rom:
        with refused("esptool"):
            flashed(rom, factory)
        rom.fails_at = None
        assert flashed(rom, factory).verified
        assert rom.flash == factory.read_bytes()


def test_a_cable_that_is_pulled_leaves_nothing_that_looks_like_a_boards_own(make: Make) -> None:
    factory = make() / "factory.bin"
    foreign = bytearray(b"\x5a" * ESP32.flash_size)
    with RomSerial("esp32", foreign, fails_at=0x10000 + 1000) as rom:
        with refused("esptool"):
            flashed(rom, factory)
        rom.fails_at = None
        assert flashed(rom, factory).verified
        assert boots(ESP32, rom.flash) == 0


def test_a_port_without_a_chip_says_what_to_press(make: Make, tmp_path: Path) -> None:
    image = read_image(make() / "factory.bin", ESP32)
    with refused("no-loader", "hold BOOT"):
        flash_esp32(Found(str(tmp_path / "ttyUSB0")), image)


# -- on a bench


def test_a_bench_writes_what_differs_and_the_runtime_in_charge_with_it(make: Make) -> None:
    factory = (make() / "factory.bin").read_bytes()
    nvs = place(ESP32, "nvs")
    with RomSerial("esp32", blank()) as rom:
        found = Found(rom.url)
        assert write_esp32(found, ESP32, factory)
        own(rom, 1)
        put(rom.flash, nvs.offset, b"calibration")
        former = bytes(rom.flash)
        rom.written.clear()
        # As a test leaves it: no bootloader, no table in what is written.
        bench = bytearray(factory)
        bench[:0x9000] = b"\xff" * 0x9000
        assert write_esp32(found, ESP32, bytes(bench))
        assert boots(ESP32, rom.flash) == 0
        changed = {at - at % SECTOR for at in sectors(bytes(rom.flash)) if at < 0x9000}
        assert changed and rom.flash[:0x9000] == former[:0x9000]
        assert rom.flash[nvs.offset : nvs.offset + 11] == b"calibration"
        assert place(ESP32, "ota_0").offset not in [at for at, _ in rom.written]
        assert write_esp32(found, ESP32, former)
        assert rom.flash == former
        assert not write_esp32(found, ESP32, former)
