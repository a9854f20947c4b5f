"""The search finds what breaks a promise, and prints what replays that and nothing else."""

from __future__ import annotations

import re

import pytest

import nor
from tests.powercut import search
from tests.powercut.search import Violation

DATA = b"\x11" * 16


class Hasty:
    """Takes what it read once for firm: a torn program is the counter-example."""

    def __init__(self, seen: bool = False) -> None:
        self.seen = seen

    def copy(self) -> Hasty:
        return Hasty(self.seen)

    def key(self) -> object:
        return self.seen

    def boot(self, flash: nor.NorFlash) -> None:
        if bytes(flash.view(0, 16)) == DATA:
            self.seen = True
        elif bytes(flash.view(0, 16)) == b"\xff" * 16:
            flash.program(0, DATA)

    def check(self, flash: nor.NorFlash) -> None:
        if self.seen:
            assert bytes(flash.view(0, 16)) == DATA, "it is gone"


def _flash() -> nor.NorFlash:
    return nor.NorFlash(64, sector=64, page=16, weak=True)


def test_a_violation_is_replayed_by_the_line_that_it_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search._begun.clear()
    search.search(nor.NorFlash(bytearray(64), sector=64, page=16, weak=True), Hasty(), 1, 2)
    with pytest.raises(Violation, match="it is gone") as found:
        search.search(_flash(), Hasty(), 1, 3)
    command = re.search(r"TIDEMARK_STORY='(\S+)' .venv/bin/pytest '(\S+)'", str(found.value))
    assert command and command[2].endswith("the_line_that_it_prints")
    assert command[1].startswith("2/:t0/") and command[1].endswith(":?")
    monkeypatch.setenv("TIDEMARK_STORY", command[1])
    search._begun.clear()
    ran: list[str] = []
    boot = Hasty.boot
    monkeypatch.setattr(Hasty, "boot", lambda self, flash: (ran.append(""), boot(self, flash)))
    assert search.search(_flash(), Hasty(), 1, 3).cuts > 1000  # the first search: not asked for
    assert not ran
    with pytest.raises(Violation, match="it is gone") as again:
        search.search(_flash(), Hasty(), 1, 3)
    assert str(again.value) == str(found.value)
    assert len(ran) == command[1].count("/") - 1
