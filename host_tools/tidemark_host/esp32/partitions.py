"""The ESP32's partition table: made from board.toml, as ESP-IDF's CSV and in its binary form.

The rules are ESP-IDF's, 5.2 to 5.4. Where a rule comes from is said beside it:
`guide`: docs, api-guides/partition-tables.rst; `gen`: components/partition_table/gen_esp32part.py;
`boot`: components/bootloader_support/src/flash_partitions.c, esp_partition_table_verify;
`app`: components/esp_partition/partition.c, load_partitions.
Reading is stricter than any of them: what they warn of or pass over is refused.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemark_host.boardfile import Region

TABLE_OFFSET = 0x8000  # guide: the default of CONFIG_PARTITION_TABLE_OFFSET, ours too
TABLE_SECTOR = 0x1000  # gen, PARTITION_TABLE_SIZE: nothing else may lie in this sector
TABLE_SIZE = 0xC00  # gen, MAX_PARTITION_LENGTH: what is left of the sector is for a signature
SECTOR = 0x1000
APP_ALIGNMENT = 0x10000  # gen, ALIGNMENT: a page of the flash's memory map
OTADATA_SIZE = 0x2000  # gen, PartitionTable.verify: one sector for each of two entries
NVS_LEAST = 0x3000  # gen, NVS_RW_MIN_PARTITION_SIZE
MAX_LABEL = 15  # the row has 16 bytes: a NUL always ends it. gen cuts a longer one off silently
FLASH_SIZES = (2 << 20, 4 << 20, 8 << 20, 16 << 20)  # CONFIG_ESPTOOLPY_FLASHSIZE_*MB

APP = 0x00
DATA = 0x01
OTA_DATA = 0x00
NVS = 0x02
_ROW = struct.Struct("<2sBBII16sI")  # gen, PartitionDefinition.STRUCT_FORMAT
_MAGIC = b"\xaa\x50"
_MD5 = b"\xeb\xeb" + b"\xff" * 14  # gen, MD5_PARTITION_BEGIN; the digest follows
_MD5_MAGIC = _MD5[:2]
_END = b"\xff" * 4  # boot: magic 0xFFFF, type and subtype 0xFF
_ENCRYPTED, _READONLY = 1, 2  # gen, PartitionDefinition.FLAGS

# Label: type, subtype, and how gen's CSV names the two. `undefined` is ESP-IDF's word for data of
# no kind it knows (esp_partition.h); esp32.Partition finds only app and data by label, so a type
# of our own would not do. romfs and vfs are as in MicroPython's partitions-4MiB-romfs.csv.
_KINDS: Mapping[str, tuple[int, int, str]] = {
    "nvs": (DATA, NVS, "data, nvs"),
    "otadata": (DATA, OTA_DATA, "data, ota"),
    "phy_init": (DATA, 0x01, "data, phy"),
    "ota_0": (APP, 0x10, "app, ota_0"),
    "ota_1": (APP, 0x11, "app, ota_1"),
    "romfs": (DATA, 0x8F, "data, 0x8f"),
    "vfs": (DATA, 0x81, "data, fat"),
    **dict.fromkeys(
        ("provisioning", "counter", "journal", "evidence", "outbox"),
        (DATA, 0x06, "data, undefined"),
    ),
}
# Flagged for flash encryption, beside what it takes without a flag: app partitions and otadata
# (app). The memory map decrypts whatever is read through it, so what is mapped must be encrypted.
_ENCRYPTED_DATA = ("romfs",)
# Partitions that are no region of the firmware: what [partitions] of board.toml must have.
EXTRA = ("nvs", "otadata", "phy_init", "ota_1")


class PartitionError(Exception):
    """A table that can't be used; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Partition:
    """One row. `offset` from the flash's start and `size` in bytes."""

    label: str
    type: int
    subtype: int
    offset: int
    size: int
    encrypted: bool = False
    readonly: bool = False

    @property
    def end(self) -> int:
        """Return the offset of the first byte behind it."""
        return self.offset + self.size


def of_board(
    regions: Mapping[str, Region],
    extra: Mapping[str, Region],
    flash_size: int,
    encrypted: bool = False,
) -> tuple[Partition, ...]:
    """Return a board's partitions, by offset: its regions, and those of [partitions].

    The region `runtime` is ota_0; the two slots together are romfs, the one partition that
    MicroPython maps into memory. `encrypted`: the chip's flash encryption is on. Raises
    PartitionError as `check`, and `unequal`, `misplaced`.
    """
    placed = {name: (region.offset, region.size) for name, region in {**regions, **extra}.items()}
    slots = sorted((regions["slot_a"], regions["slot_b"]), key=lambda region: region.offset)
    if slots[0].end != slots[1].offset:
        raise PartitionError("misplaced", "slot_a and slot_b must touch: romfs is both")
    for name in ("slot_a", "slot_b"):
        del placed[name]
    placed["romfs"] = (slots[0].offset, slots[0].size + slots[1].size)
    placed["ota_0"] = placed.pop("runtime")
    if placed["ota_0"][1] != placed["ota_1"][1]:
        raise PartitionError("unequal", "ota_0 and ota_1 differ in size: an update would not fit")
    partitions = sorted(
        (
            Partition(name, *_KINDS[name][:2], *place, encrypted and name in _ENCRYPTED_DATA)
            for name, place in placed.items()
        ),
        key=lambda partition: partition.offset,
    )
    check(partitions, flash_size)
    return tuple(partitions)


def check(partitions: Sequence[Partition], flash_size: int) -> None:
    """Check what ESP-IDF relies on.

    Raises PartitionError: `flash-size`, `too-many`, `label`, `kind`, `misaligned`, `too-small`,
    `misplaced`, `out-of-flash`, `otadata-size`, `duplicate`, `overlap`.
    """
    if flash_size not in FLASH_SIZES:
        raise PartitionError("flash-size", f"ESP-IDF has no setting for {flash_size} bytes")
    # With the row of the digest and one that ends the table (boot: a table needs its end).
    if (len(partitions) + 2) * _ROW.size > TABLE_SIZE:
        raise PartitionError("too-many", f"{len(partitions)} partitions do not fit the table")
    for partition in partitions:
        _check_one(partition, flash_size)
    labels = [partition.label for partition in partitions]
    if len(set(labels)) != len(labels):
        raise PartitionError("duplicate", "two partitions have one label")  # gen, verify
    kinds = [(partition.type, partition.subtype) for partition in partitions]
    if kinds.count((DATA, OTA_DATA)) > 1:
        raise PartitionError("duplicate", "there are two otadata partitions")  # gen, verify
    ordered = sorted(partitions, key=lambda partition: partition.offset)
    for before, after in pairwise(ordered):
        if before.end > after.offset:
            raise PartitionError("overlap", f"{before.label} overlaps {after.label}")


def _check_one(partition: Partition, flash_size: int) -> None:
    label, kind = partition.label, (partition.type, partition.subtype)
    if not (0 < len(label) <= MAX_LABEL and label.isascii() and label.isprintable()):
        raise PartitionError("label", f"{label!r} is not 1 to {MAX_LABEL} plain characters")
    if "," in label or label != label.strip() or label.startswith("#") or "$" in label:
        raise PartitionError("label", f"{label!r} can't stand in ESP-IDF's CSV")
    if not all(0 <= number <= 0xFE for number in kind):
        raise PartitionError("kind", f"{label} has a type or subtype that is none")
    if partition.type == APP and partition.offset % APP_ALIGNMENT:
        raise PartitionError("misaligned", f"{label} must begin at a multiple of 64 KiB")
    if partition.offset % SECTOR or partition.size % SECTOR:
        raise PartitionError("misaligned", f"{label} is not on {SECTOR}-byte sectors")
    if partition.size <= 0:
        raise PartitionError("too-small", f"{label} is empty")
    if partition.offset < TABLE_OFFSET + TABLE_SECTOR:
        raise PartitionError("misplaced", f"{label} begins before the partition table's end")
    if partition.end > flash_size:
        raise PartitionError("out-of-flash", f"{label} ends behind the flash")  # boot
    if kind == (DATA, OTA_DATA) and partition.size != OTADATA_SIZE:
        raise PartitionError("otadata-size", f"{label} must have two sectors")
    if kind == (DATA, NVS) and partition.size < NVS_LEAST and not partition.readonly:
        raise PartitionError("too-small", f"{label} needs {NVS_LEAST:#x} bytes")


def encode(partitions: Sequence[Partition], flash_size: int) -> bytes:
    """Return the binary table, 0xC00 bytes for offset 0x8000. Raises PartitionError as `check`."""
    check(partitions, flash_size)
    rows = b"".join(
        _ROW.pack(
            _MAGIC,
            partition.type,
            partition.subtype,
            partition.offset,
            partition.size,
            partition.label.encode(),
            _ENCRYPTED * partition.encrypted | _READONLY * partition.readonly,
        )
        for partition in partitions
    )
    # Over all rows before it (gen, PartitionTable.to_binary).
    table = rows + _MD5 + hashlib.md5(rows, usedforsecurity=False).digest()
    return table.ljust(TABLE_SIZE, b"\xff")


def begins_table(data: bytes) -> bool:
    """Tell whether these bytes, from 0x8000 on, are a table's first."""
    return data.startswith(_MAGIC)


def decode(data: bytes, flash_size: int) -> tuple[Partition, ...]:
    """Return the rows of a binary table, as read from 0x8000; `data` may be its whole sector.

    The digest must be there (app) and be the last row. Raises PartitionError: `length`, `magic`,
    `flags`, `digest`, `no-digest`, `no-end`, `not-last`, and as `check`.
    """
    if not TABLE_SIZE <= len(data) <= TABLE_SECTOR:
        raise PartitionError("length", f"a table has {TABLE_SIZE} to {TABLE_SECTOR} bytes")
    partitions: list[Partition] = []
    digest_seen = False
    for at in range(0, TABLE_SIZE, _ROW.size):
        row = data[at : at + _ROW.size]
        if row.startswith(_END):
            break
        if digest_seen:
            raise PartitionError("not-last", "a row behind the digest is covered by none")
        if row.startswith(_MD5_MAGIC):
            if row != _MD5 + hashlib.md5(data[:at], usedforsecurity=False).digest():
                raise PartitionError("digest", "the MD5 does not match the rows")
            digest_seen = True
        else:
            partitions.append(_decode_row(row, at))
    else:
        raise PartitionError("no-end", "no row ends the table")
    if not digest_seen:
        raise PartitionError("no-digest", "the table has no MD5")
    check(partitions, flash_size)
    return tuple(partitions)


def _decode_row(row: bytes, at: int) -> Partition:
    magic, kind, subtype, offset, size, name, flags = _ROW.unpack(row)
    if magic != _MAGIC:
        raise PartitionError("magic", f"the row at {at:#x} begins with {magic.hex()}")
    if flags & ~(_ENCRYPTED | _READONLY):
        raise PartitionError("flags", f"the row at {at:#x} has flags {flags:#x}")
    label, _, rest = name.partition(b"\0")
    if len(label) > MAX_LABEL or rest.strip(b"\0"):
        raise PartitionError("label", f"the label at {at:#x} has no end, or something behind it")
    return Partition(
        # What is not ASCII is refused as a label, by `check`.
        label.decode("latin-1"),
        kind,
        subtype,
        offset,
        size,
        bool(flags & _ENCRYPTED),
        bool(flags & _READONLY),
    )


def to_csv(partitions: Sequence[Partition], board: str) -> str:
    """Return the table as ESP-IDF's build takes it: CONFIG_PARTITION_TABLE_CUSTOM_FILENAME.

    Of a board's partitions (`of_board`), in the same order as `encode`; every offset is given, so
    that the tool fills in none (gen, PartitionTable.from_csv).
    """
    rows = [
        f"# Made from the board.toml of {board}. Change that file.",
        "# Name, Type, SubType, Offset, Size, Flags",
    ]
    for partition in partitions:
        flags = [name for name in ("encrypted", "readonly") if getattr(partition, name)]
        row = f"{partition.label}, {_KINDS[partition.label][2]}, {partition.offset:#x}, "
        rows.append(f"{row}{partition.size:#x}, {':'.join(flags)}".rstrip())
    return "\n".join(rows) + "\n"
