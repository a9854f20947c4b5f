"""Where the toolchain lives and how it gets there: cache folder, locks, stamps, subprocesses.

Everything fetched or built sits under one cache folder outside the repository. A part that
is complete has a stamp with the hash of its inputs; one without is made again from nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import platformdirs

REPO = Path(__file__).resolve().parents[2]
_LOG_TAIL_LINES = 25


class ToolchainError(Exception):
    """A tool that is missing or does not work. The text says what, why, and what to do next."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def cache_dir() -> Path:
    """Return the toolchain's folder: TIDEMARK_CACHE, else the user's cache folder."""
    named = os.environ.get("TIDEMARK_CACHE")
    path = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("tidemark"))
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def say(text: str) -> None:
    """Print one line of progress on stderr, so that stdout stays for results."""
    print(f"toolchain: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def lock(name: str) -> Generator[None, None, None]:
    """Hold the lock `name` across processes: test workers and the demo may ask at once."""
    with (cache_dir() / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(*parts: bytes | str) -> str:
    """Return 16 hex digits that name this exact sequence of inputs."""
    return full_digest(*parts)[:16]


def full_digest(*parts: bytes | str) -> str:
    """Return the SHA-256 (64 hex digits) over this exact sequence of inputs."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()


def bytes_digest(data: bytes) -> str:
    """Return the SHA-256 (64 hex digits) of these bytes, as sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


def tree_digest(root: Path, suffix: str = "") -> str:
    """Return the digest of the files under `root` whose names end in `suffix`: names, bytes."""
    parts: list[bytes | str] = []
    for path in sorted(root.rglob(f"*{suffix}")):
        if path.is_file() and "__pycache__" not in path.parts:
            parts += [str(path.relative_to(root)), path.read_bytes()]
    return digest(*parts)


def ensure(name: str, key: str, what: str, make: Callable[[Path], None]) -> Path:
    """Return the cache folder `name`, made by `make(folder)` unless its stamp says `key`."""
    folder = cache_dir() / name
    stamp = folder / ".stamp"
    if _stamped(stamp, key):
        return folder
    with lock(name):
        if _stamped(stamp, key):
            return folder
        say(what)
        fresh = folder.with_name(f"{name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        make(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        stamp.write_text(key)
    return folder


def forget(name: str) -> None:
    """Drop the cache folder `name`: what is in it turned out not to work."""
    shutil.rmtree(cache_dir() / name, ignore_errors=True)


def run(
    argv: Sequence[str | Path],
    *,
    why: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900,
) -> str:
    """Run a program and return its output; ToolchainError with the log's tail if it fails."""
    try:
        done = subprocess.run(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise ToolchainError("tool-missing", f"{why}: no program {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError("tool-hangs", f"{why}: no end after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_TAIL_LINES:])
        raise ToolchainError("tool-failed", f"{why}: exit {done.returncode}\n{tail}")
    return done.stdout


def _stamped(stamp: Path, key: str) -> bool:
    try:
        return stamp.read_text() == key
    except OSError:
        return False
