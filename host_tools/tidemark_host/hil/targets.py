"""Kinds of boards that the bench can hold: one small class each."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from tidemark_host.boardfile import Board as Definition
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import Board, BoardError
from tidemark_host.boards.virtual import VirtualBoard

HOST = "127.0.0.1"
BOARDS = Path(__file__).parents[3] / "boards"

POWER = "power"  # the supply can be switched
CUT = "cut"  # power can fail at a chosen flash operation
OPERATIONS = "operations"  # flash operations are seen
CONSOLE = "console"  # what it says is heard from the first byte of a boot on
FAULTS = "faults"  # its flash can be worn out by the test
PEEK = "peek"  # its flash is read while it runs; else it is stopped for that, and resets
ALL = frozenset({POWER, CUT, OPERATIONS, CONSOLE, PEEK})


class Target(Protocol):
    """A kind of board, and what the bench must know to hold one."""

    @property
    def name(self) -> str:
        """For people, and part of the names of tests."""
        ...

    @property
    def definition(self) -> Definition: ...

    @property
    def patience(self) -> float:
        """How much longer than on the virtual board everything may take on the host's clock."""
        ...

    @property
    def period_ms(self) -> int:
        """Between two readings: often enough to see, seldom enough to leave it time."""
        ...

    @property
    def abilities(self) -> frozenset[str]:
        """Which of POWER, CUT, OPERATIONS, CONSOLE, FAULTS, PEEK it has."""
        ...

    def lacks(self, ability: str) -> str:
        """Say why it lacks an ability, and what would give it."""
        ...

    def runtime(self) -> bytes:
        """Return what belongs in the flash region `runtime`; b"" when nothing does."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether there is just one of it, which one worker at a time may hold."""
        ...

    def open(self, folder: Path) -> Board:
        """Take a board in hand, switched off where that is possible. Raises BoardError."""
        ...

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        """Carry the board's connections to these loopback ports, where it has no network."""
        ...


def power_cycle(target: Target, board: Board) -> str:
    """Switch a board off and on, or reset it where nothing can; return which: `power`, `reset`."""
    if POWER in target.abilities:
        board.power_off()
        board.power_on()
        return "power"
    board.reset()
    return "reset"


class VirtualTarget:
    """The virtual board: a process here, with the host's network."""

    name = "virtual"
    patience = 1.0
    period_ms = 40
    abilities = ALL | {FAULTS}
    exclusive = False

    def __init__(self) -> None:
        self.definition = load_board(BOARDS / "VIRTUAL" / "board.toml")

    def lacks(self, ability: str) -> str:
        return f"the virtual board has no {ability}"

    def runtime(self) -> bytes:
        return b""

    def open(self, folder: Path) -> VirtualBoard:
        return VirtualBoard(folder)

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        return nullcontext()


class EmulatedTarget:
    """The real image in an emulated RP2040: its own clock, and a serial line for a network."""

    name = "emulated"
    patience = 10.0
    period_ms = 250
    abilities = ALL | {FAULTS}
    exclusive = False

    def __init__(self, board: str = "TIDEMARK_PICO") -> None:
        """`board`: a folder of boards/. Raises BoardError `emulated`."""
        if board != "TIDEMARK_PICO":
            raise BoardError("emulated", f"nothing here emulates {board}, only TIDEMARK_PICO")
        self.definition = load_board(BOARDS / board / "board.toml")

    def lacks(self, ability: str) -> str:
        return f"the emulated board has no {ability}"

    def runtime(self) -> bytes:
        return b""  # the board brings its own

    def open(self, folder: Path) -> Board:
        from tidemark_host.boards.emulated_board import EmulatedBoard

        return EmulatedBoard()

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        from tidemark_host.boards.emulated_board import EmulatedBoard
        from tidemark_host.bridge import Bridge

        assert isinstance(board, EmulatedBoard)
        return Bridge(board.link_path, [(HOST, port) for port in ports])
