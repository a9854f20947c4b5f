"""The RP2040 emulator rp2040py, compiled again for this Python where that is possible.

Its wheel has the limited-API build; the C sources in the same wheel, compiled for one Python and
with -O3, run several times faster and give the same emulated times. So does a loop of ours
(boards/emulated_loop.pyx), which executes most instructions itself and calls into them for the
rest, without Python in between.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from functools import cache as remember
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_cache as cache
from tidemark_host.toolchain_cache import ToolchainError, run, say

PACKAGE = "rp2040py"
VERSION = "0.3.6"
_LOOP = Path(__file__).parent / "boards" / "emulated_loop.pyx"
_INCLUDED = _LOOP.with_name("emulated_thumb.pxi")
_FLAGS = ("-O3", "-fPIC", "-shared", "-fwrapv", "-DNDEBUG", "-w")


@remember
def folder() -> Path | None:
    """Return a folder to import the faster emulator from; None: the wheel has to do."""
    found = metadata.version(PACKAGE)
    if found != VERSION:
        raise ToolchainError("emulator", f"want {PACKAGE} {VERSION}, got {found}: make setup")
    wheel = Path(str(metadata.distribution(PACKAGE).locate_file(PACKAGE)))
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    sources = sorted((wheel / "native").glob("*.c"))
    if not sources or not shutil.which("cc") or not _headers():
        say("the emulator runs slowly: compiling it needs cc and Python's headers")
        return None
    contents = [path.read_bytes() for path in (_LOOP, _INCLUDED, *sources)]
    key = cache.digest(VERSION, metadata.version("cython"), sys.version, *_FLAGS, *contents)

    def make(fresh: Path) -> None:
        copy = fresh / PACKAGE
        shutil.copytree(wheel, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        include = f"-I{sysconfig.get_path('include')}"
        loop = copy / "native" / "_tidemark_loop.c"
        run(
            [
                *(sys.executable, "-m", "cython", "-3", "-I", fresh),
                *("--module-name", f"{PACKAGE}.native.{loop.stem}", "-o", loop, _LOOP),
            ],
            why=f"translating {_LOOP.name}",
        )
        for source in sorted((copy / "native").glob("*.c")):
            target = source.with_name(source.stem + suffix)
            run(["cc", *_FLAGS, include, source, "-o", target], why=f"compiling {source.name}")
        run(
            [
                *(sys.executable, "-W", "error", "-c"),
                "import sys; sys.path.insert(0, sys.argv[1])\n"
                "from rp2040py.execute_batch import execute_batch as e\n"
                "import rp2040py.native._tidemark_loop as loop, rp2040py.native as n\n"
                "assert e.__module__.endswith('native._simulator') and loop.Loop(n.RP2040())",
                fresh,
            ],
            why="trying the compiled emulator",
            timeout_s=60,
        )

    try:
        # By its key: checkouts that differ share this cache, and take turns.
        name = f"emulator-{key[:12]}{suffix}"
        return cache.ensure(name, key, "compiling the emulator (a minute)", make)
    except ToolchainError as error:
        say(f"the emulator runs slowly: {error}")
        return None


def _headers() -> bool:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.is_file():
        return True
    if sys.base_prefix != "/usr" or not apt.available():
        return False
    try:
        package = f"libpython3.{sys.version_info.minor}-dev"
        say(f"installing {package}")
        apt.install([package], "compiling the emulator")
    except ToolchainError:
        return False
    return header.is_file()


def load(name: str) -> Any:
    """Import a module of the emulator, from the faster build where there is one.

    All of it must come through here, since the first import decides which build it is.
    """
    if PACKAGE not in sys.modules:
        faster = folder()
        if faster is not None:
            sys.path.insert(0, str(faster))
            try:
                import_module(PACKAGE)
            finally:
                sys.path.remove(str(faster))
    return import_module(f"{PACKAGE}.{name}")
