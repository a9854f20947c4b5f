"""The board's TUF client against repositories that python-tuf made and signed."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from nor import NorFlash
from tests.conftest import SHARED, firmware_dir
from tests.unit.file_server import serve
from tidemark.errors import TidemarkError, TrustError
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.store import Files
from tidemark.tuf import Limits, TrustedSet, parse_time
from tidemark.tuf_client import Client, target_file
from tidemark.tuf_delegations import matches_pattern
from tidemark_host.release import KeyStore, Repository
from tidemark_host.toolchain import quick_micropython

NOW = datetime(2027, 1, 15, tzinfo=UTC)
SECONDS = int(NOW.timestamp())


@dataclass
class Board:
    """A client over the files of a repository's folder."""

    metadata: Path
    folder: Path
    root: bytes
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        journal = Journal(Region(NorFlash(8 * 4096), 0, 8 * 4096))
        journal.recover()
        self.journal = journal
        self.client = Client(Files(str(self.folder)), journal, self._fetch, self.root)

    def _fetch(self, name: str, max_size: int) -> Generator[None, None, bytes | None]:
        yield
        self.asked.append(name)
        path = self.metadata / name
        return path.read_bytes() if path.is_file() else None

    def refresh(self, now: int | None = SECONDS) -> str:
        """Run once; returns "ok" or the refusal's code."""
        try:
            for _ in self.client.refresh(now):
                pass
        except TidemarkError as error:
            return error.code
        return "ok"

    def find(self, path: str) -> Any:
        """Return what the search for a target gives."""
        search = self.client.find(path)
        while True:
            try:
                next(search)
            except StopIteration as stop:
                return stop.value


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    keys = KeyStore.create(tmp_path / "keys", root_keys=3)
    made = Repository.create(tmp_path / "repo", keys, root_threshold=2, now=NOW)
    made.add(b"image" * 1000, board="VIRTUAL", version="1.0.0", check_image=False)
    made.publish()
    return made


@pytest.fixture
def board(repository: Repository, tmp_path: Path) -> Board:
    return Board(repository.metadata_dir, tmp_path / "tuf", repository.root_bytes())


def test_board_takes_a_repository_of_python_tuf(repository: Repository, board: Board) -> None:
    assert board.refresh() == "ok"
    entry = board.find("VIRTUAL/app-1.romfs")
    assert entry["length"] == 5000
    path = target_file(entry, "VIRTUAL/app-1.romfs", True)
    assert repository.targets_dir / path == repository.target_path("VIRTUAL", 1)
    assert board.journal.mark("time")[0] == SECONDS
    for role in ("timestamp", "snapshot", "targets"):
        assert (board.folder / f"{role}.json").read_bytes() == repository.path(role).read_bytes()


def test_board_follows_every_rotation(repository: Repository, board: Board) -> None:
    assert board.refresh() == "ok"
    for role in ("timestamp", "snapshot", "targets", "root", "root"):
        repository.rotate(role)
        repository.publish()
        assert board.refresh() == "ok", role
    assert board.client.trusted.root.version == repository.root.version == 6


def test_new_board_walks_the_whole_chain(repository: Repository, board: Board) -> None:
    for _ in range(3):
        repository.rotate("root")
        repository.publish()
    assert board.refresh() == "ok"
    assert [name for name in board.asked if "root" in name] == [
        f"{version}.root.json" for version in (2, 3, 4, 5)
    ]


def test_chain_that_misses_a_root_ends_at_the_gap(repository: Repository, board: Board) -> None:
    for _ in range(2):
        repository.rotate("timestamp")
        repository.publish()
    (repository.metadata_dir / "2.root.json").unlink()
    # The newest timestamp is signed by a key that only the third root names.
    assert board.refresh() == "timestamp-threshold"


def test_expiry_counts_from_the_second_it_names(repository: Repository, board: Board) -> None:
    expires = int(repository.timestamp.expires.timestamp())
    assert board.refresh(expires - 1) == "ok"
    assert board.refresh(expires) == "timestamp-expired"


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_role_signed_by_a_strange_key_is_refused(
    repository: Repository, board: Board, role: str
) -> None:
    assert board.refresh() == "ok"
    kept = (board.folder / f"{role}.json").read_bytes()
    repository.publish(refresh=["targets"])
    path = repository.path(role)
    metadata = Metadata[Any].from_file(str(path))
    metadata.signatures.clear()
    signer = CryptoSigner.generate_ed25519()
    metadata.sign(signer)
    data = metadata.to_bytes(JSONSerializer(compact=True))
    if role != "timestamp":
        # The owner of the other keys is in on it: hashes agree.
        _vouch(repository, role, data)
    path.write_bytes(data)
    assert board.refresh() == f"{role}-threshold"
    assert (board.folder / f"{role}.json").read_bytes() == kept


def _vouch(repository: Repository, role: str, data: bytes) -> None:
    """Publish snapshot and timestamp whose hashes name these bytes of `role`."""
    repository.path(role).write_bytes(data)
    repository.publish(refresh=["snapshot"] if role == "targets" else [])


def _p384() -> CryptoSigner:
    return CryptoSigner(ec.generate_private_key(ec.SECP384R1()))


def _pkcs1() -> CryptoSigner:
    return CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256")


@pytest.mark.parametrize(
    "generate", [CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa], ids=["ecdsa", "rsa"]
)
def test_keys_of_other_types_count(tmp_path: Path, generate: Callable[[], CryptoSigner]) -> None:
    repository = _plain(tmp_path, extra=generate(), threshold=2)
    board = Board(repository, tmp_path / "tuf", (repository / "1.root.json").read_bytes())
    assert board.refresh() == "ok"


@pytest.mark.parametrize("generate", [_p384, _pkcs1], ids=["p384", "pkcs1v15"])
def test_keys_of_unknown_types_are_carried_but_do_not_count(
    tmp_path: Path, generate: Callable[[], CryptoSigner]
) -> None:
    repository = _plain(tmp_path, extra=generate())
    board = Board(repository, tmp_path / "tuf", (repository / "1.root.json").read_bytes())
    assert board.refresh() == "ok"
    other = tmp_path / "other"
    other.mkdir()
    only = _plain(other, extra=generate(), threshold=2)
    board = Board(only, other / "tuf", (only / "1.root.json").read_bytes())
    assert board.refresh() == "timestamp-threshold"


def _plain(folder: Path, extra: CryptoSigner, threshold: int = 1) -> Path:
    """Write a repository whose timestamp has a second key, of another type."""
    signer = CryptoSigner.generate_ed25519()
    root = Root(expires=NOW + timedelta(days=9))
    for role in ("root", "timestamp", "snapshot", "targets"):
        root.add_key(signer.public_key, role)
    root.add_key(extra.public_key, "timestamp")
    root.roles["timestamp"].threshold = threshold
    out = folder / "plain"
    out.mkdir()
    for name, signed in (
        ("1.root", root),
        ("timestamp", Timestamp(expires=root.expires)),
        ("1.snapshot", Snapshot(expires=root.expires)),
        ("1.targets", Targets(expires=root.expires)),
    ):
        metadata = Metadata[Any](signed)
        metadata.sign(signer)
        if name == "timestamp":
            metadata.sign(extra, append=True)
        (out / f"{name}.json").write_bytes(metadata.to_bytes(JSONSerializer(compact=True)))
    return out


def test_delegated_targets_are_found_in_order(repository: Repository, tmp_path: Path) -> None:
    signers = {name: CryptoSigner.generate_ed25519() for name in ("one", "two", "deep/er")}
    keys: dict[str, Key] = {s.public_key.keyid: s.public_key for s in signers.values()}

    def role(name: str, paths: list[str], terminating: bool = False) -> DelegatedRole:
        keyid = signers[name].public_key.keyid
        return DelegatedRole(name, [keyid], 1, terminating, paths=paths)

    def put(name: str, *paths: str, below: Delegations | None = None) -> None:
        signed = Targets(expires=repository.root.expires, delegations=below)
        for path in paths:
            signed.targets[path] = TargetFile.from_data(path, f"{name}:{path}".encode())
        metadata = Metadata(signed)
        metadata.sign(signers[name])
        encoded = name.replace("/", "%2F")
        data = metadata.to_bytes(JSONSerializer(compact=True))
        (repository.metadata_dir / f"1.{encoded}.json").write_bytes(data)
        repository.snapshot.meta[f"{name}.json"] = repository.snapshot.meta["targets.json"]
        repository.snapshot.meta[f"{name}.json"] = type(repository.snapshot.meta["targets.json"])(
            1
        )

    repository.targets.delegations = Delegations(
        keys,
        {
            "one": role("one", ["sensors/*"], terminating=True),
            "two": role("two", ["*", "sensors/*"]),
        },
    )
    put("one", "sensors/a", below=Delegations(keys, {"deep/er": role("deep/er", ["sensors/*"])}))
    put("two", "b", "sensors/a", "sensors/hidden", "other/c")
    put("deep/er", "sensors/d")
    repository.publish(refresh=["targets"])
    board = Board(repository.metadata_dir, tmp_path / "tuf", repository.root_bytes())
    assert board.refresh() == "ok"
    assert board.find("sensors/a") == TargetFile.from_data("", b"one:sensors/a").to_dict()
    assert board.find("sensors/d") is not None
    assert board.find("b") is not None
    # `one` speaks for sensors/ and ends the search there; other/c matches nobody's pattern.
    assert board.find("sensors/hidden") is None
    assert board.find("other/c") is None
    assert (board.folder / "deep%2Fer.json").is_file()


@given(st.text("ab*?[]!-/.", max_size=8), st.text("ab-/.", max_size=8))
@settings(max_examples=500, deadline=None)
def test_patterns_match_as_in_python_tuf(pattern: str, path: str) -> None:
    theirs = DelegatedRole("x", [], 1, False, paths=[pattern]).is_delegated_path(path)
    assert matches_pattern(path, pattern) == theirs


def test_hash_bins_are_those_of_python_tuf() -> None:
    from tidemark.tuf_delegations import roles_for

    for bits in (1, 3, 8, 11):
        theirs = SuccinctRoles([], 1, bits, "bin")
        ours = {"succinct_roles": {"bit_length": bits, "name_prefix": "bin"}}
        for path in ("a", "b/c", "VIRTUAL/app-1.romfs"):
            assert roles_for(ours, path) == [(theirs.get_role_for_target(path), True)]


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))
def test_times_are_those_of_datetime(time: datetime) -> None:
    time = time.replace(microsecond=0, tzinfo=UTC)
    assert parse_time(time.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)) == int(time.timestamp())


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_single_changed_byte_is_refused(data: st.DataObject) -> None:
    files = _fixed()
    role = data.draw(st.sampled_from(["root", "timestamp", "snapshot", "targets"]))
    at = data.draw(st.integers(0, len(files[role]) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != files[role][at]))
    broken = files[role][:at] + bytes([other]) + files[role][at + 1 :]
    trusted = TrustedSet(Limits(), SECONDS)
    steps: list[tuple[str, Callable[[bytes], object]]] = [
        ("root", trusted.load_root),
        ("timestamp", trusted.update_timestamp),
        ("snapshot", trusted.update_snapshot),
        ("targets", trusted.update_targets),
    ]
    for name, take in steps:
        if name != role:
            take(files[name])
            continue
        try:
            take(broken)
        except TrustError as error:
            assert len(error.code) <= 24
            assert {
                "root": trusted.root,
                "timestamp": trusted.timestamp,
                "snapshot": trusted.snapshot,
                "targets": trusted.targets.get("targets"),
            }[name] is None
        else:
            # Only what no signature covers may differ: white space there is none, so the case of
            # hex digits of signatures, or a field beside the two that count.
            assert name in ("root", "timestamp") or broken.lower() == files[role].lower()
        return


_made: dict[str, bytes] = {}


def _fixed() -> dict[str, bytes]:
    if not _made:
        signer = CryptoSigner.generate_ed25519()
        expires = NOW + timedelta(days=9)
        root = Root(expires=expires)
        for role in ("root", "timestamp", "snapshot", "targets"):
            root.add_key(signer.public_key, role)
        parts = (
            root,
            Timestamp(expires=expires),
            Snapshot(expires=expires),
            Targets(expires=expires),
        )
        for signed in parts:
            metadata = Metadata[Any](signed)
            metadata.sign(signer)
            _made[signed.type] = metadata.to_bytes(JSONSerializer(compact=True))
    return _made


_VM_RUN = """
import sys
sys.path[:] = [{firmware!r}, {shared!r}]
import socket
from nor import NorFlash
from tidemark.flash import Region
from tidemark.http import Client as Http
from tidemark.journal import Journal
from tidemark.store import Files
from tidemark.tuf_client import Client, target_file
import hashlib

def open_socket(host, port, timeout_s):
    sock = socket.socket()
    sock.connect(socket.getaddrinfo(host, port)[0][-1])
    return sock

journal = Journal(Region(NorFlash(8 * 4096), 0, 8 * 4096))
journal.recover()
metadata = Http(open_socket, {base!r} + "/metadata")
with open({root!r}, "rb") as handle:
    client = Client(Files({folder!r}), journal, metadata.fetch, handle.read())
for _ in client.refresh({now}):
    pass
entry = client.trusted.targets["targets"].signed["targets"]["VIRTUAL/app-1.romfs"]
path = target_file(entry, "VIRTUAL/app-1.romfs", True)
run = Http(open_socket, {base!r} + "/targets").fetch(path, 10000)
try:
    while True:
        next(run)
except StopIteration as stop:
    print(hashlib.sha256(stop.value).digest().hex() == entry["hashes"]["sha256"])
"""


def test_micropython_refreshes_over_a_socket(repository: Repository, tmp_path: Path) -> None:
    with serve(repository.folder) as base:
        script = _VM_RUN.format(
            firmware=str(firmware_dir()),
            shared=str(SHARED),
            base=base,
            root=str(repository.path("root")),
            folder=str(tmp_path / "tuf"),
            now=SECONDS,
        )
        run = subprocess.run(
            [*quick_micropython(), "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.stdout == "True\n", run.stdout + run.stderr
    assert (tmp_path / "tuf" / "targets.json").read_bytes() == (
        repository.path("targets").read_bytes()
    )
