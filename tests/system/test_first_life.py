"""A board that nobody has seen: flashed, provisioned, with a key of its own, heard."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.steps import digest
from tidemark_host import provision
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.hil.site import Site
from tidemark_host.release import KeyStore, Repository


@dataclass
class Hasty:
    """A console that gives a board less time than provisioning does: it is about to go off."""

    console: Repl
    seconds: float

    def exec(self, code: str, timeout: float = 10.0) -> str:
        return self.console.exec(code, min(timeout, self.seconds))


@pytest.mark.smoke
async def test_blank_board_is_flashed_makes_its_key_is_provisioned_and_says_hello(
    blank_site: Site,
) -> None:
    site = blank_site
    image = await asyncio.to_thread(site.image, "v1.0.0")
    born = await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
    claims = await site.claimed(mode="normal", timeout=60)
    assert born.board == site.definition.name
    region = site.definition.regions["provisioning"]
    assert born.public in await asyncio.to_thread(site.read_flash, region.offset, region.size)
    assert digest(claims) == hashlib.sha256(image.read_bytes()).digest()
    assert claims["floor"] == 1
    # A board of the bench can be told from one of the field.
    assert claims["trial-times"] == [2, 6, 1]
    await site.until("readings", lambda: len(site.readings()) > 5)
    await site.until("upstream", lambda: len(site.upstream.messages) > 5)


async def test_bad_link_settings_are_refused_before_anything_is_written(blank_site: Site) -> None:
    site = blank_site

    def attempt() -> str:
        site.flash(site.image("v1.0.0", table=0), "1.0.0")
        with site.board.repl(timeout=10 * site.target.patience) as console:
            provision.begin(console)
            link = provision.LinkSettings("127.0.0.1", 99999, "http://x/m/", "http://x/t/")
            with pytest.raises(provision.ProvisionError) as refused:
                provision.finish(console, site.anchors, link)
        return refused.value.code

    assert await asyncio.to_thread(attempt) == "config"
    region = site.definition.regions["provisioning"]
    held = await asyncio.to_thread(site.read_flash, region.offset, region.size)
    assert held == b"\xff" * region.size


async def test_factory_image_that_the_root_does_not_sign_stays_unconfirmed(
    blank_site: Site, tmp_path: Path
) -> None:
    site = blank_site
    stranger = Repository.create(tmp_path / "other", KeyStore.create(tmp_path / "other-keys"))

    def attempt() -> str:
        site.flash(site.image("v1.0.0", table=0), "1.0.0")
        with site.board.repl(timeout=10 * site.target.patience) as console:
            provision.begin(console)
            anchors = provision.Anchors(stranger.root_bytes(), site.identity.public)
            with pytest.raises(provision.ProvisionError) as refused:
                provision.finish(console, anchors, site.link_settings())
        return refused.value.code

    assert await asyncio.to_thread(attempt) == "timestamp-threshold"
    region = site.definition.regions["provisioning"]
    held = await asyncio.to_thread(site.read_flash, region.offset, region.size)
    assert held == b"\xff" * region.size


@pytest.mark.needs("cut")
@pytest.mark.parametrize(("n", "variant"), [(1, "torn"), (3, "after"), (6, "torn")])
async def test_provisioning_that_a_power_cut_ended_is_done_again(
    blank_site: Site, n: int, variant: str
) -> None:
    site = blank_site

    def attempt() -> tuple[str, str]:
        site.flash(site.image("v1.0.0", table=0), "1.0.0")
        patience = 8 * site.target.patience
        with site.board.repl(timeout=patience) as console:
            first = provision.begin(console)
            site.board.cut_at(n, variant)
            with pytest.raises(BoardError):
                provision.finish(Hasty(console, patience), site.anchors, site.link_settings())
        site.board.wait_cut(patience)
        since = len(site.board.serial_log)
        site.board.power_on()
        site.board.serial_log.wait_for("waits on this console", patience, since)
        with site.board.repl(timeout=patience) as console:
            again = provision.begin(console)
            provision.finish(console, site.anchors, site.link_settings())
        site.id = again.id
        site.inventory.enroll(again.public, again.board, "bench")
        site.board.reset()
        return first.id, again.id

    first, again = await asyncio.to_thread(attempt)
    assert first == again, "the key was born before the cut, and stays"
    await site.claimed(mode="normal", timeout=60)
