"""board.toml: the single source of a board's flash map, times and limits.

`load_board` checks everything that the firmware relies on without checking again: regions that
do not overlap, lie on sectors, fit the flash. `generate_board_module` turns the result into the
constants that are frozen into the runtime as `tidemark_board.py`, `generate_header` into those
that MicroPython's C code is compiled with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

from tidemark_host.chips import CHIPS, Chip
from tidemark_host.esp32 import partitions as esp32_partitions
from tidemark_host.esp32.partitions import Partition, PartitionError

# Largest board.toml read, bytes. Ours have about 2 KiB.
MAX_FILE = 16_384
MAX_FLASH = 64 * 1024 * 1024
_MAX_MS = 0x3FFFFFFF  # a tick difference of MicroPython's smallest port
_MAX_NAME = 32
_MAX_LABEL = 48
# Drivers of a radio that a board may name; each is a part of MicroPython's tree.
_RADIOS = ("none", "cyw43")
# VfsRom exists only in a build with a ROMFS region. Ours is one blank sector, the runtime's last.
_ROMFS_SECTORS = 1

# ESP-IDF's fragments in boards/esp32 that an ESP32 board may choose.
OPTIONS = ("secure-boot", "flash-encryption")
# ESP-IDF has it, and with it a trial that is undone would erase the confirmed runtime.
_UNSAFE_OPTION = "anti-rollback"

# A radio that joins slowly must not reject a good release. The virtual board is in no field.
_FIELD_TRIAL_MS = 60_000

# Every region a board must have, with the least number of sectors its user works with.
REGIONS: Mapping[str, int] = {
    "runtime": 1,
    "provisioning": 1,
    "counter": 2,
    "journal": 2,
    "evidence": 2,
    "outbox": 2,
    "slot_a": 2,
    "slot_b": 2,
    "vfs": 1,
}

# table, key, constant in tidemark_board.py, least value, greatest value
_NUMBERS: tuple[tuple[str, str, str, int, int], ...] = (
    ("watchdog", "timeout_ms", "WATCHDOG_MS", 100, _MAX_MS),
    ("trial", "hold_ms", "TRIAL_HOLD_MS", 1, _MAX_MS),
    ("trial", "limit_ms", "TRIAL_LIMIT_MS", 1, _MAX_MS),
    ("trial", "backoff_ms", "TRIAL_BACKOFF_MS", 0, _MAX_MS),
    ("lease", "boot_ms", "LEASE_BOOT_MS", 1, _MAX_MS),
    ("lease", "repl_ms", "LEASE_REPL_MS", 1, _MAX_MS),
    ("health", "heap_floor", "HEAP_FLOOR", 0, MAX_FLASH),
    ("limits", "runtime_max", "RUNTIME_MAX", 1, MAX_FLASH),
    ("limits", "heap", "HEAP", 16_384, MAX_FLASH),
)


class BoardFileError(Exception):
    """A board.toml that cannot be used; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass(frozen=True)
class Region:
    """A part of the flash: `offset` from its start and `size`, both in bytes, whole sectors."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Return the offset of the first byte behind the region."""
        return self.offset + self.size


@dataclass(frozen=True)
class Esp32:
    """What only an ESP32 has. `definition`: the folder of boards/ with MicroPython's files."""

    definition: str
    options: tuple[str, ...]
    partitions: tuple[Partition, ...]


@dataclass(frozen=True)
class Board:
    """A board as its board.toml describes it; `constants` are the numbers by firmware name.

    `label`: the name for people. `radio`: `none`, or the driver that the image needs. `esp32`:
    None on other chips. `runtime_index`: which of its runtimes is built, from 1; not in the file.
    """

    name: str
    chip: Chip
    label: str
    radio: str
    flash_size: int
    sector: int
    page: int
    regions: Mapping[str, Region]
    constants: Mapping[str, int]
    esp32: Esp32 | None = None
    runtime_index: int = 1

    @property
    def network(self) -> bool:
        """Whether it reaches its gateway by itself; else over its UART and `tidemark bridge`."""
        return self.chip.network or self.radio != _RADIOS[0]

    @property
    def wifi(self) -> bool:
        """Whether it must join a WiFi network for that, so that it needs credentials."""
        return self.network and self.chip.port != "unix"


def load_board(path: Path) -> Board:
    """Read and check a board.toml. Raises BoardFileError."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
    except OSError as error:
        raise BoardFileError("unreadable", f"{path}: {error.strerror}") from error
    return parse_board(data)


def parse_board(data: bytes) -> Board:
    """Check the bytes of a board.toml and return the board. Raises BoardFileError."""
    if len(data) > MAX_FILE:
        raise BoardFileError("oversize", f"more than {MAX_FILE} bytes")
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # ValueError also for a number of 4,301 digits
        raise BoardFileError("syntax", str(error)) from error
    top = cast("dict[str, object]", document)
    known = {"name", "chip", "label", "radio", "flash", "regions", *(row[0] for row in _NUMBERS)}
    esp32_keys = {"definition", "options", "partitions"}
    _only(top, known | esp32_keys, "board.toml")

    name = top.get("name")
    if not isinstance(name, str):
        raise BoardFileError("type", "name must be a string")
    if not (name.isascii() and name.isidentifier() and len(name) <= _MAX_NAME):
        raise BoardFileError("name", f"name must be an identifier of at most {_MAX_NAME} letters")

    chip = CHIPS[_word(top, "chip", None, tuple(CHIPS))]
    radio = _word(top, "radio", _RADIOS[0], _RADIOS)
    label = top.get("label", name)
    if not isinstance(label, str):
        raise BoardFileError("type", "label must be a string")
    if not label.isascii() or not label.isprintable() or len(label) > _MAX_LABEL or '"' in label:
        raise BoardFileError("name", f"label must be at most {_MAX_LABEL} plain characters")

    flash = _table(top, "flash")
    _only(flash, {"size", "sector", "page"}, "[flash]")
    size = _number(flash, "flash", "size", 4096, chip.flash_max)
    sector = _number(flash, "flash", "sector", 256, 65_536)
    page = _number(flash, "flash", "page", 1, 4096)
    if size % sector:
        raise BoardFileError("misaligned", "flash.size is not a whole number of sectors")
    if sector % page:
        raise BoardFileError("misaligned", "flash.sector is not a whole number of pages")
    regions = _regions(_table(top, "regions"), size, sector)
    esp32 = None
    if chip.port == "esp32":
        esp32 = _esp32(top, name, regions, size, sector)
    else:
        _only(top, known, "board.toml")
    board = Board(
        name=name,
        chip=chip,
        label=label,
        radio=radio,
        flash_size=size,
        sector=sector,
        page=page,
        regions=regions,
        constants=_constants(top),
        esp32=esp32,
    )
    _check_chip(board)
    return board


def _check_chip(board: Board) -> None:
    watchdog = board.constants["WATCHDOG_MS"]
    if watchdog > board.chip.watchdog_max_ms:
        raise BoardFileError(
            "range",
            f"watchdog.timeout_ms: {board.chip.name} takes at most {board.chip.watchdog_max_ms}",
        )
    if board.chip.port != "unix" and board.constants["TRIAL_LIMIT_MS"] < _FIELD_TRIAL_MS:
        raise BoardFileError(
            "range", f"trial.limit_ms: a board in the field needs at least {_FIELD_TRIAL_MS}"
        )
    runtime = board.regions["runtime"]
    if board.esp32 and board.constants["RUNTIME_MAX"] > runtime.size:
        raise BoardFileError("range", "limits.runtime_max is above the size of regions.runtime")
    if board.chip.port != "rp2":
        return
    # The boot ROM starts the first byte; rp2.Flash hands out what lies above the runtime.
    if runtime.offset:
        raise BoardFileError("misplaced", "regions.runtime must begin at 0 on this chip")
    room = runtime.size - _ROMFS_SECTORS * board.sector
    if board.constants["RUNTIME_MAX"] > room:
        raise BoardFileError(
            "range",
            f"limits.runtime_max must be at most {room:#x}: the last sector of regions.runtime "
            "stays blank",
        )


def _esp32(
    top: Mapping[str, object],
    name: str,
    regions: Mapping[str, Region],
    flash_size: int,
    sector: int,
) -> Esp32:
    if sector != esp32_partitions.SECTOR:
        raise BoardFileError("range", f"flash.sector: ESP-IDF erases {esp32_partitions.SECTOR}")
    definition = top.get("definition", name)
    if not isinstance(definition, str):
        raise BoardFileError("type", "definition must be a string")
    if not (definition.isascii() and definition.isidentifier()):
        raise BoardFileError("name", "definition must be the name of a folder of boards/")
    listed = top.get("options", [])
    options = cast("list[object]", listed) if isinstance(listed, list) else [None]
    if not all(isinstance(option, str) for option in options):
        raise BoardFileError("type", "options must be an array of strings")
    if _UNSAFE_OPTION in options:
        raise BoardFileError(
            "unsafe-option",
            f"{_UNSAFE_OPTION}: undoing a trial could erase the confirmed runtime; docs/esp32.md "
            "says how, and what keeps old runtimes out instead",
        )
    if any(option not in OPTIONS for option in options):
        raise BoardFileError("range", f"options can be {', '.join(OPTIONS)}")
    table = _table(top, "partitions")
    _only(table, set(esp32_partitions.EXTRA), "[partitions]")
    extra: dict[str, Region] = {}
    for key in esp32_partitions.EXTRA:
        if key not in table:
            raise BoardFileError("missing-region", f"partitions.{key} is not there")
        extra[key] = _region(key, table[key], "partitions")
    try:
        partitions = esp32_partitions.of_board(
            regions, extra, flash_size, "flash-encryption" in options
        )
    except PartitionError as error:
        raise BoardFileError(error.code, str(error)) from error
    chosen = tuple(option for option in OPTIONS if option in options)
    return Esp32(definition, chosen, partitions)


def _regions(table: Mapping[str, object], flash_size: int, sector: int) -> dict[str, Region]:
    for name in table:
        if name not in REGIONS:
            raise BoardFileError("unknown-region", f"no part of the firmware uses {name!r}")
    regions: list[Region] = []
    for name, least in REGIONS.items():
        if name not in table:
            raise BoardFileError("missing-region", f"regions.{name} is not there")
        region = _region(name, table[name])
        if region.offset % sector or region.size % sector:
            raise BoardFileError("misaligned", f"regions.{name} is not on {sector}-byte sectors")
        if region.size < least * sector:
            raise BoardFileError("too-small", f"regions.{name} needs {least} sectors")
        if region.end > flash_size:
            raise BoardFileError("out-of-flash", f"regions.{name} ends behind the flash")
        regions.append(region)
    regions.sort(key=lambda region: region.offset)
    for before, after in pairwise(regions):
        if before.end > after.offset:
            raise BoardFileError("overlap", f"regions.{before.name} overlaps {after.name}")
    return {region.name: region for region in regions}


def _region(name: str, value: object, where: str = "regions") -> Region:
    pair = cast("list[object]", value) if isinstance(value, list) else []
    numbers = [part for part in pair if isinstance(part, int) and not isinstance(part, bool)]
    if len(pair) != 2 or len(numbers) != 2:
        raise BoardFileError("type", f"{where}.{name} must be [offset, size], two integers")
    offset, size = numbers
    if offset < 0 or size < 0:
        raise BoardFileError("out-of-flash", f"{where}.{name} has a negative number")
    return Region(name, offset, size)


def _constants(top: Mapping[str, object]) -> dict[str, int]:
    constants: dict[str, int] = {}
    keys: dict[str, set[str]] = {}
    for table, key, constant, least, most in _NUMBERS:
        constants[constant] = _number(_table(top, table), table, key, least, most)
        keys.setdefault(table, set()).add(key)
    for table, allowed in keys.items():
        _only(_table(top, table), allowed, f"[{table}]")
    if constants["TRIAL_HOLD_MS"] > constants["TRIAL_LIMIT_MS"]:
        raise BoardFileError("range", "trial.hold_ms is above trial.limit_ms: no trial could pass")
    return constants


def _word(
    top: Mapping[str, object], key: str, default: str | None, allowed: tuple[str, ...]
) -> str:
    value = top.get(key, default)
    if value is None:
        raise BoardFileError("missing", f"{key} is not there")
    if not isinstance(value, str):
        raise BoardFileError("type", f"{key} must be a string")
    if value not in allowed:
        raise BoardFileError("range", f"{key} must be one of {', '.join(allowed)}")
    return value


def _table(top: Mapping[str, object], name: str) -> dict[str, object]:
    value = top.get(name)
    if value is None:
        raise BoardFileError("missing", f"the table [{name}] is not there")
    if not isinstance(value, dict):
        raise BoardFileError("type", f"{name} must be a table")
    return cast("dict[str, object]", value)


def _only(table: Mapping[str, object], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise BoardFileError("unknown", f"{where} has {key!r}, which nothing reads")


def _number(table: Mapping[str, object], where: str, key: str, least: int, most: int) -> int:
    value = table.get(key)
    if value is None:
        raise BoardFileError("missing", f"{where}.{key} is not there")
    if not isinstance(value, int) or isinstance(value, bool):
        raise BoardFileError("type", f"{where}.{key} must be an integer")
    if not least <= value <= most:
        raise BoardFileError("range", f"{where}.{key} must be {least} to {most}")
    return value


def runtime_mark(name: str, index: int) -> bytes:
    """Return what a runtime of the board `name` says of itself somewhere in its image."""
    return b"TIDEMARK-RUNTIME-1 %s %d;" % (name.encode(), index)


def generate_board_module(board: Board, runtime: str = "") -> str:
    """Return the source of `tidemark_board.py`: the board's constants, the same text each time.

    `runtime`: SHA-256 (hex) over all that the runtime is built from, for claim 1000.
    """
    lines = [
        f"# Constants of the board {board.name}, made from its board.toml. Change that file.",
        "",
        f'NAME = "{board.name}"',
        f'CHIP = "{board.chip.name}"',
        f"FLASH_SIZE = {board.flash_size}",
        f"SECTOR = {board.sector}",
        f"PAGE = {board.page}",
        f'RUNTIME = bytes.fromhex("{runtime}")',
        f"WIFI = {board.wifi}",
        f"RUNTIME_INDEX = {board.runtime_index}",
        "# What the release tools read in the image.",
        f"RUNTIME_MARK = {runtime_mark(board.name, board.runtime_index)!r}",
        "",
        "# name: (offset, size) in bytes",
        "REGIONS = {",
        *(
            f'    "{region.name}": ({region.offset:#08x}, {region.size:#08x}),'
            for region in board.regions.values()
        ),
        "}",
        "",
        *(f"{name} = {value}" for name, value in board.constants.items()),
    ]
    if board.esp32:
        lines += [
            "",
            "# label: (type, subtype, offset, size), as esp32.Partition.info() begins",
            "PARTITIONS = {",
            *(
                f'    "{row.label}": '
                f"({row.type}, {row.subtype}, {row.offset:#08x}, {row.size:#08x}),"
                for row in board.esp32.partitions
            ),
            "}",
        ]
    return "\n".join(lines) + "\n"


def generate_header(board: Board) -> str:
    """Return the C header `tidemark_board.h` of an rp2 board: its label and its flash map."""
    storage = board.flash_size - board.regions["runtime"].end
    return (
        f"// Made from the board.toml of {board.name}. Change that file.\n"
        f'#define MICROPY_HW_BOARD_NAME "{board.label}"\n'
        "// All above the runtime's region belongs to Tidemark: rp2.Flash(start=0) is there.\n"
        f"#define MICROPY_HW_FLASH_STORAGE_BYTES ({storage})\n"
        "// VfsRom exists only where this is not 0. The runtime's last sector; it stays blank.\n"
        f"#define MICROPY_HW_ROMFS_BYTES ({_ROMFS_SECTORS * board.sector})\n"
        f"#if PICO_FLASH_SIZE_BYTES != {board.flash_size}\n"
        "#error board.toml and pico-sdk disagree about the size of the flash\n"
        "#endif\n"
    )
