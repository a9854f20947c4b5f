"""Each scenario under power cuts: a part of `make powercut` that fits into every run."""

from __future__ import annotations

import os

import pytest

from tests.powercut import explore, variants
from tests.powercut.broken import Broken
from tests.powercut.explore import Shard
from tests.powercut.scenarios import SCENARIOS
from tests.powercut.setting import PLAIN, Setting
from tests.powercut.world import World
from tidemark_host.boards.nor import AFTER, BEFORE, NorFlash

pytestmark = pytest.mark.xdist_group("powercut")
THIN = 6  # only each n-th cut, but of the short scenarios each
THIN_LONG = 12  # of those in which a pair is installed
PATHS = 4  # seeded, up to six cuts in a row


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_cut_breaks_a_promise(setting: Setting, name: str) -> None:
    # In a process of its own: it stops the collector.
    def run() -> explore.Result:
        scenario = SCENARIOS[name]
        thin = 1 if scenario.short else THIN if scenario.board == PLAIN else THIN_LONG
        result = explore.exhaust(setting, name, 1, Shard(0, 1, thin))
        result.add(explore.wander(setting, name, range(PATHS), 6, result.operations))
        return result

    result = explore.forked(run)
    assert not result.wrong, "\n".join(
        f"{why}\n  make powercut REPLAY={path}" for path, why in result.wrong
    )
    assert result.states > 10


@pytest.mark.parametrize("name", [name for name, it in SCENARIOS.items() if it.erases])
def test_scenario_meets_what_it_is_for(setting: Setting, name: str) -> None:
    scenario = SCENARIOS[name]
    world = World(setting, board=scenario.board)
    scenario.prepare(world)
    erased: set[str] = set()

    def note(address: int, data: bytes | None) -> None:
        if data is None:
            erased.update(name for name, start, end in world.places if start <= address < end)

    world.on_operation = note
    scenario.drive(world)
    world.forget()
    assert set(scenario.erases) <= erased


def test_path_is_replayed_as_it_was(setting: Setting) -> None:
    told: list[list[str]] = [[], []]
    for lines in told:
        assert not explore.replay(setting, "confirm/9:weak:jn/14:torn:16.f0", lines.append)
    assert told[0] == told[1]
    assert sum("== power-on" in line for line in told[0]) == 3


@pytest.mark.parametrize(
    "path", ["nowhere", "boot/x:after", "boot/1:burnt", "boot/1:torn:x", "boot/seed:1"]
)
def test_path_that_names_nothing_is_refused(setting: Setting, path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        explore.replay(setting, path, lambda _line: None)


def test_world_that_dies_names_its_cut(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_how: object) -> None:
        os._exit(1)

    def run() -> explore.Result:
        monkeypatch.setattr(explore, "lose_power", die)
        result = explore.exhaust(setting, "boot", 1, Shard(0, 1, 50))
        return explore.Result(wrong=result.wrong + _walked(setting))

    wrong = explore.forked(run).wrong
    assert {why for _, why in wrong} == {"a forked world died"}
    for path, _ in (wrong[0], wrong[-1]):
        assert not explore.replay(setting, path, lambda _line: None)
    assert wrong[-1][0].startswith("boot/seed:7.2.")


def _walked(setting: Setting) -> list[tuple[str, str]]:
    return explore.wander(setting, "boot", range(7, 8), 2, 20).wrong


def test_variants_cover_the_operation_and_are_named() -> None:
    page = b"\xff" * 16 + bytes(range(64)) + b"\xff" * 176
    for data in (page, None):
        found = variants.of(data, 4096, told=True)
        assert {found[0].kind, found[-1].kind} == {BEFORE, AFTER}
        assert [variants.parse(variant.name) for variant in found] == found
        results: set[bytes] = set()
        for variant in found:
            nor = NorFlash(bytearray(b"\xff" * 4096 if data else bytes(4096)))
            variant.apply(nor, 0, data)
            for reading in variant.readings or ("old",):
                nor.power_up(dict.fromkeys(nor.weak_groups(), reading))
                results.add(bytes(nor.view(0, 4096)))
        assert len(results) >= 6
    assert variants.of(page, 4096, told=False)[0].kind != BEFORE


def test_ways_that_leave_the_same_cells_are_tried_once() -> None:
    one_byte = b"\xff" * 100 + b"\x0f" + b"\xff" * 155
    nor = NorFlash(4096)
    before = nor.snapshot()
    ways = variants.of(one_byte, 4096, told=True)
    found = variants.distinct(nor, 0, one_byte, ways)
    assert nor.snapshot() == before
    assert 3 <= len(found) < len(ways)
    # Of a blank sector an erase changes nothing, however it ends.
    assert len(variants.distinct(nor, 0, None, variants.of(None, 4096, told=True))) == 1


def test_judge_sees_a_second_message_under_one_counter(setting: Setting) -> None:
    world = World(setting)
    SCENARIOS["boot"].prepare(world)
    SCENARIOS["boot"].drive(world)
    world.power_off()
    (device, _, _), payload = next(
        (key, value) for key, value in world.oracle.sent.items() if key[2] & 3 == 0
    )
    altered = payload[:-1] + bytes([payload[-1] ^ 1])
    with pytest.raises(Broken, match="I1"):
        world.oracle.left(f"tm/1/{device}/up/telemetry", altered)
    world.forget()
