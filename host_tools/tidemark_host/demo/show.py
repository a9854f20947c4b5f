"""What a person sees of the demo: each check as it is made, a table at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Failed(Exception):
    """A check did not hold."""


@dataclass
class Check:
    """One statement about the outside world, and whether it held."""

    holds: bool
    text: str


@dataclass
class Step:
    """One step of the main job."""

    number: int
    title: str
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list[Check])
    error: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.checks) and not self.error and all(check.holds for check in self.checks)


class Show:
    """Prints live; with `as_json` only the result, as one JSON object."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, quiet=as_json)
        self.steps: list[Step] = []
        self._begin = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        """One numbered step; an error in it is kept and ends the demo."""
        step = Step(len(self.steps) + 1, title)
        self.steps.append(step)
        self.console.print(f"\n[bold]{step.number}. {escape(title)}[/bold]")
        begin = time.monotonic()
        try:
            yield
        except Failed:
            raise
        except Exception as error:
            step.error = f"{type(error).__name__}: {error}"
            self.console.print(f"   [red]✘ {escape(step.error)}[/red]")
            raise
        finally:
            step.seconds = time.monotonic() - begin

    def say(self, text: str) -> None:
        """What happens now."""
        at = time.monotonic() - self._begin
        self.console.print(f"   [dim]{at:5.1f} s  {escape(text)}[/dim]")

    def check(self, holds: object, text: str) -> None:
        """State what was seen from outside. Raises Failed when it does not hold."""
        self.steps[-1].checks.append(Check(bool(holds), text))
        mark = "[green]✔[/green]" if holds else "[red]✘[/red]"
        self.console.print(f"   {mark} {escape(text)}")
        if not holds:
            raise Failed(text)

    def finish(self, planned: int) -> bool:
        """Print table or JSON; return whether all of `planned` steps hold."""
        good = len(self.steps) == planned and all(step.holds for step in self.steps)
        seconds = time.monotonic() - self._begin
        if self.as_json:
            rows = [{**asdict(step), "holds": step.holds} for step in self.steps]
            print(json.dumps({"holds": good, "seconds": round(seconds, 1), "steps": rows}))
            return good
        table = Table(title="The main job, checked from outside the board", title_justify="left")
        for name in ("step", "what was shown", "checks", "seconds"):
            table.add_column(name, justify="left" if name.startswith("what") else "right")
        for step in self.steps:
            held = sum(check.holds for check in step.checks)
            mark = "[green]✔[/green]" if step.holds else "[red]✘[/red]"
            table.add_row(
                str(step.number), escape(step.title), f"{held} {mark}", f"{step.seconds:.1f}"
            )
        self.console.print()
        self.console.print(table)
        verdict = "[green]all hold[/green]" if good else "[red]not all hold[/red]"
        self.console.print(f"{verdict}, {seconds:.0f} s")
        return good
