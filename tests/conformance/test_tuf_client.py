"""The TUF client as a program under MicroPython: the driver's protocol (exit status, files,
requests), and the root role (5.2, 5.3 of the specification)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.simulator import ALL, FIRST, Program, Simulator, days, key, refused

# The driver's protocol


def test_init_asks_for_nothing_and_refresh_stores_every_role_as_served(
    simulator: Simulator, client: Program
) -> None:
    assert simulator.asked == []
    assert client.trusted() == {"root": 1}
    assert client.refresh() == 0
    assert simulator.asked == [*FIRST, "metadata/1.snapshot.json", "metadata/1.targets.json"]
    assert client.trusted() == ALL
    for role in ALL:
        served = simulator.files[simulator.name(role)]
        assert (client.metadata / f"{role}.json").read_bytes() == served


def test_download_refreshes_first(simulator: Simulator, client: Program) -> None:
    assert client.download("nothing") == 1
    assert client.trusted() == ALL
    assert "not-a-target" in client.said


def test_targets_are_downloaded_and_kept_and_replaced(
    simulator: Simulator, client: Program
) -> None:
    simulator.add("path/to/a b?.txt", b"one")
    simulator.add("big", b"x" * 100_000)
    simulator.publish_all()
    assert client.download("path/to/a b?.txt", "big") == 0
    assert client.stored() == [b"one", b"x" * 100_000]
    asked = len([path for path in simulator.asked if path.startswith("targets/")])
    assert asked == 2
    assert client.download("big") == 0
    assert len([path for path in simulator.asked if path.startswith("targets/")]) == 2
    simulator.add("path/to/a b?.txt", b"two")
    simulator.publish_all()
    assert client.download("path/to/a b?.txt") == 0
    assert client.stored() == [b"two", b"x" * 100_000]


@pytest.mark.parametrize("data", [b"tWo", b"two more", b"tw"], ids=["hash", "longer", "shorter"])
def test_target_that_the_mirror_changed_is_not_stored(
    simulator: Simulator, client: Program, data: bytes
) -> None:
    simulator.add("a", b"one")
    simulator.publish_all()
    assert client.download("a") == 0
    simulator.add("a", b"two")
    simulator.serve_target("a", data)
    simulator.publish_all()
    assert client.download("a") == 1
    assert client.stored() == [b"one"]


@pytest.mark.parametrize("hashes", [("sha256",), ("sha512",), ("sha256", "sha512")])
def test_both_hash_algorithms_are_checked(
    simulator: Simulator, client: Program, hashes: tuple[str, ...]
) -> None:
    simulator.add("a", b"one", hashes=hashes)
    simulator.publish_all()
    assert client.download("a") == 0
    for name in hashes:
        simulator.add("a", b"two", hashes=hashes)
        simulator.targets.targets["a"].hashes[name] = "00" * (32 if name == "sha256" else 64)
        simulator.serve_target("a", b"two")
        simulator.publish_all()
        assert client.download("a") == 1
    assert client.stored() == [b"one"]


def test_target_without_a_known_hash_is_not_taken(simulator: Simulator, client: Program) -> None:
    simulator.add("a", b"one", hashes=("sha512",))
    entry = simulator.targets.targets["a"]
    entry.hashes = {"new-hash": entry.hashes["sha512"]}
    simulator.serve_target("a", b"one")
    simulator.publish_all()
    assert client.download("a") == 1
    assert client.stored() == []


def test_repository_without_consistent_snapshots_has_plain_names(tmp_path: Path) -> None:
    simulator = Simulator(consistent=False)
    simulator.add("a", b"one")
    simulator.publish_all()
    with simulator.served():
        client = Program(tmp_path, simulator)
        assert client.init() == 0
        assert client.download("a") == 0
    assert simulator.asked[2:] == [
        "metadata/snapshot.json",
        "metadata/targets.json",
        "targets/a",
    ]


@pytest.mark.parametrize("arguments", [[], ["fly"], ["refresh"], ["--odd", "refresh"], ["init"]])
def test_odd_command_lines_fail(client: Program, arguments: list[str]) -> None:
    assert client.run(*arguments) == 1


def test_refresh_without_init_fails(simulator: Simulator, tmp_path: Path) -> None:
    assert Program(tmp_path, simulator).refresh() == 1
    assert simulator.asked == []


def test_unreachable_repository_fails_and_changes_nothing(
    simulator: Simulator, client: Program
) -> None:
    assert client.refresh() == 0
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        simulator.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert client.refresh() == 1
    assert client.trusted() == ALL


# 5.2, 5.3: root


def spoilt_version(document: dict[str, Any]) -> None:
    del document["signed"]["version"]


def spoilt_signature(document: dict[str, Any]) -> None:
    document["signatures"][0]["sig"] = "30" * 64


@pytest.mark.parametrize("spoil", [spoilt_version, spoilt_signature])
def test_first_root_that_does_not_verify_is_never_used(
    simulator: Simulator, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    document = json.loads(simulator.files["metadata/1.root.json"])
    spoil(document)
    client = Program(tmp_path, simulator)
    client.init(json.dumps(document).encode())
    assert client.refresh() == 1
    assert simulator.asked == []


def test_root_chain_is_walked_in_order(simulator: Simulator, client: Program) -> None:
    for number in range(4):
        simulator.rotate("root", f"root-{number}")
    assert client.refresh() == 0
    assert client.trusted()["root"] == 5
    assert simulator.asked[:5] == [f"metadata/{number}.root.json" for number in range(2, 7)]
    assert (client.metadata / "root.json").read_bytes() == simulator.files["metadata/5.root.json"]


# Keys by number: of the former root, its threshold; of the new one, its threshold; who signs that.
ROTATIONS: dict[str, tuple[list[int], int, list[int], int, list[int], bool]] = {
    "one key": ([1], 1, [2], 1, [1, 2], True),
    "and strangers": ([1], 1, [2], 1, [7, 1, 8, 2], True),
    "not by the new": ([1], 1, [2], 1, [1, 7], False),
    "not by the old": ([1], 1, [2], 1, [2, 7], False),
    "three of five": ([0, 1, 2, 3, 4], 3, [0, 1, 3, 4, 5], 3, [0, 4, 1], True),
    "too few new": ([0, 1, 2, 3, 4], 3, [0, 1, 3, 4, 5], 3, [0, 2, 4], False),
    "too few old": ([0, 1, 2, 3, 4], 3, [0, 1, 3, 4, 5], 3, [0, 4, 5], False),
    "threshold raised": ([1, 2, 3], 1, [1, 2, 3], 2, [1, 2], True),
    "raised, not met": ([1, 2, 3], 1, [1, 2, 3], 2, [2], False),
    "threshold lowered": ([1, 2, 3], 2, [1, 2, 3], 1, [1, 2], True),
    "lowered, old not met": ([1, 2, 3], 2, [1, 2, 3], 1, [1], False),
}


@pytest.mark.parametrize("case", ROTATIONS.values(), ids=ROTATIONS.keys())
def test_root_needs_both_thresholds(
    simulator: Simulator,
    client: Program,
    case: tuple[list[int], int, list[int], int, list[int], bool],
) -> None:
    old, old_threshold, new, new_threshold, signers, taken = case
    simulator.rotate("root", *[f"root-{n}" for n in old], threshold=old_threshold)
    for keyid in list(simulator.root.roles["root"].keyids):
        simulator.root.revoke_key(keyid, "root")
    for number in new:
        simulator.root.add_key(key(f"root-{number}").public_key, "root")
    simulator.root.roles["root"].threshold = new_threshold
    simulator.publish("root", signers=[key(f"root-{n}") for n in signers])
    if taken:
        assert client.refresh() == 0
    else:
        refused(client, "root-threshold")
    version = 3 if taken else 2
    served = simulator.files[f"metadata/{version}.root.json"]
    assert (client.metadata / "root.json").read_bytes() == served


@pytest.mark.parametrize("version", [1, 3])
def test_root_of_another_version_is_refused(
    simulator: Simulator, client: Program, version: int
) -> None:
    simulator.root.version = version
    simulator.publish("root", bump=False)
    simulator.files["metadata/2.root.json"] = simulator.files[f"metadata/{version}.root.json"]
    refused(client, "root-version")
    assert client.trusted()["root"] == 1


def test_expired_root_is_stored_and_ends_the_run_until_a_newer_one_comes(
    simulator: Simulator, client: Program
) -> None:
    simulator.root.expires = days(-1)
    simulator.publish("root")
    refused(client, "root-expired")
    assert client.trusted() == {"root": 2}
    simulator.root.expires = days(9)
    simulator.publish("root")
    assert client.refresh() == 0


@pytest.mark.parametrize("rotated", ["timestamp", "snapshot", "both"])
def test_rotated_keys_recover_from_a_fast_forward(
    simulator: Simulator, client: Program, rotated: str
) -> None:
    simulator.delegate("targets", "gone")
    for role in ("targets", "gone", "snapshot", "timestamp"):
        simulator.roles[role].version = 100
        simulator.publish(role, bump=False)
    assert client.refresh() == 0
    for role in ("timestamp", "snapshot"):
        if rotated in (role, "both"):
            simulator.rotate(role, f"{role}-new")
    del simulator.snapshot.meta["gone.json"]
    for role in ("targets", "snapshot", "timestamp"):
        simulator.roles[role].version = 1
        simulator.publish(role, bump=False)
    assert client.refresh() == 0
    top = {role: version for role, version in client.trusted().items() if role != "root"}
    assert top == {"timestamp": 1, "snapshot": 1, "targets": 1}
