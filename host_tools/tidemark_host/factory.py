"""The whole flash of a board as it leaves the factory: an image in slot A and what authorises it.

Everything else is blank: provisioning, counter, journal, evidence and outbox are the board's own.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cbor2
from littlefs import LittleFS
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from tidemark_host.boardfile import Board, Region
from tidemark_host.release.repository import app_path

SLOT_HEADER = 4096
_MAGIC = b"TIDEMARK-SLOT-1\x00"
_HEADER_MAX = 240
_METADATA = ("root", "timestamp", "snapshot", "targets")
_BASE = "file:///"
_LITTLEFS_VERSION = 0x0002_0000  # every MicroPython with VfsLfs2 reads it


class FactoryError(Exception):
    """A factory image that can't be made; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def factory_image(board: Board, repo_dir: Path, target_path: str) -> bytes:
    """Return the flash content (`board.flash_size` bytes) with a release of a repository.

    repo_dir: the folder of `release.Repository`; its metadata goes to `/tuf` on littlefs and is
    verified here first, as the board will. target_path: `<board>/app-<index>.romfs`. Raises
    FactoryError: `no-release`, `wrong-board`, `not-trusted`, `too-large`.
    """
    files, entry, image = _verified(repo_dir, target_path)
    custom = cast("dict[str, Any]", entry.custom or {})
    if custom.get("board") != board.name or custom.get("kind") != "app":
        raise FactoryError("wrong-board", f"{target_path} is no application for {board.name}")
    if app_path(board.name, custom["index"]) != target_path:
        raise FactoryError("wrong-board", f"{target_path} and its index disagree")
    flash = bytearray(b"\xff" * board.flash_size)
    slot = slot_content(board, image, custom)
    if len(slot) > board.regions["slot_a"].size:
        raise FactoryError("too-large", f"{len(slot)} bytes do not fit slot A")
    _place(flash, board.regions["slot_a"], slot)
    named = {f"tuf/{role}.json": data for role, data in files.items()}
    _place(flash, board.regions["vfs"], littlefs_image(board, named))
    return bytes(flash)


def slot_content(board: Board, image: bytes, custom: dict[str, Any]) -> bytes:
    """Return header sector and image of a slot (firmware/tidemark/image.py, encode_header)."""
    fields = [
        board.name,
        hashlib.sha256(image).digest(),
        len(image),
        custom["index"],
        custom["attempt"],
        custom["version"],
    ]
    body = cbor2.dumps(fields, canonical=True)
    header = _MAGIC + len(body).to_bytes(2, "big") + body
    if len(header) > _HEADER_MAX:
        raise FactoryError("too-large", "the slot header has no room for this version")
    return header.ljust(SLOT_HEADER, b"\xff") + image


def littlefs_image(board: Board, files: dict[str, bytes]) -> bytes:
    """Return the region `vfs` with `files` (path: content), as the firmware's VfsLfs2 has it."""
    region = board.regions["vfs"]
    # Sizes as in firmware/tidemark/stage0.py; what is not named there is MicroPython's default.
    filesystem: Any = LittleFS(
        block_size=board.sector,
        block_count=region.size // board.sector,
        read_size=32,
        prog_size=board.page,
        cache_size=4 * board.page,
        lookahead_size=32,
        disk_version=_LITTLEFS_VERSION,
    )
    for path, data in files.items():
        folder = path.rpartition("/")[0]
        if folder:
            filesystem.makedirs(folder, exist_ok=True)
        with filesystem.open(path, "wb") as handle:
            handle.write(data)
    filesystem.unmount()
    return bytes(filesystem.context.buffer)


def _place(flash: bytearray, region: Region, data: bytes) -> None:
    flash[region.offset : region.offset + len(data)] = data


class _Folder(FetcherInterface):
    """Lets python-tuf's client read a repository from a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix(_BASE)
        if not path.is_file():
            raise DownloadHTTPError(f"{path} is not there", 404)
        yield path.read_bytes()


def _verified(repo_dir: Path, target_path: str) -> tuple[dict[str, bytes], TargetFile, bytes]:
    """Return metadata files by role, TARGETS entry and image, as python-tuf's client takes it."""
    roots = sorted(
        (repo_dir / "metadata").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0])
    )
    if not roots:
        raise FactoryError("not-trusted", f"{repo_dir} holds no repository: tidemark release init")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client = Updater(
            metadata_dir=name,
            metadata_base_url=f"{_BASE}metadata/",
            target_dir=name,
            target_base_url=f"{_BASE}targets/",
            fetcher=_Folder(repo_dir),
            bootstrap=roots[-1].read_bytes(),
        )
        try:
            client.refresh()
            entry = client.get_targetinfo(target_path)
            if entry is None:
                raise FactoryError("no-release", f"the repository has no target {target_path}")
            image = Path(client.download_target(entry, str(folder / "image"))).read_bytes()
        except (RepositoryError, DownloadError) as error:
            raise FactoryError("not-trusted", f"{repo_dir}: {error}") from error
        files = {role: (folder / f"{role}.json").read_bytes() for role in _METADATA}
    return files, entry, image
