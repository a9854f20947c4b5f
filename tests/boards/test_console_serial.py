"""A person at the console of a board on its own USB: resets, leases, a board left in a mess."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boards.conftest import Desk
from tests.boards.usb_serial import UsbSerial, wait
from tidemark_host import toolchain
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.console_session import Screen

MAIN = "print('main runs')\nwhile True:\n    pass\n"
# Catches the first two Ctrl-C, as an application with a bare except does.
STUBBORN = """
print("main runs")
caught = 0
while caught < 2:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        caught += 1
"""


@contextlib.contextmanager
def hears_ctrl_c() -> Iterator[None]:
    """Let what is started here hear Ctrl-C, as what a terminal starts does: a shell has it ignored
    in what it runs in the background, and that is inherited."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


class Person:
    """Runs `tidemark console` on a terminal of its own; reads the screen, types keys."""

    def __init__(self, *words: str) -> None:
        self._master, slave = os.openpty()
        with hears_ctrl_c():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidemark_host", "console", *words],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        os.close(slave)
        self.screen = ""

    def see(self, text: str, timeout: float = 20.0) -> None:
        until = time.monotonic() + timeout
        while text not in self.screen:
            left = until - time.monotonic()
            assert left > 0, f"no {text!r} on the screen:\n{self.screen}"
            if select.select([self._master], [], [], left)[0]:
                self.screen += os.read(self._master, 65536).decode(errors="replace")

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def press_until(self, key: bytes, text: str) -> None:
        """Press a key again and again, as people do, until `text` is there."""
        for _ in range(20):
            self.type(key)
            with contextlib.suppress(AssertionError):
                return self.see(text, 1.0)
        self.see(text, 0.0)
        return None

    def leave(self, keys: bytes = b"\x1d") -> int:
        """Leave by Ctrl-]; return the exit status."""
        self.type(keys)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[VirtualBoard]:
    runtime = toolchain.runtime()
    folder = tmp_path / "board"
    with VirtualBoard(folder, runtime=runtime, code=MAIN, native_usb=True) as made:
        made.power_on()
        made.serial_log.wait_for("main runs")
        yield made


@pytest.fixture
def usb(board: VirtualBoard, tmp_path: Path) -> Iterator[UsbSerial]:
    with UsbSerial(board, tmp_path / "ttyACM0") as made:
        wait(made.path.exists, "port")
        yield made


@pytest.fixture
def person(usb: UsbSerial) -> Iterator[Person]:
    made = Person(str(usb.path))
    made.see("── connected to")
    yield made
    made.close()


def test_looking_on_interrupts_nothing_and_leaving_ends_with_zero(
    board: VirtualBoard, person: Person
) -> None:
    assert person.leave() == 0
    assert [reset.cause for reset in board.resets] == ["power-on"]
    assert "KeyboardInterrupt" not in "".join(line.text for line in board.serial_log)


def test_reset_is_a_line_across_the_screen_and_the_console_goes_on(
    board: VirtualBoard, usb: UsbSerial, person: Person
) -> None:
    board.reset()
    person.see("── the board is gone: a reset, or unplugged")
    person.see("── back after")
    gone, back = person.screen.index("is gone"), person.screen.index("back after")
    assert gone < back
    # A key pressed before the console is connected again, or main.py runs, is lost.
    person.press_until(b"\x03", "KeyboardInterrupt")
    person.type(b"print(6 * 7)\r")
    person.see("\n42")
    assert usb.plugs == 2
    assert person.leave() == 0


def test_board_that_stays_away_is_waited_for_until_ctrl_c(
    board: VirtualBoard, person: Person
) -> None:
    board.power_off()
    person.see("is not plugged in: waits, Ctrl-C ends")
    person.process.send_signal(signal.SIGINT)
    assert person.process.wait(10) == 2


def test_ctrl_c_is_heard_though_the_tests_were_launched_without(
    board: VirtualBoard, usb: UsbSerial
) -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        person = Person(str(usb.path))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)
    try:
        person.see("── connected to")
        board.power_off()
        person.see("is not plugged in: waits, Ctrl-C ends")
        person.process.send_signal(signal.SIGINT)
        assert person.process.wait(10) == 2
    finally:
        person.close()


def test_board_may_be_plugged_in_after_the_console_was_opened(
    board: VirtualBoard, usb: UsbSerial
) -> None:
    board.power_off()
    wait(lambda: not usb.path.is_symlink(), "unplugging")
    person = Person(str(usb.path))
    try:
        person.see("is not plugged in")
        board.power_on()
        person.see("── connected to")
        assert person.leave() == 0
    finally:
        person.close()


def test_without_a_terminal_the_console_says_so(usb: UsbSerial) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidemark_host", "console", str(usb.path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "no-terminal" in done.stderr


# -- a board that was left in a mess


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"\x03\x01print('hal", id="raw-repl-in-half-a-line"),
        pytest.param(b"\x03\x05print('paste", id="paste-mode"),
        pytest.param(b"\x03\x01while True:\n pass\n\x04", id="raw-repl-that-runs"),
        pytest.param(b"\x03print('''half", id="string-without-end"),
    ],
)
def test_repl_is_recovered_from(board: VirtualBoard, left: bytes) -> None:
    board.send(left)
    with Repl(board.console_path) as repl:
        assert repl.exec("print(6 * 7)") == "42\n"


def test_application_that_catches_ctrl_c_is_interrupted_all_the_same(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path / "b", runtime=toolchain.runtime(), code=STUBBORN) as board:
        board.power_on()
        board.serial_log.wait_for("main runs")
        with Repl(board.console_path, timeout=6) as repl:
            assert repl.exec("import main; print(main.caught)") == "2\n"


def test_giving_up_prints_nothing_and_stays_within_its_time(
    board: VirtualBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    board.power_off()
    began = time.monotonic()
    with pytest.raises(BoardError, match="console"):
        Repl(board.console_path, timeout=1)
    assert time.monotonic() - began < 30  # a bound, not a speed: mpremote's own would be for ever
    assert capsys.readouterr().out == ""


def test_ctrl_j_renews_the_lease_of_a_person_at_the_repl(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    person = Person(str(desk.usb.path))
    try:
        person.see("── connected to")
        person.type(b"\x03")
        person.see(">>> ")
        person.type(b"stage0 = __import__('tidemark.stage0').stage0\r")
        person.type(b"stage0.base.supervisor.lease(5000, 'lease')\r")
        person.type(b"\n")
        person.see("lease: 600 s from now")
        # It would have run out meanwhile: the board that answers has not been reset.
        until = time.monotonic() + 5.5
        wait(lambda: time.monotonic() > until, "end of the former lease")
        person.type(b"print('still', 'here')\r")
        person.see("still here")
        assert desk.usb.plugs == 1
        assert person.leave() == 0
    finally:
        person.close()


def test_boot_begins_with_a_line_across_the_screen_even_where_no_port_vanishes() -> None:
    shown = bytearray()
    screen = Screen(shown.extend)
    said = b"last words\r\ntidemark: slot b, release 7\r\ntide\r\nat tidemark: slot a\r\n"
    for at in range(len(said)):
        screen.write(said[at : at + 1])
    text = shown.decode()
    assert text.count("── the board has started") == 1
    before, after = text.split("── the board has started")
    assert before.endswith("last words\r\n\r\n")
    rest = "tidemark: slot b, release 7\r\ntide\r\nat tidemark: slot a\r\n"
    assert after.split("\r\n", 1)[1] == rest
