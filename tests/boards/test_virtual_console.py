"""Console and REPL of the virtual board: Ctrl-C, prompts, the log."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from tests.boards.maker import PROLOGUE, SIZE, Maker
from tidemark_host.boards.base import BoardTimeout
from tidemark_host.boards.virtual import VirtualBoard


@pytest.mark.parametrize("loop", ["pass", "[0] * 500", "time.sleep(1)", "flash.erase(0)"])
def test_ctrl_c_stops_a_loop_and_leaves_a_prompt(make: Maker, loop: str) -> None:
    board = make(f"""
        print("looping")
        while True:
            {loop}
    """)
    board.serial_log.wait_for("looping")
    board.send(b"\x03")
    board.serial_log.wait_for("KeyboardInterrupt")
    board.serial_log.wait_for(">>> ")
    assert board.violations == []


def test_ctrl_c_is_kept_within_a_bracket_and_raised_at_its_end(make: Maker) -> None:
    board = make("""
        from tidemark.port import unix_chip
        port.kbd_intr(False)
        print("bracket")
        while not unix_chip._flags[4]:  # _KEPT: one has come
            pass
        print("unbroken")
        port.kbd_intr(True)
        while True:
            pass
    """)
    board.serial_log.wait_for("bracket")
    board.send(b"\x03")
    board.serial_log.wait_for("unbroken")
    board.serial_log.wait_for("KeyboardInterrupt")


def test_a_kept_ctrl_c_can_be_asked_for_once(make: Maker) -> None:
    board = make("""
        port.kbd_intr(False)
        print("bracket")
        while not port.interrupted():
            pass
        port.kbd_intr(True)
        print("asked", port.interrupted())
    """)
    board.serial_log.wait_for("bracket")
    board.send(b"\x03")
    board.serial_log.wait_for("asked False")


def test_ctrl_c_does_nothing_during_boot_py(runtime: Path) -> None:
    boot = PROLOGUE + textwrap.dedent("""
        import select
        print("booting")
        poller = select.poll()
        poller.register(0, select.POLLIN)
        poller.poll()
        time.sleep(0.1)
        print("booted")
    """)
    code = {"_boot.py": boot, "main.py": "print('main')"}
    with VirtualBoard(runtime=runtime, code=code, size=SIZE) as board:
        board.power_on()
        board.serial_log.wait_for("booting")
        # It is there before _boot.py goes on, however late this is.
        board.send(b"\x03")
        board.serial_log.wait_for("booted")
        board.serial_log.wait_for(">>> ")
        assert not any("KeyboardInterrupt" in line.text for line in board.serial_log)


def test_ctrl_c_that_comes_as_main_ends_leaves_a_prompt(make: Maker) -> None:
    board = make("""
        from tidemark.port import unix_chip
        catch = unix_chip.catch
        def late(on):
            unix_chip.catch = catch
            unix_chip._libc.kill(unix_chip._libc.main, 2)
            catch(on)
        unix_chip.catch = late
    """)
    board.serial_log.wait_for(">>> ")
    board.send(b"6 * 7\r")
    board.serial_log.wait_for("42")
    assert board.state == "running"


def test_an_error_out_of_main_shows_a_traceback_and_falls_to_the_repl(make: Maker) -> None:
    board = make("1 / 0")
    board.serial_log.wait_for("ZeroDivisionError")
    board.serial_log.wait_for(">>> ")
    board.send(b"for i in (6, 7):\r    print(i * 7)\r\r")
    board.serial_log.wait_for("49")
    board.send(b"1 + 100\r")
    board.serial_log.wait_for("101")
    board.send(b"(1 +\x7f+\r 300)\r")
    board.serial_log.wait_for("301")


def test_ctrl_d_at_the_prompt_runs_main_again_with_a_clean_heap(make: Maker) -> None:
    board = make("print('main runs', port.reset_cause())")
    board.serial_log.wait_for("main runs power-on")
    board.serial_log.wait_for(">>> ")
    board.send(b"left = 1\r\x04")
    board.serial_log.wait_for("MPY: soft reboot")
    board.serial_log.wait_for("main runs soft")
    since = len(board.serial_log)
    board.send(b"left\r")
    board.serial_log.wait_for("NameError", since=since)


def test_log_lines_carry_the_time_they_were_printed(make: Maker) -> None:
    board = make("print('first')\ninput()\nprint('second')")
    first = board.serial_log.wait_for("first")
    between = time.monotonic()
    board.send(b"\r")
    second = board.serial_log.wait_for("second")
    assert first.time <= between <= second.time <= time.monotonic()
    with pytest.raises(BoardTimeout, match="second"):
        board.serial_log.wait_for("third", timeout=0.05)
