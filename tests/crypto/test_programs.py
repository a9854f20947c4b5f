"""What the programs of the field engines must not do, whatever engine runs them."""

from __future__ import annotations

import pytest

from tidemark_host.cryptogen import programs

CODE, NUMBERS = programs.code()


def _operations(name: str) -> list[int]:
    at = int.from_bytes(CODE[2 * NUMBERS[name] :][:2], "little")
    operations: list[int] = []
    while CODE[at] != programs.END:
        operations.append(CODE[at])
        at += 4
    return operations


@pytest.mark.parametrize("name", ["COMB_STEP", "LADDER_STEP"])
def test_programs_that_take_a_secret_argument_read_no_table_by_it(name: str) -> None:
    operations = _operations(name)
    assert programs.FETCH not in operations
    assert programs.SELECT in operations


def test_signing_reads_all_entries_of_the_comb() -> None:
    assert _operations("COMB_STEP").count(programs.LOOKUP) == 1


def test_program_that_could_overflow_is_refused() -> None:
    program = programs.Program()
    program.add("A", "X", "Y")
    program.add("A", "A", "A")
    with pytest.raises(ValueError, match="overflows"):
        program.mul("B", "A", "A")
    with pytest.raises(ValueError, match="overflows"):
        program.sqr("B", "A")
