"""What boards have in common whose state lives in one service thread, simulated ones above all."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from types import TracebackType
from typing import Self

from tidemark_host.boards.base import BoardError, Cut, Operation, Reset, Violation
from tidemark_host.boards.console import Console
from tidemark_host.boards.console_log import ConsoleLog
from tidemark_host.boards.nor import VARIANTS, NorFlash
from tidemark_host.boards.service import Service

OFF, RUNNING, HUNG = "off", "running", "hung"


class ServedBoard:
    """A board with a console and a thread; the kinds of boards make both, the console first."""

    _console: Console
    _service: Service
    _resets: deque[Reset]

    @property
    def console_path(self) -> str:
        """The pty of the console, for `mpremote connect`. It outlives resets of the board."""
        return self._console.path

    @property
    def console_url(self) -> str:
        """The console over TCP: `socket://127.0.0.1:<port>`, for `mpremote connect`."""
        return f"socket://127.0.0.1:{self._console.port}"

    @property
    def serial_log(self) -> ConsoleLog:
        """What the board has said on its console. Lines that begin with `#` are the host's."""
        return self._console.log

    @property
    def resets(self) -> list[Reset]:
        """Each start of the board, the oldest first."""
        return self._service.do(lambda: list(self._resets))

    def wait_reset(self, cause: str, timeout: float = 30.0, since: int = 0) -> Reset:
        """Return the first start from number `since` on with this cause. Raises BoardTimeout."""

        def found() -> list[Reset]:
            return [reset for reset in list(self._resets)[since:] if reset.cause == cause]

        self._service.wait(lambda: bool(found()), timeout, f"reset by {cause}")
        return found()[0]

    def close(self) -> None:
        """Leave nothing behind. A second call does nothing."""
        if self._service.closing:
            return
        self._halt()
        self._service.close()
        self._let_go()
        self._service.dispose()

    def _halt(self) -> None:
        """Stop what runs, while the thread still lives."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Close what is registered with the thread's selector, which has ended."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SimulatedBoard(ServedBoard):
    """A board whose flash is a `nor.NorFlash`: all that happens there is seen and can be cut."""

    _state: str
    _auto_power: bool
    _cuts: deque[Cut]
    _operations: deque[Operation]
    _violations: deque[Violation]

    @property
    def state(self) -> str:
        """`off`, `running`, or `hung`: nothing runs until the watchdog or a person comes."""
        return self._state

    @property
    def operations(self) -> list[Operation]:
        """Flash operations of the firmware, a page or a sector each, the oldest first."""
        return self._service.do(lambda: list(self._operations))

    @property
    def violations(self) -> list[Violation]:
        """Accesses that the flash refused; also noted in the console's log."""
        return self._service.do(lambda: list(self._violations))

    def power_off(self) -> None:
        """Cut the power now, between flash operations."""
        self._service.do(lambda: self._off("power off"))

    def cut_at(self, n: int, variant: str = "before", count: int = -1, mask: int = 0) -> None:
        """Cut the power at the n-th flash operation from now (1: the next); see `base.Board`."""
        if n < 1 or variant not in VARIANTS:
            raise BoardError("cut", f"no such cut: {n}, {variant}")
        self._service.do(lambda: self._plan_cut(n, variant, count, mask))

    def wait_cut(self, timeout: float = 30.0) -> Cut:
        """Return the oldest planned cut not yet returned. Raises BoardTimeout."""
        self._service.wait(lambda: bool(self._cuts), timeout, "power cut")
        return self._cuts.popleft()

    def wait_state(self, state: str, timeout: float = 30.0) -> None:
        """Wait until the board is `off`, `running` or `hung`. Raises BoardTimeout."""
        self._service.wait(lambda: self._state == state, timeout, f"state {state}")

    def wear(self, start: int, size: int, kind: str) -> None:
        """Give the sectors of a part of the flash one of `nor.FAULTS`, for good.

        Whoever flashes the board writes past it. Raises BoardError `bounds`.
        """
        self._check_bounds(start, size)

        def fail() -> None:
            sector = self._flash.sector
            for number in range(start // sector, (start + size + sector - 1) // sector):
                self._flash.fail(number, kind)
            self.serial_log.note(f"worn: {size} bytes at {start:#x} ({kind})")

        self._service.do(fail)

    # -- of a kind of boards ------------------------------------------------------------------

    @property
    def _flash(self) -> NorFlash:
        """The flash of this moment."""
        raise NotImplementedError

    def _plan_cut(self, n: int, variant: str, count: int, mask: int) -> None:
        """Have the n-th operation from now interrupted."""
        raise NotImplementedError

    def _start(self, cause: str) -> None:
        """Begin a boot."""
        raise NotImplementedError

    def _off(self, why: str) -> None:
        """Take the power away; nothing happens when it is off."""
        raise NotImplementedError

    # -- for them -----------------------------------------------------------------------------

    def _check_bounds(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > self._flash.size:
            raise BoardError("bounds", "outside the flash")

    def _check_size(self, image: bytes) -> None:
        size = self._flash.size
        if len(image) > size:
            raise BoardError("size", f"an image of {len(image)} bytes for {size} of flash")

    def _interrupted(self, operation: Operation | None, variant: str) -> None:
        """The planned cut has come."""
        assert operation is not None
        self._off(f"power cut {variant} {operation.kind} at {operation.address:#x}")
        self._cuts.append(Cut(time.monotonic(), operation, variant))
        self._service.notify()
        if self._auto_power:
            self._start("power-on")

    def _halt(self) -> None:
        with contextlib.suppress(BoardError):  # its thread has failed, and said so
            self._service.do(lambda: self._off("closed"))
