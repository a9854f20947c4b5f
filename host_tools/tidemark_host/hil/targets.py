"""Kinds of boards that the bench can hold: one small class each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from tidemark_host.boardfile import Board as Definition
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import Board, BoardError
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.wifi import Wifi

HOST = "127.0.0.1"
BOARDS = Path(__file__).parents[3] / "boards"

POWER = "power"  # the supply can be switched
CUT = "cut"  # power can fail at a chosen flash operation
OPERATIONS = "operations"  # flash operations are seen
CONSOLE = "console"  # what it says is heard from the first byte of a boot on
FAULTS = "faults"  # its flash can be worn out by the test
RUNTIMES = "runtimes"  # it has two slots of the runtime, and runtimes can be made for it
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
        """Which of POWER, CUT, OPERATIONS, CONSOLE, FAULTS, RUNTIMES, PEEK it has."""
        ...

    def lacks(self, ability: str) -> str:
        """Say why it lacks an ability, and what would give it."""
        ...

    def parts(self) -> Mapping[int, bytes]:
        """Return what is flashed beside a factory image: flash offset to content."""
        ...

    @property
    def wifi(self) -> Wifi | None:
        """The network that it joins, None where it needs none."""
        ...

    @property
    def host(self) -> str:
        """Where it finds the bench's broker and mirror."""
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

    wifi: Wifi | None = None
    host = HOST

    name = "virtual"
    patience = 1.0
    period_ms = 40
    abilities = ALL | {FAULTS}
    exclusive = False

    def __init__(self) -> None:
        self.definition = load_board(BOARDS / "VIRTUAL" / "board.toml")

    def lacks(self, ability: str) -> str:
        return f"the virtual board has no {ability}"

    def parts(self) -> Mapping[int, bytes]:
        return {}

    def open(self, folder: Path) -> VirtualBoard:
        return VirtualBoard(folder)

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        return nullcontext()


class VirtualEsp32Target(VirtualTarget):
    """The virtual ESP32: another flash map, the ESP32's port, and ESP-IDF's bootloader."""

    name = "virtual-esp32"
    # The one in its air: boards/VIRTUAL_ESP32/modules/chip_network.py.
    wifi = Wifi("bench", "nobody is kept out", "DE")
    patience = 2.0  # the watchdog has twice the time
    abilities = ALL | {FAULTS, RUNTIMES}

    def __init__(self, board: str = "TIDEMARK_ESP32") -> None:
        """`board`: a folder of boards/. Raises BoardError `runtime` where nothing plays it."""
        path = BOARDS / board / "board.toml"
        if not path.is_file() or load_board(path).chip.name != "esp32":
            raise BoardError("runtime", f"nothing here plays {board}, only boards with an ESP32")
        self.definition = load_board(path)

    def lacks(self, ability: str) -> str:
        return f"the virtual ESP32 has no {ability}"

    def parts(self) -> Mapping[int, bytes]:
        from tidemark_host.boards import virtual_esp32

        return virtual_esp32.parts(self.definition, self.runtime_image())

    def runtime_image(
        self, index: int = 1, changes: Mapping[str, str | None] | None = None
    ) -> bytes:
        """Return a runtime for the board, by default the base as it is now."""
        from tidemark_host import toolchain_virtual_esp32

        return toolchain_virtual_esp32.runtime_image(self.definition, index, changes)

    def open(self, folder: Path) -> VirtualBoard:
        from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board

        return VirtualEsp32Board(folder, board=self.definition.name)


class EmulatedTarget:
    """The real image in an emulated RP2040: its own clock, and a serial line for a network."""

    wifi: Wifi | None = None
    host = HOST

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

    def parts(self) -> Mapping[int, bytes]:
        return {}  # the board brings its own runtime

    def open(self, folder: Path) -> Board:
        from tidemark_host.boards.emulated_board import EmulatedBoard

        return EmulatedBoard()

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        from tidemark_host.boards.emulated_board import EmulatedBoard
        from tidemark_host.bridge import Bridge

        assert isinstance(board, EmulatedBoard)
        return Bridge(board.link_path, [(HOST, port) for port in ports])
