"""Firmware images for RP2040 and RP2350 boards: MicroPython's rp2 port with our base frozen in.

The compiler is Debian's cross compiler; pico-sdk and tinyusb are Debian source packages, unpacked
privately. The C part is compiled once; a change in firmware/ costs one freeze and one link. The
result is content-addressed, so that a mutated firmware never serves for the real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_cache as cache
from tidemark_host import uf2_file
from tidemark_host.boardfile import Board, generate_board_module, generate_header
from tidemark_host.toolchain_cache import REPO, ToolchainError, cache_dir, run, say
from tidemark_host.toolchain_native import native_parts

_SUITE = "trixie"
_SOURCES = {"pico-sdk-source": "2.1.1", "tinyusb-source": "0.18.0"}
# Parts of MicroPython's tree that the port is built from.
_PARTS = ("drivers", "extmod", "lib", "mpy-cross", "ports/rp2", "py", "shared", "tools")
_COMPILER = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "libstdc++-arm-none-eabi-newlib")
_CROSS = "arm-none-eabi-"
_FACTS = "facts.json"
_SOURCE_RECIPE = "2"
_RECIPE = "4"
_PORTED = ("rp2040", "rp2350")  # chips whose registers firmware/tidemark/port/rp2.py has
# What a radio needs of MicroPython's tree, by its driver's name in board.toml.
_RADIO_PARTS = {"cyw43": ("lib/cyw43-driver/src/cyw43.h", "lib/lwip/src/include/lwip/opt.h")}


@dataclass(frozen=True)
class Firmware:
    """A built image. `size`: bytes of flash from its start; `heap`: bytes left to Python.

    `runtime`: SHA-256 (hex) over all that it is built from, which the board reports. `modules`:
    bytes of flash by frozen module, the largest first.
    """

    uf2: Path
    size: int
    heap: int
    runtime: str
    modules: tuple[tuple[str, int], ...]


def is_rp2(board: str) -> bool:
    """Return True for a board that has an image of the rp2 port."""
    return build.board_of(board).chip.port == "rp2"


def firmware(board: str, mpy_cross: Path, umqtt: Path, runtime_index: int = 1) -> Firmware:
    """Return the image of `board` for the firmware as it is now; build it when there is none.

    Raises ToolchainError: `firmware-size`, `firmware-heap` for an image against the limits of
    board.toml; `radio-driver` for a board whose radio needs MICROPY_DIR; `port-chip` for a chip
    that the port does not know; and others with the last lines of what failed. Safe to call from
    several processes at once.
    """
    folder = REPO / "boards" / board
    described = build.board_of(board, runtime_index)
    need_radio(described)
    need_port(described)
    sources = build.firmware_dir()
    tree = source_tree()
    _need_cross_compiler()
    for _ in range(5):
        key = _key(folder, described, sources, tree, umqtt)
        target = cache_dir() / "firmware" / key[:16]
        if (target / _FACTS).is_file():
            os.utime(target)
            return _built(target, described)
        with cache.lock("firmware"):
            if (target / _FACTS).is_file():
                return _built(target, described)
            generated = generate_board_module(described, key)
            march = described.chip.march
            stage = build.stage_frozen(f"stage-{board}", sources, generated, umqtt, march)
            # The copy is what gets built: an editor may have saved a file since the key was made.
            if _key(folder, described, stage / "firmware", tree, umqtt) != key:
                continue
            work = cache_dir() / f"build-{board}-{cache.digest(_RECIPE, str(tree), str(folder))}"
            elf = _compile(described, folder, tree, stage, mpy_cross, work)
            _keep(described, elf, stage, key, target)
            build.prune(target)
            return _built(target, described)
    raise ToolchainError("firmware-changes", f"{sources} keeps changing while it is built")


def built_twice(
    board: str, mpy_cross: Path, umqtt: Path, runtime_index: int = 1
) -> tuple[str, str]:
    """Build the image twice from nothing, each time in new folders; return both SHA-256 (hex).

    Nothing compiled before is used, and nothing is kept. Raises ToolchainError as `firmware`.
    """
    folder = REPO / "boards" / board
    described = build.board_of(board, runtime_index)
    need_radio(described)
    need_port(described)
    tree = source_tree()
    _need_cross_compiler()
    sources = build.firmware_dir()
    key = _key(folder, described, sources, tree, umqtt)
    digests: list[str] = []
    for prefix in ("tidemark-first-", "tidemark-once-more-"):
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            place = Path(name).resolve()
            generated = generate_board_module(described, key)
            march = described.chip.march
            stage = build.stage_frozen(place / "stage", sources, generated, umqtt, march)
            elf = _compile(described, folder, tree, stage, mpy_cross, place / "build")
            image = uf2_file.encode({0: elf.with_suffix(".bin").read_bytes()}, described.chip)
            digests.append(cache.bytes_digest(image))
    return digests[0], digests[1]


def need_radio(board: Board) -> None:
    """Raise ToolchainError `radio-driver` where the sources lack what the board's radio needs."""
    parts = _RADIO_PARTS.get(board.radio, ())
    named = os.environ.get("MICROPY_DIR")
    tree = Path(named).expanduser().resolve() if named else None
    missing = [part for part in parts if tree is None or not (tree / part).is_file()]
    if not missing:
        return
    submodules = ", ".join("/".join(part.split("/")[:2]) for part in missing)
    where = f"{tree} lacks {submodules}" if tree else "no package has its driver"
    raise ToolchainError(
        "radio-driver",
        f"the radio of {board.name} is a {board.radio.upper()}, and {where}. Set MICROPY_DIR to a "
        f"git checkout of MicroPython {build.MICROPYTHON}, after `make -C ports/rp2 "
        f"BOARD=RPI_PICO{'2' if board.chip.name == 'rp2350' else ''}_W submodules` there",
    )


def need_port(board: Board) -> None:
    """Raise ToolchainError `port-chip` for a chip whose registers the port does not know.

    It writes to them by address: where one chip has its watchdog another has the PLL of USB.
    """
    if board.chip.name not in _PORTED:
        known = " and ".join(_PORTED)
        raise ToolchainError(
            "port-chip",
            f"firmware/tidemark/port/rp2.py has the register addresses of {known} only, and "
            f"{board.name} is an {board.chip.name.upper()}: add and try them before it is built",
        )


def _key(folder: Path, board: Board, sources: Path, tree: Path, umqtt: Path) -> str:
    """Return the SHA-256 (hex) over all that the image is built from, on any machine the same."""
    fetched = tree.is_relative_to(cache_dir())
    return cache.full_digest(
        _RECIPE,
        f"{build.MICROPYTHON} {_SOURCES}" if fetched else build.checkout_identity(tree),
        _compiler_version(),
        cache.tree_digest(folder),
        (REPO / "manifest.py").read_bytes(),
        generate_board_module(board),
        cache.tree_digest(umqtt, ".py"),
        *native_parts(board.chip.march),
        *build.frozen_parts(sources),
    )


def _built(target: Path, board: Board) -> Firmware:
    facts = json.loads((target / _FACTS).read_text())
    size, heap = facts["size"], facts["heap"]
    limit, least = board.constants["RUNTIME_MAX"], board.constants["HEAP"]
    if size > limit:
        raise ToolchainError(
            "firmware-size", f"the image of {board.name} has {size} bytes, the limit is {limit}"
        )
    if heap < least:
        raise ToolchainError(
            "firmware-heap", f"the image of {board.name} leaves {heap} bytes of heap, not {least}"
        )
    modules = tuple((name, count) for name, count in facts["modules"])
    return Firmware(target / "firmware.uf2", size, heap, facts["runtime"], modules)


def _keep(board: Board, elf: Path, stage: Path, key: str, target: Path) -> None:
    """Put image and facts of a finished build where `firmware` finds them, whole or not at all."""
    binary = elf.with_suffix(".bin").read_bytes()
    facts = {
        "size": len(binary),
        "heap": _heap(elf),
        "runtime": key,
        "modules": _modules(elf, (elf.parent / "frozen_mpy", stage / "generated" / "native")),
    }
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "firmware.uf2").write_bytes(uf2_file.encode({0: binary}, board.chip))
    (fresh / _FACTS).write_text(json.dumps(facts))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def source_tree() -> Path:
    """Return a tree with ports/rp2, lib/pico-sdk and lib/tinyusb.

    MICROPY_DIR itself where its submodules are there, else a copy with Debian's sources.
    """
    source = build.source_dir()
    if (source / "lib/pico-sdk/pico_sdk_init.cmake").is_file() and (
        source / "lib/tinyusb/src/tusb.c"
    ).is_file():
        return source
    if not apt.available():
        raise ToolchainError(
            "pico-sdk", f"{source} lacks lib/pico-sdk or lib/tinyusb: fetch these submodules"
        )
    pins = [f"{name} {pin}" for name, pin in _SOURCES.items()]
    key = cache.digest(_SOURCE_RECIPE, str(source), build.MICROPYTHON, _SUITE, *pins)

    def make(folder: Path) -> None:
        _fetch_sdk(folder / ".fetch")
        for part in _PARTS:
            shutil.copytree(source / part, folder / part, symlinks=True)
        unpacked = folder / ".fetch" / "root" / "usr" / "src"
        for name in ("pico-sdk", "tinyusb"):
            # What the source package has there is an empty submodule.
            shutil.rmtree(folder / "lib" / name, ignore_errors=True)
            shutil.move(unpacked / name, folder / "lib" / name)
        shutil.rmtree(folder / ".fetch")

    return cache.ensure("source-rp2", key, f"fetching {' and '.join(pins)}", make)


def _fetch_sdk(work: Path) -> None:
    private = apt.PrivateApt(work / "apt", _SUITE)
    private.update()
    debs = private.download(list(_SOURCES), work / "dl")
    for deb in debs:
        name = deb.name.partition("_")[0]
        found = apt.version_of(deb)
        if not re.match(re.escape(_SOURCES[name]) + r"[^0-9.]", found):
            raise ToolchainError("pico-sdk", f"want {name} {_SOURCES[name]}, got {found}")
    apt.unpack(debs, work / "root")


def missing_packages() -> list[str]:
    """Return the system packages that a build still needs."""
    packages = {"cmake": "cmake", "ninja": "ninja-build"}
    missing = [package for name, package in packages.items() if not shutil.which(name)]
    compiler = shutil.which(f"{_CROSS}gcc")
    # Without newlib the compiler is there, but finds no libc.
    specs = compiler and run(
        [compiler, "-print-file-name=nosys.specs"], why="trying the cross compiler", timeout_s=20
    )
    if not specs or not Path(specs.strip()).is_absolute() or not shutil.which(f"{_CROSS}g++"):
        missing += _COMPILER
    return missing


def _need_cross_compiler() -> None:
    packages = missing_packages()
    if packages:
        say(f"installing {', '.join(packages)}")
        apt.install(packages, "building firmware for the RP2040")


@remember
def _compiler_version() -> str:
    argv = [f"{_CROSS}gcc", "-dumpfullversion"]
    return run(argv, why="trying the cross compiler", timeout_s=20).strip()


def _compile(
    board: Board, folder: Path, tree: Path, stage: Path, mpy_cross: Path, work: Path
) -> Path:
    """Build in the folder `work` and return the ELF file; firmware.bin is beside it."""
    elf = work / "firmware.elf"
    note = "" if elf.exists() else " (from nothing it takes a minute)"
    say(f"building the firmware of {board.name}{note}")
    began = time.monotonic()
    env = {
        **build.ENV,
        # The build scripts walk sets: without it the order of a table is another one each time.
        "PYTHONHASHSEED": "0",
        "MICROPY_MPYCROSS": str(mpy_cross),
        # Assertions name their source file: the same bytes wherever the tree is.
        "CFLAGS": f"-ffile-prefix-map={tree}=. -ffile-prefix-map={work}=.",
    }
    definition = _define(board, folder, work / "board")
    run(
        [
            "cmake",
            *("-G", "Ninja", "-S", tree / "ports" / "rp2", "-B", work),
            f"-DPython3_EXECUTABLE={sys.executable}",
            "-DPICO_BUILD_DOCS=0",
            # The UF2 file is made here, so that picotool is no part of the build.
            "-DPICO_NO_PICOTOOL=1",
            f"-DMICROPY_BOARD={board.name}",
            f"-DMICROPY_BOARD_DIR={definition}",
            f"-DMICROPY_FROZEN_MANIFEST={folder / 'manifest.py'}",
            f"-DMICROPY_LIB_DIR={stage / 'lib'}",
            f"-DMICROPY_MANIFEST_FIRMWARE={stage / 'firmware'}",
            f"-DMICROPY_MANIFEST_GENERATED={stage / 'generated'}",
            f"-DMICROPY_MANIFEST_UMQTT={stage / 'umqtt'}",
        ],
        why=f"configuring the firmware of {board.name}",
        env=env,
    )
    # Frozen objects of another firmware must not survive: names are all the freezer looks at.
    shutil.rmtree(work / "frozen_mpy", ignore_errors=True)
    run(["ninja", "-C", work], why=f"building the firmware of {board.name}", env=env)
    say(f"firmware of {board.name} built in {time.monotonic() - began:.1f} s")
    return elf


def _define(board: Board, folder: Path, target: Path) -> Path:
    """Lay the board's definition out for MicroPython's build: its files, and what board.toml says.

    Files that stay the same keep their time stamps: they are not compiled again.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files["tidemark_board.h"] = generate_header(board).encode()
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    return target


def _modules(elf: Path, frozen: Iterable[Path]) -> list[tuple[str, int]]:
    """Return (frozen module, bytes of flash), the largest first, by the symbols of its code.

    frozen: folders with the modules' .mpy files. Names and strings that several share are not
    counted.
    """
    paths = [
        str(path.relative_to(folder).with_suffix(""))
        for folder in frozen
        for path in folder.rglob("*.mpy")
    ]
    # The freezer names what belongs to a module after it, with other characters as "_".
    names = {re.sub(r"\W", "_", path): path for path in paths}
    sizes = dict.fromkeys(paths, 0)
    known = "|".join(sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"^[0-9a-f]+ ([0-9a-f]+) \w \w+?_({known})(?:_|$)")
    for line in run([f"{_CROSS}nm", "-S", elf], why="reading the sizes of modules").splitlines():
        if match := pattern.match(line):
            sizes[names[match[2]]] += int(match[1], 16)
    return sorted(sizes.items(), key=lambda item: (-item[1], item[0]))


def _heap(elf: Path) -> int:
    """Return the bytes between the two symbols that bound MicroPython's heap."""
    symbols = run([f"{_CROSS}nm", elf], why="reading the size of the heap")
    bounds = [
        int(match[1], 16)
        for name in ("__GcHeapStart", "__GcHeapEnd")
        if (match := re.search(rf"^([0-9a-f]+) \w {name}$", symbols, re.MULTILINE))
    ]
    if len(bounds) != 2:
        raise ToolchainError("firmware", f"{elf} has no symbols of a heap")
    return bounds[1] - bounds[0]


def uf2(binary: bytes, offset: int = 0) -> bytes:
    """Return `binary`, to be written at `offset` of an RP2040's flash, as a UF2 file."""
    return uf2_file.encode({offset: binary})


def flash_of(image: bytes) -> dict[int, bytes]:
    """Return flash offset: content, for each block of a UF2 file of an RP2040.

    Raises ToolchainError `uf2` or `wrong-chip` for anything else.
    """
    try:
        return uf2_file.decode(image)
    except uf2_file.Uf2Error as error:
        raise ToolchainError(error.code, str(error)) from error
