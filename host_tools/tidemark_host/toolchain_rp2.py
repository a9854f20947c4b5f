"""Firmware images for RP2040 boards: MicroPython's rp2 port with our base frozen in.

The compiler is Debian's cross compiler; pico-sdk and tinyusb are Debian source packages, unpacked
privately. The C part is compiled once; a change in firmware/ costs one freeze and one link. The
result is content-addressed, so that a mutated firmware never serves for the real one.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
import time
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_cache as cache
from tidemark_host.boardfile import Board, generate_board_module, load_board
from tidemark_host.toolchain_cache import REPO, ToolchainError, cache_dir, run, say
from tidemark_host.toolchain_native import native_parts

_SUITE = "trixie"
_SOURCES = {"pico-sdk-source": "2.1.1", "tinyusb-source": "0.18.0"}
# Parts of MicroPython's tree that the port is built from.
_PARTS = ("drivers", "extmod", "lib", "mpy-cross", "ports/rp2", "py", "shared", "tools")
_COMPILER = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "libstdc++-arm-none-eabi-newlib")
_CROSS = "arm-none-eabi-"
_MARCH = "armv6m"
_RECIPE = "2"

_XIP_BASE = 0x10000000
_UF2_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_UF2_FAMILY_PRESENT = 0x00002000
_UF2_RP2040 = 0xE48BFF56
_UF2_PAYLOAD = 256


@dataclass(frozen=True)
class Firmware:
    """A built image. `size`: bytes of flash from its start; `heap`: bytes left to Python."""

    uf2: Path
    size: int
    heap: int


def is_rp2(board: str) -> bool:
    """Return True for a board that has an image of the rp2 port."""
    return (REPO / "boards" / board / "mpconfigboard.cmake").is_file()


def firmware(board: str, mpy_cross: Path, umqtt: Path) -> Firmware:
    """Return the image of `board` for the firmware as it is now; build it when there is none.

    Raises ToolchainError: `firmware-size` for an image above the limit of board.toml, and others
    with the last lines of what failed. Safe to call from several processes at once.
    """
    folder = REPO / "boards" / board
    described = load_board(folder / "board.toml")
    sources = build.firmware_dir()
    tree = source_tree()
    _need_cross_compiler()
    for _ in range(5):
        key = _key(folder, described, sources, tree, umqtt)
        target = cache_dir() / "firmware" / key[:16]
        if (target / "sizes").is_file():
            os.utime(target)
            return _built(target, described)
        with cache.lock("firmware"):
            if (target / "sizes").is_file():
                return _built(target, described)
            generated = generate_board_module(described, key)
            stage = build.stage_frozen(f"stage-{board}", sources, generated, umqtt, _MARCH)
            # The copy is what gets built: an editor may have saved a file since the key was made.
            if _key(folder, described, stage / "firmware", tree, umqtt) != key:
                continue
            _compile(folder, tree, stage, mpy_cross, target)
            build.prune(target)
            return _built(target, described)
    raise ToolchainError("firmware-changes", f"{sources} keeps changing while it is built")


def _key(folder: Path, board: Board, sources: Path, tree: Path, umqtt: Path) -> str:
    """Return the SHA-256 (hex) over all that the image is built from, on any machine the same."""
    fetched = tree.is_relative_to(cache_dir())
    return cache.full_digest(
        _RECIPE,
        f"{build.MICROPYTHON} {_SOURCES}" if fetched else str(tree),
        _compiler_version(),
        cache.tree_digest(folder),
        (REPO / "manifest.py").read_bytes(),
        generate_board_module(board),
        cache.tree_digest(umqtt, ".py"),
        *native_parts(_MARCH),
        *build.frozen_parts(sources),
    )


def _built(target: Path, board: Board) -> Firmware:
    size, heap = (int(word) for word in (target / "sizes").read_text().split())
    limit = board.constants["RUNTIME_MAX"]
    if size > limit:
        raise ToolchainError(
            "firmware-size", f"the image of {board.name} has {size} bytes, the limit is {limit}"
        )
    return Firmware(target / "firmware.uf2", size, heap)


def firmware_image(board: str, mpy_cross: Path, umqtt: Path) -> str:
    """Put the image of `board` under build/ and return its size report."""
    image = firmware(board, mpy_cross, umqtt)
    described = load_board(REPO / "boards" / board / "board.toml")
    out = REPO / "build" / board / "firmware.uf2"
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_suffix(".new")
    shutil.copy2(image.uf2, fresh)
    fresh.rename(out)
    limit = described.constants["RUNTIME_MAX"]
    return (
        f"{out.relative_to(REPO)}: {image.size} of {limit} bytes of flash "
        f"({100 * image.size / limit:.1f} %), {limit - image.size} free; "
        f"{image.heap} bytes of heap for Python"
    )


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
    key = cache.digest(_RECIPE, str(source), build.MICROPYTHON, _SUITE, *pins)

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


def _compile(folder: Path, tree: Path, stage: Path, mpy_cross: Path, target: Path) -> None:
    board = folder.name
    work = cache_dir() / f"build-{board}-{cache.digest(_RECIPE, str(tree), str(folder))}"
    first = not (work / "firmware.elf").exists()
    say(f"building the firmware of {board}" + (" (the first one takes a minute)" if first else ""))
    began = time.monotonic()
    env = {
        **build.ENV,
        # The build scripts walk sets: without it the order of a table is another one each time.
        "PYTHONHASHSEED": "0",
        "MICROPY_MPYCROSS": str(mpy_cross),
        # Assertions name their source file: the same bytes wherever the tree is.
        "CFLAGS": f"-ffile-prefix-map={tree}=. -ffile-prefix-map={work}=.",
    }
    run(
        [
            "cmake",
            *("-G", "Ninja", "-S", tree / "ports" / "rp2", "-B", work),
            f"-DPython3_EXECUTABLE={sys.executable}",
            "-DPICO_BUILD_DOCS=0",
            # The UF2 file is made here, so that picotool is no part of the build.
            "-DPICO_NO_PICOTOOL=1",
            f"-DMICROPY_BOARD={board}",
            f"-DMICROPY_BOARD_DIR={folder}",
            f"-DMICROPY_FROZEN_MANIFEST={folder / 'manifest.py'}",
            f"-DMICROPY_LIB_DIR={stage / 'lib'}",
            f"-DMICROPY_MANIFEST_FIRMWARE={stage / 'firmware'}",
            f"-DMICROPY_MANIFEST_GENERATED={stage / 'generated'}",
            f"-DMICROPY_MANIFEST_UMQTT={stage / 'umqtt'}",
        ],
        why=f"configuring the firmware of {board}",
        env=env,
    )
    # Frozen objects of another firmware must not survive: names are all the freezer looks at.
    shutil.rmtree(work / "frozen_mpy", ignore_errors=True)
    run(["ninja", "-C", work], why=f"building the firmware of {board}", env=env)
    binary = (work / "firmware.bin").read_bytes()
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "firmware.uf2").write_bytes(uf2(binary))
    (fresh / "sizes").write_text(f"{len(binary)} {_heap(work / 'firmware.elf')}\n")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    say(f"firmware of {board} built in {time.monotonic() - began:.1f} s")


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
    """Return `binary`, to be written at `offset` of an RP2040's flash, as a UF2 file.

    Source: Microsoft's UF2 specification; blocks of 256 bytes, as the boot ROM wants them.
    """
    start0, start1, end = _UF2_MAGIC
    count = -(-len(binary) // _UF2_PAYLOAD)
    blocks: list[bytes] = []
    for number in range(count):
        part = binary[number * _UF2_PAYLOAD : (number + 1) * _UF2_PAYLOAD]
        address = _XIP_BASE + offset + number * _UF2_PAYLOAD
        head = (start0, start1, _UF2_FAMILY_PRESENT, address, _UF2_PAYLOAD, number, count)
        blocks.append(
            struct.pack("<8I", *head, _UF2_RP2040)
            + part.ljust(476, b"\0")
            + struct.pack("<I", end)
        )
    return b"".join(blocks)


def flash_of(image: bytes) -> dict[int, bytes]:
    """Return flash offset: content, for each block of a UF2 file of an RP2040.

    Raises ToolchainError `uf2` for anything else.
    """
    start0, start1, end = _UF2_MAGIC
    if not image or len(image) % 512:
        raise ToolchainError("uf2", "not a UF2 file: its size is no multiple of 512")
    parts: dict[int, bytes] = {}
    for at in range(0, len(image), 512):
        block = image[at : at + 512]
        first, second, flags, address, size, _, _, family = struct.unpack_from("<8I", block)
        if (first, second) != (start0, start1) or block[508:] != struct.pack("<I", end):
            raise ToolchainError("uf2", f"not a UF2 block at byte {at}")
        if not flags & _UF2_FAMILY_PRESENT or family != _UF2_RP2040:
            raise ToolchainError("uf2", "a UF2 file, but not for an RP2040")
        if size > 476 or not _XIP_BASE <= address < _XIP_BASE + 0x1000000:
            raise ToolchainError("uf2", f"block at byte {at}: {size} bytes at {address:#x}")
        parts[address - _XIP_BASE] = block[32 : 32 + size]
    return parts
