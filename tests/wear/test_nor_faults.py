"""The flash model's worn sectors do what their fault says, and the healthy ones nothing else."""

from __future__ import annotations

import pytest

import nor
from tidemark.errors import FlashError

SECTOR = 512
PAGE = 64
DATA = bytes(range(1, 65))


def _flash() -> nor.NorFlash:
    return nor.NorFlash(4 * SECTOR, sector=SECTOR, page=PAGE)


def _programmed(kind: str, **more: int) -> bytes:
    flash = _flash()
    flash.fail(1, kind, **more)
    flash.program(SECTOR, DATA)
    return bytes(flash.view(SECTOR, PAGE))


def test_a_sector_without_programs_stays_blank_and_says_nothing() -> None:
    for kind in (nor.NO_PROGRAM, nor.DEAD):
        assert _programmed(kind) == b"\xff" * PAGE


def test_a_sector_without_erases_keeps_its_bytes() -> None:
    for kind in (nor.NO_ERASE, nor.DEAD):
        flash = _flash()
        flash.program(SECTOR, DATA)
        flash.fail(1, kind)
        flash.erase(SECTOR)
        assert bytes(flash.view(SECTOR, PAGE)) == DATA
        assert flash.erase_counts == [0, 1, 0, 0]


def test_a_weak_program_sets_too_few_bits_and_never_one_too_many() -> None:
    found = _programmed(nor.FEW_BITS)
    assert found != DATA
    assert all(cell & want == want for cell, want in zip(found, DATA, strict=True))


def test_a_driver_that_reports_an_error_has_done_half_or_nothing() -> None:
    flash = _flash()
    flash.program(SECTOR, DATA)
    flash.fail(1, nor.IO)
    with pytest.raises(FlashError, match="flash-io"):
        flash.erase(SECTOR)
    assert bytes(flash.view(SECTOR, PAGE)) == DATA
    with pytest.raises(FlashError, match="flash-io"):
        flash.program(SECTOR + PAGE, DATA)
    found = bytes(flash.view(SECTOR + PAGE, PAGE))
    assert found not in (DATA, b"\xff" * PAGE)
    assert all(cell & want == want for cell, want in zip(found, DATA, strict=True))
    flash.plan_cut(0, nor.AFTER)
    with pytest.raises(nor.PowerCut):
        flash.erase(SECTOR)


def test_stuck_bits_are_single_ones() -> None:
    one = _programmed(nor.STUCK_1)
    wrong = [i for i in range(PAGE) if one[i] != DATA[i]]
    assert 0 < len(wrong) <= PAGE // 7 + 1
    flash = _flash()
    flash.fail(1, nor.STUCK_0, at=(9,))
    flash.erase(SECTOR)
    sector = bytes(flash.view(SECTOR, SECTOR))
    assert [i for i in range(SECTOR) if sector[i] != 0xFF] == [9]


def test_a_fault_begins_with_its_erase_and_stays() -> None:
    flash = _flash()
    flash.fail(1, nor.NO_PROGRAM, after=2)
    found: list[bool] = []
    for _ in range(3):
        flash.erase(SECTOR)
        flash.program(SECTOR, DATA)
        found.append(bytes(flash.view(SECTOR, PAGE)) == DATA)
    assert found == [True, False, False]


def test_a_worn_sector_only_clears_bits_and_a_healthy_one_keeps_the_rule() -> None:
    flash = _flash()
    flash.fail(1, nor.NO_ERASE)
    flash.program(SECTOR, b"\xf0" * PAGE)
    flash.program(SECTOR, b"\x3c" * PAGE)
    assert bytes(flash.view(SECTOR, PAGE)) == b"\x30" * PAGE
    flash.program(0, DATA)
    with pytest.raises(nor.NorError, match="overwrite"):
        flash.program(0, DATA[::-1])


def test_a_cut_before_an_operation_on_a_worn_sector_changes_nothing() -> None:
    flash = _flash()
    flash.program(SECTOR, DATA)
    flash.fail(1, nor.FEW_BITS)
    flash.plan_cut(0, nor.BEFORE)
    with pytest.raises(nor.PowerCut):
        flash.program(SECTOR + PAGE, DATA)
    flash.plan_cut(0, nor.AFTER)
    with pytest.raises(nor.PowerCut):
        flash.erase(SECTOR)
    assert bytes(flash.view(SECTOR, SECTOR)) == b"\xff" * SECTOR
