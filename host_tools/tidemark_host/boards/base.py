"""What every board offers to the demo and to the system suite, whatever it is made of.

Times are `time.monotonic()` seconds of the host. Waits are bounded and raise `BoardTimeout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from tidemark_host.boards.repl import Repl


LOG_MAX = 200_000  # entries of a log of starts, operations, ...; older ones go
# Codes of what the host side could not do: they say nothing about the board's firmware.
INFRASTRUCTURE = frozenset(
    {"absent", "busy", "closed", "flasher", "lines", "port", "power", "runtime", "service"}
)


class BoardError(Exception):
    """A board that cannot do what was asked. `code` is short and stable."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class BoardTimeout(BoardError):
    """What was waited for did not happen in time."""

    def __init__(self, text: str) -> None:
        super().__init__("timeout", text)


@dataclass(frozen=True)
class Operation:
    """One flash operation that began: `kind` is `program` (a page) or `erase` (a sector)."""

    time: float
    kind: str
    address: int
    length: int


@dataclass(frozen=True)
class Violation:
    """A flash access against the chip's rules; `code` is `bounds`, `align`, `overwrite` or, of a
    program whose data lies in the flash itself, `source`."""

    time: float
    kind: str
    address: int
    length: int
    code: str


@dataclass(frozen=True)
class Reset:
    """A start of the board: `power-on`, `watchdog`, `reset`, `soft`; `unknown`: nothing shows."""

    time: float
    cause: str


@dataclass(frozen=True)
class Cut:
    """A planned power cut that has happened, at the flash operation `operation`."""

    time: float
    operation: Operation
    variant: str


@dataclass(frozen=True)
class Line:
    """One line of the serial console, without its end; bytes that are not UTF-8 are escaped."""

    time: float
    text: str


class SerialLog(Protocol):
    """What the board has said, with the time each line was completed."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Line]: ...

    def __getitem__(self, index: int) -> Line: ...

    def wait_for(self, text: str, timeout: float = 10.0, since: int = 0) -> Line:
        """Return the first line from number `since` on that contains `text`, be it unfinished.

        Raises BoardTimeout.
        """
        ...


class Board(AbstractContextManager["Board", None], Protocol):
    """A board in the host's hands. As a context manager it always cleans up."""

    @property
    def console_path(self) -> str:
        """The serial console, to be given to `mpremote connect`."""
        ...

    @property
    def serial_log(self) -> SerialLog: ...

    @property
    def resets(self) -> Sequence[Reset]:
        """Each start of the board, the oldest first."""
        ...

    @property
    def operations(self) -> Sequence[Operation]:
        """Flash operations of the firmware, the oldest first. A flasher's do not count."""
        ...

    @property
    def violations(self) -> Sequence[Violation]:
        """Accesses that the flash refused. A test that ends with one has found a bug."""
        ...

    def flash(self, image: bytes) -> None:
        """Switch off, erase the whole chip, write `image` from its first address."""
        ...

    def power_on(self) -> None: ...

    def power_off(self) -> None: ...

    def reset(self) -> None:
        """Reset as the reset pin does: the cause is `reset`. The marker register survives where
        the chip's does: not on an RP2040."""
        ...

    def cut_at(self, n: int, variant: str = "before", count: int = -1, mask: int = 0) -> None:
        """Cut the power at the n-th flash operation from now (1: the next).

        `variant`: `before`, `after`, or `torn`: the first `count` bytes are done (-1: half) and,
        of a program, in the byte behind them the bits in `mask`.
        """
        ...

    def wait_cut(self, timeout: float = 10.0) -> Cut:
        """Wait for the planned cut and return it; the board is off then. Raises BoardTimeout."""
        ...

    def read_flash(self, start: int, size: int, resume: bool = True) -> bytes:
        """Return what the flash holds.

        `resume`: a board that had to be stopped for it goes on afterwards, by a reset.
        """
        ...

    def repl(self, soft_reset: bool = False, timeout: float = 10.0) -> Repl:
        """Open the console's raw REPL by mpremote's own transport. Interrupts what runs there."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...
