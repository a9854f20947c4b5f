"""A board that joins a WiFi network: what it makes of one that does not let it in."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import cast

import pytest

from tidemark_host import provision
from tidemark_host.boards import virtual_esp32
from tidemark_host.hil import images
from tidemark_host.hil.site import Site
from tidemark_host.hil.targets import VirtualEsp32Target

# What would take minutes takes seconds while the virtual ESP32's radio is out of order.
WAITS = """

def tasks(base, _tasks=tasks):
    import network
    import time
    from tidemark.supervisor import Task

    def wait():
        if network.wedged() or base.radio.lost:
            time.leap(4900)

    return _tasks(base) + [Task("wait", wait, 100, 60000)]
"""
WEDGED = """

import network
network.wedge()
"""
# After power-on a provisioned board's driver finds too little memory: a _boot.py, for what lies
# below it.
NO_MEMORY = """
import machine
import network

def made(interface, real=network.WLAN):
    if stage0.base.config and machine.reset_cause() == machine.PWRON_RESET:
        raise RuntimeError("Wifi Unknown Error 0x0101")
    return real(interface)

network.WLAN = made
"""


async def test_wrong_password_is_told_and_counted_and_mended_at_the_console(
    blank_site: Site,
) -> None:
    site = blank_site
    wifi = site.target.wifi
    if wifi is None:
        pytest.skip("this board joins no network")
    wrong = dataclasses.replace(wifi, password="let me in, please")

    def lock_out() -> provision.Born:
        site.flash(site.image("v1.0.0"), "1.0.0")
        with site.board.repl(timeout=10 * site.target.patience) as console:
            born = provision.begin(console)
            with pytest.raises(provision.ProvisionError) as bare:
                link = dataclasses.replace(site.link_settings(), wifi=None)
                provision.finish(console, site.anchors, link)
            assert bare.value.code == "no-wifi"
            provision.begin(console)
            link = dataclasses.replace(site.link_settings(), wifi=wrong)
            provision.finish(console, site.anchors, link)
        site.board.reset()
        return born

    born = await asyncio.to_thread(lock_out)
    site.id, site.public = born.id, born.public
    site.inventory.enroll(born.public, born.board, "bench")
    since = 0
    # It is said at every attempt, so a console that is heard late hears it too.
    for _ in range(3):
        line = await site.said("tidemark: wifi bad-password", 60, since)
        since = len(site.board.serial_log)
        assert wrong.password not in line.text

    def mend() -> None:
        with site.board.repl(timeout=10 * site.target.patience) as console:
            assert provision.set_wifi(console, wifi) == born.id
        site.board.reset()

    await asyncio.to_thread(mend)
    await site.claimed(mode="normal", timeout=60)
    events = await asyncio.to_thread(site.evidence)
    codes = [event.code for event in events]
    # What the air does is counted, and is nothing to be reset for.
    assert 1 <= codes.count("bad-password") <= 2
    assert "wifi-set" in codes
    assert "watchdog" not in [event.cause for event in events]
    text = "".join(line.text for line in site.board.serial_log)
    assert wrong.password not in text
    assert wifi.password not in text


async def test_radio_that_says_it_is_joined_and_passes_nothing_is_switched_off_and_on(
    blank_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = blank_site
    if site.target.name != "virtual-esp32":
        pytest.skip("nothing here makes this board's radio do that")
    monkeypatch.setitem(images.FAULTS, "wedged", WEDGED + WAITS)
    image = await asyncio.to_thread(site.image, "v1.0.0", "wedged")
    await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
    await site.claimed(mode="normal", timeout=90)
    said = [line.text.strip() for line in site.board.serial_log]
    words = [text.split()[-1] for text in said if text.startswith("tidemark: wifi ")]
    # Joined anew, which does not help, then off and on, which does.
    assert words == ["joined", "no-answer", "joined", "no-answer", "joined"]
    events = await asyncio.to_thread(site.evidence)
    codes = [event.code for event in events]
    assert "no-answer" in codes and not {"crash", "app-fault", "rescue"} & set(codes)
    assert codes.count("boot") == 2  # that of the provisioning, and one that never ended
    assert "watchdog" not in [event.cause for event in events]


async def test_radio_whose_driver_does_not_start_resets_the_board_and_blames_no_image(
    blank_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = blank_site
    if site.target.name != "virtual-esp32":
        pytest.skip("nothing here makes this board's radio do that")
    monkeypatch.setitem(images.FAULTS, "waits", WAITS)
    boot = (site.firmware / "_boot.py").read_text("utf-8")
    line = "from tidemark import stage0"
    assert boot.count(line) == 1
    changes = {"_boot.py": boot.replace(line, NO_MEMORY + line)}

    def begin() -> None:
        runtime = cast("VirtualEsp32Target", site.target).runtime_image(1, changes)
        monkeypatch.setattr(
            site.target, "parts", lambda: virtual_esp32.parts(site.definition, runtime)
        )
        site.flash_and_provision(site.image("v1.0.0", "waits"), "1.0.0")

    await asyncio.to_thread(begin)
    await site.claimed(mode="normal", timeout=60)
    said = [line.text.strip() for line in site.board.serial_log]
    words = [text.split()[-1] for text in said if text.startswith("tidemark: wifi ")]
    assert words == ["radio-fault", "joined"]
    assert "tidemark: reset, reason radio" in said
    events = await asyncio.to_thread(site.evidence)
    codes = [event.code for event in events]
    assert not {"crash", "app-fault", "rescue"} & set(codes)
    assert [event.detail for event in events if event.code == "boot"][-1] == b"radio"
