"""The virtual board: MicroPython's unix port as a process, its hardware in the host's hands.

Flash is a file that both map; the process can only read it, every change is a request to the host
(`hardware`), which keeps the chip's rules. Power cuts are SIGKILL. One service thread a board.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidemark_host.boards.base import (
    LOG_MAX,
    BoardError,
    Cut,
    Reset,
)
from tidemark_host.boards.console import LOOK_S, Console
from tidemark_host.boards.hardware import Frame, FrameError, Frames, Hardware
from tidemark_host.boards.nor import NorFlash, PowerCut
from tidemark_host.boards.processor import Processor
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.served import HUNG, OFF, RUNNING, SimulatedBoard
from tidemark_host.boards.service import Service

FLASH_SIZE = 2 * 1024 * 1024
SECTOR = 4096
PAGE = 256
# Objects of a 64-bit runtime are twice as large as the RP2040's, which leaves 240 KB of heap.
HEAP = "512k"
_SLICE_S = 0.25  # of a wait for the watchdog
_LATE_S = 0.5  # by which it ends late if host and board did not run; a chip's clock stops with it


class VirtualBoard(SimulatedBoard):
    """A board without hardware; implements `base.Board`.

    Two MiB of NOR flash (4 KiB sectors, 256 B pages) in `folder`/flash.bin, kept when the folder
    is the caller's; a temporary folder otherwise.
    """

    pin = "reset"  # what a reset by the pin looks like

    def __init__(
        self,
        folder: Path | None = None,
        *,
        runtime: Path | Sequence[str] | None = None,
        code: str | Mapping[str, str] | None = None,
        firmware: Path | None = None,
        size: int = FLASH_SIZE,
        heap: str = HEAP,
        unique_id: bytes | None = None,
        auto_power: bool = False,
        weak: bool = False,
        native_usb: bool = False,
    ) -> None:
        """Make a board that is switched off.

        `runtime`: program (and arguments before ours) with the base frozen in; by default the
        toolchain's, built when needed. `code`: text of main.py, or file name to text, found before
        the frozen modules (an empty _boot.py unless given): a test's own firmware. `firmware`: a
        folder of sources for a runtime that has no base frozen. `auto_power`: power returns at
        once after a planned cut. `weak`: cells of an interrupted operation read differently from
        boot to boot (`nor.NorFlash`; the reading of a boot is `power_on`'s). `native_usb`: the
        console is a device of the board itself: whoever has it over TCP loses it at each reset.
        """
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="tidemark-board-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._processor = self._make_processor(runtime, heap, firmware, code)
        self._auto_power = auto_power
        self.flash_path = self._folder / "flash.bin"
        self._map = _map_flash(self.flash_path, size)
        self._size = size
        self._weak = weak
        self._native_usb = native_usb
        self._hardware = self._make_hardware(unique_id or os.urandom(8))
        self._operations = self._hardware.operations
        self._violations = self._hardware.violations
        self._resets: deque[Reset] = deque(maxlen=LOG_MAX)
        self._cuts: deque[Cut] = deque(maxlen=LOG_MAX)
        self._control: socket.socket | None = None
        self._board_end: socket.socket | None = None  # of the console: it outlives a soft reset
        self._frames = Frames()
        self._state = OFF
        self._turned = time.monotonic()  # end of the thread's last turn
        self._service = Service("virtual-board", self._turn)
        self._console = Console(self._service.selector)
        self._service.start()

    # -- the interface ------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._processor.pid

    @property
    def feeds(self) -> int:
        """How often the watchdog has been armed or fed since the board was made."""
        return self._hardware.feeds

    @property
    def marker(self) -> int:
        """The register that survives resets."""
        return self._hardware.marker

    def flash(self, image: bytes) -> None:
        """Switch off, erase the whole chip, write `image` from address 0. Raises BoardError."""
        self._check_size(image)

        def write() -> None:
            self._off("flashed")
            self._map[:] = image + b"\xff" * (self._size - len(image))
            worn = self._hardware.nor.faults
            self._hardware.nor = self._new_nor()
            self._hardware.nor.faults = worn

        self._service.do(write)

    def power_on(self, readings: Mapping[int, str] | None = None) -> None:
        """Switch on; nothing happens when it is on. `readings`: of weak cells in this boot."""

        def on() -> None:
            if self._state == OFF:
                if self._weak:
                    self._hardware.power_up(dict(readings or {}))
                self._start("power-on")

        self._service.do(on)

    def reset(self) -> None:
        """Reset as the reset pin does. Raises BoardError `off`."""

        def again() -> None:
            if self._state == OFF:
                raise BoardError("off", "a board without power can't be reset")
            self._restart(self.pin)

        self._service.do(again)

    def read_flash(self, start: int, size: int, resume: bool = True) -> bytes:
        """Return what the flash file holds. Raises BoardError `bounds`."""
        self._check_bounds(start, size)
        # Between operations: a reader beside the thread would see them half done.
        return self._service.do(lambda: self._map[start : start + size])

    def send(self, data: bytes) -> None:
        """Type on the console."""
        self._service.do(lambda: self._console.send(data))

    def repl(self, soft_reset: bool = False, timeout: float = 10.0) -> Repl:
        """Open the raw REPL by mpremote's own transport. Raises BoardError `console`."""
        return Repl(self.console_path, soft_reset, timeout)

    def _let_go(self) -> None:
        self._console.close()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- the service thread -------------------------------------------------------------------

    def _turn(self) -> None:
        patience = self._patience()
        if self._state == RUNNING and not self._console.look():
            patience = LOOK_S if patience is None else min(patience, LOOK_S)
        if patience is None:
            self._service.poll(None)
            self._turned = time.monotonic()
            return
        # In short slices: one that takes much longer shows that the machine stood still. From end
        # to end, as it may have done so at any point of a turn.
        patience = min(patience, _SLICE_S)
        self._service.poll(patience)
        former, self._turned = self._turned, time.monotonic()
        late = self._turned - former - patience
        if late > _LATE_S:
            self._hardware.stood_still(late)
        self._look_at_watchdog()

    def _patience(self) -> float | None:
        due = self._hardware.bites_at()
        if self._state == OFF or due is None:
            return None
        return max(0.0, due - time.monotonic())

    def _look_at_watchdog(self) -> None:
        if self._patience() != 0.0:
            return
        self._requests()  # a feed that has been sent counts, however late this thread is
        if self._patience() == 0.0:
            self._restart("watchdog")

    @property
    def _flash(self) -> NorFlash:
        return self._hardware.nor

    def _plan_cut(self, n: int, variant: str, count: int, mask: int) -> None:
        self._hardware.cut_at(n, variant, count, mask)

    # -- power and process --------------------------------------------------------------------

    def _start(self, cause: str, raw: bool = False) -> None:
        hardware = self._hardware
        hardware.start(cause, raw)
        if self._board_end is None:
            ours, self._board_end = socket.socketpair()
            self._console.attach(ours)
        control = self._processor.start(self._board_end.fileno(), self.flash_path)
        self._control = control
        self._frames = Frames()
        self._service.selector.register(control, selectors.EVENT_READ, self._requests)
        self._state = RUNNING
        self._resets.append(Reset(time.monotonic(), cause))
        if cause != "soft":
            self.serial_log.note(cause)
        self._service.notify()

    def _kill(self) -> None:
        self._processor.kill()
        control, self._control = self._control, None
        if control is not None:
            self._service.selector.unregister(control)
            control.close()

    def _unplug(self) -> None:
        self._kill()
        self._console.detach()
        if self._native_usb:
            self._console.hang_up()
        if self._board_end is not None:
            self._board_end.close()
            self._board_end = None

    def _off(self, why: str) -> None:
        if self._state == OFF:
            return
        self._kill()
        # Before the line hangs up and the log says it: who is told by either finds the board off.
        self._state = OFF
        self._hardware.power_off()
        self._unplug()
        self.serial_log.note(why)
        self._service.notify()

    def _restart(self, cause: str, raw: bool = False) -> None:
        if cause == "soft":
            self._kill()
        else:
            self._unplug()
        self._start(cause, raw)

    def _requests(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data = control.recv(65536)
            frames = self._frames.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            self._hang(str(error))
            return
        if not data:
            self._hang("")
            return
        for frame in frames:
            if self._control is not control:
                return
            self._request(control, frame)

    def _request(self, control: socket.socket, frame: Frame) -> None:
        hardware = self._hardware
        refused = len(hardware.violations)
        try:
            answer = hardware.handle(frame)
        except PowerCut:
            self._interrupted(hardware.interrupted, hardware.variant)
            return
        for violation in list(hardware.violations)[refused:]:
            self.serial_log.note(f"flash violation: {violation}")
        if answer:
            with contextlib.suppress(OSError):  # it ended meanwhile: the next read tells
                control.sendall(answer)
        elif hardware.wants:
            want, hardware.wants = hardware.wants, ""
            self._restart("soft" if want == "soft-raw" else want, want == "soft-raw")

    def _hang(self, why: str) -> None:
        """The processor stopped. A chip would hang until its watchdog bites, and so does this."""
        how = self._processor.how_it_ended()
        self._kill()
        self._state = HUNG
        self.serial_log.note(f"process ended: {how} {why}".rstrip())
        self._service.notify()

    # -- making one ---------------------------------------------------------------------------

    def _make_processor(
        self,
        runtime: Path | Sequence[str] | None,
        heap: str,
        firmware: Path | None,
        code: str | Mapping[str, str] | None,
    ) -> Processor:
        return Processor(_argv(runtime), heap, self._folder, firmware, self._lay_code(code))

    def _make_hardware(self, unique_id: bytes) -> Hardware:
        return Hardware(self._new_nor(), unique_id)

    def _new_nor(self) -> NorFlash:
        return NorFlash(memoryview(self._map), SECTOR, PAGE, self._weak)

    def _lay_code(self, code: str | Mapping[str, str] | None) -> Path | None:
        if code is None:
            return None
        files = {"main.py": code} if isinstance(code, str) else dict(code)
        files.setdefault("_boot.py", "")
        place = self._folder / "code"
        place.mkdir(exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text)
        return place


def _argv(runtime: Path | Sequence[str] | None) -> list[str]:
    if runtime is None:
        from tidemark_host import toolchain

        return [str(toolchain.runtime("VIRTUAL"))]
    if isinstance(runtime, Path):
        return [str(runtime)]
    return list(runtime)


def _map_flash(path: Path, size: int) -> mmap.mmap:
    """Map the flash file; a missing one is made, erased. Raises BoardError `size`."""
    if not path.exists():
        path.write_bytes(b"\xff" * size)
    if path.stat().st_size != size:
        raise BoardError("size", f"{path} is not a flash of {size} bytes")
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)
