"""Power cuts through every scenario: `make powercut [SCENARIO=<name>] [REPLAY=<path>]`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import tests.conftest  # the firmware's modules become importable
from tests.powercut import explore, scenarios
from tests.powercut.explore import Result, Shard
from tests.powercut.scenarios import SCENARIOS
from tests.powercut.setting import Setting, make_setting, open_setting

_FOLDER = tests.conftest.REPO / "build" / "powercut"
_DONE = "complete"
_RANDOM_DEPTH = 6
_PATHS = 32  # seeded paths of a scenario
_TELL_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What one run does. `thin`: each n-th cut at depth 1. `paths`: seeded ones a scenario."""

    names: tuple[str, ...]
    deep: bool = True
    thin: int = 1
    paths: int = _PATHS
    seed: int = 0


def main() -> int:
    """Run the command line; 0 when no invariant was broken."""
    parser = argparse.ArgumentParser(prog="make powercut", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--replay", metavar="PATH", help="one run, each step told")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--thin", type=int, default=1, help="only each n-th cut")
    parser.add_argument("--depth", type=int, default=2, choices=(1, 2))
    parser.add_argument("--paths", type=int, default=_PATHS, help="seeded paths a scenario")
    parser.add_argument("--seed", type=int, default=0, help="of the seeded paths")
    options = parser.parse_args()
    names = tuple(options.scenarios) or tuple(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    if options.replay:
        return _replay(_setting(anew=False), options.replay)
    plan = Plan(names, options.depth > 1, options.thin, options.paths, options.seed)
    return _run(_setting(anew=True), plan, max(1, options.jobs), options.json)


def _setting(anew: bool) -> Setting:
    """Return the setting under build/: a replay has the keys and bytes of the run before it."""
    if not anew and (_FOLDER / _DONE).exists():
        return open_setting(_FOLDER)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    setting = make_setting(_FOLDER)
    scenarios.publish(setting)
    (_FOLDER / _DONE).touch()
    return setting


def _replay(setting: Setting, path: str) -> int:
    try:
        wrong = explore.replay(setting, path, print)
    except ValueError as error:
        print(f"powercut: {path!r} can't be replayed: {error}", file=sys.stderr)
        return 2
    print(f"\nBROKEN {wrong}" if wrong else "\nno invariant is broken")
    return 1 if wrong else 0


def _run(setting: Setting, plan: Plan, jobs: int, as_json: bool) -> int:
    began = time.monotonic()
    ends: list[Connection] = []
    workers: list[Any] = []
    context = multiprocessing.get_context("fork")
    for number in range(jobs):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(theirs, setting, plan, number, jobs))
        worker.start()
        theirs.close()
        ends.append(ours)
        workers.append(worker)
    totals = _collect(ends, plan, began)
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        totals["?"] = Result(wrong=[("?", "a worker ended early")])
    states = sum(result.states for result in totals.values())
    wrong = [entry for result in totals.values() for entry in result.wrong]
    seconds = time.monotonic() - began
    if as_json:
        rows = {n: {"states": r.states, "operations": r.operations} for n, r in totals.items()}
        document = {"states": states, "seconds": round(seconds, 1), "scenarios": rows}
        print(json.dumps({**document, "wrong": wrong}, indent=1))
    else:
        _table(totals, states, seconds)
    for path, why in wrong:
        how = f"REPLAY={path}" if path != "?" else f"SCENARIO='{' '.join(plan.names)}'"
        print(f"BROKEN {why}\n  make powercut {how}", file=sys.stderr)
    return 1 if wrong else 0


def _collect(ends: list[Connection], plan: Plan, began: float) -> dict[str, Result]:
    """Add up what the workers send: ("done", name, Result) or ("at", name, states so far)."""
    totals = {name: Result() for name in plan.names}
    at: dict[Connection, tuple[str, int]] = {}
    finished = 0
    told = 0.0
    while ends:
        for end in wait(ends):
            assert isinstance(end, Connection)
            try:
                kind, name, value = end.recv()
            except EOFError:
                ends.remove(end)
                at.pop(end, None)
                continue
            if kind == "at":
                at[end] = (name, value)
                continue
            at.pop(end, None)
            finished += value.states
            totals[name].add(value)
            totals[name].operations = max(totals[name].operations, value.operations)
        now = time.monotonic()
        if now - told > _TELL_S and sys.stderr.isatty():
            told = now
            states = finished + sum(count for _, count in at.values())
            where = ", ".join(sorted({name for name, _ in at.values()}))
            wrong = sum(len(result.wrong) for result in totals.values())
            line = f"{now - began:6.0f} s  {states:7} states  {wrong} broken  {where}"
            print(f"\r{line:78}", end="", file=sys.stderr, flush=True)
    if told:
        print(file=sys.stderr)
    return totals


def _work(end: Connection, setting: Setting, plan: Plan, number: int, count: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        # Board and world take turns: on one core that is a switch, on two a wake-up each time.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    for name in plan.names:
        depth = 2 if plan.deep and SCENARIOS[name].short else 1
        told = 0.0

        def progress(states: int, name: str = name) -> None:
            nonlocal told
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                end.send(("at", name, states))

        result = explore.exhaust(setting, name, depth, Shard(number, count, plan.thin), progress)
        operations = result.operations
        first = plan.seed + number * plan.paths // count
        last = plan.seed + (number + 1) * plan.paths // count
        seeds = range(first, last)
        result.add(explore.wander(setting, name, seeds, _RANDOM_DEPTH, operations))
        end.send(("done", name, result))
    end.close()


def _table(totals: dict[str, Result], states: int, seconds: float) -> None:
    print(f"{'scenario':12}{'operations':>11}{'cut states':>12}  what it is")
    for name, result in totals.items():
        says = SCENARIOS[name].says if name in SCENARIOS else ""
        deep = ", cuts in the recovery too" if name in SCENARIOS and SCENARIOS[name].short else ""
        print(f"{name:12}{result.operations:11}{result.states:12}  {says}{deep}")
    wrong = sum(len(result.wrong) for result in totals.values())
    print(f"{states} cut states in {seconds:.0f} s, {wrong} violations")


if __name__ == "__main__":
    sys.exit(main())
