"""Delegated roles of cohorts: who may publish what, one index over all roles, verbs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.metadata import Metadata

from tests.unit.test_release import content, refused
from tests.unit.test_release_signing import holder, pem_files
from tidemark_host.cli.provision import command as provision_command
from tidemark_host.cli.release import command as release_command
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import pack

IMAGE = pack({"agent/app.mpy": b"M\x06"})
OTHER = pack({"agent/app.mpy": b"M\x06\x00"})
NOW = datetime(2027, 1, 15, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.create(tmp_path / "repo", KeyStore.create(tmp_path / "keys"), now=NOW)
    made.delegate("canary", [made.keys.add("canary").public_key])
    made.publish()
    return made


def verb(repository: Repository, *words: str | Path, code: int = 0) -> dict[str, Any]:
    """Run a verb with `--json`; returns what it printed."""
    where = ["--keys", repository.keys.folder, "--repo", repository.folder, "--json"]
    result = CliRunner().invoke(release_command, [str(word) for word in [*words, *where]])
    assert result.exit_code == code, result.output
    return json.loads(result.output) if code == 0 else {"said": result.output}


def test_role_speaks_for_its_cohort_by_its_own_key_and_ends_the_search(
    repository: Repository,
) -> None:
    assert repository.targets.delegations and repository.targets.delegations.roles
    role = repository.targets.delegations.roles["canary"]
    assert role.terminating and role.paths == ["canary/*/app-*.romfs"] and role.threshold == 1
    assert not set(role.keyids) & {k for r in repository.root.roles.values() for k in r.keyids}
    assert role.is_delegated_path(app_path("VIRTUAL", 7, "canary"))
    for outside in (
        app_path("VIRTUAL", 7),
        app_path("VIRTUAL", 7, "beta"),
        "canary/a/b/app-1.romfs",
    ):
        assert not role.is_delegated_path(outside)


def test_team_publishes_with_its_key_alone_through_who_has_the_online_keys(
    repository: Repository,
) -> None:
    team = holder(repository, "canary-1")
    team.add(IMAGE, board="VIRTUAL", version="1", role="canary")
    with refused("no-key"):
        team.publish()
    (row,) = team.stage()
    assert (row.role, row.version, row.done) == ("canary", 1, True)
    before = repository.path("targets").read_bytes()
    online = holder(repository, "snapshot-1", "timestamp-1")
    online.publish()
    assert repository.path("targets").read_bytes() == before
    again = Repository.open(repository.folder, repository.keys, now=NOW)
    assert again.indices("VIRTUAL", "canary") == [1] and again.indices("VIRTUAL") == []
    assert again.target_path("VIRTUAL", 1, "canary").read_bytes() == IMAGE


def test_team_can_not_sign_for_the_fleet(repository: Repository) -> None:
    team = holder(repository, "canary-1", "snapshot-1", "timestamp-1")
    team.add(IMAGE, board="VIRTUAL", version="1")
    before = content(repository.metadata_dir)
    with refused("no-key"):
        team.publish()
    assert content(repository.metadata_dir) == before


def test_staged_role_that_a_stranger_signed_is_not_published(repository: Repository) -> None:
    team = holder(repository, "targets-1")
    team.add(IMAGE, board="VIRTUAL", version="1", role="canary")
    (row,) = team.stage()
    assert (row.signed, row.threshold) == (0, 1)
    with refused("signatures"):
        Repository.open(repository.folder, repository.keys, now=NOW).publish()


def test_one_index_names_one_image_over_all_roles(repository: Repository) -> None:
    assert repository.add(IMAGE, board="VIRTUAL", version="1", role="canary") == 1
    assert repository.add(OTHER, board="VIRTUAL", version="2") == 2
    assert repository.add(OTHER, board="VIRTUAL", version="3", role="canary") == 3
    for role, index in (("canary", 2), ("targets", 3)):
        with refused("index"):
            repository.add(IMAGE, board="VIRTUAL", version="x", role=role, index=index)
    with refused("index"):
        repository.add(IMAGE, board="VIRTUAL", version="x", index=1)  # below the fleet's own
    # What the canaries proved goes to the fleet under the index it has.
    assert repository.add(OTHER, board="VIRTUAL", version="3", index=3) == 3
    repository.publish()
    assert repository.indices("VIRTUAL") == [2, 3]


@pytest.mark.parametrize(
    ("code", "name", "patterns", "threshold"),
    [
        ("role", "Canary", (), 1),
        ("role", "targets", (), 1),
        ("role", "default", (), 1),
        ("role", "a/b", (), 1),
        ("role", "x" * 33, (), 1),
        ("role-exists", "canary", (), 1),
        ("path-pattern", "beta", ("VIRTUAL/app-*.romfs",), 1),
        ("path-pattern", "beta", ("*/VIRTUAL/app-*.romfs",), 1),
        ("path-pattern", "beta", ("betamax/*",), 1),
        ("threshold", "beta", (), 2),
        ("threshold", "beta", (), 0),
    ],
)
def test_delegation_that_would_reach_further_or_nobody_is_refused(
    repository: Repository, code: str, name: str, patterns: tuple[str, ...], threshold: int
) -> None:
    before = repository.targets.to_dict()
    with refused(code):
        repository.delegate(name, [repository.keys.add("beta").public_key], patterns, threshold)
    assert repository.targets.to_dict() == before


def test_revoked_role_stays_in_the_snapshot_and_says_nothing(repository: Repository) -> None:
    repository.add(IMAGE, board="VIRTUAL", version="1", role="canary")
    repository.publish()
    repository.revoke("canary")
    repository.publish()
    again = Repository.open(repository.folder, repository.keys, now=NOW)
    assert "canary.json" in again.snapshot.meta and list(again.listings) == ["targets"]
    with refused("role"):
        again.add(IMAGE, board="VIRTUAL", version="2", role="canary")
    # A new team starts above the former one's version, and from nothing.
    again.delegate("canary", [again.keys.add("canary").public_key])
    again.publish()
    fresh = Metadata.from_file(str(again.path("canary"))).signed
    assert fresh.version == 2 and fresh.targets == {}  # type: ignore[attr-defined]


def test_new_keys_of_a_role_sign_what_it_has_said(repository: Repository) -> None:
    repository.add(IMAGE, board="VIRTUAL", version="1", role="canary")
    repository.publish()
    repository.rotate("canary")
    repository.publish()
    signed = set(Metadata.from_file(str(repository.path("canary"))).signatures)
    assert signed == set(repository.role("canary").keyids)
    assert repository.indices("VIRTUAL", "canary") == [1]


def test_staged_root_with_a_new_snapshot_key_has_the_snapshot_signed_again(
    repository: Repository,
) -> None:
    repository.rotate("snapshot")
    repository.stage()
    again = Repository.open(repository.folder, repository.keys, now=NOW)
    again.publish()
    signed = set(Metadata.from_file(str(again.path("snapshot"))).signatures)
    assert signed == set(again.role("snapshot").keyids)


def test_key_that_is_dropped_signs_no_more(repository: Repository) -> None:
    old = repository.role("targets").keyids[0]
    repository.add_key("targets", repository.keys.add("targets").public_key)
    with refused("key-id"):
        repository.drop_key("targets", "")
    with refused("root-threshold"):
        repository.drop_key("targets", old, threshold=2)
    assert repository.drop_key("targets", old[:10]) == old
    repository.publish()
    assert old not in Metadata.from_file(str(repository.path("targets"))).signatures
    with refused("root-threshold"):
        repository.drop_key("targets", repository.role("targets").keyids[0])


def test_refused_verb_leaves_no_key_behind(repository: Repository) -> None:
    (repository.keys.folder / "root-1.pem").unlink()
    before = content(repository.keys.folder)
    for words in (("add-key", "targets"), ("rotate", "snapshot"), ("add-key", "nobody")):
        verb(repository, *words, code=1)
    assert content(repository.keys.folder) == before


def test_verbs_of_a_cohort(repository: Repository, tmp_path: Path) -> None:
    image = tmp_path / "app.romfs"
    image.write_bytes(IMAGE)
    _, public = pem_files(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    before = content(repository.folder)
    assert not verb(repository, "delegate", "beta", "--public", public, "--dry-run")["published"]
    assert content(repository.folder) == before
    assert verb(repository, "delegate", "beta", "--public", public)["published"]
    assert verb(repository, "status")["silent"] == ["canary", "beta"]
    on = ("--board", "VIRTUAL")
    verb(repository, "add", image, *on, "--version", "1", "--role", "canary")
    verb(repository, "change", *on, "--index", "1", "--role", "canary", "--cohort", "10")
    status = verb(repository, "status")
    assert [row["role"] for row in status["roles"]][2] == "canary"
    (release,) = status["releases"]
    assert (release["role"], release["custom"]["cohort"]) == ("canary", 10)
    assert verb(repository, "publish", "--refresh", "canary")["versions"]["canary"] == 3
    verb(repository, "publish", "--refresh", "nobody", code=1)
    verb(repository, "delegate", "beta", "--revoke")
    assert verb(repository, "status")["silent"] == []


def test_dry_run_of_init_sign_change_and_delegate_writes_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    empty = Repository(tmp_path / "new", KeyStore(tmp_path / "fresh"))
    said = verb(empty, "init", "--root-keys", "3", "--dry-run")
    assert len(said["files"]) == 10 and not (tmp_path / "new").exists()
    assert not (tmp_path / "fresh").exists()
    repository.add(IMAGE, board="VIRTUAL", version="1")
    repository.publish()
    holder(repository, "canary-1").stage(refresh=["root"])
    before = content(tmp_path)
    assert verb(repository, "sign", "--dry-run")["staged"][0]["signed"] == 1
    verb(repository, "sign", "--discard", "--dry-run")
    assert content(tmp_path) == before
    verb(repository, "sign", "--discard")
    before = content(tmp_path)
    verb(repository, "change", "--board", "VIRTUAL", "--index", "1", "--abort", "--dry-run")
    verb(repository, "delegate", "canary", "--revoke", "--dry-run")
    assert content(tmp_path) == before


def test_cohort_that_no_role_can_have_is_refused_before_a_board_is_touched(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root.json"
    root.write_text("{}")
    words = ["socket://127.0.0.1:1", "--gateway", str(tmp_path), "--root", str(root)]
    words += ["--broker", "b:1883", "--updates", "http://u", "--cohort", "Canary"]
    result = CliRunner().invoke(provision_command, words)
    assert result.exit_code == 2 and "--cohort" in result.output
