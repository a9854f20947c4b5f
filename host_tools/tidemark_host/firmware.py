"""`make firmware`: the runtime of a board, a factory image that works at once, and their sizes.

What can be seen not to fit is refused before the compiler runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from tidemark_host import toolchain, uf2_file
from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_esp32 as esp32
from tidemark_host import toolchain_rp2 as rp2
from tidemark_host.boardfile import Board
from tidemark_host.factory import SLOT_HEADER, FactoryError, factory_image
from tidemark_host.release import ROLES, KeyStore, ReleaseError, Repository, app_path
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_cache import REPO, ToolchainError, bytes_digest, say

SHOWN_MODULES = 10
_FRESH = timedelta(days=1)  # development metadata that expires sooner is signed again


@dataclass(frozen=True)
class Size:
    """`used` of `limit` bytes of one part of a board."""

    part: str
    used: int
    limit: int

    @property
    def percent(self) -> float:
        """Return how full it is."""
        return 100 * self.used / self.limit


@dataclass(frozen=True)
class Signed:
    """The release in slot A: of which repository, and whether its keys were made here."""

    repository: Path
    index: int
    version: str
    development: bool


@dataclass(frozen=True)
class Report:
    """What was built. `runtime`: SHA-256 (hex) over all that the runtime is built from. `images`:
    path to SHA-256 (hex). `heap`: bytes left to Python, and the least that board.toml asks for;
    None where no build can know it."""

    board: str
    runtime: str
    runtime_index: int
    images: Mapping[str, str]
    sizes: tuple[Size, ...]
    heap: tuple[int, int] | None
    modules: tuple[tuple[str, int], ...]
    signed: Signed

    def to_json(self) -> str:
        """Return one JSON object."""
        document = asdict(self)
        document["signed"]["repository"] = str(self.signed.repository)
        for size, row in zip(self.sizes, document["sizes"], strict=True):
            row["percent"] = round(size.percent, 1)
        return json.dumps(document)

    def lines(self) -> list[str]:
        """Return the report for people."""
        signed = self.signed
        lines = [f"{path}  sha256 {digest[:16]}" for path, digest in self.images.items()]
        full = [f"{size.part} {size.percent:.0f} % full" for size in self.sizes]
        lines.append(", ".join(full))
        lines += [
            f"  {size.part:<8} {size.used:>9,} of {size.limit:>9,} bytes, "
            f"{size.limit - size.used:,} free"
            for size in self.sizes
        ]
        if self.heap:
            lines.append(f"  {'heap':<8} {self.heap[0]:>9,} bytes, at least {self.heap[1]:,}")
        if self.modules:
            largest = self.modules[:SHOWN_MODULES]
            lines.append(f"largest of {len(self.modules)} frozen modules, bytes:")
            lines += [f"  {count:>7,}  {name}" for name, count in largest]
        lines.append(f"runtime {self.runtime_index}, made of {self.runtime[:16]}")
        what = f"release {signed.index} ({signed.version})"
        if signed.development:
            lines.append(
                f"slot A: {what}, signed by DEVELOPMENT keys made on this machine, in "
                f"{shown(signed.repository.parent)}. Not for the field: name your repository with "
                "RELEASE=<folder>"
            )
        else:
            lines.append(f"slot A: {what} of {signed.repository}")
        return lines


def make_firmware(
    name: str, release: Path | None = None, index: int | None = None, runtime_index: int = 1
) -> Report:
    """Put the images of a board under build/<name>/ and return the report.

    release: a repository (`tidemark release init`) whose release `index`, by default its newest,
    goes into slot A; None: the agent as it is here, signed by keys made on this machine.
    runtime_index: what the runtime says it is; releases name the least they need. Raises
    ToolchainError, BoardFileError, FactoryError, ImageError, ReleaseError; nothing under build/
    has changed then but the development repository.
    """
    board = build.board_of(name, runtime_index)
    if board.chip.port not in ("rp2", "esp32", "unix"):
        raise ToolchainError("no-build", f"there is no build for the port {board.chip.port} yet")
    if board.chip.port == "esp32":
        esp32.need(board)
    if board.chip.port == "rp2":
        rp2.need_radio(board)
        rp2.need_port(board)
    out = REPO / "build" / name
    signed = named_release(board, release, index) if release else development_release(board, out)
    # Before the compiler: what does not fit a slot or the filesystem is refused here.
    flash = factory_image(board, signed.repository, app_path(name, signed.index))
    if board.chip.port == "rp2":
        return _rp2(board, out, flash, signed)
    if board.chip.port == "esp32":
        return _esp32(board, out, flash, signed)
    return _unix(board, out, flash, signed)


def _rp2(board: Board, out: Path, flash: bytes, signed: Signed) -> Report:
    image = rp2.firmware(
        board.name, toolchain.mpy_cross(), toolchain.umqtt_dir(), board.runtime_index
    )
    runtime = image.uf2.read_bytes()
    factory = uf2_file.encode(
        {**uf2_file.decode(runtime, board.chip), **uf2_file.sectors(flash)}, board.chip
    )
    images = _write(out, {"firmware.uf2": runtime, "factory.uf2": factory})
    sizes = (
        Size("runtime", image.size, board.constants["RUNTIME_MAX"]),
        *_flash_sizes(board, flash),
    )
    heap = (image.heap, board.constants["HEAP"])
    return Report(
        board.name, image.runtime, board.runtime_index, images, sizes, heap, image.modules, signed
    )


def _esp32(board: Board, out: Path, flash: bytes, signed: Signed) -> Report:
    image = esp32.firmware(board, toolchain.mpy_cross(), toolchain.umqtt_dir())
    names = {board.chip.bootloader: "bootloader", board.regions["runtime"].offset: "runtime"}
    files = {f"{names.get(at, 'partitions')}.bin": part for at, part in image.parts.items()}
    if image.signed:
        files["firmware.bin"] = esp32.flash_content(image.parts)
        files["factory.bin"] = files["firmware.bin"] + flash[len(files["firmware.bin"]) :]
    else:
        say("secure-boot: sign bootloader.bin and runtime.bin; until then no image would start")
    images = _write(out, files)
    sizes = (
        Size("runtime", image.size, board.constants["RUNTIME_MAX"]),
        *_flash_sizes(board, flash),
    )
    return Report(board.name, image.runtime, board.runtime_index, images, sizes, None, (), signed)


def _unix(board: Board, out: Path, flash: bytes, signed: Signed) -> Report:
    program = toolchain.runtime(board.name, board.runtime_index)
    images = _write(out, {"micropython": program.read_bytes(), "factory.bin": flash})
    (out / "micropython").chmod(0o755)
    parts = build.frozen_parts(build.firmware_dir())
    sources = zip(parts[::2], parts[1::2], strict=True)
    modules = sorted(
        ((str(name).removesuffix(".py"), len(source)) for name, source in sources),
        key=lambda item: (-item[1], item[0]),
    )
    sizes = _flash_sizes(board, flash)
    return Report(
        board.name,
        program.parent.name,
        board.runtime_index,
        images,
        sizes,
        None,
        tuple(modules),
        signed,
    )


def _flash_sizes(board: Board, flash: bytes) -> tuple[Size, Size]:
    """Return how full slot A and the filesystem of a factory image are."""
    slot, files = board.regions["slot_a"], board.regions["vfs"]
    content = flash[slot.offset : slot.end].rstrip(b"\xff")
    used = uf2_file.sectors(flash[files.offset : files.end])
    return (
        Size("slot A", max(len(content), SLOT_HEADER), slot.size),
        Size("files", len(used) * board.sector, files.size),
    )


def _write(out: Path, images: Mapping[str, bytes]) -> dict[str, str]:
    """Write each image whole; return path and SHA-256 of each."""
    out.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    for name, content in images.items():
        path = out / name
        fresh = out / f"{name}.new"
        fresh.write_bytes(content)
        fresh.rename(path)
        digests[shown(path)] = bytes_digest(content)
    return digests


def named_release(board: Board, folder: Path, index: int | None) -> Signed:
    """Return the release `index` of a repository, or its newest for `board`.

    Raises FactoryError `no-release`, ReleaseError `no-repository`.
    """
    # No key is needed: what is published is signed already.
    repository = Repository.open(folder, KeyStore(folder / "no-keys"))
    indices = repository.indices(board.name)
    wanted = index if index is not None else max(indices, default=0)
    if wanted not in indices:
        raise FactoryError(
            "no-release",
            f"{folder} has no release {wanted or ''} for {board.name}".replace("  ", " "),
        )
    return Signed(folder, wanted, _version(repository, board.name, wanted), False)


def development_release(board: Board, out: Path, overlays: Iterable[Path] = ()) -> Signed:
    """Return the agent as it is here, as the newest release of a repository under `out`.

    Keys and repository are made when they are not there; a release is added only when the image
    has changed, and metadata signed again only when it is about to expire: the same firmware gives
    the same factory image.
    """
    folder = out / "development"
    sources = [build.firmware_dir() / "agent", *overlays]
    image = build_image(sources, None, folder / "app.romfs").read_bytes()
    room = board.regions["slot_a"].size - SLOT_HEADER
    if len(image) > room:
        raise FactoryError("too-large", f"the agent has {len(image)} bytes, a slot {room}")
    keys, place = KeyStore(folder / "keys"), folder / "repo"
    try:
        repository = Repository.open(place, keys)
    except ReleaseError as error:
        if error.code != "no-repository":
            raise
        # What a half-made one left is of no use: nothing was ever built with it.
        for stale in (place, folder / "keys"):
            shutil.rmtree(stale, ignore_errors=True)
        repository = Repository.create(place, KeyStore.create(folder / "keys", force=True))
    newest = max(repository.indices(board.name), default=0)
    digest = hashlib.sha256(image).hexdigest()
    held = repository.targets.targets.get(app_path(board.name, newest))
    changed = held is None or held.hashes["sha256"] != digest
    if changed:
        newest = repository.add(image, board=board.name, version=version("tidemark"))
    expiring = [row.role for row in repository.status() if row.left < _FRESH and row.role in ROLES]
    if changed or expiring:
        repository.publish(refresh=expiring)
    return Signed(place, newest, _version(repository, board.name, newest), True)


def _version(repository: Repository, board: str, index: int) -> str:
    custom = repository.targets.targets[app_path(board, index)].custom
    return str(custom["version"]) if custom else ""


def shown(path: Path) -> str:
    """Return a path as people want to read it: below the repository, relative to it."""
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)
