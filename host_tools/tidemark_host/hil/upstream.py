"""A consumer of what the gateway forwards, as a cloud would be."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiomqtt


@dataclass
class UpstreamReader:
    """Keeps what it was given in `messages`."""

    host: str
    port: int
    topic: str
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    subscribed: bool = False
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(
                    self.host, self.port, identifier="site-upstream", timeout=5
                ) as client:
                    await client.subscribe(self.topic, qos=1)
                    self.subscribed = True
                    async for message in client.messages:
                        self.messages.append(json.loads(bytes(message.payload)))
            except aiomqtt.MqttError:
                self.subscribed = False
                await asyncio.sleep(0.1)
