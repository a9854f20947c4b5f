"""`tidemark evidence`: what a running board and its flash tell, and in which words."""

from __future__ import annotations

import binascii
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.boards.conftest import Desk
from tests.boards.test_flash_serial import found, own
from tests.boards.usb_serial import Port, wait
from tidemark_host import discovery
from tidemark_host.cli.evidence import command
from tidemark_host.discovery import Nickname, keep_name
from tidemark_host.flashing import flash_rp2


@pytest.fixture
def named(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The board on the desk, flashed, listed among the serial ports and called "greenhouse"."""
    monkeypatch.setenv("TIDEMARK_BOARDS", str(tmp_path / "names" / "boards.toml"))
    keep_name(Nickname("greenhouse", str(desk.port.serial_number), "VIRTUAL"))
    other = Port("/dev/ttyUSB7", "0001", 0x1A86)

    def ports() -> list[discovery.PortInfo]:
        return [other, desk.port] if desk.usb.path.exists() else [other]

    monkeypatch.setattr(discovery, "serial_ports", ports)
    wait(desk.usb.path.exists, "port")
    flash_rp2(found(desk), desk.image, desk.bench)
    return desk


def told(*words: str, status: int = 0) -> str:
    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == status, done.output
    return done.output


def test_running_board_tells_why_it_was_reset_and_goes_on(named: Desk) -> None:
    own(named)
    plugs = named.usb.plugs
    said = told("greenhouse")
    assert said.startswith("last reset: deliberate, after provisioning; no trial is on record\n")
    assert "the hash chain holds, 0 are missing" in said
    named.usb.wait_replugged(plugs)
    assert told("greenhouse", "--stay").startswith("last reset: asked for by a person")
    with named.bench.open(named.port.device) as console:
        assert console.exec("print(stage0.base.supervisor.leased)") == "True\n"


def test_running_board_and_its_flash_tell_the_same(named: Desk, tmp_path: Path) -> None:
    live = json.loads(told("greenhouse", "--stay", "--json"))
    named.board.power_off()
    still = json.loads(told(f"virtual:{tmp_path / 'board'}", "--json"))
    assert still == live
    assert live["records"][0]["code"] == "boot"
    assert live["gaps"] == live["broken"] == []


def test_flash_that_was_tampered_with_is_an_error(named: Desk, tmp_path: Path) -> None:
    plugs = named.usb.plugs
    named.board.reset()
    named.usb.wait_replugged(plugs)
    with named.bench.open(named.port.device):
        pass  # it has booted, and put that on record
    named.board.power_off()
    region = named.definition.regions["evidence"]
    copy = bytearray(named.board.flash_path.read_bytes())
    # The second record gets the words of the first and a good sum, but is not what was chained.
    first, second = (bytes(copy[region.offset + n * 64 :][:64]) for n in (0, 1))
    forged = second[:4] + first[4:62]
    forged += (binascii.crc32(forged) & 0xFFFF).to_bytes(2, "big")
    copy[region.offset + 64 : region.offset + 128] = forged
    image = tmp_path / "copy.bin"
    image.write_bytes(copy)
    assert "BROKEN at record 2" in told(str(image), status=1)


def test_wrong_file_and_unknown_board_are_refused_in_words(named: Desk, tmp_path: Path) -> None:
    small = tmp_path / "small.bin"
    small.write_bytes(b"x")
    assert "--board" in told(str(small), status=1)
    assert "(unknown)" in told("nobody", status=1)
    assert "(unknown-board)" in told(str(small), "--board", "NONE", status=1)
