"""The TUF client as a program under MicroPython: delegated roles (5.6.7 of the specification)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.simulator import Program, Simulator, days, key, take_before_it_ends

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
    take_before_it_ends(simulator, "A", lambda: client.download("a"))
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
