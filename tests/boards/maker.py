"""Boards that run a test's own firmware."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tidemark_host.boards.virtual import SECTOR, VirtualBoard

SIZE = 16 * SECTOR
PROLOGUE = """
import time
from tidemark.errors import TidemarkError
from tidemark.port import select
port = select()
flash = port.flash()
def attempt(what, *args):
    try:
        what(*args)
        print("done")
    except TidemarkError as e:
        print("refused", e.code)
"""


class Maker:
    """Makes boards that run a test's own main.py, and closes them all."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.boards: list[VirtualBoard] = []

    def __call__(self, code: str, **options: Any) -> VirtualBoard:
        text = PROLOGUE + textwrap.dedent(code)
        board = VirtualBoard(runtime=self.runtime, code=text, **{"size": SIZE, **options})
        self.boards.append(board)
        board.power_on()
        return board
