"""What a repository's files and keys say, as it is in memory; repository.py changes it."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Role, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from tidemark_host.release import delegations, listing
from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.keys import ROLES, KeyStore
from tidemark_host.release.listing import FLEET
from tidemark_host.release.model import APP, Lifetimes, RoleStatus


@dataclass
class State:
    """The repository in `folder`, and the keys that are at hand to sign it."""

    folder: Path
    keys: KeyStore
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    now: datetime | None = None  # None: the clock. Set it to sign as of another time.
    _metadata: dict[str, Metadata[Any]] = field(default_factory=dict[str, Metadata[Any]])

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: KeyStore,
        *,
        lifetimes: Lifetimes | None = None,
        now: datetime | None = None,
    ) -> Self:
        """Open a repository that `create` made. Raises ReleaseError: `no-repository`,
        `repository-changed`.
        """
        repository = cls(folder, keys, lifetimes or Lifetimes(), now)
        repository._metadata = repository._published()
        return repository

    def _published(self) -> delegations.Published:
        """Return what the published files say; nothing before the first publish."""
        found: delegations.Published = {}
        for role in ROLES:
            found[role] = self._read(role)
        for role in delegations.names(found["targets"].signed):
            if f"{role}.json" in found["snapshot"].signed.meta:
                found[role] = self._read(role)
        self._check_signed(found)
        return found

    def _check_signed(self, found: delegations.Published) -> None:
        """Raises ReleaseError `repository-changed` for a file that its keys did not sign.

        What is read here gets signed again: whoever can write to the web server's folder must not
        have his words signed with it.
        """
        root, targets = found["root"].signed, found["targets"].signed
        checks = [(role, delegations.delegator(root, targets, role)) for role in found]
        former = self.metadata_dir / f"{root.version - 1}.root.json"
        if former.is_file():
            checks.append(("root", self._load(former).signed))
        for role, who in checks:
            metadata = found[role]
            try:
                who.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError as error:
                raise ReleaseError(
                    "repository-changed",
                    f"{self.path(role)} is not signed by its keys",
                    "somebody changed it: put it back from a backup, and look who can write there",
                ) from error

    def _read(self, role: str) -> Metadata[Any]:
        return self._load(self.path(role))

    def _load(self, path: Path) -> Metadata[Any]:
        try:
            return Metadata[Any].from_bytes(path.read_bytes())
        except OSError as error:
            raise ReleaseError(
                "no-repository",
                f"{path}: {error.strerror}",
                "tidemark release init, or --repo with the folder of the repository",
            ) from error
        except DeserializationError as error:
            raise ReleaseError(
                "no-repository",
                f"{path} is damaged",
                "put it back from the web server or a backup: it is published, no secret",
            ) from error

    # -- what there is

    @property
    def metadata_dir(self) -> Path:
        """Return the folder to serve as metadata base."""
        return self.folder / "metadata"

    @property
    def targets_dir(self) -> Path:
        """Return the folder to serve as targets base."""
        return self.folder / "targets"

    @property
    def root(self) -> Root:
        """Return the root role as it is in memory."""
        return cast("Root", self._metadata["root"].signed)

    @property
    def targets(self) -> Targets:
        """Return the targets role as it is in memory."""
        return cast("Targets", self._metadata["targets"].signed)

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot role as it is in memory."""
        return cast("Snapshot", self._metadata["snapshot"].signed)

    @property
    def timestamp(self) -> Timestamp:
        """Return the timestamp role as it is in memory."""
        return cast("Timestamp", self._metadata["timestamp"].signed)

    @property
    def roles(self) -> list[str]:
        """Return all roles in the order of signing: what others name comes first."""
        return ["root", "targets", *delegations.names(self.targets), "snapshot", "timestamp"]

    @property
    def listings(self) -> dict[str, Targets]:
        """Return the targets roles that have something to say: the fleet's, then the cohorts'."""
        found = [FLEET, *delegations.names(self.targets)]
        return {role: self._metadata[role].signed for role in found if role in self._metadata}

    def role(self, name: str) -> Role:
        """Return keys and threshold of a role as in memory. Raises ReleaseError `role`."""
        return delegations.role_of(self.root, self.targets, name)

    def path(self, role: str) -> Path:
        """Return the newest published file of `role`."""
        if role == "timestamp":
            return self.metadata_dir / "timestamp.json"
        found = self.metadata_dir.glob(f"*.{role}.json")
        versions = [int(number) for number in (p.name.split(".")[0] for p in found) if number]
        return self.metadata_dir / f"{max(versions, default=1)}.{role}.json"

    def root_bytes(self) -> bytes:
        """Return the newest published root.json: what provisioning writes to a board."""
        return self.path("root").read_bytes()

    def indices(self, board: str, role: str = FLEET, kind: str = APP) -> list[int]:
        """Return the release indices of a board and kind that a role names, rising."""
        return listing.indices(self._listing(role), role, board, kind)

    def target_path(self, board: str, index: int, role: str = FLEET, kind: str = APP) -> Path:
        """Return the file of a release. Raises ReleaseError `no-release`, `role`."""
        return self._file(self.entry(board, index, role, kind))

    def _file(self, entry: TargetFile) -> Path:
        folder, _, name = entry.path.rpartition("/")
        return self.targets_dir / folder / f"{entry.hashes['sha256']}.{name}"

    def entry(self, board: str, index: int, role: str = FLEET, kind: str = APP) -> TargetFile:
        """Return what a role says of a release. Raises ReleaseError `no-release`, `role`."""
        return listing.entry(self._listing(role), role, board, index, kind)

    def _listing(self, role: str) -> Targets:
        """Return a targets role; a delegated one that has published nothing yet begins here."""
        if role != FLEET:
            if role in ROLES:
                raise ReleaseError("role", f"{role} signs no releases", "--role with a cohort")
            self.role(role)
            if role not in self._metadata:
                self._begin(role)
        return cast("Targets", self._metadata[role].signed)

    def _begin(self, role: str) -> None:
        # A role that was taken back and comes again goes on above its former versions.
        former = self.snapshot.meta.get(f"{role}.json")
        signed = Targets()
        signed.version = former.version if former else 0
        self._metadata[role] = Metadata[Any](signed)

    def status(self) -> list[RoleStatus]:
        """Return version and expiry of each role that has published."""
        rows: list[RoleStatus] = []
        for role in self.roles:
            if role not in self._metadata:
                continue
            signed = cast("Signed", self._metadata[role].signed)
            entry = self.role(role)
            keys, left = len(entry.keyids), signed.expires - self._now()
            rows.append(
                RoleStatus(role, signed.version, signed.expires, entry.threshold, keys, left)
            )
        return rows

    def _now(self) -> datetime:
        return (self.now or datetime.now(UTC)).replace(microsecond=0)
