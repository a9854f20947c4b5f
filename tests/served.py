"""A published repository behind Python's own web server, and the two clients that must take it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tuf.ngclient import Updater

TUF_CLIENT = Path(__file__).parent / "conformance" / "tuf-client"


@contextmanager
def http_server(folder: Path) -> Generator[str]:
    """Run `python -m http.server` over a folder on a free loopback port; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        found = re.search(r"port (\d+)", process.stdout.readline())
        assert found, "the server did not start"
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.communicate(timeout=10)


def ngclient_takes(folder: Path, url: str, root: bytes, target: str | None) -> int:
    """Let python-tuf's client walk from `root` and fetch `target`; return its root version."""
    store, files = folder / "ngclient", folder / "ngclient-files"
    for path in (store, files):
        path.mkdir(exist_ok=True)
    updater = Updater(
        str(store), f"{url}/metadata/", str(files), f"{url}/targets/", bootstrap=root
    )
    updater.refresh()
    if target:
        info = updater.get_targetinfo(target)
        assert info, f"{target} is not found"
        updater.download_target(info)
    return int(json.loads((store / "root.json").read_bytes())["signed"]["version"])


def board_takes(folder: Path, url: str, root: bytes, target: str | None) -> int:
    """Let the board's client, under MicroPython, do the same; return its root version."""
    store, files = folder / "board", folder / "board-files"
    files.mkdir(exist_ok=True)
    first = folder / "board-root.json"
    first.write_bytes(root)
    if not store.is_dir():
        run_client(store, "init", str(first))
    words = ["--metadata-url", f"{url}/metadata"]
    if target:
        words += ["--target-name", target, "--target-base-url", f"{url}/targets"]
        words += ["--target-dir", str(files), "download"]
    else:
        words.append("refresh")
    run_client(store, *words)
    if target:
        assert any(path.is_file() for path in files.rglob("*"))
    return int(json.loads((store / "root.json").read_bytes())["signed"]["version"])


def run_client(store: Path, *words: str, code: int = 0) -> str:
    """Run the board's client over `store`; returns what it said."""
    store.mkdir(exist_ok=True)
    command = [str(TUF_CLIENT), "--metadata-dir", str(store), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def both_clients_take(folder: Path, url: str, first: bytes, target: str | None, root: int) -> None:
    """Both clients walk from the root `first` to version `root` and fetch `target`."""
    assert ngclient_takes(folder, url, first, target) == root
    assert board_takes(folder, url, first, target) == root
