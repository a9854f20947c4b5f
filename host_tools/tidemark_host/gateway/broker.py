# pyright: reportMissingTypeStubs=false
"""Brokers that this process starts: amqtt inside it, or mosquitto beside it. Loopback only.

A site in the field has its own broker. These are for one-command use, the demo and the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.errors import MQTTError
from amqtt.session import Session

from tidemark_host.ports import HOST, free_port

# Acknowledgements of QoS 1 would otherwise wait for the peer's delayed TCP acknowledgement.
NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
MAX_PACKET = 64 * 1024  # bytes; both brokers drop what is larger
_MAX_CONNECTIONS = 1000
_START_S = 60.0  # a busy machine may take its time

_CONFIG = {
    "listeners": {"default": {"type": "tcp", "max_connections": _MAX_CONNECTIONS}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


class BrokerError(Exception):
    """A broker that does not start or end."""


class _BoundedReader(StreamReaderAdapter):
    """Refuses a packet by its announced length; amqtt itself would read up to 256 MB."""

    async def read(self, n: int = -1) -> bytes:
        if n > MAX_PACKET:
            raise MQTTError(f"packet of {n} bytes")
        return await super().read(n)


class _Amqtt(Broker):
    """amqtt 0.12 with two defects mended from outside.

    It reads packets of any length; and it sends every retained message that anyone subscribed to
    to each client that connects, whether that client subscribed or not.
    """

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        bounded = _BoundedReader(reader)
        try:
            await self._client_connected(listener_name, bounded, StreamWriterAdapter(writer))
        finally:
            writer.close()

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        subscribers = self.subscriptions.get(subscription[0], [])
        if any(known.client_id == session.client_id for known, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class EmbeddedBroker:
    """amqtt in this event loop. Retained messages, QoS 1 and wildcards; sessions in RAM only."""

    def __init__(self, port: int = 0) -> None:
        """`port`: 0 picks a free one; it stays the same over `stop` and `start`."""
        self.host = HOST
        self.port = port
        self._broker: _Amqtt | None = None

    async def start(self) -> None:
        """Listen. Raises BrokerError."""
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        config: dict[str, Any] = {
            **_CONFIG,
            "listeners": {"default": {**_CONFIG["listeners"]["default"]}},
        }
        config["listeners"]["default"]["bind"] = f"{self.host}:{self.port}"
        broker = _Amqtt(config)
        try:
            await broker.start()
        except Exception as error:  # amqtt lets the errors of sockets and plugins through
            raise BrokerError(f"the broker does not listen on {self.host}:{self.port}") from error
        server = broker._servers["default"].instance  # pyright: ignore[reportPrivateUsage]
        self.port = next(iter(server.sockets)).getsockname()[1]
        self._broker = broker

    async def stop(self) -> None:
        """End the broker with all its connections and retained messages."""
        broker, self._broker = self._broker, None
        if broker is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broker.shutdown(), 5)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


class Mosquitto:
    """A private mosquitto as a child process, on loopback, with its files in a private folder."""

    def __init__(self, program: Path, port: int = 0) -> None:
        """`program`: from `toolchain.mosquitto()`; `port`: as for `EmbeddedBroker`."""
        self.host = HOST
        self.port = port
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def start(self) -> None:
        """Start it and wait until it accepts connections. Raises BrokerError."""
        self._folder = tempfile.TemporaryDirectory(prefix="tidemark-mosquitto-")
        folder = Path(self._folder.name)
        self.port = self.port or free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\n"
            "allow_anonymous true\n"
            "persistence false\n"
            "set_tcp_nodelay true\n"
            f"message_size_limit {MAX_PACKET}\n"
            f"max_connections {_MAX_CONNECTIONS}\n"
            "max_queued_messages 10000\n"
            "log_type error\n"
        )
        with (folder / "log").open("wb") as log:
            self._process = await asyncio.to_thread(
                partial(
                    subprocess.Popen[bytes],
                    [str(self._program), "-c", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        try:
            await asyncio.wait_for(self._accepts(), _START_S)
        except (TimeoutError, BrokerError) as error:
            text = (folder / "log").read_text(errors="replace")[-300:]
            await self.stop()
            raise BrokerError(f"mosquitto does not start: {text}") from error

    async def _accepts(self) -> None:
        while True:
            if self._process is None or self._process.poll() is not None:
                raise BrokerError("mosquitto ended")
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def stop(self) -> None:
        """End the process at once; what it held in RAM is lost, as in a power cut."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


async def _serve(port: int) -> None:
    async with EmbeddedBroker(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    # A broker in a process of its own, so that it can be killed: `-m ... PORT`.
    asyncio.run(_serve(int(sys.argv[1])))
