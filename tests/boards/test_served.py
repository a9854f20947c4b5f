"""The log of a board's console and the thread it lives in, as other threads see them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.boards.maker import Maker
from tests.boards.usb_serial import wait
from tidemark_host.boards.base import BoardError, BoardTimeout
from tidemark_host.boards.console_log import ConsoleLog
from tidemark_host.boards.service import Service


def test_line_that_was_found_unfinished_is_not_found_again_by_who_waits_for_the_next() -> None:
    log = ConsoleLog()
    log.add(b"first\ncause reset")
    log.wait_for("cause reset", 0.1)
    since = len(log)
    log.add(b" 2\n")
    with pytest.raises(BoardTimeout):
        log.wait_for("cause reset", 0.1, since)
    assert since == len(log) == 2
    log.add(b"cause reset 2\n")
    log.wait_for("cause reset", 0.1, since)
    assert [line.text for line in log] == ["first", "cause reset 2", "cause reset 2"]


def test_line_that_nobody_has_seen_is_found_by_who_waits_from_now_on() -> None:
    log = ConsoleLog()
    log.add(b">>> ")
    since = len(log)
    log.add(b"reset")
    assert log.wait_for("reset", 0.1, since).text == ">>> reset"


@pytest.mark.parametrize("code", ["service", "closed"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_asks_a_thread_that_ends_is_told_at_once(code: str) -> None:
    """Not after half a minute, with an error that nobody expects."""
    within, goes_on = threading.Event(), threading.Event()
    errors: list[str] = []

    def turn() -> None:
        within.set()
        assert goes_on.wait(20)
        if code == "service":
            raise ZeroDivisionError

    service = Service("test", turn)

    def told(what: Callable[[], object]) -> None:
        try:
            what()
        except BoardError as error:
            errors.append(error.code)

    asks: list[Callable[[], object]] = [
        lambda: service.do(int),
        lambda: service.wait(lambda: False, 20, "thing"),
    ]
    askers = [threading.Thread(target=told, args=(ask,), daemon=True) for ask in asks]
    service.start()
    assert within.wait(20)
    for asker in askers:
        asker.start()
    jobs = service._jobs  # pyright: ignore[reportPrivateUsage]
    wait(lambda: jobs, "job")
    ender = threading.Thread(target=service.close, daemon=True)
    if code == "closed":
        ender.start()
        wait(lambda: service.closing, "end")
    goes_on.set()
    for asker in askers:
        asker.join(10)
    assert errors == [code, code]
    with pytest.raises(BoardError, match=code):
        service.do(int)
    if code == "service":
        ender.start()
    ender.join(10)
    service.dispose()


def test_whoever_reads_what_happened_finds_the_state_that_came_of_it(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log line, and a console that hangs up, wake others: they must not see the former state."""
    board = make("import ffi\ninput()\nffi.open(None).func('v', '_exit', 'i')(0)")
    seen: list[tuple[str, str, int]] = []
    note, hang_up = board.serial_log.note, board._console.hang_up

    def noted(text: str) -> None:
        seen.append((text, board.state, len(board._resets)))
        note(text)

    def hung_up() -> None:
        seen.append(("hangs up", board.state, len(board._resets)))
        hang_up()

    monkeypatch.setattr(board.serial_log, "note", noted)
    monkeypatch.setattr(board._console, "hang_up", hung_up)
    monkeypatch.setattr(board, "_native_usb", True)
    board.send(b"\r")
    board.wait_state("hung")
    board.reset()
    board.power_off()
    assert seen == [
        ("process ended: exit 0", "hung", 1),
        ("hangs up", "hung", 1),
        ("reset", "running", 2),
        ("hangs up", "off", 2),
        ("power off", "off", 2),
    ]
