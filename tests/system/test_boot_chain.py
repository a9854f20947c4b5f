"""What a board does between reset and hand-over when things are not as they should be."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tidemark_host import provision
from tidemark_host.demo.site import BOARD, HOST, Site, until
from tidemark_host.release import KeyStore, Repository

pytestmark = pytest.mark.timeout(120)

# Every module that stage 0 and the base import, built in or frozen, and both entry points.
HOSTILE = (
    *("_boot", "boot", "main", "os", "time", "json", "hashlib", "binascii", "struct", "socket"),
    *("select", "collections", "math", "gc", "errno", "random", "cryptolib", "micropython", "vfs"),
    *("tidemark", "tidemark_board", "agent", "umqtt", "uctypes", "ffi", "_thread", "asyncio"),
)


def patch(site: Site, region: str, offset: int, data: bytes) -> None:
    """Change the flash of a board that is off, as one with a programmer in hand can."""
    with site.board.flash_path.open("r+b") as flash:
        flash.seek(site.definition.regions[region].offset + offset)
        flash.write(data)


async def test_hostile_files_shadow_no_module_of_the_base(site: Site) -> None:
    def plant() -> None:
        with site.board.repl(soft_reset=True) as console:
            for name in HOSTILE:
                console.exec(f"f = open('/{name}.py', 'w')")
                console.exec("f.write('raise SystemExit'); f.close()")
            assert "umqtt.py" in console.exec("import os; print(os.listdir('/'))")
        site.board.reset()

    first = len(site.readings())
    await asyncio.to_thread(plant)
    await until("readings of the new boot", lambda: len(site.readings()) > first + 20)
    assert (await until("claims", site.claims))["mode"] == "normal"


async def test_console_stops_the_application_under_a_lease_that_feeds(site: Site) -> None:
    resets = len(site.board.resets)
    site.board.send(b"\x03")
    await asyncio.to_thread(site.board.serial_log.wait_for, "stopped from the console")
    patience = time.monotonic() + site.definition.constants["WATCHDOG_MS"] / 1000 + 1
    while time.monotonic() < patience:
        assert len(site.board.resets) == resets, "the watchdog bit a person at the console"
        await asyncio.sleep(0.1)


async def test_raw_repl_boot_runs_no_application_and_starts_no_trial(site: Site) -> None:
    site.release("1.1.0", await asyncio.to_thread(site.image, "v2"))
    await until(
        "the download", lambda: any("/targets/" in path for path, _, _ in site.mirror.requests)
    )
    # Nobody acknowledges the report of the outcome: the board waits 5 s before it resets.
    await site.kill_gateway()
    await asyncio.to_thread(site.board.serial_log.wait_for, "update staged", 30)

    def look() -> str:
        with site.board.repl(soft_reset=True) as console:
            return console.exec("from tidemark import stage0; print(stage0.base.slots.table())")

    marks = len(site.board.serial_log)
    table = await asyncio.to_thread(look)
    assert "[2, 2, 0]" in table, "staged, not tried"
    said = [line.text for line in list(site.board.serial_log)[marks:]]
    assert not any("trial" in line for line in said)


async def test_lost_journal_is_safe_mode_and_nothing_is_sent(site: Site) -> None:
    await asyncio.to_thread(site.board.power_off)
    journal = site.definition.regions["journal"]
    patch(site, "journal", 0, b"\xff" * journal.size)
    hellos = len(site.capture.of(site.id, "hello"))
    epochs = {epoch for epoch, _ in site.counters()}
    marks = len(site.board.serial_log)
    await asyncio.to_thread(site.board.power_on)
    await asyncio.to_thread(site.board.serial_log.wait_for, "safe (state-lost)", 10, marks)
    assert await asyncio.to_thread(_state_lost, site) == "state-lost"
    assert len(site.capture.of(site.id, "hello")) == hellos
    assert {epoch for epoch, _ in site.counters()} == epochs, "what came late is of the old boot"


def _state_lost(site: Site) -> str:
    with site.board.repl() as console, pytest.raises(provision.ProvisionError) as refused:
        provision.begin(console)
    return refused.value.code


async def test_altered_confirmed_image_is_not_run_and_rescue_takes_an_update(site: Site) -> None:
    await asyncio.to_thread(site.board.power_off)
    patch(site, "slot_a", 4096 + 5000, b"\x00")
    await asyncio.to_thread(site.board.power_on)
    rescue = await until(
        "rescue at the gateway", lambda: site.claims() if _mode(site) == "rescue" else None, 40
    )
    assert not rescue["image-digest"]["bytes"]
    index = site.release("1.1.0", await asyncio.to_thread(site.image, "v2"))
    await until("repaired", lambda: (index, "confirmed", "ok") in site.trials(), 60)


def _mode(site: Site) -> str:
    return str(site.claims().get("mode"))


async def test_unreadable_slot_state_is_told_by_rescue_and_no_slot_is_written(site: Site) -> None:
    def spoil() -> None:
        with site.board.repl() as console:
            console.exec("from tidemark import cbor, stage0")
            console.exec("stage0.base.journal.put('boot', cbor.encode([2]))")
        site.board.reset()

    await asyncio.to_thread(spoil)
    await until("rescue at the gateway", lambda: _mode(site) == "rescue", 40)
    slots = site.slot_bytes("slot_a", 256 * 1024, 0), site.slot_bytes("slot_b", 256 * 1024, 0)
    site.release("1.1.0", await asyncio.to_thread(site.image, "v2"))
    await until("the refusal", lambda: site.claims().get("update") == "slots-unknown", 40)
    assert slots == (
        site.slot_bytes("slot_a", 256 * 1024, 0),
        site.slot_bytes("slot_b", 256 * 1024, 0),
    )


async def test_bad_link_settings_are_refused_before_anything_is_written(empty_site: Site) -> None:
    site = empty_site

    def attempt() -> str:
        site.flash(site.image("v1"), "1.0.0")
        with site.board.repl() as console:
            provision.begin(console)
            anchors = provision.Anchors(site.repository.root_bytes(), site.identity.public)
            link = provision.LinkSettings(HOST, 99999, "http://x/m/", "http://x/t/")
            with pytest.raises(provision.ProvisionError) as refused:
                provision.finish(console, anchors, link)
        return refused.value.code

    assert await asyncio.to_thread(attempt) == "config"
    region = site.definition.regions["provisioning"]
    assert site.board.read_flash(region.offset, region.size) == b"\xff" * region.size


async def test_factory_image_that_the_root_does_not_sign_stays_unconfirmed(
    empty_site: Site, tmp_path: Path
) -> None:
    site = empty_site
    stranger = Repository.create(tmp_path / "other", KeyStore.create(tmp_path / "other-keys"))

    def attempt() -> str:
        site.flash(site.image("v1"), "1.0.0")
        with site.board.repl() as console:
            provision.begin(console)
            anchors = provision.Anchors(stranger.root_bytes(), site.identity.public)
            link = provision.LinkSettings(HOST, 1, "http://x/m/", "http://x/t/")
            with pytest.raises(provision.ProvisionError) as refused:
                provision.finish(console, anchors, link)
        return refused.value.code

    code = await asyncio.to_thread(attempt)
    assert code == "timestamp-threshold"
    region = site.definition.regions["provisioning"]
    blank = b"\xff" * region.size
    assert site.board.read_flash(region.offset, region.size) == blank, "state has changed"


async def test_signed_telemetry_by_a_setting_of_the_image(empty_site: Site) -> None:
    site = empty_site
    image = await asyncio.to_thread(site.image, "v1", integrity="sign")
    await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
    rows = await until("readings", lambda: rows if len(rows := site.readings()) > 10 else None)
    assert {row["tags"]["trust"] for row in rows} == {"signature"}


@pytest.mark.parametrize(
    ("n", "variant"), [(2, "torn"), (5, "after"), (8, "before"), (11, "torn")]
)
async def test_power_cuts_around_trial_and_confirmation_end_confirmed(
    site: Site, n: int, variant: str
) -> None:
    marks = len(site.board.serial_log)
    index = site.release("1.1.0", await asyncio.to_thread(site.image, "v2"))
    log = site.board.serial_log
    await asyncio.to_thread(log.wait_for, "update staged", 30, marks)
    site.board.cut_at(n, variant)
    await asyncio.to_thread(site.board.wait_cut, 20)
    await asyncio.to_thread(site.board.power_on)
    await until("confirmed", lambda: (index, "confirmed", "ok") in site.trials(), 60)
    assert not site.board.violations
    assert site.claims()["floor"] == index
    image = site.repository.target_path(BOARD, index).read_bytes()
    assert site.slot_bytes("slot_b", len(image)) == image
