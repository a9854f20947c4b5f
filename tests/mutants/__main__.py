"""`python -m tests.mutants [ID...]`: run the mutants and print who notices each.

`--table` runs nothing: it writes the table of docs/reliability.md and prints it.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.table import Table

from tests.mutants import engine, table


def main(wanted: list[str]) -> int:
    """Check the named mutants (all without names); return 0 only if each is noticed."""
    mutants = engine.load()
    if wanted == ["--table"]:
        made = table.text(table.load(), mutants)
        table.PAGE.write_text(table.put(table.PAGE.read_text(), made))
        print(made, end="")
        return 0
    shown = Table("mutant", "rule removed", "noticed by", "s")
    survivors = 0
    if unknown := set(wanted) - {mutant.id for mutant in mutants}:
        print(f"no such mutant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    for mutant in mutants:
        if wanted and mutant.id not in wanted:
            continue
        began = time.monotonic()
        try:
            noticed = engine.check(mutant)
        except engine.MutantError as error:
            survivors += 1
            noticed = f"NOT NOTICED: {str(error).splitlines()[0]}"
            print(error, file=sys.stderr)
        shown.add_row(mutant.id, mutant.rule, noticed, f"{time.monotonic() - began:.1f}")
    Console().print(shown)
    return 1 if survivors else 0


sys.exit(main(sys.argv[1:]))
