"""`virtual:FOLDER`: the virtual board whose flash lies in a folder."""

from __future__ import annotations

from pathlib import Path

from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.esp32 import partitions

FLASH = "flash.bin"


def open_folder(folder: Path) -> VirtualBoard:
    """Return the board whose flash is in `folder`, switched off; a new one is a VIRTUAL.

    A flash with a partition table is an ESP32's. Raises BoardError, ToolchainError.
    """
    path = folder / FLASH
    if not path.is_file():
        return VirtualBoard(folder)
    with path.open("rb") as file:
        file.seek(partitions.TABLE_OFFSET)
        if not partitions.begins_table(file.read(2)):
            return VirtualBoard(folder)
    from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board, board_with

    return VirtualEsp32Board(folder, board=board_with(path.stat().st_size))
