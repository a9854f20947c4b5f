"""Flash encryption: the firmware's code over partitions in which an erase leaves noise.

Runtimes, slots and otadata are encrypted, the rest is not. The cipher is the model's, the rules
are those of ESP-IDF (tidemark_host/esp32/encryption.py).
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import pytest

from tests.conftest import REPO, firmware_dir
from tests.esp32.runtime_model import ROMFS, SECTOR, SIZE
from tests.esp32.runtime_world import explore, made, settle
from tests.esp32.test_runtime_lives import DEEPER, STORIES, UNTOLD
from tidemark.errors import FlashError
from tidemark.flash import Region
from tidemark_host.boardfile import Board, generate_board_module, parse_board
from tidemark_host.boards.nor import JUNK, NorError
from tidemark_host.boards.nor import NEW as DONE
from tidemark_host.boards.nor import OLD as UNDONE
from tidemark_host.esp32 import flash as host
from tidemark_host.esp32.encryption import EncryptedNor

TEXT = (REPO / "boards" / "TIDEMARK_ESP32" / "board.toml").read_text()
BOARD = parse_board(TEXT.replace("options = []", 'options = ["flash-encryption"]').encode())
BLANK = b"\xff" * 256
DATA = bytes(range(256))


# -- the model


def test_erased_sector_reads_as_noise_and_takes_its_bytes_once() -> None:
    flash = EncryptedNor(4 * SECTOR, encrypted=[host.Region(SECTOR, 2 * SECTOR)])
    noise = bytes(flash.view(SECTOR, 256))
    assert noise != BLANK and len({noise[at : at + 16] for at in range(0, 256, 16)}) == 16
    flash.program(SECTOR, DATA)
    flash.program(SECTOR, DATA)
    assert bytes(flash.view(SECTOR + 3, 30)) == DATA[3:33]
    # Where the flash is plain, 0xFF leaves a byte as it is; here it is ciphertext like any other.
    for other in (BLANK, DATA[:128] + b"\xff" * 128):
        with pytest.raises(NorError, match="overwrite"):
            flash.program(SECTOR, other)
    flash.erase(SECTOR)
    assert bytes(flash.view(SECTOR, 256)) == noise
    with pytest.raises(NorError, match="bounds"):
        flash.view(0, SECTOR + 1)
    flash.program(0, DATA)
    assert bytes(flash.view(0, 256)) == DATA and bytes(flash.view(3 * SECTOR, 256)) == BLANK


def test_one_wrong_bit_makes_a_unit_of_noise() -> None:
    whole = EncryptedNor(SECTOR, encrypted=[host.Region(0, SECTOR)])
    whole.program(0, DATA)
    flash = whole.twin()
    flash._buf[17] ^= 1  # type: ignore[reportPrivateUsage]
    read = bytes(flash.view(0, 256))
    assert read[:16] + read[32:] == DATA[:16] + DATA[32:]
    assert sum(a != b for a, b in zip(read[16:32], DATA[16:32], strict=True)) > 8
    assert bytes(whole.view(0, 256)) == DATA


# -- the firmware's code over it


@pytest.mark.parametrize("name", STORIES)
def test_a_pair_is_confirmed_or_undone_together_in_encrypted_flash(name: str) -> None:
    story, rest = STORIES[name]
    assert settle(made(story, weak=False, encrypted=True), story).rest == UNTOLD.get(rest, rest)


SEARCHED = ("is well, after a factory's blank otadata", "crashes")


@pytest.mark.parametrize("name", [n for n in STORIES if DEEPER or n in SEARCHED])
def test_no_power_cut_breaks_a_pair_in_encrypted_flash(name: str) -> None:
    story, rest = STORIES[name]
    if "20" in name:
        pytest.skip("twenty lives on trial, each like the one before")
    flash = made(story, weak=True, encrypted=True)
    seen = explore(flash, story, 1, (UNDONE, DONE, JUNK))
    assert {found.split(":")[0] for found in seen.rests} == {rest.split(":")[0]}
    assert seen.cuts > 100


def test_slots_that_are_mapped_and_not_encrypted_read_as_noise() -> None:
    """What a table without the flag would lead to."""
    flash = EncryptedNor(SIZE, mapped=ROMFS)
    slot = Region(flash, ROMFS.offset, ROMFS.size)
    with pytest.raises(FlashError) as caught:
        slot.write_checked(SECTOR, DATA)
    assert caught.value.code == "readback"


# -- the port


class Chip:
    """`esp32` and `vfs` over a model of the flash, as far as the port asks of them."""

    def __init__(self, board: Board, *, encrypted: bool, flagged: bool = True) -> None:
        assert board.esp32
        self.rows = board.esp32.partitions
        self.places = {row.label: host.Region(row.offset, row.size) for row in self.rows}
        # app: apps and otadata always, others by their flag; nothing while encryption is off.
        always = ("ota_0", "ota_1", "otadata")
        self.secret = {
            row.label
            for row in self.rows
            if encrypted and (row.label in always or (row.encrypted and flagged))
        }
        romfs = self.places["romfs"]
        self.flash = EncryptedNor(
            board.flash_size,
            encrypted=[self.places[label] for label in sorted(self.secret)],
            mapped=romfs if encrypted else None,
        )
        self.map = bytearray(romfs.size)
        self.changed(romfs.offset, romfs.size)

    def changed(self, addr: int, size: int) -> None:
        """The map shows what is written, once ESP-IDF has flushed the cache."""
        romfs = self.places["romfs"]
        at = addr - romfs.offset
        if 0 <= at < romfs.size:
            self.map[at : at + size] = self.flash.view(addr, size)

    def partition(self) -> Any:
        chip = self

        class Partition:
            TYPE_APP, TYPE_DATA, RUNNING = 0, 1, 1

            def __init__(self, row: Any) -> None:
                self.row = row

            @staticmethod
            def find(kind: int, subtype: int) -> list[Any]:
                return [Partition(row) for row in chip.rows if row.type == kind]

            def info(self) -> tuple[object, ...]:
                row = self.row
                secret = row.label in chip.secret
                return row.type, row.subtype, row.offset, row.size, row.label, secret

            def readblocks(self, block: int, into: Any, offset: int) -> None:
                chip.flash.read_into(self.row.offset + block * SECTOR + offset, into)

            def writeblocks(self, block: int, data: Any, offset: int) -> None:
                at = self.row.offset + block * SECTOR + offset
                chip.flash.program(at, data)
                chip.changed(at, len(data))

            def ioctl(self, op: int, block: int) -> None:
                assert op == 6
                chip.flash.erase(self.row.offset + block * SECTOR)
                chip.changed(self.row.offset + block * SECTOR, SECTOR)

        return Partition


def port_on(chip: Chip, board: Board, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the port as a runtime for `board` has it, on `chip`."""
    constants: dict[str, Any] = {}
    exec(generate_board_module(board), constants)
    interrupt = dict.fromkeys(("guarded", "interrupted", "listen"))
    fakes = {
        "machine": {},
        "vfs": {"rom_ioctl": lambda op, number: chip.map},
        "esp32": {"Partition": chip.partition()},
        "tidemark_board": {key: constants[key] for key in constants if key.isupper()},
        "tidemark.port.wlan": {},
        "tidemark.port.interrupt": {**interrupt, "kbd_intr": lambda on: None},
    }
    with monkeypatch.context() as patch:
        for name, values in fakes.items():
            module = types.ModuleType(name)
            module.__dict__.update(values)
            patch.setitem(sys.modules, name, module)
        patch.setattr("tidemark.port.wlan", sys.modules["tidemark.port.wlan"], raising=False)
        path = firmware_dir() / "tidemark" / "port" / "esp32.py"
        spec = importlib.util.spec_from_file_location("port_on_encrypted", path)
        assert spec and spec.loader
        port = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(port)
    return port


@pytest.mark.parametrize("encrypted", [True, False])
def test_slot_is_read_through_the_map_as_it_was_written_through_the_partition(
    encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip(BOARD, encrypted=encrypted)
    flash = port_on(chip, BOARD, monkeypatch).flash()
    place = BOARD.regions["slot_b"]
    slot = Region(flash, place.offset, place.size)
    for sector in (1, 2):
        slot.erase(sector)
    assert slot.is_blank(SECTOR, 256) is not encrypted
    slot.write_checked(SECTOR, DATA * 16 + b"the end")
    assert bytes(slot.view(SECTOR, 4096 + 7)) == DATA * 16 + b"the end"
    # The same once more, as after a cut, and what lies around is as it was.
    slot.write_checked(SECTOR, DATA)
    raw = bytes(chip.flash._buf[place.offset + SECTOR :][:256])  # type: ignore[reportPrivateUsage]
    assert (raw == DATA) is not encrypted
    for name in ("journal", "counter", "evidence", "outbox", "provisioning", "vfs"):
        plain = BOARD.regions[name]
        assert Region(flash, plain.offset, plain.size).is_blank(), name


def test_runtime_writes_nothing_where_the_slots_are_not_encrypted_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chip = Chip(BOARD, encrypted=True, flagged=False)
    with pytest.raises(FlashError) as caught:
        port_on(chip, BOARD, monkeypatch).flash()
    assert caught.value.code == "romfs-plain"
    assert chip.flash.operations == 0
