"""Serves a TUF repository over HTTP/1.1, with Range: plain files, nothing of it trusted.

The bandwidth limit and the delay are for demos and tests of interrupted downloads.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

_CHUNK = 4096
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


class UpdateServer:
    """Files below `root`, read-only. `url` is known once it has started."""

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        bytes_per_s: float | None = None,
        delay_s: float = 0.0,
    ) -> None:
        """`port`: 0 picks a free one; `bytes_per_s`: of each response; `delay_s`: before each."""
        self._root = root.resolve()
        self._host, self.port = host, port
        self.bytes_per_s, self.delay_s = bytes_per_s, delay_s
        self.requests: list[tuple[str, int, str]] = []  # path, status, Range; the last 1,000
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

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

    def _find(self, name: str) -> Path | None:
        """Return the file that a request's path names, if it lies below the root."""
        try:
            path = (self._root / name.lstrip("/")).resolve()
            return path if path.is_relative_to(self._root) and path.is_file() else None
        except (OSError, ValueError):
            return None

    async def _get(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        return await self._respond(request, wanted)

    def _log(self, request: web.Request, status: int, wanted: str) -> None:
        """Note a request before its answer: a download shows while it is under way."""
        self.requests.append((request.path, status, wanted))
        del self.requests[:-1000]

    async def _respond(self, request: web.Request, wanted: str) -> web.StreamResponse:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        path = self._find(request.match_info["path"])
        if path is None:
            self._log(request, 404, wanted)
            return web.Response(status=404)
        size = path.stat().st_size
        start, end = 0, size
        match = _RANGE.fullmatch(wanted)  # RFC 9110, 14.2: what is not understood is ignored
        if match:
            start = int(match[1])
            end = min(size, int(match[2]) + 1) if match[2] else size
            if start >= size or start >= end:
                self._log(request, 416, wanted)
                return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        response = web.StreamResponse(status=206 if match else 200)
        response.content_type = "application/octet-stream"
        response.headers["Accept-Ranges"] = "bytes"
        response.content_length = end - start
        if match:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._log(request, response.status, wanted)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left:
                data = file.read(min(_CHUNK, left))
                if not data:
                    break  # the file was cut while it was served
                left -= len(data)
                await response.write(data)
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
        await response.write_eof()
        return response
