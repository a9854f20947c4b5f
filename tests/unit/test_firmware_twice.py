"""`make reproducible`: two builds from nothing and what is handed out are the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidemark_host.cli import firmware
from tidemark_host.toolchain_cache import bytes_digest

NAME = "TIDEMARK_PICO"
SAME = bytes_digest(b"image")


@pytest.mark.parametrize(
    ("built", "shipped", "status"),
    [
        ((SAME, SAME), None, 0),
        ((SAME, SAME), b"image", 0),
        ((SAME, SAME), b"another", 1),
        ((SAME, bytes_digest(b"x")), None, 1),
        ((SAME, bytes_digest(b"x")), b"image", 1),
    ],
)
def test_two_builds_are_compared_with_each_other_and_with_what_is_shipped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built: tuple[str, str],
    shipped: bytes | None,
    status: int,
) -> None:
    monkeypatch.setattr(firmware, "REPO", tmp_path)
    monkeypatch.setattr(firmware.toolchain, "mpy_cross", Path)
    monkeypatch.setattr(firmware.toolchain, "umqtt_dir", Path)
    monkeypatch.setattr(firmware.rp2, "built_twice", lambda *_: built)
    if shipped is not None:
        folder = tmp_path / "build" / NAME
        folder.mkdir(parents=True)
        (folder / "firmware.uf2").write_bytes(shipped)
    done = CliRunner().invoke(firmware.command, [NAME, "--twice", "--json"])
    assert done.exit_code == status, done.output
    said = json.loads(done.output)
    assert said["same"] is (status == 0)
    assert said["shipped"] == (bytes_digest(shipped) if shipped else "")
    assert CliRunner().invoke(firmware.command, [NAME, "--twice"]).exit_code == status
