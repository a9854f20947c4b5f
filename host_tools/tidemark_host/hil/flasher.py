"""How the bench writes a board on a desk: what differs, one at a time, and asked afterwards."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tidemark_host import flashing, remote
from tidemark_host.boardfile import Board as Definition
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.bootsel import DriveError
from tidemark_host.discovery import Found
from tidemark_host.flashing_esp32 import write_esp32
from tidemark_host.toolchain_cache import bytes_digest

_TRIES = 3
_STEADY = ("runtime", "provisioning", "slot_a", "slot_b")  # not written by a board that starts


class ToolFlasher:
    """Writes the regions of a flash that differ, by boot ROM drive, picotool or esptool."""

    def __init__(self, definition: Definition, serial: str) -> None:
        self._definition = definition
        self._serial = serial

    def write(self, board: SerialBoard, image: bytes) -> None:
        """Raises BoardError: `flasher`; `console` when the board does not answer."""
        for left in range(_TRIES - 1, -1, -1):
            try:
                self._write(board, image)
                return
            except BoardError as error:
                # A lease that ran out in the middle, with the reset that it ends in.
                if error.code != "console" or not left:
                    raise

    def _write(self, board: SerialBoard, image: bytes) -> None:
        bench = machine()
        try:
            if self._definition.esp32:
                # By its boot ROM: it need not answer, and otadata is no region of the firmware.
                with board.released():
                    write_esp32(Found(board.port, self._serial), self._definition, image)
                return
            with ExitStack() as until_back:
                with bench.open(board.console_path) as console:
                    parts = self._differing(console, image)
                    if not parts:
                        remote.resume(console)
                        return
                    # A drive says of which chip it is, and not of which board.
                    until_back.enter_context(bench.lock())
                    wanted = flashing.Image(self._definition, parts)
                    if refusal := flashing.other_drive(wanted, bench):
                        raise refusal
                    starts = len(board.resets)
                    remote.enter_bootloader(console)
                flashing.flash_drive(wanted, bench)
                self._verify(board, image, starts, bench.back_s)
        except (flashing.FlashingError, DriveError, OSError) as error:
            raise BoardError("flasher", str(error)) from error

    def _verify(self, board: SerialBoard, image: bytes, starts: int, timeout: float) -> None:
        """Ask the board that comes back for what it does not write by itself: it has run since its
        boot ROM took the last block. Raises FlashingError: `gone`, `verify`.

        Never `console`, after which it would be written again: its counter would go back (I1).
        """
        until = time.monotonic() + timeout
        while True:
            try:
                board.wait_start(starts, max(until - time.monotonic(), 0))
                with board.stopped(resume=not board.switched) as console:
                    self._compare(console, image)
                    return
            except BoardError as error:  # it may still be on its way
                if time.monotonic() > until:
                    raise flashing.FlashingError(
                        "gone", f"flashed, but not asked: {error}"
                    ) from error
                time.sleep(0.1)

    def _compare(self, console: Repl, image: bytes) -> None:
        for name in _STEADY:
            region = self._definition.regions[name]
            content = image[region.offset : region.end]
            if _held(console, region.offset, region.size) != bytes_digest(content):
                raise flashing.FlashingError(
                    "verify", f"{self._serial} does not hold what was flashed: {name}"
                )

    def _differing(self, console: Repl, image: bytes) -> dict[int, bytes]:
        """Return offset: sector of each region that the board does not hold already."""
        sector = self._definition.sector
        parts: dict[int, bytes] = {}
        for region in self._definition.regions.values():
            content = image[region.offset : region.end]
            if _held(console, region.offset, region.size) != bytes_digest(content):
                parts |= {
                    region.offset + at: content[at : at + sector]
                    for at in range(0, region.size, sector)
                }
        return parts


def _held(console: Repl, offset: int, size: int) -> str:
    """Return the digest of what a board holds, "" for one that runs nothing of ours."""
    try:
        return remote.digest(console, [(offset, size)])
    except BoardError as error:
        if error.code != "exec":
            raise
        return ""


def machine() -> flashing.Bench:
    """Return what flashing finds on this machine."""
    return flashing.Bench()
