"""Exhaustive search over power cuts, torn cells and unstable reads, through the real code.

A scenario is a sequence of boots over one small NOR flash with weak cells (nor.py). Each boot runs
the same work; the power fails before or within any of its flash operations, or not at all; and at
the start of each boot every interrupted operation of the past reads as if it had not begun, as if
it had been completed, as junk, or half and half, independently of the boots before. The search
enumerates all of that up to a number of cuts, and asks the model after each boot, under every
reading, whether a promise was broken.

A violation prints what replays its scenario alone: TIDEMARK_STORY names the search of the test, by
number, and each boot: what the weak cells read as, by interrupted operation, and the cut.

A cut just after an operation is left out on purpose: its flash is that of a cut before the next
operation, or of no cut, and there the code under test has promised at least as much.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import nor


class Model(Protocol):
    """What was promised so far. `boot` works and records promises, `check` compares."""

    def copy(self) -> Model: ...

    def key(self) -> object: ...

    def boot(self, flash: nor.NorFlash) -> None: ...

    def check(self, flash: nor.NorFlash) -> None: ...


class Violation(AssertionError):
    """A broken promise, with the scenario that leads to it."""


@dataclass
class Result:
    """What a search saw."""

    boots: int = 0
    cuts: int = 0
    states: int = 0


@dataclass
class _State:
    flash: tuple[object, ...]
    model: Model
    cuts: int
    boots: int
    story: tuple[str, ...] = field(default=())


_LETTERS = {"o": nor.OLD, "n": nor.NEW, "j": nor.JUNK, "m": nor.MIXED}
_CUTS = {"": "", "b": nor.BEFORE, "t": nor.TORN}
_ENOUGH = 1 << 30  # cuts, for whoever asks how many there were
_begun: dict[str, int] = {}  # searches, by test


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


def _replayed(flash: nor.NorFlash, model: Model, story: str, result: Result) -> None:
    """Run the boots of one story; the last step may be a check."""
    state = _State(flash.snapshot(), model, 0, 0)
    for step in story.split("/"):
        letters, _, cut = step.partition(":")
        flash.restore(state.flash)
        names = [_LETTERS[letter] for letter in letters]
        told = dict(zip(flash.weak_groups(), names, strict=True))
        if cut == "?":
            _checked(flash, state, told)
            continue
        at = int(cut[1:] or -1)
        state = _run(flash, state, told, at, _CUTS[cut[:1]], result)


def search(
    flash: nor.NorFlash,
    model: Model,
    cuts: int,
    boots: int,
    readings: Sequence[str] = nor.READINGS,
) -> Result:
    """Run every scenario of at most `cuts` power cuts in `boots` boots from the flash as it is.

    Raises Violation with the boots, readings and cuts of the first scenario that breaks a promise.
    """
    result = Result()
    test = _test()
    _begun[test] = _begun.get(test, 0) + 1
    wanted, _, story = os.environ.get("TIDEMARK_STORY", "").partition("/")
    if wanted:
        if int(wanted) == _begun[test]:
            _replayed(flash, model, story, result)
        return Result(cuts=_ENOUGH)
    seen: set[object] = set()
    stack = [_State(flash.snapshot(), model, cuts, boots)]
    while stack:
        state = stack.pop()
        key = (state.flash, state.model.key(), state.cuts, state.boots)
        if key in seen:
            continue
        seen.add(key)
        flash.restore(state.flash)
        groups = flash.weak_groups()
        for choice in itertools.product(readings, repeat=len(groups)):
            told = dict(zip(groups, choice, strict=True))

            def run(at: int = -1, variant: str = "", told: dict[int, str] = told) -> _State:
                return _run(flash, state, told, at, variant, result)  # noqa: B023

            _checked(flash, state, told)
            if not state.boots:
                continue
            before = flash.operations
            clean = run()
            count = flash.operations - before
            stack.append(clean)
            if state.cuts:
                for at in range(count):
                    stack.append(run(at, nor.BEFORE))
                    stack.append(run(at, nor.TORN))
    result.states = len(seen)
    return result


def _checked(flash: nor.NorFlash, state: _State, told: dict[int, str]) -> None:
    flash.restore(state.flash)
    flash.power_up(told)
    _guarded(lambda: state.model.copy().check(flash), (*state.story, f"{_letters(told)}:?"))


def _run(
    flash: nor.NorFlash, state: _State, told: dict[int, str], at: int, variant: str, result: Result
) -> _State:
    flash.restore(state.flash)
    flash.power_up(told)
    model = state.model.copy()
    cut = f"{variant[0]}{at}" if variant else ""
    story = (*state.story, f"{_letters(told)}:{cut}")
    if variant:
        flash.plan_cut(at, variant)
        result.cuts += 1
    result.boots += 1
    with contextlib.suppress(nor.PowerCut):
        _guarded(lambda: model.boot(flash), story)
    flash.no_cut()
    # The values that weak cells have between boots mean nothing: one form for all of them.
    flash.power_up({})
    return _State(flash.snapshot(), model, state.cuts - bool(variant), state.boots - 1, story)


def _guarded(act: Callable[[], None], story: tuple[str, ...]) -> None:
    try:
        act()
    except Exception as error:
        test = _test()
        path = "/".join((str(_begun.get(test, 0)), *story))
        command = f"TIDEMARK_STORY='{path}' .venv/bin/pytest '{test}'"
        raise Violation(f"{type(error).__name__}: {error}\n  {command}") from error


def _letters(told: dict[int, str]) -> str:
    return "".join(told[group][0] for group in sorted(told))
