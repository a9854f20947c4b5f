"""Power fails at flash operations: no counter comes twice, no image is lost.

A sample; tests/powercut searches all of them in the state machines' model.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import once_each
from tidemark_host.hil.site import Site

pytestmark = pytest.mark.needs("cut")


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([(1, "before"), (4, "torn")], marks=pytest.mark.smoke),
        [(2, "torn"), (7, "torn")],
        [(3, "after"), (9, "after")],
    ],
    ids=lambda cuts: "-".join(f"{n}{variant}" for n, variant in cuts),
)
async def test_cuts_while_a_boot_recovers_and_opens_its_counter(
    site: Site, cuts: list[tuple[int, str]]
) -> None:
    for n, variant in cuts:
        await asyncio.to_thread(site.board.power_off)
        boots = site.boots()
        site.board.cut_at(n, variant)
        await asyncio.to_thread(site.board.power_on)
        await asyncio.to_thread(site.board.wait_cut, 20 * site.target.patience)
        await asyncio.to_thread(site.board.power_on)
        await site.heard(boots)
    await site.until("readings of this boot", lambda: len(site.readings()) > 20)
    once_each(site)
    epochs = list(dict.fromkeys(epoch for epoch, seq in site.counters() if seq & 3 == 0))
    assert epochs == sorted(epochs)


@pytest.mark.needs("operations")
@pytest.mark.parametrize("beyond", [-2, 1, 3, 5, 8])
async def test_cut_around_the_commit_of_a_slot(site: Site, beyond: int) -> None:
    slot = site.definition.regions["slot_b"]
    first = len(site.board.operations)
    index = await site.publish("1.1.0")
    size = site.repository.target_path(site.definition.name, index).stat().st_size
    pages = -(-size // site.definition.page)

    def begun() -> bool:
        operations = list(site.board.operations)[first:]
        return any(slot.offset <= op.address < slot.end for op in operations)

    await site.until("the download", begun, 60, 0.005)
    done = sum(
        op.kind == "program" and slot.offset <= op.address < slot.end
        for op in list(site.board.operations)[first:]
    )
    # Near the last pages; what else is written meanwhile moves it by a few operations.
    await site.cut(max(1, pages - done + beyond), "torn" if beyond % 2 else "after", 60)
    await asyncio.to_thread(site.board.power_on)
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    data = site.repository.target_path(site.definition.name, index).read_bytes()
    assert await asyncio.to_thread(site.slot_bytes, "slot_b", len(data)) == data
    once_each(site)


@pytest.mark.parametrize(
    ("n", "variant"), [(2, "torn"), (5, "after"), (8, "before"), (11, "torn"), (14, "after")]
)
async def test_cut_around_trial_and_confirmation(site: Site, n: int, variant: str) -> None:
    since = len(site.board.serial_log)
    index = await site.publish("1.1.0")
    await site.said("update staged", 60, since)
    await site.cut(n, variant)
    await asyncio.to_thread(site.board.power_on)
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    await site.claimed(floor=index)
    data = site.repository.target_path(site.definition.name, index).read_bytes()
    assert await asyncio.to_thread(site.slot_bytes, "slot_b", len(data)) == data


async def test_sudden_loss_of_power_between_operations(site: Site) -> None:
    for _ in range(3):
        boots = site.boots()
        assert await site.power_cycle() == "power"
        await site.heard(boots)
    once_each(site)
