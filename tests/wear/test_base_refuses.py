"""How the base takes a state that keeps no promise: told once a boot, and no trial outlives it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import nor
import tidemark_board
from agent.health import Checks
from agent.telemetry import Telemetry
from tidemark.base import Base
from tidemark.errors import FlashError, StateError
from tidemark.slots import NONE, Release
from tidemark.trial import Trial


class Reset(Exception):
    """The board was reset."""


class Port:
    """A chip's registers and clock over a flash in our hands."""

    def __init__(self, flash: nor.NorFlash) -> None:
        self._flash = flash
        self.kbd_intr = None
        self.now = 1000
        self.kept = 0

    def flash(self) -> nor.NorFlash:
        return self._flash

    def runtimes(self) -> None:
        return None

    def reset_cause(self) -> str:
        return "power-on"

    def marker(self) -> int:
        return self.kept

    def set_marker(self, number: int) -> None:
        self.kept = number

    def uptime_ms(self) -> int:
        return self.now

    def reset(self) -> None:
        raise Reset


def _base(flash: nor.NorFlash | None = None) -> tuple[Any, nor.NorFlash]:
    flash = flash or nor.NorFlash(tidemark_board.FLASH_SIZE)
    base: Any = Base(Port(flash), tidemark_board, SimpleNamespace(marked=False))
    base.connection = SimpleNamespace(report_when_due=lambda ms: None, reports_acked=0)
    base.config = {6: 1}
    base.evidence.recover()
    base.journal.recover()
    base.slots.recover()
    return base, flash


def _wear(flash: nor.NorFlash, region: str, kind: str = nor.DEAD) -> None:
    start, size = tidemark_board.REGIONS[region]
    for sector in range(start // flash.sector, (start + size) // flash.sector):
        flash.fail(sector, kind)


def _codes(base: Any) -> list[str]:
    from tidemark.evidence import SIZE, parse

    raw = base.evidence.read(1, 64)
    return [parse(raw[at : at + SIZE])[2] for at in range(0, len(raw), SIZE)]


def test_a_refusal_is_recorded_and_said_once_a_boot(capsys: pytest.CaptureFixture[str]) -> None:
    base, flash = _base()
    for _ in range(50):
        base.refuse(StateError("counter-worn", "no sector takes a record"), "hello")
    base.refuse(StateError("outbox-worn"), "sample")
    assert _codes(base) == ["counter-worn", "outbox-worn"]
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "tidemark: counter-worn: no sector takes a record (hello)",
        "tidemark: outbox-worn (sample)",
    ]
    again, _ = _base(flash)
    again.refuse(StateError("counter-worn"), "hello")
    assert _codes(again) == ["counter-worn", "outbox-worn", "counter-worn"]


def test_a_ring_that_takes_nothing_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    base, flash = _base()
    _wear(flash, "evidence")
    for _ in range(3):
        base.record("event")
    assert base.evidence.gaps == 3
    assert capsys.readouterr().out.count("evidence-worn") == 1


def _on_trial() -> tuple[Any, nor.NorFlash]:
    first, flash = _base()
    first.slots.provision(Release(bytes(32), 5000, 1, 0, "1.0.0"))
    first.slots.choose()
    staged = Release(b"\1" * 32, 5000, 2, 0, "1.1.0")
    first.slots.begin_write(1, staged)
    first.slots.finish_write(1)
    base, _ = _base(flash)
    assert base.slots.choose() == (1, "trial")
    return base, flash


def test_a_trial_that_the_journal_can_not_confirm_ends_unconfirmed() -> None:
    base, flash = _on_trial()
    base._trial = SimpleNamespace(step=lambda *shown: ("confirm", "ok"))
    base.link = SimpleNamespace(state="up")
    _wear(flash, "journal")
    with pytest.raises(Reset):
        base._report_step()
    assert "journal-worn" in _codes(base)
    after: Any = Base(Port(flash), tidemark_board, SimpleNamespace(marked=False))
    after.journal.recover()
    with pytest.raises(StateError, match="journal-worn"):
        after.slots.recover()
    # What can't be affirmed is nobody's turn: stage 0 goes to rescue.
    assert after.slots.running == NONE


def test_a_worn_outbox_keeps_no_good_release_from_being_confirmed() -> None:
    base, flash = _on_trial()
    _wear(flash, "outbox")
    base.outbox.recover()
    telemetry = Telemetry(base, [SimpleNamespace(number=1, read=lambda: 20)])
    checks = Checks()
    checks.add(telemetry.complaint)
    base._app = SimpleNamespace(health=lambda _base: checks.reason())
    base._trial = Trial(1000, 60_000, 0)
    base.link = SimpleNamespace(state="up")
    base.connection.reports_acked = 1
    base.connection.report_soon = lambda: None
    while base._trial:
        telemetry.sample()
        base.port.now += 1000
        base._report_step()
    assert "outbox-worn" in _codes(base) and base.outbox.dropped
    assert base.slots.confirmed_release.index == 2


def test_flash_that_reports_an_error_crashes_no_image_and_rejects_none() -> None:
    for region in ("counter", "outbox", "evidence"):
        base, flash = _on_trial()
        base.counter.recover()
        base.outbox.recover()
        _wear(flash, region, nor.IO)
        telemetry = Telemetry(base, [SimpleNamespace(number=1, read=lambda: 20)])
        for _ in range(3):
            telemetry.sample()
        assert telemetry.complaint() is None
        base.record("event")
        base.evidence.head()
        if region == "evidence":
            assert base.evidence.gaps and len(base.outbox) == 3
        else:
            assert _codes(base) == [f"{region}-worn", "event"] and not len(base.outbox)


def test_what_waits_in_flash_that_can_not_be_read_is_refused() -> None:
    base, _ = _on_trial()
    base.outbox.recover()
    base.connection = SimpleNamespace(ready=True, room=8)
    telemetry = Telemetry(base, [])

    def unread(*_asked: object) -> None:
        raise FlashError("flash-io", "ESP_ERR_TIMEOUT")

    base.outbox.pending = unread
    telemetry.send()
    assert _codes(base) == ["flash-io"]


def _connectable(flash: nor.NorFlash, monkeypatch: pytest.MonkeyPatch) -> Any:
    base, _ = _base(flash)
    base.identity = base.provisioning = object()
    monkeypatch.setattr(base, "_connect", lambda: None)
    return base


def test_what_waits_is_found_again_before_the_application_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, flash = _base()
    first.outbox.recover()
    first.outbox.add(1, 1, b"a reading")
    base = _connectable(flash, monkeypatch)
    assert not len(base.outbox)  # not before the hand-over: that would take its time
    assert base.connect()
    assert len(base.outbox) == 1


def _errors(base: Any, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have the flash of `base` report errors for the first `count` looks at the outbox."""
    start = tidemark_board.REGIONS["outbox"][0]
    view, looks = base.port._flash.view, []

    def fails(off: int, n: int) -> object:
        if off == start:
            looks.append(off)
            if len(looks) <= count:
                raise FlashError("flash-io", "no answer")
        return view(off, n)

    monkeypatch.setattr(base.port._flash, "view", fails)


def test_an_outbox_that_can_not_be_read_takes_nothing_and_all_else_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, flash = _base()
    first.outbox.recover()
    first.outbox.add(1, 1, b"a reading")
    for mode in ("normal", "trial", "rescue"):
        with monkeypatch.context() as patch:
            base = _connectable(flash, patch)
            _errors(base, patch, 100)
            base.mode = mode
            assert base.connect()
            assert _codes(base)[-1] == "flash-io"
            telemetry = Telemetry(base, [SimpleNamespace(number=1, read=lambda: 20)])
            telemetry.sample()
            assert telemetry.complaint() is None
            assert base.outbox.dropped == 1 and not base.outbox.pending()
    assert _codes(base) == ["flash-io", "outbox-worn"] * 3
    again = _connectable(flash, monkeypatch)
    assert again.connect()
    assert [item[3] for item in again.outbox.pending()] == [b"a reading"]


def test_one_error_of_the_flash_costs_no_boot_its_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    first, flash = _base()
    first.outbox.recover()
    first.outbox.add(1, 1, b"a reading")
    base = _connectable(flash, monkeypatch)
    _errors(base, monkeypatch, 1)
    assert base.connect()
    assert len(base.outbox) == 1 and not _codes(base)


@pytest.mark.parametrize(("why", "after_ms"), [("base-fault", 3_600_000), ("crash-loop", 60_000)])
def test_a_rescue_that_nobody_ends_gives_the_application_its_turn(why: str, after_ms: int) -> None:
    base, _ = _base()
    base.mode, base.why = "rescue", why
    base.updates = SimpleNamespace(running=False)
    base.port.now = after_ms - 1
    base._report_step()
    base.port.now = after_ms
    base.updates.running = True
    base._report_step()
    base.updates.running = False
    with pytest.raises(Reset):
        base._report_step()
    assert _codes(base) == ["reset"]


def test_an_error_of_the_flash_leaves_a_trial_open() -> None:
    base, flash = _on_trial()
    with pytest.raises(Reset):
        base.crashed(FlashError("flash-io", "ESP_ERR_TIMEOUT"))
    from tidemark import reasons

    assert reasons.decode(base.port.kept) == "rollback"
    assert _codes(base) == ["flash-io", "reset"]
    after, _ = _base(flash)
    assert after.slots.resolve("reset", "rollback") == [("trial-open", "rollback")]
    # An image that asks for what lies outside is at fault, whatever family its error is of.
    after.slots.choose()
    with pytest.raises(Reset):
        after.crashed(FlashError("flash-bounds"))
    assert after.slots.last_trial[2:4] == ["rejected", "crash"]


def test_the_end_of_a_trial_is_recorded_and_then_told() -> None:
    base, flash = _on_trial()
    with pytest.raises(Reset):
        base.crashed(ValueError("x"))
    assert _codes(base) == ["crash", "rejected", "reset"]
    after, _ = _base(flash)
    assert after.slots.untold() == []


def test_an_end_that_can_not_be_marked_as_told_is_recorded_all_the_same() -> None:
    base, flash = _on_trial()
    events = base.slots.fault("crash")
    _wear(flash, "journal")
    base.record_all(events)
    assert _codes(base) == ["rejected", "journal-worn"]


def test_a_crash_in_a_trial_is_left_to_the_marker_when_the_journal_takes_nothing() -> None:
    base, flash = _on_trial()
    _wear(flash, "journal")
    with pytest.raises(Reset):
        base.crashed(ValueError("x"))
    from tidemark import reasons

    assert reasons.decode(base.port.kept) == "crash"
    assert _codes(base)[-3:] == ["crash", "journal-worn", "reset"]
