"""The bridge's device: found by any of its names at each opening; a fault of its own ends it."""

from __future__ import annotations

import asyncio
import json
import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from click.testing import CliRunner

from tests.boards.usb_serial import Port
from tidemark_host import discovery
from tidemark_host.bridge import Bridge, BridgeError
from tidemark_host.cli.bridge import command
from tidemark_host.discovery import Nickname, keep_name
from tidemark_host.hil.waiting import until

ALLOW = [("127.0.0.1", 1)]


class Line:
    """A serial device: a pty whose other end nobody serves.

    By a name of its own: the next pty of this machine, somebody else's, may get the pty's.
    """

    def __init__(self, path: Path) -> None:
        self.master, slave = os.openpty()
        self.path = str(path)
        path.symlink_to(os.ttyname(slave))
        self._ends = [self.master, slave]

    def unplug(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        while self._ends:
            os.close(self._ends.pop())


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[Line]]:
    made = [Line(tmp_path / "ttyUSB0"), Line(tmp_path / "ttyUSB1")]
    yield made
    for line in made:
        line.unplug()


@pytest.mark.parametrize("name", ["A50285BI", "1-1.4", "greenhouse"])
async def test_adapter_is_found_by_each_of_its_names_and_again_at_another_port(
    lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ports: list[Port] = []
    events: list[tuple[str, Any]] = []
    monkeypatch.setenv("TIDEMARK_BOARDS", str(tmp_path / "boards.toml"))
    keep_name(Nickname("greenhouse", "A50285BI", ""))
    monkeypatch.setattr(discovery, "serial_ports", lambda: list(ports))
    async with Bridge(name, ALLOW, say=lambda *said: events.append(said)) as bridge:
        # Before it is there, it is said what is waited for, and not that there is no such file.
        await until("it says so", lambda: [said for said in events if said[0] == "waiting"])
        assert name in events[0][1]["reason"]
        for opens, line in enumerate(lines, 1):
            ports[:] = [Port(line.path, "A50285BI", 0x0403, "FT232R", "1-1.4")]
            await until("plugged", lambda opens=opens: bridge.counters.port_opens == opens)
            line.unplug()
            await until("unplugged", lambda: not bridge.plugged.is_set())
    plugged = [values["port"] for event, values in events if event == "plugged"]
    assert plugged == [line.path for line in lines]


async def test_two_adapters_of_one_number_are_waited_out(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [Port(line.path, "0001", 0x10C4, "CP2102") for line in lines]
    events: list[tuple[str, Any]] = []
    monkeypatch.setattr(discovery, "serial_ports", lambda: list(ports))
    async with Bridge("0001", ALLOW, say=lambda *said: events.append(said)) as bridge:
        await until("it says so", lambda: [said for said in events if said[0] == "waiting"])
        assert "2 ports" in events[0][1]["reason"]
        del ports[0]
        await until("plugged", bridge.plugged.is_set)


async def test_device_that_goes_while_it_is_opened_is_opened_again(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = serial.serial_for_url
    tried: list[str] = []

    def gone_at_first(port: str, *words: Any, **options: Any) -> Any:
        tried.append(port)
        if len(tried) == 1:
            raise termios.error(5, "Input/output error")  # which is no OSError
        return opens(port, *words, **options)

    monkeypatch.setattr(serial, "serial_for_url", gone_at_first)
    async with Bridge(lines[0].path, ALLOW) as bridge:
        await until("plugged", bridge.plugged.is_set)
    assert tried == [lines[0].path] * 2


async def test_fault_while_it_serves_ends_it_with_an_error(lines: list[Line]) -> None:
    with pytest.raises(BridgeError, match="a fault of its own") as ended:
        async with Bridge(lines[0].path, ALLOW) as bridge:
            await until("plugged", bridge.plugged.is_set)

            def fails() -> None:
                raise RuntimeError("a fault of its own")

            bridge._end.step = fails
            os.write(lines[0].master, b"anything")
            await asyncio.wait_for(bridge.failed.wait(), 10)
            assert not bridge.plugged.is_set()
    assert ended.value.code == "service"


def test_command_ends_when_a_task_of_its_bridge_does(
    lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(bridge: Bridge) -> None:
        raise RuntimeError("a fault of its own")

    monkeypatch.setattr(Bridge, "_watch", fails)
    words = ["--port", lines[0].path, "--allow", "127.0.0.1:1", "--json"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 1
    assert "a fault of its own" in done.stderr
    assert "broken" in [json.loads(line)["event"] for line in done.stdout.splitlines()]
