"""Threshold signing across machines: root and targets wait in `<repository>/staged` until enough
key holders have signed; then `publish` takes them as they are.

Snapshot and timestamp name hashes of finished files, so they are made at the end, where their
online keys are.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from tidemark_host.release.errors import ReleaseError

FOLDER = "staged"
OFFLINE = ("root", "targets")

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


def read(repository: Path) -> Staged:
    """Return the staged roles. Raises ReleaseError `staged`."""
    found: Staged = {}
    for role in OFFLINE:
        for path in folder(repository).glob(f"*.{role}.json"):
            try:
                found[role] = Metadata[Any].from_bytes(path.read_bytes())
            except (OSError, DeserializationError) as error:
                raise ReleaseError("staged", f"{path} can't be read") from error
    return found


def write(repository: Path, roles: Iterable[Metadata[Any]]) -> list[Path]:
    """Write roles to be signed further; returns their files."""
    paths: list[Path] = []
    for metadata in roles:
        signed = metadata.signed
        path = folder(repository) / f"{signed.version}.{signed.type}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(metadata.to_bytes(JSONSerializer(compact=True)))
        temporary.replace(path)
        paths.append(path)
    return paths


def discard(repository: Path) -> None:
    """Forget what is staged."""
    for role in OFFLINE:
        for path in folder(repository).glob(f"*.{role}.json"):
            path.unlink()


def delegators(role: str, trusted: Root, staged: Staged) -> list[Root]:
    """Return the roots whose thresholds a staged role must reach."""
    new: Root = staged["root"].signed if "root" in staged else trusted
    return [trusted, new] if role == "root" and new is not trusted else [new]


def progress(trusted: Root, staged: Staged) -> list[Progress]:
    """Return how far each staged role is; `trusted` is the published root."""
    rows: list[Progress] = []
    for role, metadata in staged.items():
        states: list[tuple[int, int]] = []
        for root in delegators(role, trusted, staged):
            result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            states.append((len(result.signed), result.threshold))
        least = min(states, key=lambda state: state[0] - state[1])
        rows.append(Progress(role, metadata.signed.version, *least))
    return rows


def sign(trusted: Root, staged: Staged, role: str, here: Sequence[Signer]) -> int:
    """Add signatures by the keys that are here and count for `role`; returns how many are new."""
    metadata = staged[role]
    wanted = {keyid for root in delegators(role, trusted, staged) for keyid in _keyids(root, role)}
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


def check(trusted: Root, staged: Staged, published: Staged) -> None:
    """Raises ReleaseError: `signatures` unless every staged role reaches its thresholds, `staged`
    for one that does not follow what is published."""
    for role, metadata in staged.items():
        version = metadata.signed.version
        if version != published[role].signed.version + 1:
            raise ReleaseError(
                "staged",
                f"{role} {version} does not follow the published {published[role].signed.version}",
                "tidemark release sign --discard, and stage it again",
            )
        for root in delegators(role, trusted, staged):
            try:
                root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError as error:
                row = next(row for row in progress(trusted, staged) if row.role == role)
                raise ReleaseError(
                    "signatures",
                    f"{role} {row.version} has {row.signed} of {row.threshold} signatures",
                    "tidemark release sign, where another of its keys is",
                ) from error


def _keyids(root: Root, role: str) -> list[str]:
    return root.roles[role].keyids
