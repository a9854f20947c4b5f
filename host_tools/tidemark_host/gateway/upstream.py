"""Hands the queue upstream over MQTT: at least once, in order, from the store.

A row is marked delivered after the upstream broker's PUBACK. A gateway that dies between PUBACK
and mark sends a row again, so a consumer keeps the first of each key: (device, epoch, index) of a
reading, which is telemetry or backlog, and (device, epoch, seq) of any other message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import aiomqtt

from tidemark_host.gateway.broker import NO_DELAY
from tidemark_host.gateway.store import Row

BATCH = 64  # rows in flight: a gateway that dies sends at most these again
_IDLE_S = 1.0

_log = logging.getLogger(__name__)


class Upstream:
    """One connection to the upstream broker, kept up; the store's calls are handed in."""

    def __init__(
        self,
        host: str,
        port: int,
        gateway: str,
        rows: Callable[[int], Awaitable[list[Row]]],
        delivered: Callable[[Sequence[int]], Awaitable[None]],
    ) -> None:
        """`rows(limit)`: those that wait, oldest first; `delivered(ids)`: marks them."""
        self._host, self._port, self._gateway = host, port, gateway
        self._rows, self._delivered = rows, delivered
        self._more = asyncio.Event()

    def wake(self) -> None:
        """Say that there may be new rows."""
        self._more.set()

    async def run(self) -> None:
        """Forward until cancelled; connect again with growing pauses."""
        pause = 0.1
        while True:
            try:
                async with aiomqtt.Client(
                    self._host,
                    self._port,
                    timeout=5,
                    max_inflight_messages=BATCH,
                    socket_options=NO_DELAY,
                ) as client:
                    client.pending_calls_threshold = BATCH
                    pause = 0.1
                    # Sends nothing, so that only this notices a connection that ends when idle.
                    watch = asyncio.create_task(_drain(client))
                    watch.add_done_callback(lambda _: self._more.set())
                    try:
                        await self._forward(client, watch)
                    finally:
                        watch.cancel()
                        await asyncio.gather(watch, return_exceptions=True)
            except aiomqtt.MqttError as error:
                _log.warning("upstream %s:%d: %s", self._host, self._port, error)
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _forward(self, client: aiomqtt.Client, watch: asyncio.Task[None]) -> None:
        """Forward until `watch` ends; raises what ended it."""
        while True:
            self._more.clear()
            if watch.done():
                return watch.result()
            rows = await self._rows(BATCH)
            if not rows:
                # Not wait_for: in Python 3.11 it may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_S):
                        await self._more.wait()
                continue
            # Started in this order on one connection, so they leave in this order. When it breaks,
            # what went out before an acknowledged row had arrived too, and only comes twice.
            results = await asyncio.gather(
                *(client.publish(self._topic(row), row.body, qos=1) for row in rows),
                return_exceptions=True,
            )
            pairs = list(zip(rows, results, strict=True))
            await self._delivered([row.id for row, result in pairs if result is None])
            for result in results:
                if result is not None:
                    raise result

    def _topic(self, row: Row) -> str:
        return f"site/{self._gateway}/{row.device}/{row.kind}"


async def _drain(client: aiomqtt.Client) -> None:
    """Take what nobody asked for until the connection ends, which raises MqttError."""
    async for _ in client.messages:
        pass
