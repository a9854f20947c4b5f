"""Fixtures of the gateway's tests."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.gateway.parts import Site
from tidemark_host.gateway.broker import EmbeddedBroker, Mosquitto
from tidemark_host.hil.waiting import free_port
from tidemark_host.toolchain import mosquitto


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(params=["amqtt", "mosquitto"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedBroker | Mosquitto]:
    port = free_port()  # stays theirs while they are stopped
    made = (
        EmbeddedBroker(port)
        if request.param == "amqtt"
        else Mosquitto(await to_thread(mosquitto), port)
    )
    async with made:
        yield made


@pytest.fixture
async def private_broker() -> AsyncIterator[Mosquitto]:
    async with Mosquitto(await to_thread(mosquitto), free_port()) as made:
        yield made
