"""Records what crosses a broker, as JSON lines: for the demo's checks and for analysis."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import aiomqtt


@dataclass(frozen=True, slots=True)
class Captured:
    """One message as it crossed the broker. `time` in Unix seconds."""

    topic: str
    payload: bytes
    time: float


@dataclass
class Capture:
    """`async with Capture(host, port)`: records `tm/#`, to `path` as well if one is given."""

    host: str
    port: int
    path: Path | None = None
    limit: int = 100_000  # messages kept in RAM; the file has all
    messages: list[Captured] = field(default_factory=list[Captured])

    def of(self, device: str, kind: str, direction: str = "up") -> list[bytes]:
        """Return the payloads of one device and kind, in their order."""
        topic = f"tm/1/{device}/{direction}/{kind}"
        return [m.payload for m in self.messages if m.topic == topic]

    async def __aenter__(self) -> Self:
        self._file: IO[str] | None = self.path.open("a") if self.path else None
        self._ready = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        await asyncio.wait_for(self._ready.wait(), 30)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._file:
            self._file.close()

    async def _run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(self.host, self.port, timeout=5) as client:
                    await client.subscribe("tm/#", qos=1)
                    self._ready.set()
                    async for message in client.messages:
                        self._keep(message)
            except aiomqtt.MqttError:
                await asyncio.sleep(0.1)

    def _keep(self, message: aiomqtt.Message) -> None:
        captured = Captured(message.topic.value, message.payload, time.time())
        if len(self.messages) < self.limit:
            self.messages.append(captured)
        if self._file:
            line = {
                "time": captured.time,
                "topic": captured.topic,
                "payload": captured.payload.hex(),
            }
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
