"""A runtime that somebody brings by cable while another one is on trial."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from tests.boards.rom_serial import RomSerial
from tests.system.steps import once_each, unhurried
from tidemark_host.boards import virtual_esp32
from tidemark_host.discovery import Found
from tidemark_host.esp32.otadata import State
from tidemark_host.flashing import Image
from tidemark_host.flashing_esp32 import flash_esp32
from tidemark_host.hil.site import Site
from tidemark_host.hil.targets import VirtualEsp32Target

# The boot ROM that it is flashed by is a model's, which a board of its own flash does not need.
pytestmark = [pytest.mark.needs("runtimes"), pytest.mark.needs("peek")]


async def test_runtime_by_cable_stays_and_ends_the_trial_in_the_first_slot(site: Site) -> None:
    target = cast("VirtualEsp32Target", site.target)
    images = [await asyncio.to_thread(target.runtime_image, index) for index in (2, 3, 7)]
    index = await site.publish("2.0.0", runtime=images[0])
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    await unhurried(site)
    since = len(site.board.serial_log)
    index = await site.publish("3.0.0", runtime=images[1])
    await site.said("3.0.0), trial", 60, since)
    await asyncio.to_thread(site.board.power_off)
    size = site.definition.flash_size
    flash = bytearray(await asyncio.to_thread(site.board.read_flash, 0, size, resume=False))
    cabled = Image(site.definition, virtual_esp32.parts(site.definition, images[2]))
    with RomSerial("esp32", flash) as rom:
        await asyncio.to_thread(flash_esp32, Found(rom.url), cabled, force=True)
    site.note("a runtime by cable")
    await asyncio.to_thread(site.board.flash, bytes(flash))
    await asyncio.to_thread(site.board.power_on)
    # The release finds a runtime that is new enough, and needs no other one.
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")
    claims = await site.claimed(mode="normal", floor=index)
    assert claims["runtime"] == [7, 1, State.VALID, 0]
    once_each(site)
