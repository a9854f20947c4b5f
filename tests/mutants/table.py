"""The table of docs/reliability.md: rule, the mutants that remove it, the tests that notice."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.engine import REPO, Mutant, MutantError

RULES = Path(__file__).with_name("rules.toml")
PAGE = REPO / "docs" / "reliability.md"
BEGIN = "<!-- made by `python -m tests.mutants --table` -->"
END = "<!-- end of what was made -->"


@dataclass(frozen=True)
class Rule:
    """A rule of the design, `of` a part of it, and the names of the mutants that remove it."""

    of: str
    rule: str
    mutants: tuple[str, ...]


def load(path: Path = RULES) -> list[Rule]:
    """Read the list of rules."""
    entries = tomllib.loads(path.read_text())["rule"]
    return [Rule(str(e["of"]), str(e["rule"]), tuple(e["mutants"])) for e in entries]


def text(rules: Sequence[Rule], mutants: Sequence[Mutant]) -> str:
    """Return the table in Markdown. Raises MutantError for a mutant that does not exist."""
    known = {mutant.id: mutant for mutant in mutants}
    lines = ["| of | rule | removed by | noticed by |", "|---|---|---|---|"]
    for rule in rules:
        missing = [name for name in rule.mutants if name not in known]
        if missing or not rule.mutants:
            raise MutantError(f"{rule.rule}: no mutant {missing}")
        for name in rule.mutants:
            first = name == rule.mutants[0]
            tests = "<br>".join(_short(test) for test in known[name].tests)
            shown = (rule.of, rule.rule) if first else ("", "")
            lines.append(f"| {shown[0]} | {shown[1]} | `{name}` | {tests} |")
    return "\n".join(lines) + "\n"


def _short(test: str) -> str:
    """Return a test's file and name, the words between its underscores separate to wrap."""
    file, _, name = test.partition("::")
    place = Path(file)
    return f"{place.parent.name}/{place.name}: {name.removeprefix('test_').replace('_', ' ')}"


def on_page(page: str) -> str:
    """Return the table that the page has. Raises MutantError when its marks are not there."""
    before, begin, rest = page.partition(BEGIN + "\n")
    made, end, after = rest.partition(END)
    if not begin or not end or not before or not after:
        raise MutantError(f"{PAGE.name} has no place for the table")
    return made


def put(page: str, table: str) -> str:
    """Return the page with this table in its place."""
    return page.replace(BEGIN + "\n" + on_page(page) + END, BEGIN + "\n" + table + END)
