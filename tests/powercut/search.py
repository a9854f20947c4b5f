"""Exhaustive search over power cuts, torn cells and unstable reads, through the real code.

A scenario is a sequence of boots over one small NOR flash with weak cells (nor.py). Each boot runs
the same work; the power fails before or within any of its flash operations, or not at all; and at
the start of each boot every interrupted operation of the past reads as if it had not begun, as if
it had been completed, as junk, or half and half, independently of the boots before. The search
enumerates all of that up to a number of cuts, and asks the model after each boot, under every
reading, whether a promise was broken.

A cut just after an operation is left out on purpose: its flash is that of a cut before the next
operation, or of no cut, and there the code under test has promised at least as much.
"""

from __future__ import annotations

import contextlib
import itertools
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
    _guarded(lambda: state.model.copy().check(flash), (*state.story, f"check {told}"))


def _run(
    flash: nor.NorFlash, state: _State, told: dict[int, str], at: int, variant: str, result: Result
) -> _State:
    flash.restore(state.flash)
    flash.power_up(told)
    model = state.model.copy()
    story = (*state.story, f"boot {told} cut {variant or 'none'} {at if variant else ''}")
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
        raise Violation(f"{type(error).__name__}: {error}\n  " + "\n  ".join(story)) from error
