"""Turns of those who read a file, change what it held and write it anew."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there the last one who writes wins
    fcntl = None


@contextlib.contextmanager
def only_writer(path: Path) -> Generator[None]:
    """Be the only one who changes `path` while the block lasts, among all processes.

    The lock is on a file beside it that stays, since the file itself is replaced. Whoever only
    reads needs none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
