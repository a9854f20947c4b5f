"""Kinds of boards that the bench can hold: one small class each."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from tidemark_host.boardfile import Board as Definition
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import Board
from tidemark_host.boards.virtual import VirtualBoard

BOARDS = Path(__file__).parents[3] / "boards"

POWER = "power"  # the supply can be switched
CUT = "cut"  # power can fail at a chosen flash operation
OPERATIONS = "operations"  # flash operations are seen
ALL = frozenset({POWER, CUT, OPERATIONS})


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
    def abilities(self) -> frozenset[str]:
        """Which of POWER, CUT, OPERATIONS it has."""
        ...

    def lacks(self, ability: str) -> str:
        """Say why it lacks an ability, and what would give it."""
        ...

    def runtime(self) -> bytes:
        """Return what belongs in the flash region `runtime`; b"" when nothing does."""
        ...

    def open(self, folder: Path) -> Board:
        """Take a board in hand, switched off where that is possible. Raises BoardError."""
        ...

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        """Carry the board's connections to these loopback ports, where it has no network."""
        ...


class VirtualTarget:
    """The virtual board: a process here, with the host's network."""

    name = "virtual"
    patience = 1.0
    abilities = ALL

    def __init__(self) -> None:
        self.definition = load_board(BOARDS / "VIRTUAL" / "board.toml")

    def lacks(self, ability: str) -> str:
        return f"the virtual board has {ability}"

    def runtime(self) -> bytes:
        return b""

    def open(self, folder: Path) -> VirtualBoard:
        return VirtualBoard(folder)

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        return nullcontext()
