"""The stock mpremote on a running board: no watchdog reset, no trial decided by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.system.steps import (
    CTRL_C,
    at_repl,
    causes_since,
    downloading,
    last_record,
    mpremote,
    on_trial,
    slow_mirror,
    type_on_console,
    unhurried,
)
from tidemark_host.hil.site import Site


def watchdogs(site: Site) -> int:
    return sum(reset.cause == "watchdog" for reset in site.board.resets)


@pytest.mark.smoke
async def test_mpremote_runs_code_lists_files_and_soft_resets_a_running_board(site: Site) -> None:
    last = last_record(site)
    out = await mpremote(site, "exec", "import sys; print(sys.platform, 6 * 7)")
    assert out.split()[-1] == "42"
    assert "tuf" in await mpremote(site, "fs", "ls")
    await mpremote(site, "resume", "exec", "kept = 17")
    assert (await mpremote(site, "resume", "exec", "print(kept)")).strip() == "17"
    await mpremote(site, "soft-reset")
    assert watchdogs(site) == 0
    boots = site.boots()
    await asyncio.to_thread(site.board.reset)
    claims = await site.heard(boots)
    assert claims["mode"] == "normal"
    assert watchdogs(site) == 0
    # Not every board shows the bench why it started; each records it.
    assert "watchdog" not in await causes_since(site, last)


async def test_files_go_both_ways_while_the_lease_feeds(site: Site, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent.bin", tmp_path / "back.bin"
    sent.write_bytes(bytes(range(256)) * 8)
    await mpremote(site, "fs", "cp", str(sent), ":sent.bin")
    await mpremote(site, "resume", "fs", "cp", ":sent.bin", str(back))
    assert back.read_bytes() == sent.read_bytes()
    assert watchdogs(site) == 0


async def test_console_during_a_trial_decides_nothing_and_the_trial_goes_on(site: Site) -> None:
    await unhurried(site)
    since = len(site.board.serial_log)
    index = await site.publish("1.1.0")
    await on_trial(site, index, since)
    said = len(site.board.serial_log)
    # Before the trial is decided; the lease then gives mpremote all the time it takes.
    await type_on_console(site, CTRL_C, "stopped from the console")
    out = await mpremote(
        site, "exec", "from tidemark import stage0; print('slots', stage0.base.slots.table())"
    )
    assert f"[3, {index}, 0]" in out, "the trial is neither confirmed nor rejected"
    assert "tuf" in await mpremote(site, "resume", "fs", "ls")
    await mpremote(site, "soft-reset")
    texts = [line.text for line in list(site.board.serial_log)[said:]]
    assert not any("confirmed" in text or "rejected" in text for text in texts)
    assert watchdogs(site) == 0
    await site.power_cycle()
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")


async def test_raw_repl_boot_runs_no_application_and_starts_no_trial(site: Site) -> None:
    since = len(site.board.serial_log)
    slow_mirror(site)
    await site.publish("1.1.0", table=48 * 1024)
    await downloading(site)
    # Nobody acknowledges the report of the outcome: the board waits 5 s before it resets.
    await site.kill_gateway()
    site.mirror.bytes_per_s = None
    await site.said("update staged", 60, since)
    said = len(site.board.serial_log)
    code = "from tidemark import stage0; print(stage0.base.slots.table())"
    table = await at_repl(site, code, soft_reset=True)
    assert "[2, 2, 0]" in table, "staged, not tried"
    texts = [line.text for line in list(site.board.serial_log)[said:]]
    assert not any("trial" in text for text in texts)
