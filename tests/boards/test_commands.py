"""`tidemark flash` and `tidemark provision` as a person calls them, by nickname and by folder."""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.boards.conftest import Desk
from tests.boards.usb_serial import Port, wait
from tidemark_host import bootsel, discovery, flashing, remote
from tidemark_host.boards.repl import Repl
from tidemark_host.cli import console, evidence, flash, provision, wifi
from tidemark_host.discovery import Found, Nickname, keep_name
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.service import INVENTORY
from tidemark_host.inventory import Inventory
from tidemark_host.provision import (
    Anchors,
    Born,
    LinkSettings,
    ProvisionError,
    begin,
    finish,
    set_wifi,
)
from tidemark_host.release import Repository
from tidemark_host.uf2_file import encode
from tidemark_host.wifi import Wifi


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


@dataclass
class Owner:
    """A board on the desk, flashed, and what `tidemark provision` wants to be told for it."""

    desk: Desk
    anchors: Anchors
    words: list[str | Path]

    def run(self, verb: Any, *words: str | Path) -> Result:
        """Run a verb that has the board reset, until it runs its application."""
        plugs, lines = self.desk.usb.plugs, len(self.desk.board.serial_log)
        done = run(verb, "greenhouse", *words)
        if done.exit_code == 0:
            self.desk.usb.wait_replugged(plugs)
            self.desk.board.serial_log.wait_for("tidemark: slot a", 20, lines)
        return done

    def provision(self, *words: str | Path) -> Result:
        return self.run(provision, *self.words, *words)

    def network(self) -> object:
        """Return the network that the board keeps, which is stopped for it."""
        with Repl(self.desk.port.device) as console:
            out = console.exec(
                "from tidemark import cbor, stage0\n"
                "print(cbor.decode(stage0.base.journal.get('config')).get(10))"
            )
        return ast.literal_eval(out)


@pytest.fixture
def owner(named: Desk, tmp_path: Path) -> Owner:
    image = tmp_path / "factory.uf2"
    image.write_bytes(encode(named.image.parts, named.definition.chip))
    assert run(flash, "greenhouse", "--image", image).exit_code == 0
    gateway = GatewayIdentity.load_or_create(tmp_path / "gateway")
    words: list[str | Path] = ["--broker", "192.0.2.7:1883", "--updates", "http://192.0.2.7"]
    words += ["--root", named.repository.path("root"), "--gateway", tmp_path / "gateway"]
    return Owner(named, Anchors(named.repository.root_bytes(), gateway.public), words)


@pytest.fixture
def network(tmp_path: Path) -> tuple[str | Path, ...]:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    return "--wifi-ssid", "barn", "--wifi-password-file", password, "--wifi-country", "DE"


def test_board_that_joins_no_network_is_given_no_password(
    owner: Owner, network: tuple[str | Path, ...]
) -> None:
    done = owner.provision(*network)
    assert done.exit_code == 0, done.output
    assert "VIRTUAL joins no WiFi network" in done.output
    assert owner.network() is None


def test_board_with_a_radio_refuses_to_be_left_without_a_network(owner: Owner) -> None:
    link = LinkSettings("192.0.2.7", 1883, "http://192.0.2.7/m/", "http://192.0.2.7/t/")
    with Repl(owner.desk.port.device) as console:
        console.exec("from tidemark import stage0; stage0.base.board.WIFI = True")
        assert begin(console).wifi
        with pytest.raises(ProvisionError) as caught:
            finish(console, owner.anchors, link)
    assert caught.value.code == "no-wifi"


def test_network_of_a_provisioned_board_is_changed_and_nothing_else(
    owner: Owner, network: tuple[str | Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run(wifi, "greenhouse")
    assert missing.exit_code == 2
    assert "--wifi-ssid" in missing.output
    assert "not-provisioned" in run(wifi, "greenhouse", *network).output
    assert owner.provision().exit_code == 0
    assert owner.network() is None
    assert "no-radio" in run(wifi, "greenhouse", *network).output

    def with_radio(console: Repl, network: Wifi) -> str:
        console.exec("from tidemark import stage0; stage0.base.board.WIFI = True")
        return set_wifi(console, network)

    monkeypatch.setattr(wifi.provision, "set_wifi", with_radio)
    done = owner.run(wifi, *network, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["wifi"]["password"] == "(set)"
    assert "correct horse" not in done.output
    assert owner.network() == ["barn", "correct horse", "DE"]


def test_board_with_a_radio_gets_a_network_and_its_password_shows_nowhere(
    owner: Owner, network: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_radio(console: Repl) -> Born:
        return dataclasses.replace(begin(console), wifi=True)

    monkeypatch.setattr(provision.provision, "begin", with_radio)
    refused = owner.provision()
    assert refused.exit_code == 2
    assert "--wifi-ssid NAME" in refused.output
    assert not list(Inventory(tmp_path / "gateway" / INVENTORY))
    done = owner.provision(*network, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)["wifi"]
    assert said == {"ssid": "barn", "password": "(set)", "country": "DE"}
    log = owner.desk.board.serial_log
    assert "correct horse" not in "".join(line.text for line in log)
    # A board without a radio that was given one all the same keeps it, and runs on.
    assert owner.network() == ["barn", "correct horse", "DE"]


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


@pytest.mark.parametrize(("name", "code"), [((), "(none)"), (("cellar",), "(unknown)")])
def test_every_verb_takes_the_only_board_and_says_how_to_see_which_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: tuple[str, ...], code: str
) -> None:
    monkeypatch.setenv("TIDEMARK_BOARDS", str(tmp_path / "boards.toml"))
    monkeypatch.setattr(discovery, "serial_ports", lambda: [])
    GatewayIdentity.load_or_create(tmp_path / "gateway")
    (tmp_path / "root.json").write_text("{}")
    where = ("--broker", "192.0.2.7:1883", "--updates", "http://192.0.2.7:8080")
    where += ("--root", str(tmp_path / "root.json"), "--gateway", str(tmp_path / "gateway"))
    rest: dict[Any, tuple[str, ...]] = {
        provision: where,
        wifi: ("--wifi-ssid", "x", "--wifi-open"),
    }
    for verb in (flash, console, evidence, wifi, provision):
        done = run(verb, *name, *rest.get(verb, ()))
        assert done.exit_code == 1, (verb, done.output)
        assert code in done.output
        assert "`tidemark boards` lists" in done.output


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


def test_virtual_board_refuses_a_runtime_and_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(b"a key and a counter")
    for words in ((), ("--force",)):
        done = run(flash, f"virtual:{tmp_path}", "--runtime", *words)
        assert done.exit_code == 1
        assert "(no-way)" in done.output
    assert path.read_bytes() == b"a key and a counter"


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
