"""Broker and gateway as processes of their own: what is killed has no time to say goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tidemark_host.boards.base import Line
from tidemark_host.gateway.broker import Mosquitto
from tidemark_host.hil.waiting import HOST, SiteError, Timeout, free_port, until

_START_S = 60.0  # a busy machine may take its time to load Python
_LINES_MAX = 20_000
_LINE_MAX = 64 * 1024


class BrokerProcess:
    """The embedded broker, on one port for all its lives."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it accepts connections. Raises SiteError."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tidemark_host.gateway.broker", str(self.port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        process = self._process

        def accepts() -> bool:
            if process.returncode is not None:
                raise SiteError(f"the broker ended with {process.returncode}")
            with socket.socket() as probe:
                return probe.connect_ex((HOST, self.port)) == 0

        try:
            await until("the broker accepts connections", accepts, _START_S, 0.02)
        except Timeout as error:
            raise SiteError(str(error)) from error

    async def stop(self) -> None:
        """SIGKILL to its own process."""
        process, self._process = self._process, None
        await _kill(process)


class GatewayProcess:
    """`tidemark gateway` over a state folder. `lines`: what it said, with the time."""

    def __init__(self, state: Path, options: Sequence[str], log: Path) -> None:
        """`options`: of the command, besides `--state`. `log`: file that its output goes to."""
        self.lines: list[Line] = []
        self._argv = [sys.executable, "-m", "tidemark_host", "gateway", "--state", str(state)]
        self._argv += options
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises SiteError with its last words."""
        since = len(self.lines)
        process = self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_MAX,
        )
        self._reader = asyncio.create_task(self._read(process))

        def ready() -> bool:
            said = [line.text for line in self.lines[since:]]
            if process.returncode is not None:
                raise SiteError("the gateway ended: " + "\n".join(said[-5:]))
            return any("ready:" in text for text in said)

        try:
            await until("the gateway is ready", ready, _START_S, 0.02)
        except Timeout as error:
            raise SiteError(str(error)) from error

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """End it as a power cut would: SIGKILL to its own process."""
        process, self._process = self._process, None
        await _kill(process)
        reader, self._reader = self._reader, None
        if reader:
            await reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        stream = process.stdout
        assert stream is not None
        with self._log.open("a", encoding="utf-8") as file:
            while True:
                try:
                    data = await stream.readline()
                except ValueError:  # a line without end: the rest of it comes as lines of its own
                    continue
                if not data:
                    return
                text = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
                file.write(text + "\n")
                file.flush()
                self.lines.append(Line(time.monotonic(), text))
                del self.lines[:-_LINES_MAX]


def broker(kind: str, port: int = 0) -> BrokerProcess | Mosquitto:
    """Return a broker that has not started: `embedded` or `mosquitto`."""
    if kind == "mosquitto":
        from tidemark_host import toolchain

        return Mosquitto(toolchain.mosquitto(), port or free_port())
    return BrokerProcess(port)


async def _kill(process: asyncio.subprocess.Process | None) -> None:
    if process and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
