"""What the bootloader does with every pair of otadata entries, as ESP-IDF's sources say it.

The tables are written from bootloader_utility.c and bootloader_common_loader.c, not from our code.
"""

from __future__ import annotations

import pytest

from tests.esp32.tiny import (
    ALL,
    FACTORY_REGION,
    LAYOUTS,
    NEW,
    OTADATA,
    PENDING,
    SIZE,
    TEST_REGION,
    THREE,
    TWO,
    VALID,
    WITH_FACTORY,
    entries_of,
    made,
    number_of,
    put,
    put_entries,
)
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.bootloader import FACTORY, TEST, BootError, Bootloader, Layout, order
from tidemark_host.esp32.flash import SECTOR, Region
from tidemark_host.esp32.otadata import BLANK, Entry, State

# Kinds of entry: B blank; C a bad CRC (torn), state VALID; c a bad CRC, state PENDING_VERIFY;
# with a right CRC N new, P pending, V valid, I invalid, A aborted, U undefined.
KINDS = {
    "N": State.NEW,
    "P": State.PENDING_VERIFY,
    "V": State.VALID,
    "I": State.INVALID,
    "A": State.ABORTED,
    "U": State.UNDEFINED,
    "C": State.VALID,
    "c": State.PENDING_VERIFY,
}
# Row: entry 0. Column: entry 1. What is in charge:
#   0, 1  that entry
#   *     both may be: the higher sequence, or entry 0 if they are equal
#   -     neither, both given up or erased: the factory image, else slot 0
#   =     the same, and nothing was ever said: without a factory image, the slot that boots is
#         recorded in entry 0 as VALID
#   ?     neither, but one is torn: the factory image if there is one, else slots 0, 1
WITH_ROLLBACK = """
    B C c N P V I A U
  B = ? = 1 - 1 - - 1
  C ? ? ? 1 ? 1 ? ? 1
  c = ? = 1 - 1 - - 1
  N 0 0 0 * 0 * 0 0 *
  P - ? - 1 - 1 - - 1
  V 0 0 0 * 0 * 0 0 *
  I - ? - 1 - 1 - - 1
  A - ? - 1 - 1 - - 1
  U 0 0 0 * 0 * 0 0 *
"""
# Without rollback a pending entry is as good as any, and a torn one is not given up.
WITHOUT_ROLLBACK = """
    B C c N P V I A U
  B = ? ? 1 1 1 - - 1
  C ? ? ? 1 1 1 ? ? 1
  c ? ? ? 1 1 1 ? ? 1
  N 0 0 0 * * * 0 0 *
  P 0 0 0 * * * 0 0 *
  V 0 0 0 * * * 0 0 *
  I - ? ? 1 1 1 - - 1
  A - ? ? 1 1 1 - - 1
  U 0 0 0 * * * 0 0 *
"""
# What becomes of an entry: left alone, in charge. Without rollback nothing is ever rewritten.
REWRITTEN = {"P": ("A", "A"), "c": ("A", "A"), "N": ("N", "P")}

# Sequences of entries 0 and 1; of two slots an odd one names slot 0, an even one slot 1.
ORDERS = {"lower": (4, 5), "equal": (5, 5), "higher": (6, 5)}
HIGHER = {"lower": 1, "equal": 0, "higher": 0}


def entry(kind: str, seq: int) -> Entry:
    if kind == "B":
        return BLANK
    good = Entry.made(seq, KINDS[kind])
    return good if kind not in "Cc" else Entry(seq, KINDS[kind], good.crc ^ 1)


def table(text: str) -> dict[tuple[str, str], str]:
    """Return a table's cells by row and column."""
    header, *rows = (line.split() for line in text.strip().splitlines())
    return {
        (row[0], column): cell
        for row in rows
        for column, cell in zip(header, row[1:], strict=True)
    }


def expected(
    pair: tuple[str, str], cell: str, turn: str, factory: bool, rollback: bool
) -> tuple[int, tuple[Entry, Entry], int]:
    """Return from the tables alone what boots, both entries behind it and how many are written."""
    seqs = ORDERS[turn]
    charge = HIGHER[turn] if cell == "*" else int(cell) if cell in "01" else None
    after: list[Entry] = []
    writes = 0
    for index, kind in enumerate(pair):
        was = entry(kind, seqs[index])
        state = was.state
        if rollback and kind in REWRITTEN:
            state = KINDS[REWRITTEN[kind][charge == index]]
        after.append(Entry(was.seq, state, was.crc))
        writes += after[index] != was
    if charge is not None:
        return (seqs[charge] - 1) % 2, (after[0], after[1]), writes
    if factory:
        return FACTORY, (after[0], after[1]), writes
    if cell == "=":
        return 0, (Entry.made(1, State.VALID), after[1]), writes + 1
    return 0, (after[0], after[1]), writes


def result(
    flash: NorFlash, layout: Layout, rollback: bool
) -> tuple[int, tuple[Entry, Entry], int]:
    """Boot and return what booted, both entries and how many were written."""
    before = bytes(flash.view(0, SIZE))
    erases, programs = flash.erases, flash.programs
    boot = Bootloader(flash, layout, rollback=rollback).boot()
    assert number_of(boot.image.segments[0].data) == ALL[boot.index]
    written = flash.erases - erases
    assert flash.programs - programs == written
    # All but the two entries is as it was, and of an entry its sector is erased behind it.
    after = bytearray(flash.view(0, SIZE))
    for index in (0, 1):
        addr = OTADATA.offset + index * SECTOR
        assert after[addr + 32 : addr + SECTOR] == b"\xff" * (SECTOR - 32)
        after[addr : addr + 32] = before[addr : addr + 32]
    assert bytes(after) == before
    return boot.index, entries_of(flash), written


@pytest.mark.parametrize("turn", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rollback", [True, False], ids=["rollback", "no rollback"])
def test_every_pair_of_entries_boots_and_is_rewritten_as_documented(
    turn: str, layout: str, rollback: bool
) -> None:
    cells = table(WITH_ROLLBACK if rollback else WITHOUT_ROLLBACK)
    assert len(cells) == 81
    flash = made(LAYOUTS[layout], ALL if LAYOUTS[layout].factory else {0: 100, 1: 101})
    wrong: dict[str, object] = {}
    for (first, second), cell in cells.items():
        seqs = ORDERS[turn]
        put_entries(flash, (entry(first, seqs[0]), entry(second, seqs[1])))
        documented = expected((first, second), cell, turn, "factory" in layout, rollback)
        found = result(flash, LAYOUTS[layout], rollback)
        if found != documented:
            wrong[first + second] = (documented, found)
    assert not wrong


# number of slots, start, what is tried
ATTEMPTS = [
    (2, FACTORY, [FACTORY, 0, 1, TEST]),
    (2, 0, [0, FACTORY, 1, TEST]),
    (2, 1, [1, 0, FACTORY, TEST]),
    (4, 2, [2, 1, 0, FACTORY, 3, TEST]),
]


@pytest.mark.parametrize(("count", "start", "tried"), ATTEMPTS)
def test_images_are_tried_downwards_then_upwards(count: int, start: int, tried: list[int]) -> None:
    assert list(order(start, count)) == tried


# layout, slots with a good image, state of entry 0 (slot 1, sequence 2), what boots, refused
FALLBACKS = [
    (TWO, {0, 1}, VALID, 1, ()),
    (TWO, {0}, VALID, 0, (1,)),
    (TWO, {0}, NEW, 0, (1,)),
    (WITH_FACTORY, {FACTORY}, VALID, FACTORY, (1, 0)),
    (WITH_FACTORY, {FACTORY, 0}, NEW, 0, (1,)),
    (THREE, {2}, VALID, 2, (1, 0)),
]


@pytest.mark.parametrize(("layout", "good", "state", "index", "refused"), FALLBACKS)
def test_a_broken_image_gives_way_to_the_next(
    layout: Layout, good: set[int], state: State, index: int, refused: tuple[int, ...]
) -> None:
    flash = made(layout, {slot: 100 + slot for slot in good})
    put_entries(flash, (Entry.made(2, state), None))
    boot = Bootloader(flash, layout).boot()
    assert boot.index == index
    assert boot.refused == tuple((slot, "magic") for slot in refused)
    # The entry is spent all the same: the state is written before the image is looked at.
    assert entries_of(flash)[0].state == (PENDING if state == NEW else state)


def test_the_first_record_names_the_slot_that_boots() -> None:
    flash = made(TWO, {1: 101})
    assert Bootloader(flash, TWO).boot().index == 1
    assert entries_of(flash) == (Entry.made(2, VALID), BLANK)
    operations = flash.operations
    assert Bootloader(flash, TWO).boot().index == 1
    assert flash.operations == operations


def test_a_torn_first_record_is_never_mended() -> None:
    flash = made(TWO, {0: 100, 1: 101})
    torn = Entry(1, VALID, 0xFFFFFFFF)
    put_entries(flash, (torn, None))
    for _ in range(2):
        assert Bootloader(flash, TWO).boot().index == 0
        assert entries_of(flash) == (torn, BLANK)


def test_a_sequence_counts_modulo_the_slots() -> None:
    flash = made(THREE, {0: 100, 1: 101, 2: 102})
    for seq, slot in ((1, 0), (2, 1), (3, 2), (4, 0), (300, 2), (0, 0)):
        put_entries(flash, (Entry.made(seq, VALID), None))
        assert Bootloader(flash, THREE).boot().index == slot


def test_the_test_image_is_the_last_resort() -> None:
    layout = Layout(OTADATA, TWO.ota, FACTORY_REGION, TEST_REGION)
    flash = made(layout, {TEST: 98})
    boot = Bootloader(flash, layout).boot()
    assert boot.index == TEST
    assert boot.refused == ((FACTORY, "magic"), (0, "magic"), (1, "magic"))


def test_without_any_image_nothing_boots_and_nothing_is_recorded() -> None:
    flash = made(TWO, {})
    before = bytes(flash.view(0, SIZE))
    with pytest.raises(BootError) as caught:
        Bootloader(flash, TWO).boot()
    assert (caught.value.code, caught.value.refused) == (
        "nothing-boots",
        ((0, "magic"), (1, "magic")),
    )
    assert bytes(flash.view(0, SIZE)) == before


def test_without_otadata_the_factory_image_boots() -> None:
    layout = Layout(None, TWO.ota, FACTORY_REGION)
    assert Bootloader(made(layout, ALL), layout).boot().index == FACTORY


def test_without_slots_otadata_is_not_asked() -> None:
    layout = Layout(OTADATA, (), FACTORY_REGION)
    flash = made(layout, {FACTORY: 99})
    put_entries(flash, (Entry.made(1, VALID), None))
    assert Bootloader(flash, layout).boot().index == FACTORY


def test_too_small_an_otadata_boots_nothing() -> None:
    layout = Layout(Region(OTADATA.offset, SECTOR), TWO.ota, FACTORY_REGION)
    with pytest.raises(BootError) as caught:
        Bootloader(made(layout, ALL), layout).boot()
    assert caught.value.code == "otadata-size"


def test_a_pending_image_boots_once() -> None:
    flash = made(TWO, {0: 100, 1: 101})
    put_entries(flash, (Entry.made(1, VALID), Entry.made(2, NEW)))
    booted = [Bootloader(flash, TWO).boot().index for _ in range(4)]
    assert booted == [1, 0, 0, 0]
    assert entries_of(flash)[1].state == State.ABORTED


# Only INVALID and ABORTED keep an image from booting, and the CRC does not cover the state: one
# that is neither, from a write that was cut off, boots its image without end.
@pytest.mark.parametrize("state", [5, 0xFFFFFF04, 0xFFFFFF01, 0xFFFFFFFF])
def test_a_state_that_is_none_boots_for_ever(state: int) -> None:
    flash = made(TWO, {0: 100, 1: 101})
    put_entries(flash, (Entry.made(1, VALID), Entry.made(2, state)))
    operations = flash.operations
    assert [Bootloader(flash, TWO).boot().index for _ in range(3)] == [1, 1, 1]
    assert flash.operations == operations


def test_a_failed_image_boots_for_ever_when_it_is_the_default() -> None:
    flash = made(TWO, {0: 100, 1: 101})
    put_entries(flash, (Entry.made(5, State.ABORTED), Entry.made(4, State.ABORTED)))
    assert [Bootloader(flash, TWO).boot().index for _ in range(3)] == [0, 0, 0]
    put(flash, TWO.ota[0], b"\0" * 64)
    assert Bootloader(flash, TWO).boot().index == 1
