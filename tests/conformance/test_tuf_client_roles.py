"""The TUF client as a program under MicroPython: timestamp, snapshot, targets (5.4 to 5.6 of the
specification) and their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.simulator import (
    ALL,
    Program,
    Simulator,
    days,
    key,
    refused,
    take_before_it_ends,
)

# 5.4 to 5.6: what all three roles have in common


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_role_signed_by_a_stranger_is_refused(
    simulator: Simulator, client: Program, role: str
) -> None:
    assert client.refresh() == 0
    for name in ("targets", "snapshot", "timestamp"):
        simulator.publish(name, signers=[key("stranger")] if name == role else None)
    refused(client, f"{role}-threshold")
    assert client.trusted()[role] == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_threshold_of_a_role_counts_keys(simulator: Simulator, client: Program, role: str) -> None:
    simulator.rotate(role, "a", "b", "c", threshold=2)
    simulator.signers[role] = [key("a"), key("c")]
    simulator.publish_all()
    assert client.refresh() == 0
    simulator.signers[role] = [key("b"), key("stranger")]
    simulator.publish_all()
    refused(client, f"{role}-threshold")
    assert client.trusted()[role] == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired_role_is_not_stored(simulator: Simulator, client: Program, role: str) -> None:
    assert client.refresh() == 0
    simulator.roles[role].expires = days(-5)
    simulator.publish_all()
    refused(client, f"{role}-expired")
    assert client.trusted()[role] == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_stored_role_that_has_expired_gives_way_to_a_newer_one(
    simulator: Simulator, client: Program, role: str
) -> None:
    take_before_it_ends(simulator, role, client.refresh)
    refused(client, f"{role}-expired")
    simulator.roles[role].expires = days(1)
    simulator.publish_all()
    assert client.refresh() == 0
    assert client.trusted()[role] == simulator.roles[role].version


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_unknown_fields_count_for_the_signature(
    simulator: Simulator, client: Program, role: str
) -> None:
    simulator.roles[role].unrecognized_fields["x"] = {"b": [1, None, '\u00e9"\\'], "a": True}
    simulator.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    simulator.publish_all()
    simulator.publish(
        "root", "timestamp", spoil=lambda document: document["signed"].update(y="not signed")
    )
    refused(client, "root-threshold")


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_endless_data_is_cut_off(simulator: Simulator, client: Program, role: str) -> None:
    simulator.publish_all()
    name = "metadata/2.root.json" if role == "root" else simulator.name(role)
    simulator.files[name] = b" " * 50_000_000
    refused(client, "too-large")


def test_interrupted_metadata_is_not_taken(simulator: Simulator, client: Program) -> None:
    assert client.refresh() == 0
    simulator.publish_all()
    name = simulator.name("targets")
    simulator.files[name] = simulator.files[name][:-30]
    assert client.refresh() == 1
    assert client.trusted()["targets"] == 1


# 5.4: timestamp


def test_older_timestamp_is_refused(simulator: Simulator, client: Program) -> None:
    old = simulator.files["metadata/timestamp.json"]
    simulator.publish("timestamp")
    assert client.refresh() == 0
    simulator.files["metadata/timestamp.json"] = old
    refused(client, "timestamp-rollback")
    assert client.trusted()["timestamp"] == 2
    # The mark holds without the file.
    (client.metadata / "timestamp.json").unlink()
    refused(client, "timestamp-rollback")


def test_timestamp_of_the_same_version_changes_nothing(
    simulator: Simulator, client: Program
) -> None:
    assert client.refresh() == 0
    kept = (client.metadata / "timestamp.json").read_bytes()
    simulator.timestamp.snapshot_meta.version = 50
    simulator.publish("timestamp", bump=False)
    assert client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == kept


@pytest.mark.parametrize("with_hashes", [False, True])
def test_older_snapshot_is_refused(
    simulator: Simulator, client: Program, with_hashes: bool
) -> None:
    simulator.with_hashes = with_hashes
    simulator.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    simulator.snapshot.version = 1
    simulator.publish("snapshot", bump=False)
    simulator.publish("timestamp")
    refused(client, "snapshot-rollback")
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    assert simulator.asked[-1] == "metadata/timestamp.json"


# 5.5: snapshot


@pytest.mark.parametrize(("with_hashes", "code"), [(False, "version"), (True, "hash")])
@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_role_of_another_moment_is_refused(
    simulator: Simulator, client: Program, role: str, with_hashes: bool, code: str
) -> None:
    simulator.with_hashes = with_hashes
    simulator.publish_all()
    assert client.refresh() == 0
    simulator.publish_all()
    simulator.files[simulator.name(role)] = simulator.files[f"metadata/2.{role}.json"]
    refused(client, f"{role}-{code}")
    assert client.trusted()[role] == 2


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_role_of_another_length_is_refused(
    simulator: Simulator, client: Program, role: str
) -> None:
    assert client.refresh() == 0
    simulator.with_hashes = True
    simulator.publish_all()
    name = simulator.name(role)
    simulator.files[name] += b"\n"
    assert client.refresh() == 1
    simulator.files[name] = simulator.files[name][:-2] + b" }"
    assert client.refresh() == 1
    assert client.trusted()[role] == 1


@pytest.mark.parametrize("with_hashes", [False, True])
def test_older_targets_are_refused(
    simulator: Simulator, client: Program, with_hashes: bool
) -> None:
    simulator.with_hashes = with_hashes
    simulator.publish_all()
    assert client.refresh() == 0
    simulator.targets.version = 1
    simulator.publish("targets", bump=False)
    simulator.publish("snapshot", "timestamp")
    refused(client, "targets-rollback")
    assert client.trusted()["snapshot"] == 2
    # The mark holds without the files.
    for role in ("snapshot", "targets"):
        (client.metadata / f"{role}.json").unlink()
    refused(client, "targets-rollback")


def test_role_that_vanishes_from_the_snapshot_is_noticed(
    simulator: Simulator, client: Program
) -> None:
    simulator.delegate("targets", "other")
    simulator.publish_all("other", "targets")
    assert client.refresh() == 0
    del simulator.snapshot.meta["other.json"]
    simulator.publish("snapshot", "timestamp")
    refused(client, "snapshot-removed")
    assert client.trusted()["snapshot"] == 2


# Signatures


def test_signature_that_is_there_twice_is_refused(simulator: Simulator, client: Program) -> None:
    def twice(document: dict[str, Any]) -> None:
        document["signatures"] += document["signatures"]

    simulator.publish("snapshot", spoil=twice)
    simulator.publish("timestamp")
    refused(client, "signature-twice")
    assert "snapshot" not in client.trusted()


def test_key_named_several_times_is_one_key(simulator: Simulator, client: Program) -> None:
    def again(document: dict[str, Any]) -> None:
        document["signatures"] *= 3

    simulator.root.roles["snapshot"].threshold = 3
    keyids = simulator.root.roles["snapshot"].keyids
    keyids.extend(keyids * 2)
    simulator.publish("root")
    simulator.publish("snapshot", spoil=again)
    simulator.publish("timestamp")
    assert client.refresh() == 1
    assert "snapshot" not in client.trusted()


@pytest.mark.parametrize("sig", ["", "zz", "00" * 64, "3006020101020101"])
def test_bad_signature_beside_enough_good_ones_does_no_harm(
    simulator: Simulator, client: Program, sig: str
) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["signatures"][0]["sig"] = sig

    simulator.rotate("timestamp", "bad", "good")
    simulator.publish("timestamp", spoil=spoil)
    assert client.refresh() == 0


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key_types_of_the_specification(tmp_path: Path, kind: str) -> None:
    simulator = Simulator(kind=kind)
    with simulator.served():
        client = Program(tmp_path, simulator)
        assert client.init() == 0
        simulator.publish("root")
        assert client.refresh() == 0
        assert client.trusted() == {**ALL, "root": 2}
        other = key("timestamp", kind).sign(b"something else").signature
        simulator.publish(
            "timestamp", spoil=lambda document: document["signatures"][0].update(sig=other)
        )
        refused(client, "timestamp-threshold")
