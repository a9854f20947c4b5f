"""A slow machine shows nothing of the virtual board that a chip would not show."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.boards.maker import Maker
from tidemark_host.boards.nor import NorFlash
from tidemark_host.boards.virtual import PAGE, VirtualBoard

FED = """
    port.start_timer(40, lambda _: port.feed())
    port.arm_watchdog(600)
    print("armed")
    time.sleep(2)
    print("alive")
"""


def still(board: VirtualBoard) -> None:
    """Called in the thread that is its hardware: nor does the processor's process run."""
    assert board.pid
    os.kill(board.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(board.pid, signal.SIGCONT)


def within_its_wait(board: VirtualBoard) -> None:
    board._service.do(lambda: still(board))


def beside_its_wait(board: VirtualBoard) -> None:
    look, looks = board._console.look, iter([lambda: still(board)])

    def once() -> bool:
        next(looks, lambda: None)()
        return look()

    board._console.look = once
    board._service.do(lambda: None)


@pytest.mark.parametrize("stand_still", [within_its_wait, beside_its_wait])
def test_machine_that_stands_still_starves_no_watchdog(
    make: Maker, stand_still: Callable[[VirtualBoard], None]
) -> None:
    board = make(FED)
    board.serial_log.wait_for("armed")
    stand_still(board)
    board.serial_log.wait_for("alive")
    assert [reset.cause for reset in board.resets] == ["power-on"]


def test_processor_that_stands_still_alone_is_bitten(make: Maker) -> None:
    board = make(FED)
    board.serial_log.wait_for("armed")
    assert board.pid
    os.kill(board.pid, signal.SIGSTOP)
    board.wait_reset("watchdog")


def test_flash_is_read_between_operations(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(self: NorFlash, addr: int, data: memoryview) -> None:
        self._buf[addr : addr + PAGE // 2] = data[: PAGE // 2]
        time.sleep(0.3)
        self._buf[addr : addr + PAGE] = data

    monkeypatch.setattr(NorFlash, "_settle", slowly)
    board = make("flash.program(0, b'a' * 256)")
    while (found := board.read_flash(0, PAGE)) == b"\xff" * PAGE:
        time.sleep(0.01)
    assert found == b"a" * PAGE
