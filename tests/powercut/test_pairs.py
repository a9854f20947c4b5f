"""The simulated ESP32 follows its bootloader, and the judge of pairs sees what it is there for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.powercut import esp32
from tests.powercut.broken import Broken
from tests.powercut.esp32 import Chip, Runtime, image_in, layout_of, read, runtime
from tests.powercut.oracle import Banner, Oracle, State
from tests.powercut.pairs import Pairs
from tests.powercut.setting import HANGING_RUNTIME, NEW_RUNTIME, OLD_RUNTIME, RUNTIME_OF, RUNTIMES
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.otadata import Entry
from tidemark_host.esp32.otadata import State as Ota

BOARD = esp32.make_board()
LAYOUT = layout_of(BOARD)


class Flash:
    """A flash of nobody's: `esp32.Power`, and what was done to it."""

    def __init__(self, old: Runtime | None, new: Runtime | None) -> None:
        content = b"\xff" * BOARD.flash_size
        for held, region in zip((old, new), LAYOUT.ota, strict=True):
            if held:
                at = region.offset
                content = content[:at] + held.image + content[at + len(held.image) :]
        self.nor = NorFlash(bytearray(content))
        self.addresses: list[int] = []

    def operate(self, address: int, data: bytes | None) -> None:
        self.addresses.append(address)
        if data is None:
            self.nor.erase(address)
        else:
            self.nor.program(address, data)

    def names(self, seq: int, state: int = Ota.VALID) -> Flash:
        assert LAYOUT.otadata
        otadata.write(self.nor, LAYOUT.otadata, 0, Entry.made(seq, state))
        return self


def _judge() -> Pairs:
    return Pairs(LAYOUT, RUNTIMES, RUNTIME_OF)


def _oracle(confirmed: int) -> Oracle:
    return Oracle(BOARD, confirmed=confirmed, pairs=_judge())


def test_runtime_says_what_it_is_and_passes_the_bootloaders_check() -> None:
    for made, sound in ((runtime(7), True), (runtime(7, sound=False), False)):
        flash = Flash(made, None)
        assert image_in(flash.nor, LAYOUT.ota[0]) == made.image
        assert image_in(flash.nor, LAYOUT.ota[1]) == b""
        assert read(made.image) == (7, sound)
    with pytest.raises(ValueError, match="no runtime"):
        read(b"\xe9" * 400)


def test_each_write_of_bootloader_and_application_is_an_operation_of_the_board() -> None:
    flash = Flash(OLD_RUNTIME, HANGING_RUNTIME)
    chip = Chip(BOARD, flash)
    assert LAYOUT.otadata
    first, second = LAYOUT.otadata.offset, LAYOUT.otadata.offset + 4096
    assert chip.boot()
    assert flash.addresses == [first, first]
    assert not chip.set_boot(1)
    assert not chip.boot()
    assert (chip.slot, chip.index) == (1, 2)
    assert flash.addresses == [first, first, second, second, second, second]
    assert chip.boot()  # the watchdog bit: the only boot of a runtime on trial is over
    assert (chip.slot, chip.index) == (0, 1)
    assert chip.mark_valid() == ""
    assert flash.addresses[6:] == [second, second]  # VALID already: nothing was written for that


def test_refusal_of_esp_idf_comes_back_in_its_words() -> None:
    chip = Chip(BOARD, Flash(OLD_RUNTIME, None))
    chip.boot()
    assert chip.set_boot(1).startswith("ESP_ERR_OTA_VALIDATE_FAILED")


def test_judge_sees_a_runtime_that_nobody_published() -> None:
    judge = _judge()
    judge.started(Flash(OLD_RUNTIME, None).nor, 0, 1)
    with pytest.raises(Broken, match=r"I3.*nobody"):
        judge.started(Flash(runtime(3), None).nor, 0, 1)
    with pytest.raises(Broken, match=r"I3.*nobody"):
        judge.started(Flash(OLD_RUNTIME, None).nor, 1, 1)


def test_judge_sees_a_runtime_below_that_of_the_confirmed_release() -> None:
    flash = Flash(OLD_RUNTIME, NEW_RUNTIME).nor
    judge = _judge()
    judge.started(flash, 0, 1)
    judge.started(flash, 1, 2)
    with pytest.raises(Broken, match="I4"):
        judge.started(flash, 0, 2)


def test_judge_sees_a_mixed_pair_and_one_that_is_not_confirmed() -> None:
    flash = Flash(OLD_RUNTIME, NEW_RUNTIME).nor
    judge = _judge()
    judge.started(flash, 0, 1)
    judge.handed_over(1, False, 1)
    with pytest.raises(Broken, match=r"I3.*runs on runtime 1"):
        judge.handed_over(2, True, 1)
    judge.started(flash, 1, 1)
    judge.handed_over(2, True, 1)
    with pytest.raises(Broken, match=r"I3.*runs on runtime 2"):
        judge.handed_over(1, False, 1)
    with pytest.raises(Broken, match=r"I5.*outside a trial"):
        judge.handed_over(2, False, 1)


def test_judge_sees_a_runtime_that_is_tried_without_end() -> None:
    flash = Flash(OLD_RUNTIME, HANGING_RUNTIME).nor
    judge = _judge()
    for _ in range(20):
        judge.started(flash, 1, 1)
    with pytest.raises(Broken, match="I5"):
        judge.started(flash, 1, 1)
    judge.concluded()
    judge.started(flash, 1, 1)


def test_judge_sees_a_write_into_a_runtime_that_runs_or_is_confirmed() -> None:
    flash = Flash(OLD_RUNTIME, NEW_RUNTIME).nor
    old, new = (region.offset + 4096 for region in LAYOUT.ota)
    judge = _judge()
    judge.started(flash, 0, 1)
    judge.operation(new, 1)
    with pytest.raises(Broken, match=r"I3.*runs"):
        judge.operation(old, 1)
    judge.started(flash, 1, 1)
    with pytest.raises(Broken, match=r"I3.*release 1"):
        judge.operation(old, 1)
    judge.operation(old, 2)


def test_judge_looks_at_what_would_start_in_the_end() -> None:
    judge = _judge()
    judge.check(bytes(Flash(OLD_RUNTIME, NEW_RUNTIME).names(1).nor.view(0, BOARD.flash_size)), 1)
    cases = (
        (Flash(OLD_RUNTIME, NEW_RUNTIME).names(2), 1, "runtime 2 would start"),
        (Flash(OLD_RUNTIME, NEW_RUNTIME).names(2, Ota.PENDING_VERIFY), 2, "runtime 1 would start"),
        (Flash(OLD_RUNTIME, NEW_RUNTIME).names(2, Ota.NEW), 2, "runtime 1 would start"),
        (Flash(runtime(3), NEW_RUNTIME).names(1), 1, "nobody has published"),
        (Flash(None, None).names(1), 1, "nothing would start"),
    )
    for flash, confirmed, words in cases:
        content = bytes(flash.nor.view(0, BOARD.flash_size))
        with pytest.raises(Broken, match=words):
            judge.check(content, confirmed)


def test_judge_looks_at_what_would_start_if_a_runtime_decays() -> None:
    planted = Flash(OLD_RUNTIME, runtime(3)).names(1)
    with pytest.raises(Broken, match=r"I3: ota_1 would start"):
        _judge().started(planted.nor, 0, 1)
    with pytest.raises(Broken, match=r"I3: ota_1 would start"):
        _judge().check(bytes(planted.nor.view(0, BOARD.flash_size)), 1)
    assert image_in(planted.nor, LAYOUT.ota[0]) == OLD_RUNTIME.image
    # Without its first page nobody starts it.
    planted.nor.erase(LAYOUT.ota[1].offset)
    _judge().started(planted.nor, 0, 1)


def test_confirmed_release_is_what_was_told_or_what_the_journal_holds() -> None:
    # The confirmation was journalled, and the power failed before it was said.
    flash = Flash(OLD_RUNTIME, NEW_RUNTIME).nor
    release = SimpleNamespace(index=2)
    state = State(1, [4, 4], [None, release], 2, 1, 1, [], b"", None)
    _oracle(1).started(flash, 0, None)
    for oracle, held in ((_oracle(2), None), (_oracle(1), state)):
        with pytest.raises(Broken, match="I4"):
            oracle.started(flash, 0, held)
    oracle = _oracle(1)
    oracle.started(flash, 1, None)
    with pytest.raises(Broken, match=r"I5.*outside"):
        oracle.booted(Banner("b", 2, "normal"), None)
