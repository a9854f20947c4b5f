"""The filesystem of files that may be lost: a boot goes on without it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import firmware_dir
from tidemark_host.boards.nor import NorFlash


class _Worn:
    """littlefs on a region that takes nothing any more (MicroPython: OSError, LFS_ERR_CORRUPT)."""

    def __init__(self, device: object, progsize: int) -> None:
        raise OSError(84)

    @staticmethod
    def mkfs(device: object, progsize: int) -> None:
        raise OSError(84)


def test_worn_filesystem_is_recorded_and_the_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(firmware_dir()))
    from tidemark import stage0
    from tidemark.flash import Region

    def nothing_mounted(path: str) -> None:
        raise OSError(22)

    vfs: Any = SimpleNamespace(VfsLfs2=_Worn, mount=None, umount=nothing_mounted)
    monkeypatch.setitem(sys.modules, "vfs", vfs)
    records: list[str] = []
    base: Any = SimpleNamespace(
        regions={"vfs": Region(NorFlash(bytearray(b"\xff" * 16384)), 0, 16384)},
        board=SimpleNamespace(PAGE=256),
        record=lambda code, detail: records.append(code),
    )
    mount: Any = stage0
    mount._mount_files(base)
    assert records == ["vfs-lost"]
