"""Power cuts at every flash operation of a scenario, in every variant, and within what follows.

A scenario runs once. Ahead of each flash operation the process forks for each variant: the child
loses its power there, switches on again and drives the scenario to its end, and is judged. So no
cut pays for what led to it; cuts within the recovery are forks of that child. Nothing here is
timed or random but for a seed: a path of cuts names a run, and replays it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.powercut import variants
from tests.powercut.broken import Broken
from tests.powercut.scenarios import SCENARIOS, Scenario
from tests.powercut.setting import Setting
from tests.powercut.variants import Variant
from tests.powercut.world import World
from tidemark_host.boards.nor import PowerCut

SEED = b"tidemark"
_SEED = "seed:"  # of a path that dice make: seed, most cuts, operations of a clean run
_WRONG_MAX = 20  # violations kept of a run
Plan = Iterator[tuple[int, Callable[[list[Variant]], Variant]]]  # operation, and how it fails


@dataclass
class Result:
    """`states`: cuts after which the board was switched on and judged. `wrong`: (path, why)."""

    states: int = 0
    boots: int = 0
    operations: int = 0  # of the run without a cut
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Take the counts of another."""
        self.states += other.states
        self.boots += other.boots
        self.wrong = (self.wrong + other.wrong)[:_WRONG_MAX]


@dataclass(frozen=True)
class Shard:
    """A part of a run's cuts: each `count`-th from `number` on. `thin`: of those, each n-th."""

    number: int = 0
    count: int = 1
    thin: int = 1

    def has(self, index: int) -> bool:
        """Say whether the cut of this index is of this part."""
        at, rest = divmod(index, self.thin)
        return rest == at % self.thin and at % self.count == self.number


Progress = Callable[[int], None]


def start(setting: Setting, name: str) -> World:
    """Return a world in which the scenario is about to be driven."""
    world = World(setting, SEED, SCENARIOS[name].board)
    SCENARIOS[name].prepare(world)
    world.state()  # what it imports is not imported anew in each fork
    # Forks share what is there: a collection would touch, and so copy, all of it.
    gc.collect()
    gc.freeze()
    gc.disable()
    return world


def exhaust(
    setting: Setting,
    name: str,
    depth: int,
    shard: Shard | None = None,
    progress: Progress = lambda _states: None,
) -> Result:
    """Cut at every operation in every variant, and up to `depth` times on the way to the end."""
    scenario = SCENARIOS[name]
    world = start(setting, name)
    clean = forked(lambda: _clean(world, scenario), name)
    if clean.wrong:  # every cut would only show it again
        world.forget()
        return Result(wrong=[(name, why) for _, why in clean.wrong])
    explorer = _Explorer(scenario, depth, shard or Shard(), progress)
    result = explorer.drive(world, (name,))
    world.forget()
    return result


def _clean(world: World, scenario: Scenario) -> Result:
    world.fork()
    wrong = finish(scenario, world)
    world.forget()
    return Result(wrong=[("", wrong)] if wrong else [])


class _Explorer:
    def __init__(self, scenario: Scenario, depth: int, shard: Shard, progress: Progress) -> None:
        self._scenario = scenario
        self._depth = depth
        self._shard = shard
        self._progress = progress

    def drive(self, world: World, path: tuple[str, ...]) -> Result:
        """Drive a world to its end, with all cuts on the way."""
        result = Result()
        depth = len(path)
        first = world.life.operations
        index = 0
        sent = -1

        def cut(address: int, data: bytes | None) -> None:
            nonlocal index, sent
            number = world.life.operations - first + 1
            told, sent = world.life.sent != sent and number > 1, world.life.sent
            _owe(world)
            ways = variants.of(data, world.board.sector, told)
            for variant in variants.distinct(world.life.nor, address, data, ways):
                index += 1
                if depth == 1 and not self._shard.has(index):
                    continue
                where = (*path, f"{number}:{variant.name}")
                lost = forked(
                    lambda v=variant, w=where: self._lose_power(world, v, w), "/".join(where)
                )
                result.add(lost)
                if depth == 1:
                    self._progress(result.states)

        world.on_operation = cut if depth <= self._depth else _nothing
        boots = world.life.boots
        wrong = finish(self._scenario, world)
        result.operations = world.life.operations - first
        result.boots += world.life.boots - boots
        if wrong:
            result.wrong.insert(0, ("/".join(path), wrong))
        return result

    def _lose_power(self, world: World, variant: Variant, path: tuple[str, ...]) -> Result:
        lose_power(world, variant)
        result = self.drive(world, path)
        result.states += 1
        world.forget()
        return result


def _owe(world: World) -> None:
    """What waits in the outbox now must arrive: nothing of it is weak, and nobody has it yet."""
    if world.life.nor.weak_groups():
        return
    state = world.state()
    device = world.oracle.device
    for epoch, number in state.waiting if state else []:
        if (device, "reading", epoch, number) not in world.oracle.upstream:
            world.oracle.owed.add((epoch, number))


def lose_power(world: World, variant: Variant) -> None:
    """In a forked world that is about to do a flash operation: cut it there."""
    address, data = world.next
    world.fork()
    for group in variant.apply(world.life.nor, address, data):
        world.readings[group] = list(variant.readings)


def finish(scenario: Scenario, world: World) -> str:
    """Drive to the end and judge; return what is wrong, "" when nothing is."""
    try:
        scenario.drive(world)
        world.power_off()
        world.oracle.check(world.life.content)
        while world.unread:
            # What is still weak reads otherwise at the next power-on: nothing may rest on it.
            scenario.drive(world)
            world.power_off()
            world.oracle.check(world.life.content)
        world.on_operation = _nothing
    except PowerCut:
        raise
    except Broken as error:
        return str(error)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({at.name}, line {at.lineno})"
    return ""


def _nothing(_address: int, _data: bytes | None) -> None:
    pass


# -- seeded paths ---------------------------------------------------------------------------------


def wander(setting: Setting, name: str, seeds: range, depth: int, operations: int) -> Result:
    """Up to `depth` cuts in a row, at random from each seed. `operations`: of a clean run."""
    result = Result()
    if not operations:
        return result
    world = start(setting, name)
    world.power_off()
    for seed in seeds:
        path = f"{name}/{_SEED}{seed}.{depth}.{operations}"
        result.add(forked(lambda s=seed: _walk(world, name, s, depth, operations), path))
    world.forget()
    return result


def _walk(world: World, name: str, seed: int, depth: int, operations: int) -> Result:
    world.fork()
    cuts: list[str] = []
    wrong = _follow(world, SCENARIOS[name], _dice(name, seed, depth, operations), cuts)
    result = Result(len(cuts), world.life.boots)
    if wrong:
        result.wrong.append(("/".join((name, *cuts)), wrong))
    world.forget()
    return result


def _dice(name: str, seed: int, depth: int, operations: int) -> Plan:
    dice = random.Random(f"{name} {seed}")
    for _ in range(depth):
        yield dice.randint(1, operations), dice.choice


class _Cut(BaseException):
    """Unwinds a drive at the operation where the power is to fail."""


def _follow(
    world: World,
    scenario: Scenario,
    plan: Plan,
    cuts: list[str],
) -> str:
    """Drive with one cut after another; note them in `cuts`. Returns what is wrong."""
    for number, choose in plan:
        first = world.life.operations

        def cut(_address: int, data: bytes | None, f: int = first, n: int = number) -> None:
            if world.life.operations - f + 1 == n:
                raise _Cut

        world.on_operation = cut
        try:
            return finish(scenario, world)
        except _Cut:
            data = world.next[1]
            variant = choose(variants.of(data, world.board.sector, told=True))
            cuts.append(f"{number}:{variant.name}")
            world.life.stop()
            _owe(world)
            lose_power(world, variant)
    world.on_operation = _nothing
    return finish(scenario, world)


def replay(setting: Setting, path: str, say: Callable[[str], None]) -> str:
    """Run one path of cuts, telling each step; return what is wrong. Raises ValueError."""
    name, *steps = path.split("/")
    if name not in SCENARIOS:
        raise ValueError(f"no scenario {name!r}")
    plan = _plan(name, steps)
    world = start(setting, name)
    world.power_off()
    world.say = say
    wrong = _follow(world, SCENARIOS[name], plan, [])
    world.forget()
    return wrong


def _plan(name: str, steps: list[str]) -> Plan:
    """Return the cuts that the rest of a path names. Raises ValueError."""
    if len(steps) == 1 and steps[0].startswith(_SEED):
        seed, depth, operations = map(int, steps[0].removeprefix(_SEED).split("."))
        if operations < 1:
            raise ValueError("no operation to cut at")
        return _dice(name, seed, depth, operations)
    plan: list[tuple[int, Variant]] = []
    for step in steps:
        number, _, variant = step.partition(":")
        plan.append((int(number), variants.parse(variant)))
    return iter([(n, lambda _all, v=v: v) for n, v in plan])


# -- processes ------------------------------------------------------------------------------------


def forked(work: Callable[[], Result], path: str = "?") -> Result:
    """Do `work` in a child process, so that it leaves no trace here; return its result.

    `path`: what replays it, should it end without one.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            done = work()
        except BaseException:  # it ends here: the parent must not go on twice
            done = Result(wrong=[(path, traceback.format_exc())])
        data = json.dumps([done.states, done.boots, done.wrong]).encode()
        while data:
            data = data[os.write(write, data) :]
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        return Result(wrong=[(path, "a forked world died")])
    states, boots, wrong = json.loads(data)
    return Result(states, boots, wrong=[(path, why) for path, why in wrong])
