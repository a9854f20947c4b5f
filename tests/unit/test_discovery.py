"""Boards are found by port, USB serial number or nickname; nicknames are a small file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark_host import discovery
from tidemark_host.cli.boards import command
from tidemark_host.discovery import DiscoveryError, Found, Nickname, find


@dataclass
class Port:
    """An entry of pyserial's list of ports."""

    device: str
    serial_number: str | None = None
    vid: int | None = None
    product: str | None = None


PICO = Port("/dev/ttyACM0", "E660AAAA", 0x2E8A, "Board in FS mode")
BRIDGE = Port("/dev/ttyUSB0", "0001", 0x10C4, "CP2102N")
MODEM = Port("/dev/ttyS0")
PORTS = [MODEM, BRIDGE, PICO]
NAMES = {
    "greenhouse": Nickname("greenhouse", "E660AAAA", "TIDEMARK_PICO"),
    "attic": Nickname("attic", "E660BBBB", "TIDEMARK_PICO_W"),
}


def code(target: str, ports: list[Port] = PORTS, **options: bool) -> str:
    with pytest.raises(DiscoveryError) as caught:
        find(target, ports, NAMES, **options)
    return caught.value.code


@pytest.mark.parametrize("name", ["greenhouse", "E660AAAA", "/dev/ttyACM0"])
def test_board_is_found_by_each_of_its_names(name: str) -> None:
    found = find(name, PORTS, NAMES)
    assert (found.port, found.serial) == ("/dev/ttyACM0", "E660AAAA")
    assert (found.nickname, found.board) == ("greenhouse", "TIDEMARK_PICO")


def test_port_that_nobody_lists_is_taken_at_its_word(tmp_path: Path) -> None:
    assert find("/dev/pts/7", PORTS, NAMES) == Found("/dev/pts/7")
    assert find("socket://127.0.0.1:4000", PORTS, NAMES).port == "socket://127.0.0.1:4000"
    assert find("COM9", PORTS, NAMES).port == "COM9"
    link = tmp_path / "by-id"
    device = tmp_path / "ttyACM5"
    device.write_text("")
    link.symlink_to(device)
    ports = [Port(str(device), "E660CCCC", 0x2E8A)]
    assert find(str(link), ports, {}).serial == "E660CCCC"


def test_without_a_name_it_is_the_only_board_or_a_question() -> None:
    assert find("", [MODEM, PICO], NAMES).nickname == "greenhouse"
    assert code("") == "several"
    assert code("", [MODEM]) == "none"


def test_named_board_that_is_not_plugged_in_is_absent_not_unknown() -> None:
    assert code("attic") == "absent"
    assert find("attic", PORTS, NAMES, absent=True) == Found(
        "", "E660BBBB", "attic", "TIDEMARK_PICO_W"
    )
    assert code("cellar") == "unknown"
    assert code("cellar", absent=True) == "unknown"


def test_list_has_what_is_plugged_in_then_what_is_absent() -> None:
    listed = discovery.boards(PORTS, NAMES)
    assert [(row.port, row.nickname) for row in listed] == [
        ("/dev/ttyACM0", "greenhouse"),
        ("/dev/ttyUSB0", ""),
        ("", "attic"),
    ]


def test_nicknames_are_kept_replaced_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "boards.toml"
    assert discovery.read_names(path) == {}
    for row in NAMES.values():
        discovery.keep_name(row, path)
    assert discovery.read_names(path) == NAMES
    discovery.keep_name(Nickname("attic", "E660DDDD", ""), path)
    assert discovery.read_names(path)["attic"].serial == "E660DDDD"
    discovery.forget_name("attic", path)
    assert set(discovery.read_names(path)) == {"greenhouse"}
    with pytest.raises(DiscoveryError) as caught:
        discovery.forget_name("attic", path)
    assert caught.value.code == "unknown"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (Nickname("7up", "E660", ""), "nickname"),
        (Nickname("a" * 33, "E660", ""), "nickname"),
        (Nickname('x"]\n[y', "E660", ""), "nickname"),
        (Nickname("x", 'E"660', ""), "serial"),
        (Nickname("x", "", ""), "serial"),
        (Nickname("x", "E660", "../x"), "board"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(
    tmp_path: Path, row: Nickname, code: str
) -> None:
    path = tmp_path / "boards.toml"
    with pytest.raises(DiscoveryError) as caught:
        discovery.keep_name(row, path)
    assert caught.value.code == code
    assert not path.exists()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_names_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    try:
        discovery.read_names(path)
    except DiscoveryError as error:
        assert error.code


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "[x]\nserial = 7\n",
        '[x]\nserial = "E"\nother = 1\n',
        "#" * (discovery.MAX_FILE + 1),
    ],
)
def test_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(DiscoveryError) as caught:
        discovery.read_names(path)
    assert caught.value.code == "names"


def test_command_names_lists_and_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_BOARDS", str(tmp_path / "boards.toml"))
    monkeypatch.setattr(discovery, "serial_ports", lambda: [MODEM, PICO])

    def run(*words: str) -> str:
        done = CliRunner().invoke(command, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    # The only board that is plugged in; one that comes later, by its serial number.
    run("--name", "greenhouse", "--board", "TIDEMARK_PICO")
    rows = json.loads(run("E660BBBB", "--name", "attic", "--json"))
    assert [(row["nickname"], row["port"]) for row in rows] == [
        ("greenhouse", "/dev/ttyACM0"),
        ("attic", ""),
    ]
    assert "absent" in run()
    assert "attic" not in run("--forget", "attic")
    assert CliRunner().invoke(command, ["/dev/ttyS0", "--name", "x"]).exit_code == 1
    assert CliRunner().invoke(command, ["--name", "x", "--board", "NONE"]).exit_code == 1
