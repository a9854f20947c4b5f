"""Threshold signing across machines: root, targets and delegated roles wait in the repository's
folder `staged` until enough key holders have signed; then `publish` takes them as they are.

Snapshot and timestamp name hashes of finished files, so they are made at the end, where their
online keys are.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Role, Root, Targets
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from tidemark_host.release.delegations import Published, delegator, role_of
from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.files import write as write_file

FOLDER = "staged"
ONLINE = ("snapshot", "timestamp")
_NAME = re.compile(r"\d{1,10}\.([a-z0-9-]{1,32})\.json")

Staged = dict[str, Metadata[Any]]


@dataclass(frozen=True)
class Progress:
    """How far a staged role is: the fewest signatures over all roots that must hold, and the
    threshold there."""

    role: str
    version: int
    signed: int
    threshold: int

    @property
    def done(self) -> bool:
        return self.signed >= self.threshold


def folder(repository: Path) -> Path:
    return repository / FOLDER


def _files(repository: Path) -> dict[str, Path]:
    found = {
        path: _NAME.fullmatch(path.name) for path in sorted(folder(repository).glob("*.json"))
    }
    named = {match[1]: path for path, match in found.items() if match}
    # Who names keys comes before whose keys are named.
    first = [role for role in ("root", "targets") if role in named]
    return {role: named[role] for role in dict.fromkeys([*first, *named])}


def read(repository: Path) -> Staged:
    """Return the staged roles. Raises ReleaseError `staged`."""
    found: Staged = {}
    for role, path in _files(repository).items():
        try:
            metadata = found[role] = Metadata[Any].from_bytes(path.read_bytes())
        except (OSError, DeserializationError) as error:
            raise ReleaseError(
                "staged", f"{path} can't be read", "tidemark release sign --discard"
            ) from error
        if metadata.signed.type != ("root" if role == "root" else "targets") or role in ONLINE:
            raise ReleaseError(
                "staged", f"{path} is of another type", "tidemark release sign --discard"
            )
    return found


def write(repository: Path, roles: Mapping[str, Metadata[Any]]) -> list[Path]:
    """Write roles to be signed further; returns their files."""
    paths: list[Path] = []
    for role, metadata in roles.items():
        path = folder(repository) / f"{metadata.signed.version}.{role}.json"
        write_file(path, metadata.to_bytes(JSONSerializer(compact=True)))
        paths.append(path)
    return paths


def discard(repository: Path, *, dry_run: bool = False) -> list[Path]:
    """Forget what is staged; returns its files."""
    paths = list(_files(repository).values())
    for path in [] if dry_run else paths:
        path.unlink()
    return paths


def delegators(role: str, published: Published, staged: Staged) -> list[Root | Targets]:
    """Return who names the keys that must sign a staged role. Raises ReleaseError `role`."""
    new = {**published, **staged}
    root, targets = new["root"].signed, new["targets"].signed
    role_of(root, targets, role)
    if role == "root" and "root" in staged:
        return [published["root"].signed, root]
    return [delegator(root, targets, role)]


def progress(published: Published, staged: Staged) -> list[Progress]:
    """Return how far each staged role is over what is published."""
    rows: list[Progress] = []
    for role, metadata in staged.items():
        states: list[tuple[int, int]] = []
        for who in delegators(role, published, staged):
            result = who.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            states.append((len(result.signed), result.threshold))
        least = min(states, key=lambda state: state[0] - state[1])
        rows.append(Progress(role, metadata.signed.version, *least))
    return rows


def sign(published: Published, staged: Staged, role: str, here: Sequence[Signer]) -> int:
    """Add signatures by the keys that are here and count for `role`; returns how many are new."""
    metadata = staged[role]
    wanted = {
        keyid
        for who in delegators(role, published, staged)
        for keyid in (_roles(who)[role].keyids)
    }
    added = 0
    for signer in here:
        keyid = signer.public_key.keyid
        if keyid in wanted and keyid not in metadata.signatures:
            add_signature(metadata, signer)
            added += 1
    return added


def add_signature(metadata: Metadata[Any], signer: Signer) -> None:
    """Sign. Raises ReleaseError `signer`, as the signer says it."""
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        if isinstance(error.__cause__, ReleaseError):
            raise error.__cause__ from None
        raise ReleaseError("signer", str(error)) from error


def check(published: Published, staged: Staged) -> None:
    """Raises ReleaseError: `signatures` unless every staged role reaches its thresholds, `staged`
    for one that does not follow what is published."""
    for role, metadata in staged.items():
        version = metadata.signed.version
        former = published[role].signed.version if role in published else 0
        if version != former + 1:
            raise ReleaseError(
                "staged",
                f"{role} {version} does not follow the published {former}",
                "tidemark release sign --discard, and stage it again",
            )
    for row in progress(published, staged):
        if not row.done:
            raise ReleaseError(
                "signatures",
                f"{row.role} {row.version} has {row.signed} of {row.threshold} signatures",
                "tidemark release sign, where another of its keys is",
            )


def _roles(who: Root | Targets) -> Mapping[str, Role]:
    if isinstance(who, Root):
        return who.roles
    return (who.delegations.roles if who.delegations else None) or {}
