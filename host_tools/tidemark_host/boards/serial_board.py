"""A real board on a serial port: its console shared by log, pty and TCP, its flash and its supply
in the hands of programs beside it.

Some things can't be seen from outside of a real chip. `operations` and `violations` are empty, and
the cause of a start that the board did not announce, and that nobody here caused, is `unknown`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import serial

from tidemark_host import remote
from tidemark_host.boards.base import BoardError, Cut, Operation, Reset, Violation
from tidemark_host.boards.console import Console, Wire
from tidemark_host.boards.repl import GONE, Repl
from tidemark_host.boards.served import ServedBoard
from tidemark_host.boards.service import Service
from tidemark_host.boards.starts import Starts

BAUD = 115_200
_LOOK_S = 0.02
_RETRY_S = 0.2  # between two attempts to open a port that is gone
_CHUNK = 4096
_OUT_MAX = 1 << 20  # bytes that wait for a board which does not take them
_BLOCK = 2048  # bytes of flash an answer hands over: no more than a slow port's buffer holds
_READ_S = 60.0
_BACK_S = 30.0
_CUT_S = 0.004  # stands for one flash operation when the power is cut by the clock

# The base's own way, where there is a base.
_RESET = """
try:
    from tidemark import port
    reset = port.select().reset
except ImportError:
    from machine import reset
reset()
"""
_DUMP = """
import binascii
from tidemark import port, stage0
from tidemark.errors import FlashError
_flash = port.select().flash()
_blank = b"\\xff" * 2048
def _full(start, size):
    base = stage0.base
    base.supervisor.lease(base.board.LEASE_REPL_MS, "lease")
    for at in range(start, start + size, 2048):
        try:
            part = bytes(_flash.view(at, min(2048, start + size - at)))
        except FlashError as e:
            if e.code != "bounds":
                raise
            continue
        if part != _blank[:start + size - at]:
            print(at)
def _block(at, size):
    print(binascii.b2a_base64(bytes(_flash.view(at, size))).decode().strip())
"""


class PowerSwitch(Protocol):
    """What switches a board's supply. Raises BoardError `power`."""

    def on(self) -> None: ...

    def off(self) -> None: ...


class Flasher(Protocol):
    """What writes a whole flash; the board runs afterwards. Raises BoardError `flasher`."""

    def write(self, board: SerialBoard, image: bytes) -> None: ...


class SerialBoard(ServedBoard):
    """A board on a desk; implements `base.Board`."""

    def __init__(
        self,
        find: Callable[[], str],
        *,
        baud: int = BAUD,
        power: PowerSwitch | None = None,
        flasher: Flasher | None = None,
        lines: Callable[[str], None] | None = None,
    ) -> None:
        """Open the console. `find`: returns the port's name of this moment, "" while it is gone.

        lines: starts the board's firmware by the modem lines of its port, where they lead to it.
        Raises BoardError `absent`.
        """
        self._find = find
        self._baud = baud
        self._power = power
        self._flasher = flasher
        self._lines = lines
        if not find() and power is None:
            raise BoardError("absent", "the board's port is not there")
        self._port: Any = None
        self._port_fd = -1
        self._retry_at = 0.0
        self._out = bytearray()
        self._resets: deque[Reset] = deque()
        self._starts = Starts()
        self._gone = False  # the port went away by itself, as it does when the board starts
        self._is_on = bool(find())
        self._timer: threading.Timer | None = None
        self._cuts: list[Cut | BoardError] = []  # a switch that failed has cut nothing
        self._service = Service("serial-board", self._turn)
        self._console = Console(self._service.selector)
        self._wire = Wire(self._service.selector, self._from_host)
        self._console.attach(self._wire.host_end)
        self._service.start()

    # -- the interface ------------------------------------------------------------------------

    @property
    def port(self) -> str:
        """The serial port of this moment, "" while it is gone."""
        return self._find()

    @property
    def operations(self) -> Sequence[Operation]:
        """Nothing: a real chip does not tell."""
        return ()

    @property
    def violations(self) -> Sequence[Violation]:
        """Nothing: a real chip does not tell."""
        return ()

    def flash(self, image: bytes) -> None:
        """Write the whole flash. Off afterwards where there is a switch, else it runs."""
        if self._flasher is None:
            raise BoardError("flasher", "nothing here can flash this board")
        if self._power:
            self.power_on()
        self._expect("reset")
        try:
            self._flasher.write(self, image)
        except BoardError:
            self._expect("")
            raise
        if self._power:
            self.power_off()

    def power_on(self) -> None:
        """Switch on. Without a switch the board is on."""
        if self._power:
            if not self._is_on:
                self._expect("power-on")
            self._power.on()
            self._is_on = True

    def power_off(self) -> None:
        """Switch off. Raises BoardError `power` without a switch."""
        if self._power is None:
            raise BoardError("power", "no switch for this board's supply is named")
        self._cancel_cut()
        self._power.off()
        self._is_on = False
        self._note("power off")

    def reset(self) -> None:
        """Reset by the REPL; where none answers by the port's lines, or a switch of the supply."""
        try:
            with self.repl() as console:
                self._expect("reset")
                with contextlib.suppress(BoardError):  # no answer is the answer
                    console.exec(_RESET, 1.0)
        except BoardError:
            if self._lines is not None:
                self._note("no REPL: reset by the lines of its port")
                self.kick()
                return
            if self._power is None:
                raise
            self._note("no REPL: power off and on")
            self.power_off()
            self.power_on()

    @property
    def running(self) -> int:
        """The runtime slot that an ESP32 runs from, as it says; it resets, as after reading."""
        starts = len(self.resets)
        with self.repl() as console:
            said = console.exec(
                "from tidemark import port\nprint(port.select().runtimes().running)"
            )
            leaves = remote.resume(console)
        if leaves:
            self._service.wait(lambda: len(self._resets) > starts, _BACK_S, "start after asking")
        return int(said)

    def kick(self) -> None:
        """Reset by the lines of its port, whatever it is doing; it starts its firmware.

        Raises BoardError `lines` where they lead nowhere.
        """
        name = self._find()
        if self._lines is None or not name:
            raise BoardError("lines", "no lines of its port reset this board")
        self._expect("reset")
        with self.released():
            self._lines(name)

    def cut_at(self, n: int, variant: str = "before", count: int = -1, mask: int = 0) -> None:
        """Cut the supply by the clock, `n` times 4 ms from now: its operations can't be seen."""
        if self._power is None:
            raise BoardError("power", "no switch for this board's supply is named")
        self._cancel_cut()

        def cut() -> None:
            try:
                self.power_off()
                operation = Operation(time.monotonic(), "unknown", 0, 0)
                self._cuts.append(Cut(time.monotonic(), operation, "timed"))
            except BoardError as error:
                self._cuts.append(error)
            self._service.notify()

        self._timer = threading.Timer(n * _CUT_S, cut)
        self._timer.daemon = True
        self._timer.start()

    def wait_cut(self, timeout: float = 10.0) -> Cut:
        """Return the oldest cut not yet returned. Raises BoardTimeout; BoardError `power` where
        the switch failed."""
        self._service.wait(lambda: bool(self._cuts), timeout, "power cut")
        cut = self._cuts.pop(0)
        if isinstance(cut, BoardError):
            raise cut
        return cut

    def read_flash(self, start: int, size: int, resume: bool = True) -> bytes:
        """Return what the running firmware reads there; the board resets afterwards, or stays
        stopped under its lease. One that resets is waited for. What it can't reach is blank: an
        ESP32's bootloader and table."""
        content = bytearray(b"\xff" * size)
        starts = len(self.resets)
        leaves = False
        with self.repl() as console:
            console.exec(_DUMP)
            full = console.exec(f"_full({start}, {size})", _READ_S).split()
            for at in map(int, full):
                count = min(_BLOCK, start + size - at)
                said = console.exec(f"_block({at}, {count})").strip()
                content[at - start : at - start + count] = remote.from_base64(said, count)
            if resume:
                leaves = remote.resume(console)
        if leaves:
            # Whoever talks to it next must not be cut off by a reset that is on its way.
            self._service.wait(lambda: len(self._resets) > starts, _BACK_S, "start after reading")
        return bytes(content)

    def repl(self, soft_reset: bool = False, timeout: float = 10.0) -> Repl:
        """Open the raw REPL by mpremote's own transport. Raises BoardError `console`."""
        return Repl(self.console_path, soft_reset, timeout)

    @contextlib.contextmanager
    def released(self) -> Generator[None]:
        """Give the port to another program, such as esptool, while the block lasts."""

        def release() -> None:
            self._close_port()
            self._retry_at = float("inf")

        self._service.do(release)
        try:
            yield
        finally:
            self._retry_at = 0.0

    def _halt(self) -> None:
        self._cancel_cut()

    def _let_go(self) -> None:
        self._close_port()
        self._wire.close()
        self._console.close()

    # -- the service thread -------------------------------------------------------------------

    def _turn(self) -> None:
        if self._port is None and time.monotonic() >= self._retry_at:
            self._open_port()
        self._console.look()
        self._service.poll(_LOOK_S)

    def _open_port(self) -> None:
        self._retry_at = time.monotonic() + _RETRY_S
        name = self._find()
        if not name:
            return
        try:
            port = serial.serial_for_url(name, self._baud, timeout=0)
            fd = port.fileno()
            os.set_blocking(fd, False)
        except (*GONE, ValueError):
            return  # it may go in the middle of being opened
        self._port, self._port_fd = port, fd
        self._service.selector.register(fd, selectors.EVENT_READ, self._ready)
        self.serial_log.note(f"port {name}")
        if self._gone:
            self._gone = False
            self._started(self._starts.came_back())

    def _close_port(self) -> None:
        port, self._port = self._port, None
        if port is None:
            return
        self._service.selector.unregister(self._port_fd)
        self._out.clear()
        with contextlib.suppress(*GONE):
            port.close()
        self.serial_log.note("port gone")

    def _from_board(self) -> None:
        try:
            data = os.read(self._port_fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone = True
            self._close_port()
            return
        self._started(self._starts.heard(data))
        self._wire.send(data)

    def _from_host(self, data: bytes) -> None:
        if self._port is None or len(self._out) + len(data) > _OUT_MAX:
            self._out.clear()  # as on a line, it is lost
            return
        self._out += data
        self._flush()

    def _ready(self) -> None:
        self._flush()
        if self._port is not None:
            self._from_board()

    def _flush(self) -> None:
        """Hand the board what it takes; the rest waits, and nothing else does."""
        while self._out and self._port is not None:
            try:
                del self._out[: os.write(self._port_fd, self._out)]
            except BlockingIOError:
                break
            except OSError:
                self._gone = True
                self._close_port()
                return
        if self._port is None:
            return
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        selector = self._service.selector
        if selector.get_key(self._port_fd).events != want:
            selector.modify(self._port_fd, want, self._ready)

    def _started(self, causes: Sequence[str]) -> None:
        for cause in causes:
            self._resets.append(Reset(time.monotonic(), cause))
            self.serial_log.note(f"a start, by what was seen: {cause}")
            self._service.notify()

    def _expect(self, cause: str) -> None:
        self._service.do(lambda: self._starts.expect(cause))

    def _note(self, text: str) -> None:
        self._service.do(lambda: self.serial_log.note(text))

    def _cancel_cut(self) -> None:
        timer, self._timer = self._timer, None
        if timer and timer is not threading.current_thread():
            timer.cancel()
