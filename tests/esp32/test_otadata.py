"""otadata's entries, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.esp32.tiny import OTADATA, SIZE
from tidemark_host.boards.nor import NorFlash, PowerCut
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.flash import SECTOR, Region
from tidemark_host.esp32.otadata import BLANK, NO_SEQ, Entry, OtadataError, State

U32 = st.integers(0, 0xFFFFFFFF)

# What real boards print and keep: ESP-IDF's log of otadata after a first and a second update.
WRITTEN = [
    (1, State.VALID, "01000000" + "ff" * 20 + "02000000" + "9a984347"),
    (2, State.NEW, "02000000" + "ff" * 20 + "00000000" + "7437f655"),
    (1, State.UNDEFINED, "01000000" + "ff" * 20 + "ffffffff" + "9a984347"),
]


@pytest.mark.parametrize(("seq", "state", "data"), WRITTEN)
def test_an_entry_has_the_bytes_of_a_real_board(seq: int, state: State, data: str) -> None:
    assert Entry.made(seq, state).encode() == bytes.fromhex(data)
    assert Entry.decode(bytes.fromhex(data)) == Entry.made(seq, state)


@given(data=st.binary(min_size=32, max_size=32))
def test_any_bytes_are_an_entry_and_come_back(data: bytes) -> None:
    entry = Entry.decode(data)
    assert entry.encode() == data
    # Never both: an entry that may be chosen has said something and is not given up.
    assert not (entry.is_valid and (entry.is_initial or entry.is_invalid))


def test_an_entry_needs_its_32_bytes() -> None:
    with pytest.raises(OtadataError) as caught:
        Entry.decode(bytes(31))
    assert caught.value.code == "size"


# state, whether an entry with it and a right CRC may be chosen
CHOSEN = [
    (State.NEW, True),
    (State.PENDING_VERIFY, True),
    (State.VALID, True),
    (State.INVALID, False),
    (State.ABORTED, False),
    (State.UNDEFINED, True),
    (5, True),  # no state at all: only two are looked for
    (0xFFFFFF04, True),  # an ABORTED that was torn
]


@pytest.mark.parametrize(("state", "may_boot"), CHOSEN)
def test_the_state_decides_only_when_it_is_invalid_or_aborted(state: int, may_boot: bool) -> None:
    assert Entry.made(7, state).is_valid is may_boot
    assert Entry.made(7, state).is_invalid is not may_boot


def test_a_torn_entry_is_neither_valid_nor_invalid() -> None:
    torn = Entry(7, State.VALID, 0)
    assert (torn.is_valid, torn.is_invalid, torn.is_initial) == (False, False, True)


def test_an_erased_entry_is_invalid_and_its_crc_is_wrong() -> None:
    assert (BLANK.is_valid, BLANK.is_invalid, BLANK.is_initial) == (False, True, True)
    assert not BLANK.has_crc


# sequences of entries 0 and 1, the one in charge
IN_CHARGE = [((1, 2), 1), ((3, 2), 0), ((2, 2), 0), ((0x80000000, 1), 0), ((0, 1), 1)]


@pytest.mark.parametrize(("seqs", "index"), IN_CHARGE)
def test_the_higher_sequence_is_in_charge(seqs: tuple[int, int], index: int) -> None:
    assert otadata.active([Entry.made(seq, State.VALID) for seq in seqs]) == index


# sequence, number of slots, slot
SLOTS = [(1, 2, 0), (2, 2, 1), (3, 2, 0), (6, 3, 2), (7, 3, 0), (0, 2, 1), (0, 3, 0)]


@pytest.mark.parametrize(("seq", "count", "slot"), SLOTS)
def test_a_sequence_names_a_slot(seq: int, count: int, slot: int) -> None:
    assert otadata.slot_of(seq, count) == slot


# sequence in charge, slot asked for, number of slots, sequence written
NEXT = [(1, 1, 2, 2), (2, 0, 2, 3), (1, 0, 2, 1), (5, 2, 3, 6), (5, 0, 3, 7), (6, 2, 3, 6)]
NEXT += [(4, 7, 8, 8), (5, 6, 8, 7), (9, 7, 8, 16), (0, 1, 2, 0), (1, 0, 1, 1)]


@pytest.mark.parametrize(("seq", "slot", "count", "written"), NEXT)
def test_the_next_sequence_is_the_least_that_names_the_slot(
    seq: int, slot: int, count: int, written: int
) -> None:
    assert otadata.next_seq(seq, slot, count) == written


@given(seq=U32, count=st.integers(1, 16), data=st.data())
def test_the_next_sequence_never_goes_back(seq: int, count: int, data: st.DataObject) -> None:
    slot = data.draw(st.integers(0, count - 1))
    if seq + count > NO_SEQ:
        return
    found = otadata.next_seq(seq, slot, count)
    assert seq <= found < seq + count
    assert otadata.slot_of(found, count) == slot or found == 0


def test_the_last_sequence_is_refused() -> None:
    with pytest.raises(OtadataError) as caught:
        otadata.next_seq(NO_SEQ - 1, 0, 2)
    assert caught.value.code == "sequence"


def test_a_partition_of_one_sector_is_refused() -> None:
    with pytest.raises(OtadataError) as caught:
        otadata.read(NorFlash(SIZE), Region(SECTOR, SECTOR))
    assert caught.value.code == "size"


def test_a_write_is_an_erase_then_a_program_of_its_own_sector() -> None:
    flash = NorFlash(SIZE)
    flash.program(OTADATA.offset + SECTOR, bytes(256))
    flash.program(OTADATA.offset + SECTOR + 256, bytes(256))
    otadata.write(flash, OTADATA, 0, Entry.made(1, State.VALID))
    assert (flash.erases, flash.programs) == (1, 3)
    flash.plan_cut(0, "after")
    with pytest.raises(PowerCut):
        otadata.write(flash, OTADATA, 1, Entry.made(2, State.NEW))
    # The whole sector is gone, and the entry is not there yet.
    assert bytes(flash.view(OTADATA.offset + SECTOR, SECTOR)) == b"\xff" * SECTOR
    assert otadata.read(flash, OTADATA) == [Entry.made(1, State.VALID), BLANK]
