"""Boards are found by port, USB serial number or nickname; nicknames are a small file."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    location: str | None = None


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


CH340 = [
    Port("/dev/ttyUSB1", None, 0x1A86, "USB Serial", "1-1.4"),
    Port("/dev/ttyUSB2", "", 0x1A86, "USB Serial", "1-1.3:1.0"),
]
TWINS = [
    Port("/dev/ttyUSB1", "0001", 0x10C4, "CP2102", "1-2"),
    Port("/dev/ttyUSB0", "0001", 0x10C4, "CP2102", "1-1:1.0"),
]


def test_of_boards_with_one_serial_number_none_is_taken_for_the_other() -> None:
    names = {"pump": Nickname("pump", "0001", "TIDEMARK_ESP32")}
    for target in ("0001", "pump"):
        with pytest.raises(DiscoveryError) as caught:
            find(target, TWINS, names)
        assert caught.value.code == "several"
        assert "/dev/ttyUSB0 at 1-1:1.0, /dev/ttyUSB1 at 1-2. Name" in str(caught.value)
    with pytest.raises(DiscoveryError, match=r"^name one of: 1-1:1\.0, 1-2\. "):
        find("", TWINS, {})
    # Each by its place: that is what it is found again by, too.
    for target, key in (("1-1", "1-1:1.0"), ("1-1:1.0", "1-1:1.0"), ("/dev/ttyUSB1", "1-2")):
        assert find(target, TWINS, {}).key == key
    assert find("/dev/ttyUSB1", TWINS[:1], {}).key == "0001"
    named = {"pump": Nickname("pump", "", "", "1-1")}
    assert find("pump", TWINS, named).port == "/dev/ttyUSB0"
    assert [row.nickname for row in discovery.boards(TWINS, named)] == ["pump", ""]


def test_board_without_a_serial_number_is_known_by_its_place() -> None:
    named = {"pump": Nickname("pump", "", "", "1-1.4")}
    for target in ("1-1.4", "pump", "/dev/ttyUSB1"):
        found = find(target, CH340, named)
        assert (found.port, found.key, found.by_location) == ("/dev/ttyUSB1", "1-1.4", True)
    assert find("1-1.3", CH340, {}).port == "/dev/ttyUSB2"
    with pytest.raises(DiscoveryError, match=r"USB location 1-1\.4") as caught:
        find("pump", CH340[1:], named)
    assert caught.value.code == "absent"
    assert find("pump", [], named, absent=True) == Found(
        "", "", "pump", "", "", "1-1.4", by_location=True
    )
    # A port of a maker that is not known as one of boards, too.
    strange = Port("/dev/ttyUSB7", None, 0x1234, None, "2-1")
    assert find("2-1", [strange], {}).port == "/dev/ttyUSB7"


def test_port_is_found_again_by_serial_number_or_place_or_is_a_question() -> None:
    assert discovery.port_named("E660AAAA", PORTS) == "/dev/ttyACM0"
    assert discovery.port_named("1-1", TWINS) == "/dev/ttyUSB0"
    assert discovery.port_named("", [*TWINS, MODEM]) == ""
    assert discovery.port_named("1-9", TWINS) == ""
    with pytest.raises(DiscoveryError) as caught:
        discovery.port_named("0001", TWINS)
    assert caught.value.code == "several"


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
        (Nickname("x", "", "", "ttyUSB0"), "location"),
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
        '[x]\nserial = "E"\nlocation = "1-1"\n',
        '[x]\nboard = "VIRTUAL"\n',
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
    monkeypatch.setattr(discovery, "serial_ports", lambda: TWINS)
    # By its place where it has no number of its own; so is one that comes later.
    run("/dev/ttyUSB1", "--name", "pump")
    rows = json.loads(run("1-7.2", "--name", "well", "--json"))
    assert [(row["nickname"], row["port"], row["location"]) for row in rows] == [
        ("", "/dev/ttyUSB0", "1-1:1.0"),
        ("pump", "/dev/ttyUSB1", "1-2"),
        ("greenhouse", "", ""),
        ("well", "", "1-7.2"),
    ]
    assert "1-7.2" in run()
    assert CliRunner().invoke(command, ["0001", "--name", "x"]).exit_code == 1
    monkeypatch.setattr(discovery, "serial_ports", lambda: [MODEM])
    assert CliRunner().invoke(command, ["/dev/ttyS0", "--name", "x"]).exit_code == 1
    assert CliRunner().invoke(command, ["--name", "x", "--board", "NONE"]).exit_code == 1


def test_two_people_who_name_boards_at_a_time_lose_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boards.toml"
    write = discovery._write_names

    def slowly(*words: Any) -> None:
        time.sleep(0.1)  # the others have read the file by now, unless they wait for their turn
        write(*words)

    monkeypatch.setattr(discovery, "_write_names", slowly)
    with ThreadPoolExecutor(4) as pool:
        names = [Nickname(f"board{n}", f"E660{n}", "") for n in range(4)]
        for done in [pool.submit(discovery.keep_name, name, path) for name in names]:
            done.result(30)
    assert discovery.read_names(path) == {name.name: name for name in names}
