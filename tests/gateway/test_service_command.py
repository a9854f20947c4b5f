"""`tidemark gateway`, `inventory` and `provision`: what they refuse, and what they say then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.gateway.wire import LIMIT_S
from tidemark_host.cli.gateway import command as gateway_command
from tidemark_host.cli.inventory import command as inventory_command
from tidemark_host.cli.provision import command as provision_command
from tidemark_host.gateway.broker import EmbeddedBroker, Mosquitto
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.service import Gateway, GatewayConfig, StateInUse
from tidemark_host.inventory import Inventory

DEAD = "127.0.0.1:1"  # nobody listens on port 1


def call(command: object, *words: str | Path, **env: str) -> Result:
    """Run a verb in this process; wide, so that no line of an error is broken."""
    env = {"COLUMNS": "400", **env}
    return CliRunner().invoke(command, [str(word) for word in words], env=env)  # type: ignore[arg-type]


@asynccontextmanager
async def running(state: Path, *words: str) -> AsyncIterator[Process]:
    """A gateway as a process; killed at the end if it still runs."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidemark_host", "gateway", "--state", str(state), *words),
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def line_with(child: Process, word: str) -> str:
    """Return the next line with `word` in it."""
    assert child.stdout
    async with asyncio.timeout(LIMIT_S):
        while line := await child.stdout.readline():
            if word.encode() in line:
                return line.decode()
    raise AssertionError(f"it ended without {word!r}")


async def ended(child: Process) -> tuple[int, str]:
    """Return the exit status and what was not yet read."""
    out, _ = await asyncio.wait_for(child.communicate(), LIMIT_S)
    assert child.returncode is not None
    return child.returncode, out.decode()


# -- one gateway on one state


async def test_a_second_gateway_on_one_state_is_refused(tmp_path: Path):
    config = GatewayConfig(tmp_path)
    async with Gateway(config):
        with pytest.raises(StateInUse):
            async with Gateway(config):
                pass
    async with Gateway(config):
        pass


async def test_the_command_says_so_and_a_killed_gateway_leaves_no_lock(tmp_path: Path):
    async with running(tmp_path, "--broker", DEAD) as first:
        await line_with(first, "ready:")
        async with running(tmp_path, "--broker", DEAD) as second:
            status, said = await ended(second)
        assert status == 1
        assert "another gateway" in said and "--state" in said and "Traceback" not in said
        first.send_signal(signal.SIGKILL)
        await first.wait()
    async with running(tmp_path, "--broker", DEAD) as third:
        await line_with(third, "ready:")


# -- what it says of its broker


async def test_it_says_that_it_waits_for_its_broker_and_ends_quietly(
    tmp_path: Path, private_broker: Mosquitto
):
    broker = private_broker
    where = f"{broker.host}:{broker.port}"
    await broker.stop()
    async with running(tmp_path, "--broker", where) as child:
        await line_with(child, "ready:")
        await line_with(child, f"waiting for the broker at {where}")
        await broker.start()
        await line_with(child, f"connected to the broker at {where}")
        await broker.stop()
        await line_with(child, f"waiting for the broker at {where}")
        child.send_signal(signal.SIGTERM)
        status, said = await ended(child)
    assert status == 0
    assert "never retrieved" not in said


async def test_the_first_json_line_is_ready(tmp_path: Path):
    async with running(tmp_path, "--json", "--broker", DEAD) as child:
        assert child.stdout
        first = json.loads(await asyncio.wait_for(child.stdout.readline(), LIMIT_S))
        assert first["event"] == "ready" and first["broker"] == DEAD
        assert json.loads(await line_with(child, "waiting"))["broker"] == DEAD


# -- where it listens


def test_addresses_that_boards_are_given_are_fixed():
    defaults = {option.name: option.default for option in gateway_command.params}
    assert defaults["embedded_port"] == 1883
    assert defaults["listen"] == "127.0.0.1:8080"


async def test_port_0_is_any(tmp_path: Path):
    words = ["--json", "--embedded-broker", "--embedded-port", "0"]
    words += ["--updates", str(tmp_path), "--listen", "127.0.0.1:0"]
    async with running(tmp_path / "state", *words) as child:
        ready = json.loads(await line_with(child, "ready"))
    assert not ready["broker"].endswith(":0") and not ready["updates"].endswith(":0")


async def test_a_port_in_use_gets_a_next_step(tmp_path: Path):
    async with EmbeddedBroker() as broker:
        words = ["--embedded-broker", "--embedded-port", str(broker.port)]
        async with running(tmp_path, *words) as child:
            status, said = await ended(child)
        assert status == 1 and "--embedded-port" in said and "Traceback" not in said
        updates = ["--updates", str(tmp_path), "--listen", f"127.0.0.1:{broker.port}"]
        async with running(tmp_path, "--broker", DEAD, *updates) as child:
            status, said = await ended(child)
        assert status == 1 and "--listen" in said and "Traceback" not in said


@pytest.mark.parametrize("broker", ["here", "127.0.0.1:0", "127.0.0.1:70000", ":1883"])
def test_a_broker_without_address_is_refused(tmp_path: Path, broker: str):
    result = call(gateway_command, "--state", tmp_path, "--broker", broker)
    assert result.exit_code == 2


# -- damaged files


def test_a_damaged_database_is_told_with_a_next_step(tmp_path: Path):
    (tmp_path / "gateway.db").write_bytes(b"not a database at all" * 500)
    result = call(gateway_command, "--state", tmp_path, "--broker", DEAD)
    assert result.exit_code == 1
    assert str(tmp_path / "gateway.db") in result.output and "backup" in result.output
    assert isinstance(result.exception, SystemExit)
    listed = call(inventory_command, "--state", tmp_path)
    assert listed.exit_code == 0  # no device: the database was not asked
    Inventory(tmp_path / "inventory.json").enroll(bytes(32), "VIRTUAL")
    listed = call(inventory_command, "--state", tmp_path)
    assert listed.exit_code == 1 and "backup" in listed.output


def test_a_damaged_inventory_sends_nobody_to_a_command_that_reads_it(tmp_path: Path):
    (tmp_path / "inventory.json").write_text("{")
    GatewayIdentity.load_or_create(tmp_path)
    for command, words in ((inventory_command, []), (gateway_command, ["--broker", DEAD])):
        result = call(command, "--state", tmp_path, *words)
        assert result.exit_code == 1
        assert "malformed" in result.output and "backup" in result.output
        assert "tidemark inventory" not in result.output
    (tmp_path / "inventory.json").unlink()
    result = call(inventory_command, "--state", tmp_path, "--clear", "0" * 16)
    assert result.exit_code == 1 and "tidemark inventory" in result.output


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_an_id_is_never_cut(tmp_path: Path, columns: int):
    inventory = Inventory(tmp_path / "inventory.json")
    ids = [
        inventory.enroll(os.urandom(32), "A_BOARD_WITH_A_LONG_NAME", "nickname " * 9).id
        for _ in range(3)
    ]
    result = call(inventory_command, "--state", tmp_path, COLUMNS=str(columns))
    assert result.exit_code == 0
    assert all(device in result.output for device in ids)


# -- provisioning


def provision(folder: Path, **changes: str) -> Result:
    (folder / "root.json").write_text("{}")
    options = {
        "gateway": str(folder / "gateway"),
        "root": str(folder / "root.json"),
        "broker": "127.0.0.1:1883",
        "updates": "http://127.0.0.1:8080",
        **changes,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return call(provision_command, str(folder / "no-port"), *words)


def test_provisioning_makes_no_gateway(tmp_path: Path):
    result = provision(tmp_path)
    assert result.exit_code == 1
    assert f"tidemark gateway --state {tmp_path / 'gateway'}" in result.output
    assert not (tmp_path / "gateway").exists()


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "\xff"])
def test_a_damaged_public_key_is_refused(tmp_path: Path, text: str):
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "gateway.pub").write_text(text)
    result = provision(tmp_path)
    assert result.exit_code == 1 and "gateway.pub" in result.output


def test_provisioning_reads_the_public_key_only(tmp_path: Path):
    identity = GatewayIdentity.load_or_create(tmp_path / "gateway")
    (tmp_path / "gateway" / "gateway.key").unlink()
    assert GatewayIdentity.read_public(tmp_path / "gateway") == identity.public
    result = provision(tmp_path)  # gets as far as the console
    assert result.exit_code == 1
    assert "no-port" in result.output and "Try:" in result.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("broker", v) for v in ("host", "host:", ":1883", "host:0", "host:65536", "host:x")),
        *(
            ("updates", v)
            for v in ("https://h", "h:80", "http://", "http://h:99999", "http://h?q")
        ),
        *(("update-s", v) for v in ("0", "-1", "604801")),
        *(("report-s", v) for v in ("0", "-1", "86401")),
    ],
)
def test_link_settings_are_checked_before_the_board_is_touched(
    tmp_path: Path, option: str, value: str
):
    GatewayIdentity.load_or_create(tmp_path / "gateway")
    result = provision(tmp_path, **{option: value})
    assert result.exit_code == 2
    assert f"--{option}" in result.output and "no-port" not in result.output
    assert not (tmp_path / "gateway" / "inventory.json").exists()
