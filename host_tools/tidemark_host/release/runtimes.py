"""Runtime images that come in: what their boards could not start, or would not know again."""

from __future__ import annotations

import re
from pathlib import Path

from tidemark_host.boardfile import Board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32 import image
from tidemark_host.esp32.flash import Region
from tidemark_host.release.errors import ReleaseError

_MARK = re.compile(rb"TIDEMARK-RUNTIME-1 (\w{1,32}) (\d{1,10});")  # boardfile.runtime_mark


def read(
    file: Path | bytes, board: Board, index: int | None, check: bool = True
) -> tuple[bytes, int | None]:
    """Return the bytes of a runtime image of `board`, and `index`, by default what it was built
    with.

    check: as the bootloader checks it, and that it is a Tidemark of this board and index; without
    it any bytes are taken. Raises ReleaseError `runtime`.
    """
    hint = f"make firmware BOARD={board.name} RUNTIME_INDEX=N"
    if board.esp32 is None:
        raise ReleaseError(
            "runtime",
            f"{board.name} has no second runtime slot: its runtime changes over USB only",
            f"tidemark flash --board {board.name} --runtime, at each board",
        )
    try:
        data = file if isinstance(file, bytes) else file.read_bytes()
    except OSError as error:
        raise ReleaseError("runtime", f"{file}: {error.strerror}", hint) from error
    marks = {(name.decode(), int(number)) for name, number in _MARK.findall(data)}
    name, built = next(iter(marks)) if len(marks) == 1 else ("", None)
    if check:
        _check_image(data, board, hint)
        if not built:
            raise ReleaseError("runtime", "the image does not say that it is a Tidemark", hint)
        if name != board.name:
            raise ReleaseError("runtime", f"the image was built for {name}", hint)
        if index not in (None, built):
            raise ReleaseError("runtime", f"runtime {index} was built as runtime {built}", hint)
    return data, built if index is None else index


def _check_image(data: bytes, board: Board, hint: str) -> None:
    assert board.esp32
    room = next(row.size for row in board.esp32.partitions if row.label == "ota_1")
    room = min(room, board.constants["RUNTIME_MAX"])
    if len(data) > room:
        raise ReleaseError("runtime", f"{len(data)} bytes do not fit {room}", hint)
    flash = NorFlash(bytearray(data.ljust(room, b"\xff")))
    try:
        found = image.verify(flash, Region(0, room), image.CHIPS[board.chip.name])
    except image.ImageError as error:
        raise ReleaseError(
            "runtime", f"the bootloader would not start it: {error}", hint
        ) from error
    if not found.digest:
        raise ReleaseError("runtime", "the image has no SHA-256 behind it", hint)
    # Secure boot puts a signature behind the image; nothing else may be there.
    if found.length != len(data) and "secure-boot" not in board.esp32.options:
        raise ReleaseError("runtime", f"{len(data) - found.length} bytes follow the image", hint)
