"""What every test folder shares: where the firmware is, and the constants of the board under test.

TIDEMARK_FIRMWARE names another firmware folder; the mutant runner points it at its altered copy.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tidemark_host.boardfile import generate_board_module, load_board
from tidemark_host.toolchain import umqtt_dir
from tidemark_host.toolchain_build import firmware_dir

REPO = Path(__file__).resolve().parents[1]
BOARD = "VIRTUAL"
GENERATED = REPO / "build" / BOARD / "gen"
# Modules that run on both interpreters but live with the host's code, such as the NOR model.
SHARED = REPO / "host_tools" / "tidemark_host" / "boards"


def _write_board_module() -> None:
    """Make tidemark_board.py importable; whole or not at all, since test workers race here."""
    text = generate_board_module(load_board(REPO / "boards" / BOARD / "board.toml"))
    target = GENERATED / "tidemark_board.py"
    if target.is_file() and target.read_text() == text:
        return
    GENERATED.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=GENERATED)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(target)


_write_board_module()
sys.path[:0] = [str(firmware_dir()), str(GENERATED)]
# Last: nothing in these folders may hide an installed package.
sys.path += [str(REPO / "tests" / "vm"), str(SHARED), str(umqtt_dir())]
