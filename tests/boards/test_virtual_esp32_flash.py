"""The virtual ESP32's flash: partition table, access, bootloader and runtime slots by ESP-IDF's
rules; the firmware's ESP32 port stands on them."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.boards.esp32_runtime import BOOT, DEFINITION, Make, run, say
from tests.conftest import firmware_dir
from tidemark_host.boards.folder import open_folder
from tidemark_host.boards.nor import NorFlash
from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board
from tidemark_host.cli import flash
from tidemark_host.esp32 import otadata, partitions
from tidemark_host.esp32.bootloader import BootError, Layout, layout_of
from tidemark_host.esp32.flash import Region
from tidemark_host.esp32.ota_ops import OtaOps
from tidemark_host.esp32.otadata import SECTOR, Entry, State
from tidemark_host.esp32.partitions import APP, DATA, OTA_DATA, Partition
from tidemark_host.release import KeyStore, Repository
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_virtual_esp32 import runtime_image

assert DEFINITION.esp32
TABLE = DEFINITION.esp32.partitions
PLACES = {row.label: row for row in TABLE}
LAYOUT = layout_of(TABLE)
OTADATA, OTA_1 = PLACES["otadata"].offset, PLACES["ota_1"].offset


def entries(board: VirtualEsp32Board) -> list[Entry]:
    content = NorFlash(bytearray(board.read_flash(0, DEFINITION.flash_size)))
    return otadata.read(content, Region(OTADATA, 2 * SECTOR))


# -- what the flash says of itself ----------------------------------------------------------------


def test_partition_table_is_read_back_row_for_row(esp32: Make) -> None:
    board = esp32()
    board.serial_log.wait_for("runs in 0")
    said = run(
        board,
        """
        kinds = (esp32.Partition.TYPE_APP, esp32.Partition.TYPE_DATA)
        print([part.info() for kind in kinds for part in esp32.Partition.find(kind)])
        """,
    )
    rows = sorted(TABLE, key=lambda row: (row.type, row.offset))
    wanted = [(r.type, r.subtype, r.offset, r.size, r.label, False) for r in rows]
    assert eval(said) == wanted


def test_runtime_for_another_table_touches_nothing(esp32: Make) -> None:
    """A table whose vfs is smaller: our code would write where other rows may lie."""
    rows = [replace(r, size=r.size - SECTOR) if r.label == "vfs" else r for r in TABLE]
    table = partitions.encode(rows, DEFINITION.flash_size)
    board = esp32({partitions.TABLE_OFFSET: table})
    board.serial_log.wait_for("refused partition-table")
    before = len(board.operations)
    assert "refused partition-table" in run(board, "attempt(port.flash)")
    assert len(board.operations) == before


@pytest.mark.parametrize(
    ("where", "content", "said"),
    [
        (0x1000, b"\xff" * 4, "no-bootloader"),
        (0x1003, b"\x3f", "flash-size"),
        (0x1003, b"\x1f", "out-of-flash"),
        (partitions.TABLE_OFFSET + 4, b"\x01", "partition-table"),
        (PLACES["ota_0"].offset + 400, b"\0\0\0\0", "nothing-boots"),
    ],
)
def test_chip_that_finds_nothing_to_start_hangs_and_says_why(
    esp32: Make, where: int, content: bytes, said: str
) -> None:
    """No bootloader; a header for 8 MB of flash; a table that ends behind 2 MB; a damaged table;
    a damaged runtime."""
    board = esp32({where: content})
    board.serial_log.wait_for(said)
    board.wait_state("hung")
    assert board.running is None
    assert board.watchdog_left == 0


def test_layout_takes_slots_in_the_order_of_their_numbers() -> None:
    rows = [
        Partition("b", APP, 0x11, 0x20000, SECTOR),
        Partition("a", APP, 0x10, 0x10000, SECTOR),
        Partition("f", APP, 0x00, 0x30000, SECTOR),
        Partition("t", APP, 0x20, 0x40000, SECTOR),
        Partition("o", DATA, OTA_DATA, 0xD000, 2 * SECTOR),
    ]
    a, b, f, t = (Region(at, SECTOR) for at in (0x10000, 0x20000, 0x30000, 0x40000))
    assert layout_of(rows) == Layout(Region(0xD000, 2 * SECTOR), (a, b), f, t)
    with pytest.raises(BootError, match="ota-gap"):
        layout_of([row for row in rows if row.label != "a"])


# -- flash ----------------------------------------------------------------------------------------


def test_port_programs_and_erases_within_partitions_only(esp32: Make) -> None:
    board = esp32()
    vfs, journal = PLACES["vfs"], PLACES["journal"]
    said = run(
        board,
        f"""
        flash = port.flash()
        flash.program({vfs.offset}, b"a" * 512)
        print(bytes(flash.view({vfs.offset + 510}, 4)))
        flash.erase({vfs.offset})
        print(bytes(flash.view({vfs.offset}, 2)))
        attempt(flash.program, {vfs.offset + 16}, b"a" * 256)
        attempt(flash.program, {vfs.offset}, b"a" * 255)
        attempt(flash.program, {vfs.offset}, b"")
        attempt(flash.erase, {vfs.offset + 256})
        attempt(flash.program, {journal.end - 256}, b"a" * 512)
        attempt(flash.program, 0x8000, b"a" * 256)
        attempt(flash.erase, 0x1000)
        attempt(flash.read_into, 0x1000, bytearray(4))
        attempt(flash.erase, {DEFINITION.flash_size})
        attempt(flash.view, {vfs.offset}, 4097)
        attempt(flash.view, {vfs.offset}, -1)
        """,
    ).splitlines()
    assert said[:2] == ["b'aa\\xff\\xff'", "b'\\xff\\xff'"]
    codes = [line.split()[1].rstrip(":") for line in said[2:]]
    assert codes == ["align"] * 4 + ["bounds"] * 5 + ["view-size", "bounds"]
    assert board.violations == []


def test_slots_are_read_in_place_and_the_rest_is_copied(esp32: Make) -> None:
    board = esp32()
    romfs, vfs = PLACES["romfs"].offset, PLACES["vfs"].offset
    said = run(
        board,
        f"""
        flash = port.flash()
        views = [flash.view(at, {romfs} - at + 524288 if at < {vfs} else 8)
                 for at in ({romfs}, {vfs})]
        for at in ({romfs}, {vfs}):
            flash.program(at, b"a" * 256)
        print(len(views[0]), [view[0] for view in views])
        """,
    )
    assert said == f"524288 [{ord('a')}, 255]"


def test_running_slot_and_table_are_out_of_reach_of_the_application(esp32: Make) -> None:
    board = esp32()
    say(board, 'esp32.Partition("ota_0").ioctl(6, 3)', "OSError")
    assert [violation.code for violation in board.violations] == ["running"]


def test_partition_checks_bounds_as_esp_idf_does(esp32: Make) -> None:
    board = esp32()
    said = run(
        board,
        """
        part = esp32.Partition("counter")
        def refused(what, *args):
            try:
                what(*args)
            except OSError as e:
                print(e.args)
        refused(part.readblocks, 5, bytearray(1))
        refused(part.readblocks, 3, bytearray(4097))
        refused(part.ioctl, 6, 4)
        refused(part.writeblocks, 0, b"abc")
        refused(esp32.Partition, "none")
        """,
    ).splitlines()
    size = "(-260, 'ESP_ERR_INVALID_SIZE')"
    assert said == ["(-258, 'ESP_ERR_INVALID_ARG')", size, size, size, "(2,)"]


# -- runtimes -------------------------------------------------------------------------------------


def test_first_start_records_the_slot_as_valid(esp32: Make) -> None:
    board = esp32()
    board.serial_log.wait_for("runs in 0")
    assert board.read_flash(OTADATA, 32) == Entry.made(1, State.VALID).encode()
    assert [o.kind for o in board.operations] == ["erase", "program"]


def test_choosing_a_slot_writes_what_esp_idf_writes(esp32: Make, esp32_image: bytes) -> None:
    board = esp32({OTA_1: esp32_image})
    board.serial_log.wait_for("runs in 0")
    model = NorFlash(bytearray(board.read_flash(0, DEFINITION.flash_size)))
    OtaOps(model, LAYOUT, 0).set_boot_partition(1)
    run(board, "port.runtimes().set_boot(1)")
    wanted = bytes(model.view(OTADATA, 2 * SECTOR))
    assert board.read_flash(OTADATA, 2 * SECTOR) == wanted
    assert wanted[SECTOR : SECTOR + 4] == struct.pack("<I", 2)


def test_slot_without_a_whole_image_is_refused(esp32: Make, esp32_image: bytes) -> None:
    board = esp32({OTA_1: esp32_image[:-1]})
    before = board.read_flash(OTADATA, 2 * SECTOR)
    said = run(board, "attempt(port.runtimes().set_boot, 1)")
    assert said == "refused ota-refused: ESP_ERR_OTA_VALIDATE_FAILED"
    assert board.read_flash(OTADATA, 2 * SECTOR) == before


def test_runtime_that_is_not_confirmed_gets_one_start(esp32: Make, esp32_image: bytes) -> None:
    board = esp32({OTA_1: esp32_image})
    board.serial_log.wait_for("runs in 0")
    say(board, "port.runtimes().set_boot(1); port.reset()", "runs in 1")
    assert entries(board)[1].state == State.PENDING_VERIFY
    say(board, "port.reset()", "runs in 0")
    assert entries(board)[1].state == State.ABORTED


def test_runtime_that_is_confirmed_stays(esp32: Make, esp32_image: bytes) -> None:
    board = esp32({OTA_1: esp32_image})
    board.serial_log.wait_for("runs in 0")
    say(board, "port.runtimes().set_boot(1); port.reset()", "runs in 1")
    run(board, "port.runtimes().mark_valid()")
    assert entries(board)[1].state == State.VALID
    say(board, "port.reset()", "runs in 1")


def test_soft_reset_is_no_start_of_the_bootloader(esp32: Make, esp32_image: bytes) -> None:
    board = esp32({OTA_1: esp32_image})
    board.serial_log.wait_for("runs in 0")
    say(board, "port.runtimes().set_boot(1); port.reset()", "runs in 1")
    since = len(board.serial_log)
    board.send(b"\x04")
    board.serial_log.wait_for("cause soft 5", since=since)
    board.serial_log.wait_for("runs in 1", since=since)
    assert entries(board)[1].state == State.PENDING_VERIFY


def test_what_an_image_holds_is_what_runs(esp32: Make) -> None:
    changes: dict[str, str | None] = {"_boot.py": BOOT, "main.py": "print('another one')"}
    board = esp32({OTA_1: runtime_image(DEFINITION, 2, changes)})
    board.serial_log.wait_for("runs in 0")
    say(board, "port.runtimes().set_boot(1); port.reset()", "another one")
    assert board.running == 1
    assert run(board, "import tidemark_board as b; print(b.RUNTIME_INDEX)") == "2"


@pytest.mark.parametrize("variant", ["before", "torn", "after"])
@pytest.mark.parametrize("operation", [1, 2])
def test_power_can_fail_within_the_bootloader(
    esp32: Make, esp32_image: bytes, operation: int, variant: str
) -> None:
    """At the start that makes the chosen entry PENDING; a runtime comes up after it."""
    board = esp32({OTA_1: esp32_image})
    board.serial_log.wait_for("runs in 0")
    run(board, "port.runtimes().set_boot(1)")
    board.power_off()
    board.cut_at(operation, variant)
    board.power_on()
    cut = board.wait_cut()
    assert cut.operation.address == OTADATA + SECTOR
    assert board.state == "off"
    since = len(board.serial_log)
    board.power_on()
    board.serial_log.wait_for("runs in", since=since)
    state = entries(board)[1].state
    assert (board.running == 1) == (state == State.PENDING_VERIFY)


# -- in a folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TIDEMARK_ESP32", "TIDEMARK_ESP32_8MB"])
def test_board_is_flashed_and_switched_on_in_a_folder(tmp_path: Path, name: str) -> None:
    app = build_image([firmware_dir() / "agent"], None, tmp_path / "app.romfs")
    keys = KeyStore.create(tmp_path / "keys")
    repository = Repository.create(tmp_path / "repo", keys)
    repository.add(app, board=name, version="1.0.0")
    repository.publish()
    words = [f"virtual:{tmp_path / 'board'}", "--board", name, "--repo", str(repository.folder)]
    done = CliRunner().invoke(flash.command, words)
    assert "written" in done.output, done.output
    with open_folder(tmp_path / "board") as board:
        assert isinstance(board, VirtualEsp32Board)
        assert board.definition.name == name
        board.power_on()
        board.serial_log.wait_for("waits on this console")


def test_folder_without_a_partition_table_is_the_other_virtual_boards(tmp_path: Path) -> None:
    with open_folder(tmp_path) as board:
        assert not isinstance(board, VirtualEsp32Board)
    with open_folder(tmp_path) as board:
        assert not isinstance(board, VirtualEsp32Board)
