"""Flashing an ESP32 by its boot ROM: what it is and holds is looked at first, over the same line.

Nothing has to run on the board: whether it was used is read in its flash.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from tidemark_host import uf2_file
from tidemark_host.boardfile import Board, load_board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.bootsel import Progress
from tidemark_host.discovery import Found
from tidemark_host.esp32 import image as esp_image
from tidemark_host.esp32 import loader as rom
from tidemark_host.esp32 import otadata, partitions
from tidemark_host.esp32.flash import Region
from tidemark_host.esp32.loader import Loader, LoaderError
from tidemark_host.esp32.otadata import State
from tidemark_host.esp32.partitions import Partition, PartitionError
from tidemark_host.flashing import STATE, FlashingError, Image, Outcome
from tidemark_host.toolchain_cache import REPO

_USED = ("provisioning", "counter", "journal")
_HINT = (
    "unplug whatever else has the port open; hold BOOT, press and release RESET (EN), let go of "
    "BOOT, and try again"
)


def flash_esp32(
    found: Found, image: Image, progress: Progress | None = None, *, force: bool = False
) -> Outcome:
    """Flash the board at a serial port through its boot ROM, unless it holds the image already.

    A factory image leaves otadata blank, so that ota_0 starts. An image of bootloader, table and
    runtime alone goes into the runtime slot that is in charge, in a trial (`force`) into both, and
    all else stays. Raises FlashingError: `image`, `no-loader`, `esptool`, `wrong-chip`,
    `wrong-flash`, `secured`, `wrong-board`, `used`, `runtime-trial`. The board is reset, whatever
    was done.
    """
    content = _checked(image)
    with _opened(found.port, progress) as loader:
        _suits(loader, image.board, force)
        if image.runtime_only:
            parts, first = _runtime(loader, image.board, content, force)
        else:
            parts, first = _factory(loader, image.board, content, force)
        held = not first and all(loader.holds(*one) for one in uf2_file.spans(parts))
        if not held:
            # What the board may not find again goes first: were the line to break off after the
            # table, it would count as the board's own. esptool compares each part by its MD5.
            loader.write(parts, first=first)
    return Outcome(found.port, image.digest, held, True, "none" if held else "esptool")


def write_esp32(
    found: Found, board: Board, content: bytes, progress: Progress | None = None
) -> bool:
    """Make the flash of a board on a bench what `content` (all of it) says; return whether
    anything differed.

    Bootloader and table stay where `content` is blank there; what the radio keeps in nvs always
    stays. Raises FlashingError: `no-loader`, `esptool`, `wrong-chip`, `wrong-flash`, `secured`.
    """
    assert board.esp32
    spots = [(row.offset, row.size) for row in board.esp32.partitions if row.label != "nvs"]
    front = (0, partitions.TABLE_OFFSET + partitions.TABLE_SECTOR)
    if content[: front[1]].strip(b"\xff"):
        spots.append(front)
    with _opened(found.port, progress) as loader:
        _suits(loader, board, False)
        parts: dict[int, bytes] = {}
        for offset, size in spots:
            if not loader.holds(offset, content[offset : offset + size]):
                parts |= dict(_sectors(content, offset, size))
        loader.write(parts)
    return bool(parts)


@contextmanager
def _opened(port: str, progress: Progress | None) -> Generator[Loader]:
    try:
        with rom.opened(port, progress) as loader:
            yield loader
    except LoaderError as error:
        if error.code == "no-loader":
            raise FlashingError("no-loader", f"{port}: {error}. Try: {_HINT}") from error
        raise FlashingError("esptool", f"{port}: {error}") from error


def _checked(image: Image) -> bytes:
    """Return an image from the flash's start on. Raises FlashingError `image` for one that the
    board could not start."""
    board = image.board
    assert board.esp32
    content = bytearray(b"\xff" * board.flash_size)
    for offset, part in uf2_file.spans(image.parts):
        content[offset : offset + len(part)] = part
    at, size = partitions.TABLE_OFFSET, partitions.TABLE_SIZE
    if bytes(content[at : at + size]) != partitions.encode(
        board.esp32.partitions, board.flash_size
    ):
        raise FlashingError("image", f"the partition table in it is not that of {board.name}")
    runtime = board.regions["runtime"]
    # The bootloader's header is an image's; esptool looks at its chip once more.
    for name, offset, room in (
        ("bootloader", board.chip.bootloader, at - board.chip.bootloader),
        ("runtime", runtime.offset, runtime.size),
    ):
        flash = NorFlash(
            bytearray(content[offset : offset + room].ljust(board.flash_size, b"\xff"))
        )
        try:
            esp_image.verify(flash, Region(0, room), esp_image.CHIPS[board.chip.name])
        except esp_image.ImageError as error:
            raise FlashingError("image", f"the {name} in it would not start: {error}") from error
    return bytes(content)


def _suits(loader: Loader, board: Board, force: bool) -> None:
    """Refuse a chip or a flash that the board's image was not made for."""
    assert board.esp32
    if loader.chip != board.chip.name:
        raise FlashingError(
            "wrong-chip",
            f"the chip is an {loader.chip.upper()}, {board.name} is for an "
            f"{board.chip.name.upper()}{_other(loader.chip, loader.flash_size)}",
        )
    # A larger one would do, half of it unused: somebody has to want that.
    known = loader.flash_size
    if known != board.flash_size and (not force or 0 < known < board.flash_size):
        what = f"has {known >> 20} MB" if known else "has a size that esptool does not know"
        raise FlashingError(
            "wrong-flash",
            f"the flash {what}, {board.name} is made for {board.flash_size >> 20} MB"
            + (_other(loader.chip, known) if known else ""),
        )
    for name in loader.secured:
        if name not in board.esp32.options or name == "flash-encryption":
            raise FlashingError(
                "secured",
                f"{name} is burned into this chip: it starts nothing that is written here in the "
                "clear. Update it over the network, or see docs/esp32.md",
            )


def _other(chip: str, flash_size: int) -> str:
    """Return which board to name instead."""
    for path in sorted(REPO.glob("boards/TIDEMARK_*/board.toml")):
        board = load_board(path)
        if (board.chip.name, board.flash_size) == (chip, flash_size):
            return f". Try: --board {board.name}"
    return ""


def _factory(
    loader: Loader, board: Board, content: bytes, force: bool
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return what a factory image writes, and what it blanks: nothing on a board that could be
    as it left the factory. Raises FlashingError `used`."""
    assert board.esp32
    rows = _table(loader)
    places = {row.label: row for row in rows}
    ours = all(name in places for name in STATE)
    used = ours and not all(_blank(loader, places[name]) for name in _USED)
    if used and not force:
        raise FlashingError(
            "used",
            "the board was used: a factory image takes its key and counters. --runtime keeps "
            "them; --force erases them",
        )
    parts = uf2_file.sectors(content)
    mine = {row.label: row for row in board.esp32.partitions}
    if rows == board.esp32.partitions and not used and _in_charge(loader, board) == (0, None):
        return parts, {}
    # Another runtime must not start, and no state be found that belongs to another key.
    names = ["otadata", *(STATE if used or not ours else ())]
    blank = dict(_sectors(b"", mine["ota_1"].offset, partitions.SECTOR))
    for name in names:
        blank |= dict(_sectors(b"", mine[name].offset, mine[name].size))
    # One that was another board keeps no key where that one would find it: beside a counter that
    # something else was written over, it would be used again (I1).
    for name in STATE if used else ():
        blank |= dict(_sectors(b"", places[name].offset, places[name].size))
    return parts, {at: part for at, part in blank.items() if at not in parts}


def _runtime(
    loader: Loader, board: Board, content: bytes, force: bool
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return what `--runtime` writes, and what goes before it. Raises FlashingError `wrong-board`,
    `runtime-trial`."""
    assert board.esp32
    if _table(loader) != board.esp32.partitions:
        raise FlashingError(
            "wrong-board",
            f"its partition table is not that of {board.name}: without --runtime a factory image "
            "is written",
        )
    slot, state = _in_charge(loader, board)
    trial = state in (State.NEW, State.PENDING_VERIFY)
    if trial and not force:
        raise FlashingError(
            "runtime-trial",
            "an update of its runtime is on trial: let it end first, or --force",
        )
    mine = {row.label: row for row in board.esp32.partitions}
    parts = uf2_file.sectors(content[: partitions.TABLE_OFFSET + partitions.TABLE_SECTOR])
    runtime = board.regions["runtime"]
    image = content[runtime.offset : runtime.end].rstrip(b"\xff")
    for place in (0, 1) if trial else (slot,):
        parts |= uf2_file.sectors(image, mine[f"ota_{place}"].offset)
    if not trial:
        return parts, {}
    # The journal holds the slot that is not on trial for confirmed; or the one that is, where the
    # board was just going back to it. With the image in both it is what stays, and no candidate is
    # left to go on with. The entry comes last: a cable that is pulled before leaves the trial to
    # be seen by the next run.
    return _entry_of_other(loader, board), parts


def _entry_of_other(loader: Loader, board: Board) -> dict[int, bytes]:
    """Return the sector of otadata that puts the slot which is not in charge there, VALID.

    It is the other entry's, as esp_ota_set_boot_partition chooses: whenever the cable is pulled,
    one of the two stands. Raises FlashingError `runtime-trial`.
    """
    place, entries = _otadata(loader, board)
    index = otadata.active(entries)
    assert index is not None
    seq = entries[index].seq
    try:
        seq = otadata.next_seq(seq, 1 - otadata.slot_of(seq, 2), 2)
    except otadata.OtadataError as error:
        raise FlashingError(
            "runtime-trial", f"{error}. A factory image, without --runtime, makes otadata anew"
        ) from error
    entry = otadata.Entry.made(seq, State.VALID).encode()
    return {
        place.offset + (1 - index) * partitions.SECTOR: entry.ljust(partitions.SECTOR, b"\xff")
    }


def _table(loader: Loader) -> tuple[Partition, ...]:
    """Return the partitions that the flash has, none where it has no table of a kind we know."""
    data = loader.read(partitions.TABLE_OFFSET, partitions.TABLE_SIZE)
    try:
        return partitions.decode(data, loader.flash_size or partitions.FLASH_SIZES[-1])
    except PartitionError:
        return ()


def _in_charge(loader: Loader, board: Board) -> tuple[int, State | None]:
    """Return the runtime slot that starts next, and its entry's state: None for what is as good as
    confirmed, or blank."""
    entries = _otadata(loader, board)[1]
    index = otadata.active(entries)
    if index is None:
        return 0, None
    state = entries[index].state
    trial = state in (State.NEW, State.PENDING_VERIFY)
    return otadata.slot_of(entries[index].seq, 2), State(state) if trial else None


def _otadata(loader: Loader, board: Board) -> tuple[Partition, list[otadata.Entry]]:
    assert board.esp32
    place = next(row for row in board.esp32.partitions if row.label == "otadata")
    flash = NorFlash(bytearray(loader.read(place.offset, place.size)))
    return place, otadata.read(flash, Region(0, place.size))


def _blank(loader: Loader, row: Partition) -> bool:
    return loader.holds(row.offset, b"\xff" * row.size)


def _sectors(content: bytes, offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, content) of each sector of a place; blank where `content` ends."""
    for at in range(offset, offset + size, partitions.SECTOR):
        yield at, content[at : at + partitions.SECTOR].ljust(partitions.SECTOR, b"\xff")
