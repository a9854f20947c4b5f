"""The virtual board's runtime: MicroPython's unix port with our base frozen in.

The C part is compiled once per source; a change in firmware/ costs one freeze and one link. The
result is content-addressed, so that a mutated firmware never serves for the real one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_cache as cache
from tidemark_host.boardfile import Board, generate_board_module, load_board
from tidemark_host.toolchain_cache import REPO, ToolchainError, cache_dir, run, say
from tidemark_host.toolchain_native import host_march, native_modules, native_parts

MICROPYTHON = "1.25.0"
_MBEDTLS_SERIES = "3.6."
_SUITE = "trixie"
# A build date in the binary would make every day's build another one.
ENV = {
    "SOURCE_DATE_EPOCH": "1745020800",
    "MICROPY_GIT_TAG": f"v{MICROPYTHON}",
    "MICROPY_GIT_HASH": "tidemark",
    "LC_ALL": "C",
}
_FLAGS = ("MICROPY_PY_BTREE=0", "MICROPY_PY_JNI=0")
_VARIANT = REPO / "boards" / "VIRTUAL" / "variant"
_RECIPE = "1"
_KEEP_RUNTIMES = 24
_KEEP_SECONDS = 86_400


def firmware_dir() -> Path:
    """Return the firmware to build and test: TIDEMARK_FIRMWARE (mutants set it), else ours."""
    named = os.environ.get("TIDEMARK_FIRMWARE")
    return Path(named).resolve() if named else REPO / "firmware"


def board_of(name: str, runtime_index: int = 1) -> Board:
    """Return the board of boards/<name>, to build the runtime of this index for it.

    Raises ToolchainError `unknown-board`, BoardFileError.
    """
    path = REPO / "boards" / name / "board.toml"
    if not name.isidentifier() or not path.is_file():
        known = ", ".join(sorted(path.parent.name for path in REPO.glob("boards/*/board.toml")))
        raise ToolchainError("unknown-board", f"no boards/{name}/board.toml; there are: {known}")
    return replace(load_board(path), runtime_index=runtime_index)


def checkout_identity(tree: Path) -> str:
    """Return what names the content of a git checkout and its submodules, wherever it lies.

    Of a tree without git it is the path: changes there are the user's to clean up after.
    """
    if not shutil.which("git") or not (tree / ".git").exists():
        return str(tree)
    asked = [
        ("rev-parse", "HEAD"),
        ("submodule", "status"),
        ("status", "--porcelain"),
        ("diff", "HEAD", "--submodule=diff"),
    ]
    return cache.digest(*(run(["git", "-C", tree, *words], why="asking git") for words in asked))


def source_dir() -> Path:
    """Return MicroPython's source tree: MICROPY_DIR, else Debian's source package in the cache."""
    named = os.environ.get("MICROPY_DIR")
    if named:
        return _checked_source(Path(named).expanduser().resolve())
    if not apt.available():
        raise ToolchainError(
            "micropython-source",
            f"no apt on this machine: set MICROPY_DIR to a checkout of MicroPython {MICROPYTHON} "
            "with its submodule lib/mbedtls",
        )
    key = cache.digest("source", MICROPYTHON, _SUITE, _RECIPE)
    return _checked_source(
        cache.ensure("source", key, f"fetching the source of MicroPython {MICROPYTHON}", _fetch)
    )


def source_version(tree: Path) -> str:
    """Return the version of MicroPython in a source tree, "" where there is none."""
    config = tree / "py" / "mpconfig.h"
    found = re.findall(
        r"#define MICROPY_VERSION_(?:MAJOR|MINOR|MICRO) (\d+)",
        config.read_text() if config.is_file() else "",
    )
    return ".".join(found)


def _checked_source(tree: Path) -> Path:
    found = source_version(tree)
    if found != MICROPYTHON:
        raise ToolchainError(
            "micropython-source",
            f"{tree} is not MicroPython {MICROPYTHON} (found: {found or 'nothing'})",
        )
    if not (tree / "lib" / "mbedtls" / "library").is_dir():
        raise ToolchainError("micropython-source", f"{tree}/lib/mbedtls is empty: fetch it")
    return tree


def _fetch(folder: Path) -> None:
    work = folder / ".fetch"
    private = apt.PrivateApt(work / "apt", _SUITE)
    private.update()
    private.download_source(["micropython", "mbedtls"], work / "dl")
    _untar(_one(work / "dl", f"micropython_{MICROPYTHON}*.orig.tar.*"), folder)
    _untar(_one(work / "dl", f"mbedtls_{_MBEDTLS_SERIES}*.orig.tar.*"), folder / "lib" / "mbedtls")
    shutil.rmtree(work)


def _one(folder: Path, pattern: str) -> Path:
    found = [path for path in folder.glob(pattern) if path.suffix != ".asc"]
    if len(found) != 1:
        names = ", ".join(path.name for path in folder.iterdir())
        raise ToolchainError("micropython-source", f"want one {pattern}, got: {names}")
    return found[0]


def _untar(archive: Path, into: Path) -> None:
    """Unpack a source archive without its top folder."""
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        members: list[tarfile.TarInfo] = []
        for member in tar.getmembers():
            _, slash, rest = member.name.removeprefix("./").partition("/")
            if slash and rest:
                member.name = rest
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("./").partition("/")[2]
                members.append(member)
        # apt has checked the archive; the filter is a second net where this Python has it.
        if hasattr(tarfile, "data_filter"):
            tar.extractall(into, members=members, filter="data")
        else:
            tar.extractall(into, members=members)


def build_runtime(board: str, mpy_cross: Path, umqtt: Path, runtime_index: int = 1) -> Path:
    """Return the runtime of `board` for the firmware as it is now; build it when there is none.

    Raises ToolchainError with the compiler's last lines when the firmware does not compile.
    """
    firmware = firmware_dir()
    definition = board_of(board, runtime_index)
    generated = generate_board_module(definition)
    source = source_dir()
    for _ in range(5):
        key = _runtime_key(board, firmware, generated, source, umqtt)
        target = cache_dir() / "runtime" / key[:16] / "micropython"
        if target.is_file():
            os.utime(target.parent)
            return target
        with cache.lock("runtime"):
            if target.is_file():
                return target
            made = generate_board_module(definition, key)
            stage = stage_frozen("stage", firmware, made, umqtt, host_march())
            # The copy is what gets built: an editor may have saved a file since the key was made.
            if _runtime_key(board, stage / "firmware", generated, source, umqtt) != key:
                continue
            _compile(board, source, stage, mpy_cross, target)
            prune(target.parent)
            return target
    raise ToolchainError("firmware-changes", f"{firmware} keeps changing while it is built")


def _runtime_key(board: str, firmware: Path, generated: str, source: Path, umqtt: Path) -> str:
    return cache.full_digest(
        _RECIPE,
        str(source),
        *_FLAGS,
        cache.tree_digest(_VARIANT, ""),
        board,
        (REPO / "manifest.py").read_bytes(),
        (REPO / "boards" / board / "manifest.py").read_bytes(),
        generated,
        cache.tree_digest(umqtt, ".py"),
        *native_parts(host_march()),
        *frozen_parts(firmware),
    )


def frozen_parts(firmware: Path) -> list[bytes | str]:
    """Return what is frozen, as names and contents: entry points and base, no application."""
    paths = [
        firmware / "_boot.py",
        firmware / "main.py",
        *sorted(firmware.glob("tidemark/**/*.py")),
    ]
    parts: list[bytes | str] = []
    for path in paths:
        if path.is_file():
            parts += [str(path.relative_to(firmware)), path.read_bytes()]
    return parts


def stage_frozen(
    name: str | Path, firmware: Path, generated: str, umqtt: Path, march: str | None = None
) -> Path:
    """Copy what is frozen into the cache folder `name` (or a path), and return the folder.

    march: the processor to put native modules in for, None for none. With new time stamps: the
    freezer compares times, not contents.
    """
    stage = cache_dir() / name
    shutil.rmtree(stage, ignore_errors=True)
    own = stage / "firmware"
    for path in [firmware / "_boot.py", firmware / "main.py", *firmware.glob("tidemark/**/*.py")]:
        if path.is_file():
            copy = own / path.relative_to(firmware)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for path in umqtt.rglob("*.py"):
        copy = stage / "umqtt" / path.relative_to(umqtt)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    made = stage / "generated"
    made.mkdir(parents=True)
    (made / "tidemark_board.py").write_text(generated)
    (made / "boot.py").write_text("# Empty and frozen: no file of this name can run instead.\n")
    native = made / "native"
    native.mkdir()
    for module, code in native_modules(march).items():
        (native / f"{module}.mpy").write_bytes(code)
    # The build insists on a micropython-lib; ours has nothing in it, umqtt comes from PyPI.
    (stage / "lib").mkdir()
    (stage / "lib" / "README.md").write_text("Empty on purpose.\n")
    return stage


def _compile(board: str, source: Path, stage: Path, mpy_cross: Path, target: Path) -> None:
    build_unix(
        f"runtime of {board}",
        source,
        cache.digest(_RECIPE, str(source), *_FLAGS, cache.tree_digest(_VARIANT, "")),
        [
            f"MPY_LIB_DIR={stage / 'lib'}",
            f"MICROPY_MPYCROSS={mpy_cross}",
            f"FROZEN_MANIFEST={REPO / 'boards' / board / 'manifest.py'}",
            f"MICROPY_MANIFEST_FIRMWARE={stage / 'firmware'}",
            f"MICROPY_MANIFEST_GENERATED={stage / 'generated'}",
            f"MICROPY_MANIFEST_UMQTT={stage / 'umqtt'}",
        ],
        target,
    )


def build_bare(mpy_cross: Path) -> Path:
    """Return the same runtime with nothing frozen in, where `.frozen` is a folder like others.

    Raises ToolchainError with the compiler's last lines.
    """
    source = source_dir()
    key = cache.digest(_RECIPE, str(source), *_FLAGS, cache.tree_digest(_VARIANT, ""), "bare")
    target = cache_dir() / f"bare-{key}" / "micropython"
    with cache.lock("runtime"):
        if not target.is_file():
            more = ["FROZEN_MANIFEST=", f"MICROPY_MPYCROSS={mpy_cross}"]
            build_unix("runtime without a base", source, key, more, target)
    return target


def build_unix(
    what: str, source: Path, key: str, more: Sequence[str | Path], target: Path
) -> None:
    """Build MicroPython's unix port in the cache folder of `key`; copy the program to `target`."""
    _need_build_tools()
    build = cache_dir() / f"build-unix-{key}"
    first = not (build / "micropython").exists()
    say(f"building the {what}" + (" (the first one takes a minute)" if first else ""))
    began = time.monotonic()
    # Frozen objects of another firmware must not survive: names are all the freezer looks at.
    shutil.rmtree(build / "frozen_mpy", ignore_errors=True)
    run(
        [
            "make",
            f"-j{os.cpu_count() or 1}",
            "-C",
            source / "ports" / "unix",
            *_FLAGS,
            f"VARIANT_DIR={_VARIANT}",
            f"BUILD={build}",
            *more,
        ],
        why="building MicroPython's unix port",
        env={**ENV, "MAKEFLAGS": "", "MFLAGS": "", "MAKELEVEL": ""},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    shutil.copy2(build / "micropython", fresh)
    fresh.rename(target)
    say(f"{what} built in {time.monotonic() - began:.1f} s")


def _need_build_tools() -> None:
    missing = [
        package
        for package, program in (("gcc", "cc"), ("make", "make"), ("pkg-config", "pkg-config"))
        if not shutil.which(program)
    ]
    if not _has_libffi():
        missing.append("libffi-dev")
    if "gcc" in missing:
        missing.append("libc6-dev")
    if missing:
        say(f"installing {', '.join(missing)}")
        apt.install(missing, "building MicroPython")


def _has_libffi() -> bool:
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", "libffi"], check=False).returncode == 0


def prune(keep: Path) -> None:
    """Drop runtimes that nobody asked for in a day, but for the latest few."""
    runtimes = sorted(keep.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    limit = time.time() - _KEEP_SECONDS
    for path in runtimes[_KEEP_RUNTIMES:]:
        if path != keep and path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
