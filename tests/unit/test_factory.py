"""Factory flash images: what a board finds in its flash before it was ever switched on."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import REPO, SHARED, firmware_dir
from tidemark import image as firmware_image
from tidemark.slots import Release
from tidemark_host.boardfile import Board, load_board
from tidemark_host.factory import SLOT_HEADER, FactoryError, factory_image, slot_content
from tidemark_host.release import KeyStore, Repository
from tidemark_host.romfs import pack
from tidemark_host.toolchain import quick_micropython

IMAGE = pack({"agent/app.mpy": bytes(range(256)) * 40})


@pytest.fixture(scope="module")
def virtual() -> Board:
    return load_board(REPO / "boards" / "VIRTUAL" / "board.toml")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.create(tmp_path / "repo", KeyStore.create(tmp_path / "keys"))
    made.add(IMAGE, board="VIRTUAL", version="1.0.0", attempt=2)
    made.publish()
    return made


def test_slot_header_is_the_one_the_firmware_writes(virtual: Board) -> None:
    custom = {"index": 70_000, "attempt": 3, "version": "1.0.0"}
    slot = slot_content(virtual, IMAGE, custom)
    digest = hashlib.sha256(IMAGE).digest()
    release = Release(digest, len(IMAGE), 70_000, 3, "1.0.0")
    header = firmware_image.encode_header(release, "VIRTUAL")
    assert slot[: len(header)] == header
    assert slot[len(header) : SLOT_HEADER] == b"\xff" * (SLOT_HEADER - len(header))
    assert slot[SLOT_HEADER:] == IMAGE


def test_everything_but_slot_a_and_the_files_is_blank(
    virtual: Board, repository: Repository
) -> None:
    flash = factory_image(virtual, repository.folder, "VIRTUAL/app-1.romfs")
    assert len(flash) == virtual.flash_size
    for region in virtual.regions.values():
        content = flash[region.offset : region.end]
        blank = content.count(0xFF) == len(content)
        assert blank == (region.name not in ("slot_a", "vfs")), region.name


def test_firmware_finds_header_image_and_metadata(
    virtual: Board, repository: Repository, tmp_path: Path
) -> None:
    # Mounted as stage 0 mounts it, and verified as provisioning does.
    flash = tmp_path / "flash.bin"
    flash.write_bytes(factory_image(virtual, repository.folder, "VIRTUAL/app-1.romfs"))
    slot, vfs = virtual.regions["slot_a"], virtual.regions["vfs"]
    script = f"""
import sys
sys.path[:] = [{str(firmware_dir())!r}, {str(SHARED)!r}]
import os, vfs
from nor import NorFlash
from tidemark import image, target
from tidemark.flash import BlockDevice, Region
from tidemark.journal import Journal
from tidemark.store import Files
from tidemark.tuf_client import Client
flash = NorFlash(bytearray(open({str(flash)!r}, "rb").read()))
root = open({str(repository.path("root"))!r}, "rb").read()
device = BlockDevice(Region(flash, {vfs.offset}, {vfs.size}))
vfs.mount(vfs.VfsLfs2(device, progsize={virtual.page}), "/files")
region = Region(flash, {slot.offset}, {slot.size})
board, release = image.decode_header(region.read(0, 256))
image.check(region, release)
journal = Journal(Region(flash, {virtual.regions["journal"].offset}, 8 * 4096))
journal.recover()
client = Client(Files("/files/tuf"), journal, None, root)
client.load_stored()
entries = client.trusted.targets["targets"].signed["targets"]
path = target.app_path(board, release.index)
assert target.parse_app(path, entries[path], board, 1) == release
client.store.save("timestamp", b"new")
assert client.store.load("timestamp") == b"new"
client.store.remove("timestamp")
client.store.remove("timestamp")
print(board, release.index, release.attempt, sorted(os.listdir("/files/tuf")))
"""
    run = subprocess.run(
        [*quick_micropython(), "-X", "heapsize=16M", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    wanted = "VIRTUAL 1 2 ['root.json', 'snapshot.json', 'targets.json']\n"
    assert run.stdout == wanted, run.stdout + run.stderr


def test_same_release_gives_the_same_flash(virtual: Board, repository: Repository) -> None:
    images = [factory_image(virtual, repository.folder, "VIRTUAL/app-1.romfs") for _ in range(2)]
    assert images[0] == images[1]


@pytest.mark.parametrize(
    ("path", "code"),
    [("VIRTUAL/app-9.romfs", "no-release"), ("PICO/app-1.romfs", "wrong-board")],
)
def test_wrong_target_is_refused(
    virtual: Board, repository: Repository, path: str, code: str
) -> None:
    repository.add(IMAGE, board="PICO", version="1")
    repository.publish()
    with pytest.raises(FactoryError) as error:
        factory_image(virtual, repository.folder, path)
    assert error.value.code == code


def test_image_that_metadata_does_not_name_is_refused(
    virtual: Board, repository: Repository
) -> None:
    repository.target_path("VIRTUAL", 1).write_bytes(IMAGE[:-1] + b"!")
    with pytest.raises(FactoryError) as error:
        factory_image(virtual, repository.folder, "VIRTUAL/app-1.romfs")
    assert error.value.code == "not-trusted"


def test_expired_metadata_is_refused(virtual: Board, tmp_path: Path) -> None:
    keys = KeyStore.create(tmp_path / "keys")
    made = Repository.create(tmp_path / "repo", keys, now=datetime(2020, 1, 1, tzinfo=UTC))
    made.add(IMAGE, board="VIRTUAL", version="1")
    made.publish()
    with pytest.raises(FactoryError) as error:
        factory_image(virtual, made.folder, "VIRTUAL/app-1.romfs")
    assert error.value.code == "not-trusted"


def test_image_larger_than_the_slot_is_refused(virtual: Board, repository: Repository) -> None:
    size = virtual.regions["slot_a"].size - SLOT_HEADER
    repository.add(bytes(size), board="VIRTUAL", version="2", check_image=False)
    repository.add(bytes(size + 1), board="VIRTUAL", version="3", check_image=False)
    repository.publish()
    factory_image(virtual, repository.folder, "VIRTUAL/app-2.romfs")
    with pytest.raises(FactoryError) as error:
        factory_image(virtual, repository.folder, "VIRTUAL/app-3.romfs")
    assert error.value.code == "too-large"
