"""Boards of bench.toml that join a network, and boards that an ESP32's port resets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.boards.rom_serial import RomSerial
from tests.conftest import REPO
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.esp32.partitions import TABLE_OFFSET, encode
from tidemark_host.hil import flasher, places
from tidemark_host.hil.door import MAX_LINES, Door
from tidemark_host.hil.waiting import HOST, free_port
from tidemark_host.wifi import Wifi

BENCH = """
[[board]]
nickname = "desk-2"
board = "TIDEMARK_ESP32"
serial = "0001"
address = "127.0.0.2"
wifi = { ssid = "bench", password_file = "wifi.txt", country = "DE" }
"""


def write(folder: Path, text: str) -> Path:
    (folder / "wifi.txt").write_text("nobody is kept out\n")
    path = folder / "bench.toml"
    path.write_text(text)
    return path


def test_board_with_a_radio_has_a_network_and_an_address_to_find_the_bench_at(
    tmp_path: Path,
) -> None:
    target = places.SerialTarget(places.read(write(tmp_path, BENCH))[0])
    assert target.host == "127.0.0.2"
    assert target.wifi == Wifi("bench", "nobody is kept out", "DE")
    assert "kept out" not in repr(target.place)
    opened = BENCH.replace('password_file = "wifi.txt"', "open = true")
    assert places.read(write(tmp_path, opened))[0].wifi == Wifi("bench", "", "DE")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('address = "127.0.0.2"', "", "bench-wifi"),
        ('address = "127.0.0.2"', 'address = "0.0.0.0"', "bench-address"),
        ('address = "127.0.0.2"', 'address = "my-desk"', "bench-address"),
        ('address = "127.0.0.2"', "address = 7", "bench-address"),
        ("wifi = {", "# {", "bench-wifi"),
        ('password_file = "wifi.txt"', 'password = "nobody is kept out"', "bench-wifi"),
        ('password_file = "wifi.txt"', 'password_file = "none.txt"', "bench-wifi"),
        ('password_file = "wifi.txt"', 'password_file = "wifi.txt", open = true', "bench-wifi"),
        (', password_file = "wifi.txt"', "", "bench-wifi"),
        ('ssid = "bench"', 'ssid = ""', "bench-wifi"),
        ('country = "DE"', "country = 49", "bench-wifi"),
        ("wifi = {", "wifi = 7 # {", "bench-wifi"),
    ],
)
def test_bad_network_of_a_board_is_refused(tmp_path: Path, old: str, new: str, code: str) -> None:
    with pytest.raises(places.PlaceError) as refused:
        places.read(write(tmp_path, BENCH.replace(old, new)))
    assert refused.value.code == code
    assert "kept out" not in str(refused.value)


async def test_door_passes_both_directions_on_and_closes_with_the_test() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read())
        writer.write_eof()

    server = await asyncio.start_server(echo, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with Door("127.0.0.2", (port,)):
            reader, writer = await asyncio.open_connection("127.0.0.2", port)
            writer.write(b"a board")
            writer.write_eof()
            assert await reader.read() == b"heard a board"
            writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.2", port)


async def test_door_to_a_server_that_is_gone_closes_the_line() -> None:
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))  # held, and not listening
        port = nobody.getsockname()[1]
        async with Door("127.0.0.2", (port,)):
            reader, writer = await asyncio.open_connection("127.0.0.2", port)
            assert await reader.read() == b""
            writer.close()


async def test_door_holds_no_more_lines_than_it_says() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(wait, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Door("127.0.0.2", (port,)):
        held = [await asyncio.open_connection("127.0.0.2", port) for _ in range(MAX_LINES + 3)]
        stay = {asyncio.ensure_future(reader.read()) for reader, _ in held}
        while len(stay) > MAX_LINES:
            ended, stay = await asyncio.wait(stay, timeout=15, return_when="FIRST_COMPLETED")
            assert ended, "more lines are held than that"
        assert len(stay) == MAX_LINES
        for read in stay:
            read.cancel()
        for _, writer in held:
            writer.close()


async def test_door_at_an_address_of_another_machine_is_the_benchs_own_fault() -> None:
    with pytest.raises(BoardError) as refused:
        async with Door("192.0.2.7", (free_port(),)):
            pass
    assert refused.value.code == "service"


# -- an ESP32 at its port


@pytest.fixture
def on_desk(tmp_path: Path) -> Any:
    return places.SerialTarget(places.read(write(tmp_path, BENCH))[0])


def test_esp32_is_flashed_by_its_boot_rom_whatever_it_runs(on_desk: Any, tmp_path: Path) -> None:
    board = load_board(REPO / "boards" / "TIDEMARK_ESP32" / "board.toml")
    assert board.esp32
    wanted = bytearray(b"\xff" * board.flash_size)
    table = encode(board.esp32.partitions, board.flash_size)
    wanted[TABLE_OFFSET : TABLE_OFFSET + len(table)] = table
    slot = board.regions["slot_a"].offset
    wanted[slot : slot + 4096] = bytes(range(256)) * 16
    with RomSerial("esp32", bytearray(b"\xff" * board.flash_size)) as rom:
        tool = flasher.ToolFlasher(on_desk.definition, "0001")

        class Held:
            """A board whose port is free for the while."""

            port = rom.url
            console_path = ""

            def released(self) -> Any:
                from contextlib import nullcontext

                return nullcontext()

        held: Any = Held()
        tool.write(held, bytes(wanted))
        assert rom.flash == wanted
        del rom.written[:]
        tool.write(held, bytes(wanted))
        assert not rom.written
        rom.fails_at = slot + 10
        wanted[slot] ^= 1
        with pytest.raises(BoardError) as failed:
            tool.write(held, bytes(wanted))
        assert failed.value.code == "flasher"


def test_board_that_waits_in_its_loader_is_recovered_by_the_lines_of_its_port() -> None:
    """The board says nothing until its lines are touched, and has a REPL then."""
    server = socket.create_server((HOST, 0))
    url = f"socket://{HOST}:{server.getsockname()[1]}"
    touched: list[str] = []
    with SerialBoard(lambda: url, lines=touched.append) as board:
        first, _ = server.accept()
        board.serial_log.wait_for("port socket", 10)
        since = len(board.serial_log)
        board.kick()
        assert touched == [url]
        # The next start is known for what it is. The port was closed for the while; what comes
        # before it is open again is not heard.
        line, _ = server.accept()
        board.serial_log.wait_for("port socket", 10, since)
        line.sendall(b"tidemark: slot a\r\n")
        board.serial_log.wait_for("by what was seen: reset", 10)
        first.close()
        line.close()
    server.close()


def test_board_without_such_lines_says_so() -> None:
    server = socket.create_server((HOST, 0))
    url = f"socket://{HOST}:{server.getsockname()[1]}"
    with SerialBoard(lambda: url) as board, pytest.raises(BoardError) as refused:
        board.kick()
    assert refused.value.code == "lines"
    server.close()
