"""The model checker Spin: the system's, else Debian's, unpacked privately."""

from __future__ import annotations

import shutil
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_cache as cache
from tidemark_host.toolchain_cache import ToolchainError, run


def spin() -> Path:
    """Return a program `spin` that works. Raises ToolchainError `spin`."""
    found = shutil.which("spin")
    if found:
        return Path(found)
    if not apt.available():
        raise ToolchainError("spin", "no spin on PATH and no apt: install spin")
    key = cache.digest("spin", apt.codename())
    folder = cache.ensure("spin", key, "fetching spin", _fetch)
    program = folder / "root" / "usr" / "bin" / "spin"
    run([program, "-V"], why="trying spin", timeout_s=20)
    return program


def _fetch(folder: Path) -> None:
    work = folder / ".fetch"
    private = apt.PrivateApt(work / "apt", apt.codename())
    private.update()
    # It needs the C library only, which is the system's.
    apt.unpack(private.download(["spin"], work / "dl"), folder / "root")
    shutil.rmtree(work)
