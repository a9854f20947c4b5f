"""The update server: whole files, ranges, and nothing outside its directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tidemark_host.gateway.update_server import UpdateServer

BODY = bytes(range(256)) * 40


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[UpdateServer]:
    root = tmp_path / "repo"
    (root / "metadata").mkdir(parents=True)
    (root / "metadata" / "1.root.json").write_bytes(BODY)
    (tmp_path / "secret").write_text("no")
    (root / "link").symlink_to(tmp_path / "secret")
    async with UpdateServer(root) as made:
        yield made


async def get(
    server: UpdateServer, path: str, wanted: str | None = None
) -> tuple[int, bytes, str | None]:
    headers = {"Range": wanted} if wanted else {}
    async with (
        aiohttp.ClientSession() as client,
        client.get(server.url + path, headers=headers) as response,
    ):
        return response.status, await response.read(), response.headers.get("Content-Range")


@pytest.mark.parametrize(
    ("wanted", "status", "first", "last"),
    [
        (None, 200, 0, None),
        ("bytes=0-", 206, 0, None),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=10000-99999", 206, 10000, None),
        ("bytes=10240-", 416, 0, 0),
        ("bytes=9-3", 416, 0, 0),
        ("lines=1-2", 200, 0, None),
    ],
)
async def test_ranges(
    server: UpdateServer, wanted: str | None, status: int, first: int, last: int | None
):
    got, body, content_range = await get(server, "/metadata/1.root.json", wanted)
    assert got == status
    assert body == BODY[first:last]
    if status == 206:
        assert content_range == f"bytes {first}-{first + len(body) - 1}/{len(BODY)}"


@pytest.mark.parametrize(
    "path", ["/../secret", "/metadata/../../secret", "/%2e%2e/secret", "/link", "/", "/metadata"]
)
async def test_nothing_outside_and_no_listing(server: UpdateServer, path: str):
    # By hand: a client would tidy the path up.
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"no" not in answer.split(b"\r\n\r\n", 1)[1]


async def test_a_slow_download_can_be_cut_and_resumed(server: UpdateServer):
    server.bytes_per_s = 40_000
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /metadata/1.root.json HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b"Content-Length: 10240" in head
    part = await asyncio.wait_for(reader.readexactly(4096), 10)
    assert server.requests == [("/metadata/1.root.json", 200, "")], "it is under way, and noted"
    writer.close()
    server.bytes_per_s = None
    status, rest, _ = await get(server, "/metadata/1.root.json", f"bytes={len(part)}-")
    assert status == 206
    assert part + rest == BODY
