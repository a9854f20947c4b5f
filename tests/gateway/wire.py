"""A protocol-level device on a real broker, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Self

import aiomqtt

from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.broker import NO_DELAY
from tidemark_host.protocol import Refused

LIMIT_S = 60.0  # of a wait: nobody waits so long but for what never comes


async def until(holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait for a condition, with a bound."""
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)


class WireDevice:
    """Greets when it must, sends what it is told to until that is acknowledged."""

    def __init__(self, device: FleetDevice, host: str, port: int) -> None:
        self.device = device
        self.seen: list[str] = []
        self._address = (host, port)

    async def __aenter__(self) -> Self:
        self.client = aiomqtt.Client(*self._address, timeout=5, socket_options=NO_DELAY)
        await self.client.__aenter__()
        await self.client.subscribe("tm/1/gw/+/beacon", qos=1)
        await self.client.subscribe(f"tm/1/{self.device.id}/down/+", qos=1)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(aiomqtt.MqttError):  # the broker went first
            await self.client.__aexit__(None, None, None)

    async def _listen(self) -> None:
        async for message in self.client.messages:
            topic, payload = message.topic.value, message.payload
            assert isinstance(payload, bytes)
            try:
                kind = self.device.take(topic, payload)
            except Refused as refused:
                kind = refused.code
            self.seen.append(kind)
            if kind == "challenge" or (kind == "beacon" and self.device.session is None):
                _, nonce = protocol.parse_beacon(payload)
                self.device.session = None
                await self.publish("hello", self.device.hello(nonce))

    async def publish(self, kind: str, message: bytes) -> None:
        await self.client.publish(protocol.topic_up(self.device.id, kind), message, qos=1)

    async def ready(self) -> None:
        """Wait for a session."""
        await until(lambda: self.device.session is not None)

    async def deliver(self) -> None:
        """Wait until all is acknowledged; send what waits again after each second."""
        async with asyncio.timeout(LIMIT_S):
            while self.device.unanswered:
                with contextlib.suppress(TimeoutError):
                    await until(lambda: not self.device.unanswered, 1.0)
                for topic, message in self.device.waiting():
                    await self.client.publish(topic, message, qos=1)

    async def answered(self) -> None:
        """Wait until all is acknowledged; send nothing twice, however long it takes."""
        await until(lambda: not self.device.unanswered)

    async def telemetry(self, count: int) -> None:
        """Send readings 0..count-1 and wait until each is acknowledged."""
        for value in range(count):
            await self.publish("telemetry", self.device.telemetry(value))
        await self.deliver()


class Consumer:
    """What arrives upstream, as an application there would take it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self.all: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(ready))
        await asyncio.wait_for(ready.wait(), LIMIT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, ready: asyncio.Event) -> None:
        async with aiomqtt.Client(*self._address) as client:
            await client.subscribe("site/#", qos=1)
            ready.set()
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                self.all.append(json.loads(message.payload))

    def readings(self, device: str) -> list[Any]:
        """Readings of a device, the first of each key."""
        first: dict[tuple[int, int], Any] = {}
        for row in self.all:
            if row["device"] == device and row["kind"] == "telemetry":
                first.setdefault((row["epoch"], row["index"]), row["reading"])
        return list(first.values())
