"""Starts of a board that only its console and its port show."""

from __future__ import annotations

import pytest

from tidemark_host.boards.starts import Starts

SLOT = b"tidemark: slot a, release 1 (1.0.0), normal\r\n"


def test_start_that_nobody_caused_is_not_taken_for_the_watchdogs() -> None:
    assert Starts().heard(SLOT) == ["unknown"]
    assert Starts().came_back() == ["unknown"]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"tidemark: reset, reason rollback\r\n", "reset"),
        (b"tidemark: the lease ran out\r\n", "reset"),
        (b"tidemark: task sensor missed its deadline\r\n", "watchdog"),
    ],
)
def test_start_has_the_cause_that_the_board_announced(said: bytes, cause: str) -> None:
    for line_only in (True, False):
        starts = Starts()
        assert starts.heard(said) == []
        assert (starts.heard(SLOT) if line_only else starts.came_back()) == [cause]
        # Once: the next one is another one.
        assert starts.heard(b"" if line_only else SLOT) == []
        assert starts.heard(SLOT) == ["unknown"]


def test_what_the_host_did_comes_before_what_the_board_says_of_it() -> None:
    starts = Starts()
    starts.expect("power-on")
    assert starts.heard(b"tidemark: the lease ran out\r\n") == []
    assert starts.came_back() == ["power-on"]


def test_what_the_host_did_not_do_after_all_causes_nothing() -> None:
    starts = Starts()
    starts.expect("reset")
    starts.expect("")
    assert starts.came_back() == ["unknown"]


def test_port_and_banner_of_one_start_count_once() -> None:
    starts = Starts()
    assert starts.came_back() == ["unknown"]
    assert starts.heard(b"MicroPython\r\n" + SLOT) == []
    assert starts.came_back() == ["unknown"]
    # Its banner was lost. The next start is seen by the port again.
    assert starts.came_back() == ["unknown"]


def test_soft_reset_counts_once_whether_it_runs_the_application_or_not() -> None:
    starts = Starts()
    assert starts.heard(b"MPY: soft reboot\r\n" + SLOT) == ["soft"]
    assert starts.heard(b"\x04\x04>OK\r\nMPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>") == [
        "soft"
    ]
    assert starts.heard(b"\r\n" + SLOT) == ["unknown"]


def test_banner_that_a_closing_port_cut_in_two_is_no_line() -> None:
    starts = Starts()
    starts.heard(b"tidemark: slot a, rel")
    assert starts.came_back() == ["unknown"]
    assert starts.heard(b"\r\n") == []
    assert starts.heard(SLOT) == []


def test_every_piece_of_it_may_come_by_itself_and_lines_are_bounded() -> None:
    starts = Starts()
    data = b"x" * 5000 + b"\r\n" + SLOT
    assert [cause for byte in data for cause in starts.heard(bytes([byte]))] == ["unknown"]
