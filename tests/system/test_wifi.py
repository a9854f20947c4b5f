"""A board that joins a WiFi network: what it makes of one that does not let it in."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tidemark_host import provision
from tidemark_host.hil.site import Site
from tidemark_host.hil.targets import CONSOLE


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
    for _ in range(3 if CONSOLE in site.target.abilities else 0):
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
