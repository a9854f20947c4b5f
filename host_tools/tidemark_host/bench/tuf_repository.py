"""An update repository to measure with: every role, a delegation, a new root, a release."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from tidemark_host.release import app_path

BOARD = "TIDEMARK_PICO"
DELEGATE = "canary"
NOW = datetime(2027, 1, 15, tzinfo=UTC)
_EXPIRES = NOW + timedelta(days=30)
_RELEASES = 4  # what a small fleet's metadata names
_PAD = 24  # bytes of one entry that fills a file up


@dataclass(frozen=True)
class BenchRepository:
    """`root`: what the board was provisioned with. `files`: the rest, by name in metadata/.
    `delegated_path`: a target that only the delegated role names. `signatures`: checked in one
    full refresh.
    """

    root: bytes
    files: dict[str, bytes]
    delegated_path: str
    signatures: int

    @property
    def sizes(self) -> dict[str, int]:
        """Return bytes by file name."""
        return {name: len(data) for name, data in sorted(self.files.items())}


def make(image: bytes, size: int = 0) -> BenchRepository:
    """Sign a repository whose newest release is `image`.

    Two of three root keys; one for each other role; version 2 of the root is new to the board.
    `size`: every file is filled up to that many bytes by small unknown fields, the costliest
    content that honest metadata could have.
    """
    roots = [_signer(f"root {number}") for number in range(3)]
    online = {role: _signer(role) for role in ("timestamp", "snapshot", "targets", DELEGATE)}

    def root(version: int) -> bytes:
        signed = Root(version=version, expires=_EXPIRES)
        for key in roots:
            signed.add_key(key.public_key, "root")
        for role in ("timestamp", "snapshot", "targets"):
            signed.add_key(online[role].public_key, role)
        signed.roles["root"].threshold = 2
        return _sign(signed, roots[:2], size)

    def entry(index: int, content: bytes) -> TargetFile:
        path = app_path(BOARD, index)
        found = TargetFile.from_data(path, content, ["sha256"])
        found.unrecognized_fields["custom"] = {
            **{"board": BOARD, "kind": "app", "index": index, "version": f"1.{index}.0"},
            **{"attempt": 0, "min_runtime": 0, "cohort": 100, "abort": False},
        }
        return found

    targets = Targets(expires=_EXPIRES)
    for index in range(1, _RELEASES + 1):
        newest = index == _RELEASES
        targets.targets[app_path(BOARD, index)] = entry(index, image if newest else b"old" * index)
    delegated = DelegatedRole(DELEGATE, [], 1, True, [f"{BOARD}/canary/*"])
    targets.delegations = Delegations({}, {DELEGATE: delegated})
    targets.add_key(online[DELEGATE].public_key, DELEGATE)
    canary = Targets(expires=_EXPIRES)
    path = f"{BOARD}/canary/app-{_RELEASES + 1}.romfs"
    canary.targets[path] = entry(_RELEASES + 1, b"new")
    files = {
        "2.root.json": root(2),
        "1.targets.json": _sign(targets, [online["targets"]], size),
        f"1.{DELEGATE}.json": _sign(canary, [online[DELEGATE]], size),
    }
    snapshot = Snapshot(expires=_EXPIRES)
    for role in ("targets", DELEGATE):
        snapshot.meta[f"{role}.json"] = _meta(files[f"1.{role}.json"])
    files["1.snapshot.json"] = _sign(snapshot, [online["snapshot"]], size)
    timestamp = Timestamp(expires=_EXPIRES, snapshot_meta=_meta(files["1.snapshot.json"]))
    files["timestamp.json"] = _sign(timestamp, [online["timestamp"]], size)
    # The first root by itself, the second by the first and by itself, then four roles.
    return BenchRepository(root(1), files, path, 3 * 2 + 4)


def _signer(name: str) -> CryptoSigner:
    # Always the same, and nobody's: where signatures and key ids fall decides where the holes of
    # a heap lie, and what is measured repeats exactly.
    seed = hashlib.sha256(name.encode()).digest()
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))


def _meta(data: bytes) -> MetaFile:
    return MetaFile(1, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _sign(signed: Any, signers: Sequence[CryptoSigner], size: int) -> bytes:
    """Return the file of a role, filled up to `size` bytes where it is shorter."""
    metadata = Metadata[Any](signed)

    def serialized() -> bytes:
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes(JSONSerializer(compact=True))

    data = serialized()
    fields: dict[str, Any] = {}
    signed.unrecognized_fields["x-pad"] = fields
    while size and len(data) + len(json.dumps(fields, separators=(",", ":"))) < size - _PAD - 9:
        fields[f"f{len(fields)}"] = {"note": "x"}
    if not fields:
        del signed.unrecognized_fields["x-pad"]
    return serialized()
