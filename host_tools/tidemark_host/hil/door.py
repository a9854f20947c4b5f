"""A way in for boards on a network: the bench's servers listen on loopback, and an address of this
machine that bench.toml names passes two of their ports on while a test lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Self

from tidemark_host.boards.base import BoardError
from tidemark_host.hil.waiting import HOST

MAX_LINES = 32  # open at a time; a board has two, and whoever else is in its network gets no more
_CHUNK = 65_536


class Door:
    """`async with Door("192.0.2.7", (1883, 8080))`: each port of that address is loopback's."""

    def __init__(self, address: str, ports: Sequence[int]) -> None:
        self._address = address
        self._ports = ports
        self._stack = AsyncExitStack()
        self._lines: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        try:
            for port in self._ports:
                server = await asyncio.start_server(
                    partial(self._carry, port), self._address, port
                )
                self._stack.callback(server.close)
        except OSError as error:
            await self._stack.aclose()
            raise BoardError("service", f"{self._address}: {error.strerror}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        for line in list(self._lines):
            line.close()

    async def _carry(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._lines) >= 2 * MAX_LINES:
            writer.close()
            return
        self._lines.add(writer)
        inner: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                answers, inner = await asyncio.open_connection(HOST, port)
                self._lines.add(inner)
                await asyncio.gather(_pump(reader, inner), _pump(answers, writer))
        finally:
            for line in (writer, inner):
                if line is not None:
                    self._lines.discard(line)
                    line.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on until the source ends, and then say so."""
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    with suppress(OSError, RuntimeError):
        sink.write_eof()
