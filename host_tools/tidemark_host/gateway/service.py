"""The gateway as a service: MQTT in, the core in one thread of its own, MQTT upstream.

Survives brokers that come and go. Every queue is bounded; what does not fit is not acknowledged,
so that its sender keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiomqtt

from tidemark_host.gateway.broker import NO_DELAY, EmbeddedBroker
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.keylog import Keylog
from tidemark_host.gateway.lanes import MAC_QUEUE, Lanes
from tidemark_host.gateway.store import Row, Store
from tidemark_host.gateway.update_server import UpdateServer
from tidemark_host.gateway.upstream import Upstream
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import Inventory
from tidemark_host.protocol import MAX_HELLO, Refused

DATABASE = "gateway.db"
INVENTORY = "inventory.json"
LOCK = "gateway.lock"
_OUT_QUEUE = 8192  # messages to devices
_OUT_BATCH = 64
_TICK_S = 0.5
_UP_FILTER = "tm/1/+/up/+"

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class StateInUse(Exception):
    """Another gateway runs on this state directory."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`state`: directory for key and database; addresses are (host, port).

    `inventory`: file, by default in `state`; `broker`: None starts an embedded one on loopback,
    on `embedded_port`; `upstream`: None is the same broker; `updates`: directory of the TUF
    repository to serve at `listen`; `keylog`: file for session keys, for analysis only.
    """

    state: Path
    broker: tuple[str, int] | None = None
    embedded_port: int = 0
    upstream: tuple[str, int] | None = None
    inventory: Path | None = None
    updates: Path | None = None
    listen: tuple[str, int] = ("127.0.0.1", 0)
    keylog: Path | None = None

    @property
    def inventory_path(self) -> Path:
        return self.inventory or self.state / INVENTORY

    @property
    def database(self) -> Path:
        return self.state / DATABASE


class Gateway:
    """`async with Gateway(config) as gateway`: runs while the block does.

    Raises StateInUse, BrokerError, IdentityError, InventoryError, OSError and, for a database that
    can't be used, sqlite3.DatabaseError.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.identity = GatewayIdentity.load_or_create(config.state)
        self.broker: tuple[str, int] = config.broker or ("", 0)
        self.updates: str | None = None
        self.connected = asyncio.Event()
        self._lanes = Lanes()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._work = asyncio.Event()
        self._out: asyncio.Queue[Message] = asyncio.Queue(_OUT_QUEUE)
        self._stack = AsyncExitStack()

    @property
    def view(self) -> GatewayView:
        """The gateway's committed state, read-only."""
        return GatewayView(self.config.database)

    @property
    def core(self) -> Core:
        """The core; only its own thread may call it while the gateway runs."""
        return self._core

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            config = self.config
            stack.enter_context(_alone(config.state))
            if config.broker is None:
                broker = EmbeddedBroker(config.embedded_port)
                await stack.enter_async_context(broker)
                self.broker = (broker.host, broker.port)
            if config.updates is not None:
                server = UpdateServer(config.updates, *config.listen)
                await stack.enter_async_context(server)
                self.updates = server.url
            keylog = Keylog(config.keylog) if config.keylog else None
            if keylog:
                stack.callback(keylog.close)
            self._thread = ThreadPoolExecutor(1, "gateway-core")
            stack.callback(self._thread.shutdown)
            self._store = await self._call(lambda: Store(config.database))
            stack.push_async_callback(self._call, self._store.close)
            inventory = Inventory(config.inventory_path)
            self._core = Core(self.identity, inventory, self._store, keylog)
            stack.push_async_callback(self._call, self._core.tick)  # the last counts
            host, port = config.upstream or self.broker
            self._upstream = Upstream(host, port, self.identity.id, self._rows, self._delivered)
            for run in (self._link, self._serve, self._tick, self._upstream.run):
                task = asyncio.create_task(_keep_up(run))
                stack.push_async_callback(_end, task)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _call(self, function: Callable[[], _T]) -> _T:
        """Run `function` in the core's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    # --- Towards the devices ----------------------------------------------------------------

    async def _link(self) -> None:
        """Keep the connection to the devices' broker."""
        pause = 0.1
        while True:
            try:
                async with aiomqtt.Client(
                    *self.broker,
                    identifier=f"tidemark-{self.identity.id}-{secrets.token_hex(4)}",
                    keepalive=15,
                    timeout=5,
                    max_queued_incoming_messages=MAC_QUEUE,
                    max_inflight_messages=_OUT_BATCH,
                    socket_options=NO_DELAY,
                ) as client:
                    client.pending_calls_threshold = 2 * _OUT_BATCH
                    await client.subscribe(_UP_FILTER, qos=1)
                    beacon = await self._call(self._core.beacon)
                    await client.publish(beacon.topic, beacon.payload, qos=1, retain=True)
                    pause = 0.1
                    self.connected.set()
                    sender = asyncio.create_task(self._send(client))
                    try:
                        async for message in client.messages:
                            self._arrived(message)
                    finally:
                        await _end(sender)
            except aiomqtt.MqttError as error:
                _log.warning("broker %s:%d: %s", *self.broker, error)
            finally:
                self.connected.clear()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(5.0, pause * 2)

    def _arrived(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value
        # One byte more than any limit tells all that matters of what is too long.
        arrived = Message(topic, message.payload[: MAX_HELLO + 1])
        try:
            self._lanes.put(arrived, self._core.inventory.__contains__)
        except Refused as refused:
            known = topic[5:21] if topic[5:21] in self._core.inventory else ""
            self._dropped[known, refused.code] += 1
        self._work.set()

    async def _send(self, client: aiomqtt.Client) -> None:
        """Publish answers in their order; what a broken connection loses is asked for again."""
        while True:
            batch = [await self._out.get()]
            while len(batch) < _OUT_BATCH and not self._out.empty():
                batch.append(self._out.get_nowait())
            await asyncio.gather(
                *(client.publish(m.topic, m.payload, qos=1, retain=m.retain) for m in batch),
                return_exceptions=True,
            )

    async def _serve(self) -> None:
        """Feed the core from the lanes."""
        while True:
            self._work.clear()
            wait = self._lanes.wait_s()
            if wait != 0.0:
                # Not wait_for: in Python 3.11 it may swallow a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._work.wait()
                if wait is None:
                    continue
            mac, signed = self._lanes.take(time.monotonic())
            batch = [*mac, *signed]
            if not batch:
                continue
            failed = self._core.failures
            self._answer(await self._call(partial(self._core.handle, batch)))
            self._lanes.failed(self._core.failures - failed)
            self._upstream.wake()

    async def _tick(self) -> None:
        while True:
            dropped, self._dropped = self._dropped, Counter()
            self._answer(await self._call(partial(self._core.tick, dropped)))
            await asyncio.sleep(_TICK_S)

    def _answer(self, messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                self._out.put_nowait(message)
            except asyncio.QueueFull:
                _log.warning("too many answers, %d dropped", len(messages))
                return

    # --- Upstream ---------------------------------------------------------------------------

    async def _rows(self, limit: int) -> list[Row]:
        return await self._call(lambda: self._store.next_rows(limit))

    async def _delivered(self, ids: Sequence[int]) -> None:
        def mark() -> None:
            with self._store.transaction():
                self._store.delivered(ids, time.time())

        await self._call(mark)


@contextlib.contextmanager
def _alone(state: Path) -> Generator[None]:
    """Hold a state directory. Raises StateInUse.

    Replay windows are cached in RAM: a second gateway would accept what the first one accepted.
    The kernel ends the lock with the process, however that ends.
    """
    handle = os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUse(f"another gateway runs on {state}") from error
        yield
    finally:
        os.close(handle)


async def _keep_up(run: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `run` until cancelled; what nobody foresaw ends one round of it and not the gateway."""
    while True:
        try:
            await run()
        except Exception:
            _log.exception("%s failed, starting it again", run)
        await asyncio.sleep(1.0)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
