"""Boards on a desk, without one: which are absent, how they are recovered and left as found."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.boards.usb_serial import Port, wait
from tests.conftest import REPO
from tests.hil.desk import SERIAL, Desk, DeskRepl
from tests.hil.runs import leaves_as_found, suite
from tidemark_host import bootsel, flashing
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.hil import flasher, places
from tidemark_host.hil.power import Command, uhubctl
from tidemark_host.hil.targets import power_cycle

BENCH = f"""
[[board]]
nickname = "desk-1"
board = "VIRTUAL"
serial = "{SERIAL}"

[[board]]
nickname = "away"
board = "TIDEMARK_PICO"
serial = "0000000000000000"
link = "A50285BI"
power = {{ hub = "1-1.4", port = 2 }}
"""


# -- bench.toml -----------------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "bench.toml"
    path.write_text(text)
    return path


def test_bench_file_names_boards_and_their_switches(tmp_path: Path) -> None:
    desk, away = places.read(write(tmp_path, BENCH))
    assert (desk.nickname, desk.board, desk.serial, desk.power) == (
        "desk-1",
        "VIRTUAL",
        SERIAL,
        None,
    )
    assert away.power == uhubctl("1-1.4", 2)
    assert places.read(tmp_path / "none.toml") == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("board = 7", "bench-format"),
        ("[[board]]\nnickname = 'x y'", "bench-format"),
        ("[[board]]\nnickname = 'x'\nboard = 'VIRTUAL'", "bench-format"),
        ("[[board]]\nnickname = 'x'\nboard = 'NONE'\nserial = '1'", "bench-board"),
        ("[[board]]\nnickname = 'x'\nboard = '..'\nserial = '1'\ncolour = 1", "bench-format"),
        (BENCH.replace('link = "A50285BI"', ""), "bench-link"),
        (BENCH.replace("away", "desk-1"), "bench-twice"),
        (BENCH.replace("port = 2", "port = 'two'"), "bench-power"),
        (BENCH.replace('hub = "1-1.4", port = 2', "on = ['relay', 1], off = []"), "bench-power"),
        (
            BENCH.replace('hub = "1-1.4", port = 2', "on = ['relay', 1], off = ['relay', 0]"),
            "bench-power",  # not a relay without its number
        ),
        ("#" * 70_000, "bench-size"),
        ("[[", "bench-format"),
    ],
)
def test_bad_bench_file_is_refused_with_a_code(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(places.PlaceError) as refused:
        places.read(write(tmp_path, text))
    assert refused.value.code == code


def test_switch_runs_its_program_and_says_when_that_fails(tmp_path: Path) -> None:
    mark = tmp_path / "on"
    switch = Command(("touch", str(mark)), ("rm", str(mark)), 0)
    switch.on()
    assert mark.exists()
    switch.off()
    with pytest.raises(BoardError) as failed:
        switch.off()
    assert failed.value.code == "power"
    with pytest.raises(BoardError) as failed:
        Command(("no-such-relay",), ("no-such-relay",)).on()
    assert failed.value.code == "power"


# -- a board --------------------------------------------------------------------------------------


def test_absent_board_is_said_to_be_absent_and_can_not_be_opened(
    desk: Desk, tmp_path: Path
) -> None:
    here, away = (places.SerialTarget(place) for place in places.read(write(tmp_path, BENCH)))
    assert (here.here, away.here) == (True, False)
    assert "at " in here.describe()
    assert "no power switch: reset instead" in here.describe()
    assert "absent" in away.describe()
    with pytest.raises(BoardError) as refused:
        SerialBoard(lambda: "")
    assert refused.value.code == "absent"


def test_console_is_shared_by_log_and_repl_while_the_port_comes_and_goes(
    desk: Desk, board: SerialBoard
) -> None:
    with board.repl() as console:
        assert console.exec("print(6 * 7)") == "42\n"
    plugs = desk.usb.plugs
    board.reset()
    desk.usb.wait_replugged(plugs)
    board.serial_log.wait_for("port gone")
    with board.repl() as console:
        assert console.exec("print('still', 'here')") == "still here\n"
    board.serial_log.wait_for("still here")


def recovered(board: SerialBoard, timeout: float = 15.0) -> str:
    """Return by what a board was recovered, or the code of the error that it was not."""
    try:
        return places.recover(board, timeout)
    except BoardError as error:
        return error.code


@pytest.mark.parametrize(
    "left",
    [
        b"\x03\x01",  # in the raw REPL
        b"\x03\x01\x05A\x01print(",  # in half of a raw paste
        b"\x03\x05print(",  # in paste mode
        b"\x03\x01while True:\n try:\n  while True: pass\n except KeyboardInterrupt: pass\n",
        b"\x03\x01n = 0\nwhile n < 2:\n try:\n  while True: pass\n"
        b" except KeyboardInterrupt: n += 1\nwhile True: pass\n\x04",
    ],
    ids=["raw", "raw-paste", "paste", "half", "catches-two"],
)
def test_board_that_was_left_in_a_repl_is_recovered_by_its_console(
    desk: Desk, board: SerialBoard, left: bytes
) -> None:
    desk.board.send(left)
    assert recovered(board) == "console"
    with board.repl() as console:
        assert console.exec("print(1)") == "1\n"


def test_board_that_hears_nothing_is_recovered_by_its_watchdog(
    desk: Desk, board: SerialBoard
) -> None:
    hows: list[str] = []
    while "watchdog" not in hows and len(hows) < 3:
        bites = [reset.cause for reset in desk.board.resets].count("watchdog")
        with board.repl() as console, pytest.raises(BoardError):
            console.exec("import sys\nall(range(1, sys.maxsize))", 0.3)
        # Less than the watchdog takes, and behind it enough for a slow machine.
        hows.append(recovered(board, 5.0))
        # Where the machine stood still the watchdog may have bitten before anybody asked.
        assert [reset.cause for reset in desk.board.resets].count("watchdog") == bites + 1
    assert hows == ["console"] * (len(hows) - 1) + ["watchdog"]


def test_flash_is_read_through_the_firmware_and_written_where_it_differs(
    desk: Desk, board: SerialBoard
) -> None:
    definition = load_board(REPO / "boards" / "VIRTUAL" / "board.toml")
    image = bytearray(board.read_flash(0, definition.flash_size))
    assert bytes(image[: 1 << 19]) == b"\xff" * (1 << 19)
    region = definition.regions["slot_b"]
    image[region.offset : region.offset + 4096] = bytes(range(256)) * 16
    board.flash(bytes(image))
    wait(lambda: board.port, "the port")
    assert board.read_flash(region.offset, 4096) == bytes(range(256)) * 16
    slot_a = definition.regions["slot_a"]
    assert region.offset in desk.rom.erased
    assert not any(slot_a.offset <= sector < slot_a.end for sector in desk.rom.erased)


def test_board_that_runs_nothing_of_ours_is_flashed_whole(
    desk: Desk, board: SerialBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(DeskRepl):
        """Nothing of ours can be imported there."""

        def __init__(self, console_path: str) -> None:
            super().__init__(console_path)
            self.exec("import sys\nsys.modules['tidemark.port'] = sys.modules['tidemark'] = None")

    bench = dataclasses.replace(flasher.machine(), open=Foreign)
    monkeypatch.setattr(flasher, "machine", lambda: bench)
    image = desk.board.flash_path.read_bytes()
    board.flash(image)
    wait(lambda: desk.rom.flashed == 1, "flashing")
    assert len(desk.rom.erased) == len(image) // 4096


def test_what_a_boot_rom_refuses_is_the_benchs_own_fault(
    desk: Desk, board: SerialBoard, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "INFO_UF2.TXT").write_text("Board-ID: RPI-RP2\n")
    bench = dataclasses.replace(flasher.machine(), drives=lambda: bootsel.drives([other]))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BoardError) as refused:
        patch.setattr(flasher, "machine", lambda: bench)
        board.flash(bytes(desk.board.flash_path.stat().st_size))
    assert refused.value.code == "flasher"
    assert desk.rom.flashed == 0


def test_one_board_at_a_time_is_in_its_boot_rom_until_it_is_back_and_was_asked(
    desk: Desk, board: SerialBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boards of one kind of chip: what waits as a drive must be the one that is written."""
    seen: list[str] = []
    bench = flasher.machine()

    def drives() -> list[bootsel.Drive]:
        if seen[-1] != "looked":
            seen.append("looked")
        return bench.drives()

    @contextmanager
    def lock() -> Iterator[None]:
        seen.append("locked")
        yield
        # What has come back was asked, and resets to go on or waits to be provisioned.
        seen.append("back" if desk.rom.flashed and not desk.drive.exists() else "away")

    held = flasher._held  # pyright: ignore[reportPrivateUsage]

    def asked(*words: Any) -> str:
        if desk.rom.flashed and seen[-1] != "asked":
            seen.append("asked")
        return held(*words)

    own = dataclasses.replace(bench, drives=drives, lock=lock)
    monkeypatch.setattr(flasher, "machine", lambda: own)
    monkeypatch.setattr(flasher, "_held", asked)
    board.flash(altered(desk, "slot_b"))
    assert seen == ["locked", "looked", "asked", "back"]


def test_lock_of_the_boot_roms_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_CACHE", str(tmp_path))
    with (
        flashing.Bench().lock(),
        (tmp_path / "boot-rom.lock").open("w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def altered(desk: Desk, name: str) -> bytes:
    """Return what the board's flash holds, but for the first sector of a region."""
    region = load_board(REPO / "boards" / "VIRTUAL" / "board.toml").regions[name]
    image = bytearray(desk.board.flash_path.read_bytes())
    image[region.offset : region.offset + 4096] = bytes(range(256)) * 16
    return bytes(image)


def test_board_that_does_not_hold_what_was_flashed_is_not_written_again(
    desk: Desk, board: SerialBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = flashing.flash_drive

    def to_another(image: flashing.Image, *words: Any) -> str:
        parts = {at: b"\xff" * len(content) for at, content in image.parts.items()}
        return write(flashing.Image(image.board, parts), *words)

    monkeypatch.setattr(flashing, "flash_drive", to_another)
    with pytest.raises(BoardError, match="slot_b") as refused:
        board.flash(altered(desk, "slot_b"))
    assert refused.value.code == "flasher"
    assert desk.rom.flashed == 1


def test_board_that_can_not_be_asked_after_it_was_flashed_is_not_written_again(
    desk: Desk, board: SerialBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has run by then: what is written once more takes its counter back (I1)."""

    def silent(**words: Any) -> Any:
        raise BoardError("console", "no raw REPL")

    bench = dataclasses.replace(flasher.machine(), back_s=1.0)
    monkeypatch.setattr(flasher, "machine", lambda: bench)
    monkeypatch.setattr(board, "stopped", silent)
    with pytest.raises(BoardError) as refused:
        board.flash(altered(desk, "slot_b"))
    assert refused.value.code == "flasher", refused.value
    wait(lambda: desk.rom.flashed == 1, "flashing")


def test_board_that_its_switch_has_off_is_switched_on_and_not_called_absent(
    desk: Desk, tmp_path: Path
) -> None:
    switch = tmp_path / "switch"
    text = f"""
[[board]]
nickname = "off"
board = "VIRTUAL"
serial = "{SERIAL}"
power = {{ on = ["touch", "{switch}"], off = ["rm", "{switch}"] }}
"""
    place = places.read(write(tmp_path, text))[0]
    with pytest.MonkeyPatch.context() as patch:
        ports = places.serial_ports
        patch.setattr(places, "serial_ports", lambda: ports() if switch.exists() else [])
        target = places.SerialTarget(place)
        assert not target.here
        assert target.wake()
        assert "at " in target.describe()
    nowhere = places.SerialTarget(
        dataclasses.replace(place, serial="0", power=Command(("no-such-relay",), ("x",)))
    )
    assert not nowhere.wake()
    assert "absent, power: no-such-relay" in nowhere.describe()


def test_power_cycle_is_a_reset_without_a_switch_and_says_which(
    desk: Desk, board: SerialBoard, tmp_path: Path
) -> None:
    place = places.read(write(tmp_path, BENCH))[0]
    plugs = desk.usb.plugs
    target = places.SerialTarget(place)
    assert power_cycle(target, board) == "reset"
    desk.usb.wait_replugged(plugs)
    assert "reset instead" in target.describe()
    switch = Command(("touch", str(tmp_path / "on")), ("touch", str(tmp_path / "off")), 0)
    target = places.SerialTarget(dataclasses.replace(place, power=switch))
    with target.open(tmp_path) as switched:
        assert power_cycle(target, switched) == "power"
    assert (tmp_path / "off").exists()
    assert (tmp_path / "on").exists()
    assert "power by touch" in target.describe()


async def test_what_happens_on_the_link_is_in_the_boards_log(
    desk: Desk, board: SerialBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = dataclasses.replace(places.read(write(tmp_path, BENCH))[0], link="A50285BI")
    ports = [*places.serial_ports(), Port(str(tmp_path / "none"), "A50285BI")]
    monkeypatch.setattr(places, "serial_ports", lambda: ports)
    async with places.SerialTarget(place).link(board, (1883,)):
        await asyncio.to_thread(board.serial_log.wait_for, "link waiting port=")


def test_cut_by_a_switch_that_fails_is_no_cut(desk: Desk, tmp_path: Path) -> None:
    place = dataclasses.replace(
        places.read(write(tmp_path, BENCH))[0], power=Command(("true",), ("no-such-relay",), 0)
    )
    with places.SerialTarget(place).open(tmp_path) as board:
        board.cut_at(1)
        with pytest.raises(BoardError) as failed:
            board.wait_cut()
    assert failed.value.code == "power"


# -- the command ----------------------------------------------------------------------------------


def test_bench_without_its_boards_says_so_and_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path, BENCH)
    done = suite(tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "no board of the bench is here, nothing was tested" in said
    assert re.search(r"desk-1 \(VIRTUAL, \w+\): absent", said)


def test_board_without_network_and_link_is_an_error_of_the_file_before_anything_runs(
    tmp_path: Path,
) -> None:
    write(tmp_path, BENCH.replace('link = "A50285BI"', ""))
    done = suite(tmp_path, "-p", "tests.hil.desk")
    said = done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, said
    # What it is, on which board, and what to do about it.
    assert re.search(r"bench-link: .*'away'.*TIDEMARK_PICO.* link = .*adapter", said), said
    assert "passed" not in said
    assert "failed" not in said


@pytest.mark.timeout(600)
def test_suite_runs_on_a_board_at_a_serial_port_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, BENCH)
    # Flash and provision, then a test that begins with a snapshot, then one that needs a switch.
    some = "blank_board or readings_arrive or sudden_loss"
    done = suite(tmp_path, "-p", "tests.hil.desk", "-k", some, "-rs")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"2 passed, 1 skipped", said), said
    assert "no power switch in bench.toml" in said
    assert "recovered by its console" in said
    leaves_as_found(tmp_path / "found.bin", tmp_path / "left.bin")
