"""The oracle notices what must not cross the wire."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path

import pytest

from tests.network.rig import publish
from tidemark_host import protocol
from tidemark_host.faults.oracle import Oracle

DEVICE = "0123456789abcdef"
EXTERNAL = protocol.aad("up", DEVICE, "telemetry", bytes(8))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.db"
    with sqlite3.connect(path) as db:
        db.executescript((files("tidemark_host.gateway") / "schema.sql").read_text())
    return path


def commit(database: Path, kind: str, epoch: int, index: int) -> None:
    with sqlite3.connect(database) as db:
        sql = "INSERT INTO upstream (device, kind, epoch, idx, body) VALUES (?, ?, ?, ?, '{}')"
        db.execute(sql, (DEVICE, kind, epoch, index))


def telemetry(oracle: Oracle, n: int, index: int, packet_id: int, key: bytes = bytes(32)) -> None:
    payload = protocol.counted(3, n, 0, 3, index, {1: index})
    message = protocol.seal_mac(key, protocol.HMAC_64, b"\1", EXTERNAL, payload)
    oracle("up", publish(packet_id, protocol.topic_up(DEVICE, "telemetry"), message))


def ack(oracle: Oracle, n: int, seq: int) -> None:
    payload = protocol.counted(3, n, 2, 3, seq)
    message = protocol.seal_mac(bytes(32), protocol.HMAC_256, b"\1", EXTERNAL, payload)
    oracle("down", publish(1, protocol.topic_down(DEVICE, "ack"), message))


def test_sound_course_is_no_violation(database: Path) -> None:
    oracle = Oracle(database)
    for n in range(1, 4):
        telemetry(oracle, n, n, n)
        commit(database, "telemetry", 3, n)
        ack(oracle, n, n << 2)
    # Sealed again under a new counter, as backlog of the gateway's own or not.
    telemetry(oracle, 4, 3, 4)
    ack(oracle, 4, 4 << 2)
    assert oracle.violations == []
    assert (oracle.device, oracle.published, oracle.acks) == (DEVICE, 4, 4)
    assert oracle.readings == {(3, 1), (3, 2), (3, 3)}
    oracle.close()


def test_counter_that_is_used_twice_is_seen(database: Path) -> None:
    for key, how in ((bytes(32), "again"), (b"\1" * 32, "for another message")):
        oracle = Oracle(database)
        telemetry(oracle, 1, 1, 1)
        telemetry(oracle, 1, 1, 2, key)
        assert oracle.violations == [f"counter (3, 4) used {how}"]


def test_ack_before_the_commit_is_a_lie(database: Path) -> None:
    oracle = Oracle(database)
    telemetry(oracle, 1, 1, 1)
    ack(oracle, 1, 1 << 2)
    assert oracle.violations == ["an ack of ('reading', 3, 1), which is not committed"]
    oracle.close()


def test_ack_of_what_never_left_is_seen(database: Path) -> None:
    oracle = Oracle(database)
    telemetry(oracle, 1, 1, 1)
    ack(oracle, 1, 9 << 2)
    assert oracle.violations == ["an ack of (3, 36), which never left"]


def test_packet_id_wraps_from_the_top_only_and_is_never_zero(database: Path) -> None:
    oracle = Oracle(database)
    for n, packet_id in enumerate((65_534, 65_535, 1, 2), 1):
        telemetry(oracle, n, n, packet_id)
    assert (oracle.violations, oracle.wraps) == ([], 1)
    telemetry(oracle, 5, 5, 0)
    telemetry(oracle, 6, 6, 30_000)
    telemetry(oracle, 7, 7, 20_000)
    assert oracle.violations == ["packet id 0", "packet id 20000 after 30000"]


def test_message_in_another_name_and_one_above_its_size_are_seen(database: Path) -> None:
    oracle = Oracle(database)
    telemetry(oracle, 1, 1, 1)
    oracle("up", publish(2, "tm/1/ffffffffffffffff/up/hello", bytes(5_000)))
    assert oracle.violations == ["in the name of ffffffffffffffff", "hello of 5000 bytes"]
    oracle("up", publish(3, "elsewhere"))
    assert len(oracle.violations) == 3
