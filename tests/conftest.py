"""What every test folder shares: where the firmware is, what is generated for the board.

TIDEMARK_FIRMWARE names another firmware folder; the mutant runner points it at its altered copy.
TIDEMARK_HYPOTHESIS names a profile of Hypothesis: "ci" is the same examples each time, untimed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from hypothesis import settings

import tidemark_host
from tidemark_host.boardfile import generate_board_module, load_board
from tidemark_host.toolchain import umqtt_dir
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_native import host_march, native_modules

REPO = Path(__file__).resolve().parents[1]
BOARD = "VIRTUAL"
# Beside the host's code: a mutant of the generators, in a copy, leaves everybody else's alone.
GENERATED = Path(tidemark_host.__file__).resolve().parents[2] / "build" / BOARD / "gen"
# Modules that run on both interpreters but live with the host's code, such as the NOR model.
SHARED = REPO / "host_tools" / "tidemark_host" / "boards"


def _generate() -> None:
    """Make the board's constants and this machine's native modules importable."""
    text = generate_board_module(load_board(REPO / "boards" / BOARD / "board.toml"))
    files = {"tidemark_board.py": text.encode()}
    files |= {f"{name}.mpy": code for name, code in native_modules(host_march()).items()}
    GENERATED.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        target = GENERATED / name
        if target.is_file() and target.read_bytes() == content:
            continue
        # Whole or not at all, since test workers race here.
        handle, fresh = tempfile.mkstemp(dir=GENERATED)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(fresh).replace(target)


# Where these are set pytest spells out how two values differ: for two flashes, which a failing
# test compares, that takes minutes. Hypothesis, which repeats itself there, is told otherwise.
for _name in ("CI", "BUILD_NUMBER"):
    if os.environ.pop(_name, ""):
        os.environ["TIDEMARK_HYPOTHESIS"] = "ci"
if _profile := os.environ.get("TIDEMARK_HYPOTHESIS"):
    settings.load_profile(_profile)

_generate()
sys.path[:0] = [str(firmware_dir()), str(GENERATED)]
# Last: nothing in these folders may hide an installed package.
sys.path += [str(REPO / "tests" / "vm"), str(SHARED), str(umqtt_dir())]
