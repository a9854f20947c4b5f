"""The table of docs/reliability.md is the one that the command makes, and names what exists."""

from __future__ import annotations

import pytest

from tests.mutants import engine, table
from tests.mutants.engine import REPO, MutantError
from tests.mutants.table import Rule


def test_the_pages_table_is_the_commands() -> None:
    made = table.text(table.load(), engine.load())
    assert table.on_page(table.PAGE.read_text()) == made, (
        "docs/reliability.md: .venv/bin/python -m tests.mutants --table"
    )


def test_a_rule_without_its_mutant_is_an_error() -> None:
    for names in ((), ("I1-no-such-mutant",)):
        with pytest.raises(MutantError, match="no mutant"):
            table.text([Rule("counter", "a rule", names)], engine.load())


def test_a_page_keeps_what_is_around_its_table() -> None:
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.put(page, "new\n") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(MutantError, match="no place"):
        table.on_page("no table")


def test_the_tests_that_the_table_names_exist() -> None:
    known = {mutant.id: mutant for mutant in engine.load()}
    for rule in table.load():
        for name in rule.mutants:
            for test in known[name].tests:
                file, _, function = test.partition("::")
                text = (REPO / file).read_text()
                assert f"def {function.partition('[')[0]}(" in text, test


def test_the_cases_that_the_page_names_exist() -> None:
    text = "".join(
        (REPO / "tests" / name).read_text()
        for name in (
            "system/test_cannot_promise.py",
            "system/test_boot_chain.py",
            "wear/test_base_refuses.py",
        )
    )
    page = table.PAGE.read_text().partition(table.BEGIN)[0]
    named = {word for word in page.split("`") if word.startswith("test_") and "." not in word}
    assert len(named) == 14
    assert [name for name in named if f"def {name}(" not in text] == []
