"""The suites of `tidemark bench`, and the rows that they add."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tidemark_host import bench
from tidemark_host.boards.emulated import Measured

_OWN = ("peers", "registry", "report")


@dataclass(frozen=True)
class Row:
    """One figure. `goal`: it should be at most that, or at least where `at_least` is set.

    `peer`: somebody else's figure, for comparison.
    """

    suite: str
    name: str
    variant: str
    value: float
    unit: str
    goal: float | None = None
    peer: bool = False
    note: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Say whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


@dataclass
class Results:
    """What a suite fills. The order of the calls is that of the table."""

    suite: str
    rows: list[Row] = field(default_factory=list[Row])

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        variant: str = "",
        goal: float | None = None,
        peer: bool = False,
        note: str = "",
        at_least: bool = False,
    ) -> None:
        """Add a row: `name` says what is done, `variant` by which implementation."""
        self.rows.append(Row(self.suite, name, variant, value, unit, goal, peer, note, at_least))

    def add_cycles(
        self,
        measured: Measured,
        *,
        variant: str = "",
        goals: Mapping[str, float] | None = None,
        peer: bool = False,
        note: str = "",
    ) -> None:
        """Add a row in cycles for each measurement of a job; `goals` by the name it has there."""
        for name, cycles in measured.cycles.items():
            goal = (goals or {}).get(name)
            self.add(name, cycles, "cycles", variant=variant, goal=goal, peer=peer, note=note)


Suite = Callable[[Results], None]
_suites: dict[str, Suite] = {}


def suite(name: str) -> Callable[[Suite], Suite]:
    """Register a suite:

    @suite("crypto")
    def crypto(results: Results) -> None:
        measured = measure({"engine.mpy": cross_compile("engine.py", source)}, job)
        results.add_cycles(measured, variant="viper", goals={"verify": 13_750_000})
    """

    def register(function: Suite) -> Suite:
        if name in _suites and _suites[name].__module__ != function.__module__:
            raise ValueError(f"two suites are called {name}")
        _suites[name] = function
        return function

    return register


def suites() -> dict[str, Suite]:
    """Return the suites by name, those of all modules of the package."""
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name not in _OWN:
            importlib.import_module(f"{bench.__name__}.{module.name}")
    return dict(sorted(_suites.items()))
