"""Boards for the system tests: alone with a test's own firmware, or within a whole site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.maker import Maker
from tidemark_host import toolchain
from tidemark_host.demo.site import Site, until


@pytest_asyncio.fixture
async def empty_site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose board is blank and off."""
    async with Site(tmp_path / "site") as site:
        yield site


@pytest_asyncio.fixture
async def site(empty_site: Site) -> Site:
    """A site whose board is provisioned, runs release 1 and was heard by the gateway."""
    image = await asyncio.to_thread(empty_site.image, "v1")
    await asyncio.to_thread(empty_site.flash_and_provision, image, "1.0.0")
    await until("the first report", lambda: empty_site.readings() and empty_site.claims())
    return empty_site


@pytest.fixture(scope="session")
def runtime() -> Path:
    return toolchain.runtime("VIRTUAL")


@pytest.fixture
def make(runtime: Path) -> Iterator[Maker]:
    maker = Maker(runtime)
    yield maker
    for board in maker.boards:
        board.close()
