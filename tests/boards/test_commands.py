"""`tidemark flash` and `tidemark provision` as a person calls them, by nickname and by folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.boards.conftest import Desk
from tests.boards.usb_serial import Port, wait
from tidemark_host import bootsel, discovery, flashing, remote
from tidemark_host.boards.repl import Repl
from tidemark_host.cli import flash, provision
from tidemark_host.discovery import Found, Nickname, keep_name
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.service import INVENTORY
from tidemark_host.inventory import Inventory
from tidemark_host.release import Repository
from tidemark_host.uf2_file import encode


def run(verb: Any, *words: str | Path) -> Result:
    return CliRunner().invoke(verb.command, [str(word) for word in words])


@pytest.fixture
def named(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The board on the desk as "greenhouse"; ports and drives are those of the desk."""
    monkeypatch.setenv("TIDEMARK_BOARDS", str(tmp_path / "names" / "boards.toml"))
    keep_name(Nickname("greenhouse", str(desk.port.serial_number), "VIRTUAL"))
    monkeypatch.setattr(discovery, "serial_ports", desk.bench.ports)
    monkeypatch.setattr(flash, "Bench", lambda progress: desk.bench)
    monkeypatch.setattr(flash.toolchain_build, "board_of", lambda name: desk.definition)
    wait(desk.usb.path.exists, "port")
    return desk


def test_board_is_flashed_and_provisioned_by_its_nickname(named: Desk, tmp_path: Path) -> None:
    image = tmp_path / "factory.uf2"
    image.write_bytes(encode(named.image.parts, named.definition.chip))
    done = run(flash, "greenhouse", "--image", image, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said == {
        "board": "VIRTUAL",
        "port": named.port.device,
        "sha256": named.image.digest,
        "skipped": False,
        "verified": True,
        "how": "drive",
    }
    assert "holds it already" in run(flash, "greenhouse", "--image", image).output

    GatewayIdentity.load_or_create(tmp_path / "gateway")
    where = ("--broker", "192.0.2.7:1883", "--updates", "http://192.0.2.7:8080")
    root = ("--root", named.repository.path("root"), "--gateway", tmp_path / "gateway")
    done = run(provision, "greenhouse", *root, *where, "--json")
    assert done.exit_code == 0, done.output
    born = json.loads(done.output)
    assert (born["board"], born["index"]) == ("VIRTUAL", 1)
    devices = Inventory(tmp_path / "gateway" / INVENTORY)
    assert [(device.id, device.nickname) for device in devices] == [(born["id"], "greenhouse")]


def test_board_that_is_absent_or_unknown_is_said_so_by_every_verb(
    named: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(discovery, "serial_ports", lambda: [])
    GatewayIdentity.load_or_create(tmp_path / "gateway")
    where = ("--broker", "192.0.2.7:1883", "--updates", "http://192.0.2.7:8080")
    root = ("--root", named.repository.path("root"), "--gateway", tmp_path / "gateway")
    for name, code in (("greenhouse", "(absent)"), ("cellar", "(unknown)")):
        assert code in run(flash, name).output
        assert code in run(provision, name, *root, *where).output


def test_folder_of_a_drive_is_flashed_without_a_port(named: Desk, tmp_path: Path) -> None:
    image = tmp_path / "factory.uf2"
    image.write_bytes(encode(named.image.parts, named.definition.chip))
    named.rom.appear()
    done = run(flash, named.rom.folder, "--board", "VIRTUAL", "--image", image)
    assert done.exit_code == 0, done.output
    assert "flashed by drive" in done.output
    assert "not verified" in done.output
    wait(lambda: named.rom.flashed == 1, "flashing")


def test_drive_without_a_board_s_name_is_a_question(named: Desk) -> None:
    named.rom.appear()
    done = run(flash, named.rom.folder)
    assert done.exit_code == 1
    assert "(which-board)" in done.output


def test_virtual_board_takes_the_newest_release_of_a_repository(
    repository: Repository, tmp_path: Path
) -> None:
    place = tmp_path / "board"
    words = (f"virtual:{place}", "--repo", repository.folder)
    assert "written" in run(flash, *words).output
    assert json.loads(run(flash, *words, "--json").output)["skipped"] is True
    used = bytearray((place / "flash.bin").read_bytes())
    used[0x86000] = 0
    (place / "flash.bin").write_bytes(used)
    refused = run(flash, *words)
    assert refused.exit_code == 1
    assert "(used)" in refused.output
    assert (place / "flash.bin").read_bytes() == used
    assert "written" in run(flash, *words, "--force").output


def test_options_that_exclude_each_other_are_wrong_usage(
    repository: Repository, tmp_path: Path
) -> None:
    for words in (("--index", "1"), ("--runtime", "--repo", str(repository.folder))):
        assert run(flash, f"virtual:{tmp_path}", *words).exit_code == 2


# -- what a board says of itself


def test_board_that_runs_nothing_of_ours_is_known_as_such(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    with Repl(desk.port.device) as console:
        console.exec("import sys; sys.modules['tidemark_board'] = None")
        console.exec(
            "class Stock:\n"
            "    def __getattr__(self, name):\n"
            "        raise AttributeError(name)\n"
            "sys.modules['tidemark_board'] = Stock()"
        )
        facts = remote.ask(console)
    assert (facts.platform, facts.board, facts.used) == ("linux", "", False)


def test_board_without_a_boot_loader_is_an_error_not_a_wait(desk: Desk) -> None:
    from tidemark_host.boards.base import BoardError

    wait(desk.usb.path.exists, "port")
    with Repl(desk.port.device) as console:
        with pytest.raises(BoardError) as caught:
            remote.enter_bootloader(console)
        assert caught.value.code == "exec"


def test_region_is_read_over_the_console_byte_for_byte(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    flashing.flash_rp2(Found(desk.port.device), desk.image, desk.bench)
    with Repl(desk.port.device) as console:
        for name in ("evidence", "provisioning"):
            region = desk.definition.regions[name]
            flash = desk.board.read_flash(region.offset, region.size)
            assert remote.read_region(console, name) == flash


def test_port_list_entries_are_pyserials() -> None:
    from serial.tools.list_ports_common import ListPortInfo

    entry = ListPortInfo("/dev/ttyACM0", skip_link_detection=True)
    entry.serial_number, entry.vid, entry.product = "E660", 0x2E8A, "Board"
    assert discovery.boards([entry], {}) == [Found("/dev/ttyACM0", "E660", "", "", "Board")]
    assert isinstance(discovery.serial_ports(), list)
    assert isinstance(bootsel.mount_points(), list)
    assert Port("/dev/ttyACM0").vid == 0x2E8A
