"""A file server with Range over a folder, in a thread: what any mirror does, for tests."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

_RANGE = re.compile(r"bytes=(\d+)-$")


@contextmanager
def serve(folder: Path) -> Generator[str]:
    """Serve `folder` on a loopback port; yields the base address, without the last slash."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = (folder / unquote(self.path).lstrip("/")).resolve()
            if not path.is_relative_to(folder.resolve()) or not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            asked = _RANGE.match(self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            if asked and start >= len(data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            if asked:
                span = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.send_header("Content-Range", span)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
