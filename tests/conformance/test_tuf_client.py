"""The TUF client as a program under MicroPython, through every check of section 5 of the
specification, and the driver's protocol: exit status, files, requests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.simulator import Program, Simulator, days, key

FIRST = ["metadata/2.root.json", "metadata/timestamp.json"]
ALL = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


@pytest.fixture
def simulator() -> Generator[Simulator]:
    made = Simulator()
    with made.served():
        yield made


@pytest.fixture
def client(simulator: Simulator, tmp_path: Path) -> Program:
    program = Program(tmp_path, simulator)
    assert program.init() == 0
    return program


def refused(client: Program, code: str) -> None:
    """The refresh fails for this reason."""
    assert client.refresh() == 1
    assert f"tuf-client: {code}" in client.said


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
    simulator.roles[role].expires = days(3 / 86400)
    simulator.publish_all()
    assert client.refresh() == 0
    ends = simulator.roles[role].expires.timestamp()
    while time.time() < ends:
        time.sleep(0.05)
    refused(client, f"{role}-expired")
    simulator.roles[role].expires = days(1)
    simulator.publish_all()
    assert client.refresh() == 0
    assert client.trusted()[role] == 3


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


# 5.6.7: delegations

PATHS = ["*.py"]
GRAPHS: dict[str, tuple[list[tuple[str, str, list[str], bool]], list[str]]] = {
    "one": ([("targets", "A", ["*"], False)], ["A"]),
    "in order": ([("targets", "A", ["*"], False), ("targets", "B", ["*"], False)], ["A", "B"]),
    "depth first": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("A", "C", ["*"], False),
            ("A", "D", ["*"], False),
        ],
        ["A", "C", "D", "B"],
    ),
    "terminating ends siblings and all above": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("A", "C", ["*"], True),
            ("A", "D", ["*"], False),
            ("C", "E", ["*"], False),
        ],
        ["A", "C", "E"],
    ),
    "terminating of another path does not": (
        [("targets", "A", PATHS, True), ("targets", "B", ["*"], False)],
        ["B"],
    ),
    "cycle": (
        [
            ("targets", "A", ["*"], False),
            ("A", "B", ["*"], False),
            ("B", "A", ["*"], False),
            ("targets", "C", ["*"], False),
        ],
        ["A", "B", "C"],
    ),
    "twice reached": (
        [
            ("targets", "A", ["*"], False),
            ("targets", "B", ["*"], False),
            ("A", "C", PATHS, False),
            ("B", "C", ["*"], False),
        ],
        ["A", "B", "C"],
    ),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())
def test_delegations_are_searched_in_order(
    simulator: Simulator,
    client: Program,
    graph: tuple[list[tuple[str, str, list[str], bool]], list[str]],
) -> None:
    edges, order = graph
    for parent, name, paths, terminating in edges:
        simulator.delegate(parent, name, paths, terminating)
    simulator.publish_all(*sorted({name for _, name, _, _ in edges}), "targets")
    assert client.download("missing") == 1
    assert simulator.asked[4:] == [f"metadata/1.{role}.json" for role in order]


TREE = {
    "top": (True, []),
    "README.md": (True, ["A"]),
    "releases/x/x_v1": (True, ["B", "C"]),
    "releases/y/y_v1.zip": (True, ["B", "D"]),
    "releases/z/z_v1.zip": (False, ["B"]),
    "releases/x/deep/x_v1": (False, []),
}


@pytest.mark.parametrize("path", TREE)
def test_role_speaks_only_for_paths_that_the_whole_chain_gives_it(
    simulator: Simulator, client: Program, path: str
) -> None:
    simulator.delegate("targets", "A", ["*.doc", "*.md"])
    simulator.delegate("targets", "B", ["releases/*/*"])
    simulator.delegate("B", "C", ["releases/x/*"])
    simulator.delegate("B", "D", ["releases/y/*.zip"])
    for role, name in (
        ("targets", "top"),
        ("A", "README.md"),
        ("C", "releases/x/x_v1"),
        ("C", "releases/x/deep/x_v1"),
        ("D", "releases/y/y_v1.zip"),
        ("D", "releases/z/z_v1.zip"),
    ):
        simulator.add(name, b"by " + role.encode(), role)
    simulator.publish_all("A", "B", "C", "D", "targets")
    found, order = TREE[path]
    assert client.download(path) == (0 if found else 1)
    assert len(client.stored()) == found
    asked = [name for name in simulator.asked[4:] if name.startswith("metadata/")]
    assert asked == [f"metadata/1.{role}.json" for role in order]


def test_hash_prefixes_choose_the_role(simulator: Simulator, client: Program) -> None:
    # SHA-256 of "a" begins with ca97, that of "b" with 3e23.
    simulator.delegate("targets", "low", prefixes=["0", "3e2"])
    simulator.delegate("targets", "high", prefixes=["c"])
    simulator.add("a", b"1", "high")
    simulator.add("b", b"2", "low")
    simulator.publish_all("low", "high", "targets")
    assert client.download("a", "b") == 0
    assert client.stored() == [b"1", b"2"]


@pytest.mark.parametrize("name", ["?", "#", "/role", "../role", "a b%20", "\u00e9", ".."])
def test_role_names_are_quoted_in_requests_and_files(
    simulator: Simulator, client: Program, name: str
) -> None:
    simulator.delegate("targets", name)
    simulator.publish_all(name, "targets")
    assert client.download("missing") == 1
    assert simulator.asked[4:] == [simulator.name(name)]
    assert len(client.trusted()) == 5
    assert len(list(client.folder.rglob("*.json"))) == 6


def test_delegated_role_signed_by_a_stranger_is_refused(
    simulator: Simulator, client: Program
) -> None:
    simulator.delegate("targets", "A")
    simulator.add("a", b"1", "A")
    simulator.publish("A", signers=[key("targets")])
    simulator.publish_all()
    assert client.download("a") == 1
    assert "targets-threshold" in client.said
    assert client.stored() == []
    assert "A" not in client.trusted()


def test_role_that_one_delegator_vouches_for_needs_the_other_ones_keys_too(
    simulator: Simulator, client: Program, tmp_path: Path
) -> None:
    # Both A and B delegate to C, by keys of their own; only A's key signs.
    for parent in ("A", "B"):
        simulator.delegate("targets", parent, [f"{parent.lower()}/*"])
    simulator.delegate("A", "C", ["a/*"])
    other = simulator.signers["C"]
    simulator.signers["C"] = [key("another")]
    simulator.delegate("B", "C", ["b/*"])
    simulator.signers["C"] = other
    simulator.add("a/file", b"by A's word", "C")
    simulator.add("b/file", b"nobody's word", "C")
    simulator.publish_all("A", "B", "C", "targets")
    assert client.download("a/file") == 0
    for names in (("b/file",), ("a/file", "b/file")):
        assert client.download(*names) == 1
        assert "tuf-client: targets-threshold" in client.said
    assert client.stored() == [b"by A's word"]
    # As soon as both keys sign, both delegations hold.
    simulator.signers["C"] = [*other, key("another")]
    simulator.publish_all("C")
    assert client.download("a/file", "b/file") == 0


@pytest.mark.parametrize("with_hashes", [False, True])
def test_delegated_role_of_another_version_is_refused(
    simulator: Simulator, client: Program, with_hashes: bool
) -> None:
    simulator.with_hashes = with_hashes
    simulator.delegate("targets", "A")
    simulator.add("a", b"1", "A")
    simulator.publish_all("A", "targets")
    assert client.download("a") == 0
    simulator.add("a", b"2", "A")
    simulator.publish_all("A", "targets")
    simulator.files["metadata/2.A.json"] = simulator.files["metadata/1.A.json"]
    assert client.download("a") == 1
    assert client.stored() == [b"1"]
    assert client.trusted()["A"] == 1


def test_expired_delegated_role_is_refused_also_when_it_is_stored(
    simulator: Simulator, client: Program
) -> None:
    role = simulator.delegate("targets", "A")
    simulator.add("a", b"1", "A")
    role.expires = days(-1)
    simulator.publish_all("A", "targets")
    assert client.refresh() == 0
    assert client.download("a") == 1
    assert "A" not in client.trusted()
    role.expires = days(2 / 86400)
    simulator.publish_all("A", "targets")
    assert client.download("a") == 0
    while time.time() < role.expires.timestamp():
        time.sleep(0.05)
    assert client.download("a") == 1
    role.expires = days(1)
    simulator.publish_all("A", "targets")
    assert client.download("a") == 0


def test_search_for_a_target_is_bounded(simulator: Simulator, client: Program) -> None:
    names = [f"role-{number:02}" for number in range(40)]
    for name in names:
        simulator.delegate("targets", name)
    simulator.add("a", b"1", names[-1])
    simulator.publish_all(*names, "targets")
    assert client.download("a") == 1
    assert len(simulator.asked) == 4 + 32
