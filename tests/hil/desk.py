"""A pytest plugin that puts a board on this machine's desk: a virtual one, behind serial hardware.

Its USB port and its boot ROM are those of `tests.boards.usb_serial`; the bench sees a port in the
operating system's list and a drive, and nothing else. DESK: folder for the board's files. At the
end `found.bin` and `left.bin` there are its flash before and after. It has
power while the file `supply` exists there.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.boards.usb_serial import MACHINE, BootRom, Port, UsbSerial, wait
from tidemark_host import bootsel, flashing, toolchain
from tidemark_host.boardfile import Board
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.chips import CHIPS
from tidemark_host.hil import flasher, places

SERIAL = "E66038B713952A31"
_LOOK_S = 0.01


def bench_toml(folder: Path, switch: bool) -> str:
    """Return what bench.toml says of the board of a desk in `folder`."""
    text = f'[[board]]\nnickname = "desk-1"\nboard = "VIRTUAL"\nserial = "{SERIAL}"\n'
    if switch:
        file = folder / "supply"
        text += f'power = {{ on = ["touch", "{file}"], off = ["rm", "-f", "{file}"] }}\n'
    return text


class Wired(Board):
    """A board with a network that it need not join: the virtual board has this machine's."""

    @property
    def wifi(self) -> bool:
        return False


class DeskRepl(Repl):
    """A REPL on whose board `machine.bootloader` leads somewhere."""

    def __init__(self, console_path: str) -> None:
        super().__init__(console_path)
        self.exec(MACHINE)


class Desk:
    """The board and its hardware; `use` makes the bench find them."""

    def __init__(self, folder: Path) -> None:
        self.port = folder / "ttyACM0"
        self.drive = folder / "media" / "RPI-RP2"
        runtime = toolchain.runtime("VIRTUAL")
        self.board = VirtualBoard(folder / "board", runtime=runtime, native_usb=True)
        self.board.power_on()
        self.usb = UsbSerial(self.board, self.port)
        wait(self.port.exists, "port")
        self.rom = BootRom(self.board, CHIPS["rp2040"], self.drive)
        self._switch = folder / "supply"
        self._switch.touch()
        self._ends = threading.Event()
        self._supply = threading.Thread(target=self._watch_switch, daemon=True)
        self._supply.start()

    def _watch_switch(self) -> None:
        was = True
        while not self._ends.wait(_LOOK_S):
            now = self._switch.exists()
            if now and not was:
                self.board.power_on()
            elif was and not now:
                self.board.power_off()
            was = now

    def close(self) -> None:
        self._ends.set()
        self._supply.join(10)
        self.usb.__exit__(None, None, None)
        self.rom.__exit__(None, None, None)
        self.board.close()

    def use(self, patch: pytest.MonkeyPatch) -> None:
        load = places.load_board

        def definition(path: Path) -> Any:
            board = load(path)
            if board.chip.port != "unix":
                return board
            values = {
                field.name: getattr(board, field.name) for field in dataclasses.fields(board)
            }
            return Wired(**{**values, "chip": CHIPS["rp2040"], "radio": "cyw43"})

        def ports() -> list[Any]:
            return [Port(str(self.port), SERIAL)] if self.port.exists() else []

        def machine() -> flashing.Bench:
            return flashing.Bench(
                ports=ports,
                drives=lambda: bootsel.drives([self.drive]),
                which=lambda name: None,
                open=DeskRepl,
                lock=nullcontext,
            )

        patch.setattr(places, "load_board", definition)
        patch.setattr(places, "serial_ports", ports)
        patch.setattr(flasher, "machine", machine)
        patch.setattr(places.SerialTarget, "parts", lambda target: {})


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    folder = Path(os.environ["DESK"])
    desk, patch = Desk(folder), pytest.MonkeyPatch()
    desk.use(patch)
    # Its first boot makes its file system.
    desk.board.serial_log.wait_for("waits on this console", 60)
    (folder / "found.bin").write_bytes(desk.board.flash_path.read_bytes())

    def end() -> None:
        (folder / "left.bin").write_bytes(desk.board.flash_path.read_bytes())
        patch.undo()
        desk.close()

    session.config.add_cleanup(end)
    return (yield)
