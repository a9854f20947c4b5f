"""Serial hardware around a virtual board: its own USB port, and the boot ROM of an RP2.

`UsbSerial` is a port that vanishes while the board resets and comes back, as a native USB port
does. `BootRom` is the drive of an RP2 in BOOTSEL: it erases a sector at the first block it meets
there, programs page by page, and starts the board after the last one. Both are threads.
"""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tidemark_host import uf2_file
from tidemark_host.boards.base import BoardTimeout
from tidemark_host.boards.console import Pty
from tidemark_host.boards.service import Service
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.chips import Chip

# What the test's `machine.bootloader` says: a virtual board has no boot ROM to go to.
BOOTLOADER = "entering the boot loader"
MACHINE = f"""
import sys
class _Machine:
    @staticmethod
    def bootloader():
        print({BOOTLOADER!r})
        while True:
            pass
sys.modules["machine"] = _Machine
"""
_LOOK_S = 0.01
T = TypeVar("T")


@dataclass
class Port:
    """An entry of pyserial's list of ports."""

    device: str
    serial_number: str | None = "E66038B713952A31"
    vid: int | None = 0x2E8A
    product: str | None = "Board in FS mode"
    location: str | None = None


class UsbSerial:
    """The console of a virtual board at `path`, a link to a pty while the board is there.

    The board is made with `native_usb`: its end of the line hangs up exactly where it resets.
    """

    def __init__(self, board: VirtualBoard, path: Path) -> None:
        self.path = path
        self.plugs = 0
        self._board = board
        self._address = ("127.0.0.1", int(board.console_url.split(":")[-1]))
        self._service = Service("usb-serial", self._turn)
        self._pty: Pty | None = None
        self._line = self._call()
        self._service.start()

    def _call(self) -> socket.socket:
        line = socket.create_connection(self._address)
        line.setblocking(False)
        self._service.selector.register(line, selectors.EVENT_READ, self._from_board)
        return line

    def _turn(self) -> None:
        state = self._board.state
        if self._pty is None and state == "running":
            self._plug()
        elif self._pty is not None and state == "off":
            self._unplug()
        self._service.poll(_LOOK_S)

    def _plug(self) -> None:
        self._pty = Pty(self._service.selector, self._to_board, device=True)
        self._pty.look()
        # Counted first: who waits for the port counts what comes after it.
        self.plugs += 1
        self.path.symlink_to(self._pty.path)

    def _unplug(self) -> None:
        pty, self._pty = self._pty, None
        if pty is not None:
            self.path.unlink()
            pty.close()

    def _from_board(self) -> None:
        try:
            data = self._line.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            if self._pty is not None:
                self._pty.write(data)
            return
        # What it had said is with whoever has the port open; what it says now is of its next life.
        self._unplug()
        self._hang_up()
        self._line = self._call()

    def _to_board(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._line.send(data)

    def _hang_up(self) -> None:
        self._service.selector.unregister(self._line)
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._service.close()
        self._unplug()
        self._hang_up()
        self._service.dispose()

    def wait_replugged(self, plugs: int) -> None:
        """Wait until the board has come back since there were `plugs`, by a reset of its own."""
        wait(lambda: self.plugs > plugs and self.path.exists(), "port after a reset")


class BootRom:
    """The drive that a board becomes when its firmware asks for it, mounted at `folder`."""

    def __init__(self, board: VirtualBoard, chip: Chip, folder: Path) -> None:
        self.folder = folder
        self.flashed = 0
        self.erased: list[int] = []
        self._board = board
        self._chip = chip
        self._since = len(board.serial_log)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def appear(self) -> None:
        """Power on with the button held: the drive is there."""
        self._board.power_off()
        self.folder.mkdir(parents=True)
        text = f"UF2 Bootloader v3.0\nModel: Raspberry Pi\nBoard-ID: {self._chip.drive}\n"
        (self.folder / "INFO_UF2.TXT").write_text(text)

    def _serve(self) -> None:
        while not self._ends.is_set():
            try:
                self._board.serial_log.wait_for(BOOTLOADER, _LOOK_S, self._since)
                self._since = len(self._board.serial_log) + 1
                self.appear()
            except BoardTimeout:
                pass
            for file in self.folder.glob("*.UF2"):
                self._take(file)

    def _take(self, file: Path) -> None:
        data = file.read_bytes()
        if len(data) < 512 or len(data) < 512 * int.from_bytes(data[24:28], "little"):
            return  # more is to come
        flash = bytearray(self._board.flash_path.read_bytes())
        erased: set[int] = set()
        for offset, page in sorted(uf2_file.decode(data, self._chip).items()):
            sector = offset - offset % uf2_file.SECTOR
            if sector not in erased:
                flash[sector : sector + uf2_file.SECTOR] = b"\xff" * uf2_file.SECTOR
                erased.add(sector)
            flash[offset : offset + len(page)] = page
        self.erased = sorted(erased)
        self.flashed += 1
        shutil.rmtree(self.folder)
        # In place: a board maps its flash file. The ROM programs the chip, no firmware runs.
        with self._board.flash_path.open("r+b") as handle:
            handle.write(flash)
        self._board.power_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join(10)


def wait(holds: Callable[[], T], what: str, timeout: float = 20.0) -> T:
    """Wait until `holds` returns something true, and return that."""
    until = time.monotonic() + timeout
    while not (found := holds()):
        assert time.monotonic() < until, f"no {what} within {timeout} s"
        time.sleep(_LOOK_S)
    return found
