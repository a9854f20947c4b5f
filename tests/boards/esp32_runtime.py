"""A runtime for the virtual ESP32 that leaves its port to the REPL, and how to talk to it there.

The fixtures `esp32` and `esp32_image` (conftest.py) make boards that run it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from tests.conftest import REPO
from tidemark_host.boardfile import load_board
from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board

DEFINITION = load_board(REPO / "boards" / "TIDEMARK_ESP32" / "board.toml")

# A _boot.py that leaves no watchdog behind.
BOOT = """
import sys
sys.path[:] = [".frozen"]
import machine
machine.mem32[0x3FF480A4] = 0x50D83AA1
machine.mem32[0x3FF4808C] = 0
"""
# A runtime that says why it was started, and leaves its port to the REPL.
MAIN = """
import esp32, machine
from tidemark.errors import TidemarkError
from tidemark.port import select
port = select()
def attempt(what, *args):
    try:
        return what(*args)
    except TidemarkError as e:
        print("refused", e)
print("cause", port.reset_cause(), machine.reset_cause(), "marker", hex(port.marker()))
runtimes = attempt(port.runtimes)
if runtimes:
    print("runs in", runtimes.running)
"""

Make = Callable[..., VirtualEsp32Board]


def run(board: VirtualEsp32Board, code: str) -> str:
    """Run code at the REPL once what runs by itself is over: a Ctrl-C would cut that short, and
    the import here would say it again."""
    said = [line.text for line in board.serial_log]
    start = max(number for number, text in enumerate(said) if text.startswith("# "))
    board.serial_log.wait_for(">>> ", 30, start)
    with board.repl() as repl:
        return repl.exec("from main import *\n" + textwrap.dedent(code)).strip()


def say(board: VirtualEsp32Board, line: str, answer: str) -> str:
    """Type a line at the REPL and return what is said when the board has started again."""
    since = len(board.serial_log)
    board.send(b"from main import *; " + line.encode() + b"\r")
    return board.serial_log.wait_for(answer, since=since).text
