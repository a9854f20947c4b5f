"""Partition tables: every board's is one that Espressif's generator takes and makes byte for byte.

The peer is `PartitionTable` of the package esp-idf-defs: Espressif's gen_esp32part.py, version
1.5, taken out of ESP-IDF by others (its file says so), with Espressif's checks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from esp_idf_defs import PartitionTable
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tidemark_host.boardfile import (
    Board,
    BoardFileError,
    generate_board_module,
    load_board,
    parse_board,
)
from tidemark_host.esp32.partitions import (
    SECTOR,
    Partition,
    PartitionError,
    check,
    decode,
    encode,
    to_csv,
)

FILES = sorted(REPO.glob("boards/TIDEMARK_ESP32*/board.toml"))
BOARDS = [load_board(path) for path in FILES]
MIB = 1 << 20
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def rows(board: Board) -> tuple[Partition, ...]:
    assert board.esp32
    return board.esp32.partitions


def table(board: Board) -> bytes:
    return encode(rows(board), board.flash_size)


def espressif(board: Board) -> PartitionTable:
    """Return the table as Espressif's own code reads our CSV, after its own checks."""
    made = PartitionTable.from_csv(to_csv(rows(board), board.name))
    # "v1" asks for the strictest alignment, so that any secure boot stays possible.
    made.verify(0x8000, "v1")
    made.verify_size_fits(board.flash_size)
    return made


def test_every_chip_is_there_with_both_sizes() -> None:
    assert {(board.name, board.chip.name, board.flash_size // MIB) for board in BOARDS} == {
        ("TIDEMARK_ESP32", "esp32", 4),
        ("TIDEMARK_ESP32_8MB", "esp32", 8),
        ("TIDEMARK_ESP32_S3", "esp32s3", 4),
        ("TIDEMARK_ESP32_S3_8MB", "esp32s3", 8),
        ("TIDEMARK_ESP32_C3", "esp32c3", 4),
        ("TIDEMARK_ESP32_C3_8MB", "esp32c3", 8),
    }


@each_board
def test_binary_table_is_byte_for_byte_what_espressifs_generator_makes_of_the_csv(
    board: Board,
) -> None:
    assert table(board) == espressif(board).to_binary()


@each_board
def test_espressifs_reader_finds_in_the_binary_what_board_toml_says(board: Board) -> None:
    read = PartitionTable.from_binary(table(board))
    assert [(row.name, row.type, row.subtype, row.offset, row.size) for row in read] == [
        (row.label, row.type, row.subtype, row.offset, row.size) for row in rows(board)
    ]
    assert decode(table(board), board.flash_size) == rows(board)


@each_board
def test_partitions_fill_the_flash_behind_the_table_without_gap_or_overlap(board: Board) -> None:
    placed = rows(board)
    assert placed[0].offset == 0x9000
    assert all(before.end == after.offset for before, after in pairwise(placed))
    assert placed[-1].end == board.flash_size
    assert [row.label for row in placed if row.type == 0] == ["ota_0", "ota_1"]
    assert all(row.offset % 0x10000 == 0 for row in placed if row.type == 0)
    assert all(row.offset % SECTOR == row.size % SECTOR == 0 for row in placed)


@each_board
def test_regions_of_the_firmware_are_where_the_partitions_are(board: Board) -> None:
    by_label = {row.label: row for row in rows(board)}
    for name, region in board.regions.items():
        if name == "runtime":
            row = by_label["ota_0"]
        elif name in ("slot_a", "slot_b"):
            # MicroPython maps the partition romfs into memory, and no other.
            assert by_label["romfs"].offset <= region.offset < region.end <= by_label["romfs"].end
            continue
        else:
            row = by_label[name]
        assert (row.offset, row.size) == (region.offset, region.size)
    assert by_label["ota_0"].size == by_label["ota_1"].size
    assert by_label["otadata"].size == 0x2000
    slots = board.regions["slot_a"], board.regions["slot_b"]
    assert by_label["romfs"].size == sum(slot.size for slot in slots)
    made: dict[str, dict[str, tuple[int, int, int, int]]] = {}
    exec(generate_board_module(board), made)
    assert made["PARTITIONS"] == {
        row.label: (row.type, row.subtype, row.offset, row.size) for row in rows(board)
    }


def test_sizes_of_one_chip_differ_in_nothing_but_the_flash() -> None:
    for small, large in (
        (board, f"{board.name}_8MB") for board in BOARDS if board.flash_size < 8 * MIB
    ):
        other = next(board for board in BOARDS if board.name == large)
        assert other.esp32 and small.esp32
        assert other.esp32.definition == small.esp32.definition == small.name
        sizes = {"RUNTIME_MAX"}
        assert {k: v for k, v in other.constants.items() if k not in sizes} == {
            k: v for k, v in small.constants.items() if k not in sizes
        }


# -- board.toml: what is refused, with which code

TEXT = (REPO / "boards" / "TIDEMARK_ESP32" / "board.toml").read_text()


def with_options(*options: str) -> Board:
    listed = ", ".join(f'"{option}"' for option in options)
    return parse_board(TEXT.replace("options = []", f"options = [{listed}]").encode())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        # ota_0 at a sector, but not at a page of the memory map.
        ("runtime = [0x010000, 0x180000]", "runtime = [0x011000, 0x180000]", "misaligned"),
        ("ota_1 = [0x190000, 0x180000]", "ota_1 = [0x190000, 0x170000]", "unequal"),
        ("ota_1 = [0x190000, 0x180000]", "ota_1 = [0x180000, 0x180000]", "overlap"),
        ("ota_1 = [0x190000, 0x180000]", "", "missing-region"),
        ("ota_1 = [0x190000, 0x180000]", "ota_1 = [0x190000]", "type"),
        ("ota_1 = [0x190000, 0x180000]", "ota_1 = [-65536, 0x180000]", "out-of-flash"),
        ("ota_1 = [0x190000, 0x180000]", "ota_1 = [0x390000, 0x180000]", "out-of-flash"),
        ("otadata = [0x00D000, 0x002000]", "otadata = [0x00D000, 0x001000]", "otadata-size"),
        ("otadata = [0x00D000, 0x002000]", "otadata = [0x00C000, 0x003000]", "otadata-size"),
        ("otadata = [0x00D000, 0x002000]", "otadata = [0x00D800, 0x002000]", "misaligned"),
        ("nvs = [0x009000, 0x004000]", "nvs = [0x008000, 0x005000]", "misplaced"),
        ("nvs = [0x009000, 0x004000]", "nvs = [0x009000, 0x002000]", "too-small"),
        ("nvs = [0x009000, 0x004000]", "nvs = [0x009000, 0x004100]", "misaligned"),
        ("phy_init = [0x00F000, 0x001000]", "phy_init = [0x00F000, 0]", "too-small"),
        (
            "phy_init = [0x00F000, 0x001000]",
            "phy_init = [0x00F000, 0x001000]\nx = [0, 1]",
            "unknown",
        ),
        ("slot_b = [0x350000, 0x040000]", "slot_b = [0x351000, 0x03F000]", "misplaced"),
        ("size = 0x400000 # bytes", "size = 0x500000", "flash-size"),
        ("sector = 4096", "sector = 8192", "range"),
        ("runtime_max = 0x180000", "runtime_max = 0x180001", "range"),
        ("options = []", 'options = ["secure-bot"]', "range"),
        ("options = []", 'options = ["anti-rollback"]', "unsafe-option"),
        ("options = []", 'options = ["secure-boot", "anti-rollback"]', "unsafe-option"),
        ("options = []", 'options = "secure-boot"', "type"),
        ("options = []", "options = [7]", "type"),
        ("options = []", "definition = 7", "type"),
        ("options = []", 'definition = "../PICO"', "name"),
        ("[partitions]", "[partition]", "unknown"),
        ('chip = "esp32"', 'chip = "esp32s2"', "range"),
        # A table that nothing reads on another chip.
        ('chip = "esp32"', 'chip = "rp2040"', "unknown"),
    ],
)
def test_board_that_esp_idf_could_not_run_is_refused_with_a_stable_code(
    old: str, new: str, code: str
) -> None:
    assert TEXT.count(old) == 1, old
    with pytest.raises(BoardFileError) as caught:
        parse_board(TEXT.replace(old, new).encode())
    assert caught.value.code == code


def test_chosen_options_are_kept_once_and_in_one_order() -> None:
    board = with_options("flash-encryption", "secure-boot", "secure-boot")
    assert board.esp32 and board.esp32.options == ("secure-boot", "flash-encryption")


def test_with_flash_encryption_the_mapped_partition_is_flagged_and_no_other() -> None:
    """Apps and otadata are encrypted without a flag, nvs can't be; what holds state is written in
    units that are too small."""
    plain, board = with_options("secure-boot"), with_options("flash-encryption")
    assert [row.label for row in rows(board) if row.encrypted] == ["romfs"]
    assert not any(row.encrypted for row in rows(plain))
    assert rows(plain) == tuple(dataclasses.replace(row, encrypted=False) for row in rows(board))
    assert table(board) == espressif(board).to_binary() != table(plain)
    assert decode(table(board), board.flash_size) == rows(board)
    assert "\nromfs, data, 0x8f, 0x310000, 0x80000, encrypted\n" in to_csv(rows(board), "X")
    # The runtime compares the chip's table without the flags: they are the chip's affair.
    assert generate_board_module(board) == generate_board_module(plain)


# -- the binary form: what is refused, with which code

ROW = Partition("nvs", 1, 2, 0x9000, 0x4000)
APP = Partition("ota_0", 0, 0x10, 0x10000, 0x100000)
OTADATA = Partition("otadata", 1, 0, 0xD000, 0x2000)


def change(row: Partition, **fields: object) -> Partition:
    return dataclasses.replace(row, **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("placed", "code"),
    [
        ([change(ROW, label="a" * 16)], "label"),
        ([change(ROW, label="")], "label"),
        ([change(ROW, label="nv\x00s")], "label"),
        ([change(ROW, label="n,s")], "label"),
        ([change(ROW, label="#nvs")], "label"),
        ([change(ROW, label="é")], "label"),
        ([change(ROW, type=0xFF)], "kind"),
        ([change(ROW, subtype=256)], "kind"),
        ([change(APP, offset=0x18000)], "misaligned"),
        ([change(ROW, offset=0x9004)], "misaligned"),
        ([change(ROW, size=0x4004)], "misaligned"),
        ([change(ROW, size=0)], "too-small"),
        ([change(ROW, size=0x2000)], "too-small"),
        ([change(ROW, offset=0x8000)], "misplaced"),
        ([change(ROW, offset=-0x1000)], "misplaced"),
        ([change(APP, size=4 * MIB)], "out-of-flash"),
        ([change(OTADATA, size=0x3000)], "otadata-size"),
        ([OTADATA, change(OTADATA, label="two", offset=0xF000)], "duplicate"),
        ([ROW, change(ROW, offset=0x20000)], "duplicate"),
        ([ROW, change(OTADATA, offset=0xC000)], "overlap"),
        ([change(ROW, label=f"p{n}", offset=0x9000 + n * 0x4000) for n in range(95)], "too-many"),
    ],
)
def test_table_against_the_rules_is_refused_with_a_stable_code(
    placed: Sequence[Partition], code: str
) -> None:
    for refused in (lambda: check(placed, 4 * MIB), lambda: encode(placed, 4 * MIB)):
        with pytest.raises(PartitionError) as caught:
            refused()
        assert caught.value.code == code


def test_largest_table_is_made_and_read_back() -> None:
    many = [
        change(ROW, label=f"partition-{n:05}", subtype=6, offset=0x9000 + n * SECTOR, size=SECTOR)
        for n in range(94)
    ]
    data = encode(many, 4 * MIB)
    assert len(data) == 0xC00
    assert data[-32:] == b"\xff" * 32
    assert decode(data, 4 * MIB) == tuple(many)
    assert len(PartitionTable.from_binary(data)) == 94


def test_flags_are_those_of_espressifs_generator() -> None:
    placed = [change(ROW, readonly=True), change(APP, encrypted=True)]
    csv = to_csv(placed, "ANY")
    assert encode(placed, 4 * MIB) == PartitionTable.from_csv(csv).to_binary()
    assert decode(encode(placed, 4 * MIB), 4 * MIB) == tuple(placed)


def sealed(rows: bytes) -> bytes:
    """Return a table with these rows and the MD5 that covers them."""
    digest = b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(rows, usedforsecurity=False).digest()
    return (rows + digest).ljust(0xC00, b"\xff")


GOOD = encode([ROW, OTADATA, APP], 4 * MIB)
ROWS, DIGEST = GOOD[:96], GOOD[96:128]


def raw(label: bytes = b"nvs", flags: int = 0, offset: int = 0x9000) -> bytes:
    return struct.pack("<2sBBII16sI", b"\xaa\x50", 1, 2, offset, 0x4000, label, flags)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "length"),
        (GOOD[:-1], "length"),
        (GOOD + b"\xff" * 0x401, "length"),
        (b"\xff" * 0xC00, "no-digest"),
        (b"\x00" * 0xC00, "magic"),
        (ROWS.ljust(0xC00, b"\xff"), "no-digest"),
        (b"\x00" + GOOD[1:], "magic"),
        (GOOD[:41] + b"\x10" + GOOD[42:], "digest"),
        (ROWS + DIGEST[:-1] + bytes([DIGEST[-1] ^ 1]) + GOOD[128:], "digest"),
        # The fourteen bytes between magic and digest are covered by nothing else.
        (ROWS + DIGEST[:2] + b"\x00" + DIGEST[3:] + GOOD[128:], "digest"),
        (ROWS + DIGEST + raw() + GOOD[160:], "not-last"),
        (ROWS + DIGEST + DIGEST + GOOD[160:], "not-last"),
        (raw() * 96, "no-end"),
        (sealed(raw(b"a" * 16)), "label"),
        (sealed(raw(b"a\x00b")), "label"),
        (sealed(raw(b"\xc3\xa9")), "label"),
        (sealed(raw(b"")), "label"),
        (sealed(raw(flags=4)), "flags"),
        (sealed(raw(offset=4 * MIB)), "out-of-flash"),
        (sealed(raw(offset=0xFFFFF000)), "out-of-flash"),
        (sealed(raw() * 2), "duplicate"),
    ],
)
def test_damaged_or_foreign_table_is_a_typed_error(data: bytes, code: str) -> None:
    with pytest.raises(PartitionError) as caught:
        decode(data, 4 * MIB)
    assert caught.value.code == code


def test_table_is_read_from_its_whole_sector_with_a_signature_behind_it() -> None:
    assert decode(GOOD + b"\x5a" * 0x400, 4 * MIB) == (ROW, OTADATA, APP)


def test_table_for_a_larger_flash_is_refused_on_a_smaller_one() -> None:
    large = next(board for board in BOARDS if board.name == "TIDEMARK_ESP32_8MB")
    with pytest.raises(PartitionError) as caught:
        decode(table(large), 4 * MIB)
    assert caught.value.code == "out-of-flash"


@given(st.binary(max_size=64), st.integers(0, len(GOOD)), st.integers(0, 64))
def test_any_bytes_are_a_table_or_a_typed_error(junk: bytes, at: int, cut: int) -> None:
    data = (GOOD[:at] + junk + GOOD[at + cut :]).ljust(0xC00, b"\xff")
    try:
        read = decode(data, 4 * MIB)
    except PartitionError as error:
        assert error.code
    else:
        assert decode(encode(read, 4 * MIB), 4 * MIB) == read
