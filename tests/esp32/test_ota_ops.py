"""What an application does to otadata through ESP-IDF, written from esp_ota_ops.c."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.esp32.test_bootloader import KINDS, ORDERS, entry, table
from tests.esp32.tiny import (
    ALL,
    NEW,
    OTA,
    OTADATA,
    PENDING,
    SIZE,
    TEST_REGION,
    TWO,
    VALID,
    WITH_FACTORY,
    entries_of,
    image,
    made,
    put,
    put_entries,
)
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.bootloader import FACTORY, TEST, Bootloader, Layout
from tidemark_host.esp32.flash import SECTOR
from tidemark_host.esp32.ota_ops import (
    ERRORS,
    IDF_5_4,
    IDF_5_5,
    OtaError,
    OtaOps,
    Rules,
    SafeOta,
)
from tidemark_host.esp32.otadata import BLANK, Entry, State

# As in test_bootloader.py; an application finds a pending entry in charge. `-`: none.
IN_CHARGE = """
    B C c N P V I A U
  B - - - 1 1 1 - - 1
  C - - - 1 1 1 - - 1
  c - - - 1 1 1 - - 1
  N 0 0 0 * * * 0 0 *
  P 0 0 0 * * * 0 0 *
  V 0 0 0 * * * 0 0 *
  I - - - 1 1 1 - - 1
  A - - - 1 1 1 - - 1
  U 0 0 0 * * * 0 0 *
"""
HIGHER = {"lower": 1, "equal": 0, "higher": 0}
CELLS = [(*pair, cell) for pair, cell in table(IN_CHARGE).items()]


def refusal(call: Callable[[], object]) -> str:
    """Return the code that a call is refused with, or nothing."""
    try:
        call()
    except OtaError as error:
        assert error.number == ERRORS[error.code]
        return error.code
    return ""


def pairs(turn: str) -> list[tuple[str, tuple[Entry, Entry], int | None]]:
    """Return every pair: its name, its entries, which is in charge."""
    first, second = ORDERS[turn]
    return [
        (
            row + column,
            (entry(row, first), entry(column, second)),
            HIGHER[turn] if cell == "*" else int(cell) if cell in "01" else None,
        )
        for row, column, cell in CELLS
    ]


def full(entries: tuple[Entry | None, Entry | None], layout: Layout = TWO) -> NorFlash:
    flash = made(layout, {slot: ALL[slot] for slot in (0, 1)})
    if layout.factory:
        put(flash, layout.factory, image(ALL[FACTORY]))
    put_entries(flash, entries)
    return flash


# Sequences in charge are 4, 5 or 6 (ORDERS): the one that is written for slot 0 and for slot 1.
CHOSEN_SEQ = {(4, 0): 5, (4, 1): 4, (5, 0): 5, (5, 1): 6, (6, 0): 7, (6, 1): 6}


@pytest.mark.parametrize("turn", ORDERS)
@pytest.mark.parametrize("rules", [IDF_5_4, IDF_5_5], ids=["5.4", "5.5"])
@pytest.mark.parametrize("rollback", [True, False])
def test_choosing_a_slot_writes_the_entry_not_in_charge(
    turn: str, rules: Rules, rollback: bool
) -> None:
    flash = full((None, None))
    wrong: dict[str, object] = {}
    for name, entries, charge in pairs(turn):
        for slot in (0, 1):
            put_entries(flash, entries)
            OtaOps(flash, TWO, 0, rules=rules, rollback=rollback).set_boot_partition(slot)
            if charge is None:
                index, seq = 0, slot + 1
            else:
                seq = CHOSEN_SEQ[entries[charge].seq, slot]
                # ESP-IDF 5.5: of the slot that is chosen already only the state changes.
                stays = rules.in_place and seq == entries[charge].seq
                index = charge if stays else 1 - charge
            documented = list(entries)
            documented[index] = Entry.made(seq, NEW if rollback else State.UNDEFINED)
            if list(entries_of(flash)) != documented:
                wrong[f"{name} slot {slot}"] = (documented, entries_of(flash))
    assert not wrong


@pytest.mark.parametrize("turn", ORDERS)
def test_marking_changes_the_state_of_the_entry_in_charge(turn: str) -> None:
    flash = full((None, None))
    wrong: dict[str, object] = {}
    for name, entries, charge in pairs(turn):
        other_valid = charge is not None and name[1 - charge] in "NPVU"
        for valid in (True, False):
            put_entries(flash, entries)
            operations = flash.operations
            ops = OtaOps(flash, TWO, 0)
            call = ops.mark_app_valid_cancel_rollback if valid else ops.mark_app_invalid_rollback
            documented, code, written = list(entries), "", 0
            if charge is None:
                code = "ESP_FAIL"
            elif not valid and not other_valid:
                code = "ESP_ERR_OTA_ROLLBACK_FAILED"
            elif not (valid and name[charge] == "V"):
                state = VALID if valid else State.INVALID
                documented[charge] = Entry.made(entries[charge].seq, state)
                written = 2
            found = (refusal(call), list(entries_of(flash)), flash.operations - operations)
            if found != (code, documented, written):
                wrong[f"{name} {valid}"] = ((code, documented, written), found)
            if ops.check_rollback_is_possible() != (charge is not None and other_valid) and valid:
                wrong[f"{name} possible"] = other_valid
    assert not wrong


@pytest.mark.parametrize("turn", ORDERS)
@pytest.mark.parametrize("factory", [False, True])
def test_the_boot_partition_is_that_of_the_entry_in_charge(turn: str, factory: bool) -> None:
    layout = WITH_FACTORY if factory else TWO
    flash = full((None, None), layout)
    for _, entries, charge in pairs(turn):
        put_entries(flash, entries)
        default = FACTORY if factory else 0
        slot = default if charge is None else (entries[charge].seq - 1) % 2
        assert OtaOps(flash, layout, 0).boot_partition() == slot


# entries, slot asked for, its state or a code
STATES = [
    ((None, None), 0, "ESP_ERR_NOT_FOUND"),
    ((Entry.made(1, VALID), None), 0, VALID),
    ((Entry.made(1, VALID), None), 1, "ESP_ERR_NOT_FOUND"),
    ((Entry.made(1, VALID), Entry.made(2, PENDING)), 1, PENDING),
    ((Entry(1, VALID, 0), None), 0, "ESP_ERR_NOT_FOUND"),
    ((Entry.made(1, VALID), None), 2, "ESP_ERR_NOT_SUPPORTED"),
    ((Entry.made(1, VALID), None), FACTORY, "ESP_ERR_NOT_SUPPORTED"),
    # Both name slot 0: the first counts, not the one in charge.
    ((Entry.made(1, State.ABORTED), Entry.made(3, VALID)), 0, State.ABORTED),
]


@pytest.mark.parametrize(("entries", "slot", "answer"), STATES)
def test_a_slots_state_is_that_of_the_first_entry_that_names_it(
    entries: tuple[Entry | None, Entry | None], slot: int, answer: State | str
) -> None:
    ops = OtaOps(full(entries), TWO, 0)
    if isinstance(answer, str):
        assert refusal(lambda: ops.state(slot)) == answer
    else:
        assert ops.state(slot) == answer


# entries, what last_invalid_partition says
GIVEN_UP = [
    ((None, None), None),
    ((Entry.made(1, VALID), Entry.made(2, State.ABORTED)), 1),
    ((Entry.made(3, State.INVALID), Entry.made(2, VALID)), 0),
    ((Entry.made(3, State.INVALID), Entry.made(2, State.ABORTED)), 1),
    ((Entry(3, State.INVALID, 0), Entry.made(2, VALID)), None),
]


@pytest.mark.parametrize(("entries", "slot"), GIVEN_UP)
def test_the_slot_that_was_given_up_is_told(
    entries: tuple[Entry | None, Entry | None], slot: int | None
) -> None:
    flash = full(entries)
    assert OtaOps(flash, TWO, 0).last_invalid_partition() == slot
    for region in OTA:
        flash.erase(region.offset)
    assert OtaOps(flash, TWO, 0).last_invalid_partition() is None


def test_only_an_image_that_passes_is_chosen() -> None:
    flash = full((Entry.made(1, VALID), None))
    flash.erase(OTA[1].offset)
    before = bytes(flash.view(0, SIZE))
    ops = OtaOps(flash, TWO, 0)
    assert refusal(lambda: ops.set_boot_partition(1)) == "ESP_ERR_OTA_VALIDATE_FAILED"
    assert refusal(lambda: ops.set_boot_partition(2)) == "ESP_ERR_INVALID_ARG"
    assert refusal(lambda: ops.set_boot_partition(FACTORY)) == "ESP_ERR_INVALID_ARG"
    assert bytes(flash.view(0, SIZE)) == before
    assert ERRORS["ESP_ERR_OTA_VALIDATE_FAILED"] == 5379  # as MicroPython shows it, negative


def test_choosing_the_factory_image_erases_otadata() -> None:
    flash = full((Entry.made(1, VALID), Entry.made(2, VALID)), WITH_FACTORY)
    OtaOps(flash, WITH_FACTORY, 1).set_boot_partition(FACTORY)
    assert bytes(flash.view(OTADATA.offset, OTADATA.size)) == b"\xff" * OTADATA.size
    assert Bootloader(flash, WITH_FACTORY).boot().index == FACTORY


def test_choosing_the_test_image_chooses_slot_0() -> None:
    layout = Layout(OTADATA, OTA, None, TEST_REGION)
    flash = full((Entry.made(2, VALID), None), layout)
    put(flash, TEST_REGION, image(98))
    OtaOps(flash, layout, 1).set_boot_partition(TEST)
    assert Bootloader(flash, layout).boot().index == 0


def test_a_slot_can_be_given_up_in_favour_of_the_factory_image() -> None:
    flash = full((Entry.made(1, PENDING), None), WITH_FACTORY)
    ops = OtaOps(flash, WITH_FACTORY, 0)
    assert ops.check_rollback_is_possible()
    ops.mark_app_invalid_rollback()
    assert Bootloader(flash, WITH_FACTORY).boot().index == FACTORY
    flash = full((Entry.made(1, PENDING), None))
    assert not OtaOps(flash, TWO, 0).check_rollback_is_possible()
    # A slot that no entry names does not count.
    assert refusal(OtaOps(flash, TWO, 0).mark_app_invalid_rollback) == (
        "ESP_ERR_OTA_ROLLBACK_FAILED"
    )


# running, entries, slot to write, code; BOTH is a slot 0 that is confirmed.
BOTH = (Entry.made(1, VALID), Entry.made(2, State.ABORTED))
BEGINS = [
    (0, BOTH, 1, ""),
    (0, BOTH, 0, "ESP_ERR_OTA_PARTITION_CONFLICT"),
    (0, BOTH, 2, "ESP_ERR_INVALID_ARG"),
    (0, BOTH, FACTORY, "ESP_ERR_INVALID_ARG"),
    (0, (Entry.made(1, PENDING), None), 1, "ESP_ERR_OTA_ROLLBACK_INVALID_STATE"),
    (0, (None, None), 1, ""),
    (FACTORY, (Entry.made(1, State.ABORTED), None), 0, ""),
]


@pytest.mark.parametrize("kind", [OtaOps, SafeOta])
@pytest.mark.parametrize(("running", "entries", "slot", "code"), BEGINS)
def test_an_update_begins_only_outside_a_trial(
    kind: type[OtaOps],
    running: int,
    entries: tuple[Entry | None, Entry | None],
    slot: int,
    code: str,
) -> None:
    layout = WITH_FACTORY if running == FACTORY else TWO
    flash = full(entries, layout)
    before = bytes(flash.view(0, SIZE))
    assert refusal(lambda: kind(flash, layout, running).begin(slot)) == code
    if code:
        assert bytes(flash.view(0, SIZE)) == before
    else:
        assert bytes(flash.view(OTA[slot].offset, SECTOR)) == b"\xff" * SECTOR


# entries when slot 0 runs, what is left of them after esp_ota_begin of ESP-IDF 5.5
CLEARED = [
    ((Entry.made(1, VALID), Entry.made(2, State.ABORTED)), (Entry.made(1, VALID), BLANK)),
    ((Entry.made(3, VALID), Entry.made(2, VALID)), (Entry.made(3, VALID), BLANK)),
    ((Entry.made(3, VALID), Entry.made(1, VALID)), (Entry.made(3, VALID), Entry.made(1, VALID))),
    ((Entry.made(3, VALID), Entry(2, VALID, 0)), (Entry.made(3, VALID), Entry(2, VALID, 0))),
    ((Entry(1, VALID, 0), None), (Entry(1, VALID, 0), BLANK)),
]


@pytest.mark.parametrize(("entries", "left"), CLEARED)
def test_beginning_clears_the_entry_of_the_slot_that_is_written(
    entries: tuple[Entry, Entry | None], left: tuple[Entry, Entry]
) -> None:
    flash = full(entries)
    OtaOps(flash, TWO, 0, rules=IDF_5_5).begin(1)
    assert entries_of(flash) == left
    flash = full(entries)
    OtaOps(flash, TWO, 0, rules=IDF_5_4).begin(1)
    assert entries_of(flash) == (entries[0], entries[1] or BLANK)


# The traps that SafeOta keeps a board from.


def test_choosing_in_a_trial_leaves_nothing_to_fall_back_to() -> None:
    # Slot 1 is confirmed, slot 0 is in its trial and chooses slot 1.
    entries = (Entry.made(3, PENDING), Entry.made(2, VALID))
    flash = full(entries)
    OtaOps(flash, TWO, 0).set_boot_partition(1)
    assert entries_of(flash) == (entries[0], Entry.made(4, NEW))
    booted = [Bootloader(flash, TWO).boot().index for _ in range(3)]
    # Slot 1 has become a trial; when it ends without a word, the failed slot 0 boots for ever.
    assert booted == [1, 0, 0]
    flash = full(entries)
    safe = SafeOta(flash, TWO, 0)
    assert refusal(lambda: safe.set_boot_partition(1)) == "ESP_ERR_OTA_ROLLBACK_INVALID_STATE"
    assert entries_of(flash) == entries


def test_choosing_after_a_fallback_takes_the_running_slots_own_entry() -> None:
    # Slot 1 is confirmed; slot 0 was chosen, did not pass, and slot 1 runs.
    entries = (Entry.made(3, NEW), Entry.made(2, VALID))
    flash = full(entries)
    flash.erase(OTA[0].offset)
    assert Bootloader(flash, TWO).boot().index == 1
    put(flash, OTA[0], image(7))
    spent = entries_of(flash)
    safe = SafeOta(flash, TWO, 1)
    assert refusal(lambda: safe.begin(0)) == "ESP_ERR_OTA_ROLLBACK_INVALID_STATE"
    assert refusal(lambda: safe.set_boot_partition(0)) == "ESP_ERR_OTA_ROLLBACK_INVALID_STATE"
    assert entries_of(flash) == spent
    OtaOps(flash, TWO, 1).set_boot_partition(0)
    assert entries_of(flash) == (Entry.made(3, PENDING), Entry.made(3, NEW))
    assert [Bootloader(flash, TWO).boot().index for _ in range(3)] == [0, 0, 0]


def test_after_a_fallback_a_mark_goes_to_the_slot_that_failed() -> None:
    flash = full((Entry.made(3, NEW), Entry.made(2, VALID)))
    flash.erase(OTA[0].offset)
    assert Bootloader(flash, TWO).boot().index == 1
    OtaOps(flash, TWO, 1).mark_app_valid_cancel_rollback()
    assert entries_of(flash) == (Entry.made(3, VALID), Entry.made(2, VALID))


def test_choosing_the_running_slot_again_costs_the_fallback() -> None:
    entries = (Entry.made(3, VALID), Entry.made(2, VALID))
    flash = full(entries)
    OtaOps(flash, TWO, 0, rules=IDF_5_4).set_boot_partition(0)
    assert entries_of(flash) == (Entry.made(3, VALID), Entry.made(3, NEW))
    flash = full(entries)
    OtaOps(flash, TWO, 0, rules=IDF_5_5).set_boot_partition(0)
    assert entries_of(flash) == (Entry.made(3, NEW), Entry.made(2, VALID))
    safe = SafeOta(full(entries), TWO, 0)
    assert refusal(lambda: safe.set_boot_partition(0)) == "ESP_ERR_OTA_PARTITION_CONFLICT"


def test_every_kind_of_entry_is_in_the_tables() -> None:
    assert set(KINDS.values()) == set(State)
