"""Watchdog, leases, and the evidence that is left of every reset."""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import (
    CTRL_C,
    causes_since,
    from_board,
    last_record,
    leave_hanging,
    type_on_console,
)
from tidemark_host.hil.site import Site

STALL = "import sys\nall(range(1, sys.maxsize))"


@pytest.mark.smoke
async def test_watchdog_brings_a_board_back_that_no_timer_gets_through_to(site: Site) -> None:
    last, boots = last_record(site), site.boots()
    await leave_hanging(site, STALL)
    claims = await site.heard(boots)
    # The console had the board: its marker is the reason, the watchdog the cause.
    assert claims["mode"] == "normal"
    assert claims["reset-cause"] in ("lease", "watchdog")
    assert (await causes_since(site, last))[-1] == "watchdog"


async def test_console_stops_the_application_under_a_lease_that_feeds(site: Site) -> None:
    resets = len(site.board.resets)
    await type_on_console(site, CTRL_C, "stopped from the console")
    begin = await from_board(site, "stage0.base.uptime_ms()")
    patience = site.definition.constants["WATCHDOG_MS"] + 1000
    while await from_board(site, "stage0.base.uptime_ms()") < begin + patience:
        assert len(site.board.resets) == resets, "the watchdog bit a person at the console"
        await asyncio.sleep(0.1)


async def test_end_of_a_lease_resets_into_the_application_and_says_so(site: Site) -> None:
    boots = site.boots()
    await from_board(site, "stage0.base.supervisor.lease(500, 'lease')")
    claims = await site.heard(boots)
    assert (claims["mode"], claims["reset-cause"]) == ("normal", "lease")


async def test_every_reset_leaves_its_record_in_an_unbroken_chain(site: Site) -> None:
    last = last_record(site)
    boots = site.boots()
    await asyncio.to_thread(site.board.reset)
    await site.heard(boots)
    boots = site.boots()
    await leave_hanging(site, STALL)
    await site.heard(boots)
    boots = site.boots()
    how = await site.power_cycle()
    claims = await site.heard(boots)
    events = await asyncio.to_thread(site.evidence)
    assert [event.number for event in events] == list(
        range(events[0].number, events[-1].number + 1)
    )
    assert all(event.chained for event in events)
    pin, *others = (
        event.cause for event in events if event.code == "boot" and event.number > last
    )
    # A pin that clears all registers too, as the RP2040's RUN, can't be told from the supply.
    assert pin in ("reset", "power-on")
    assert others == ["watchdog", "power-on" if how == "power" else pin]
    # What the board says of its ring is what the flash holds, give or take what came since.
    assert events[0].number <= claims["evidence-head"][0] <= events[-1].number
