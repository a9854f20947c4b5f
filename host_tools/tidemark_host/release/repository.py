"""A TUF repository (specification 1.0.x) of application releases, as a folder of plain files."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from securesystemslib.signer import Signer
from tuf.api.metadata import (
    Metadata,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from tidemark_host.release import calendar, staging
from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.files import read_image, write
from tidemark_host.release.keys import ROLES, KeyStore
from tidemark_host.release.model import (
    MAX_INDEX,
    Custom,
    Lifetimes,
    RoleStatus,
    app_path,
    check_custom,
    custom_of,
    meta_file,
    read_root,
)

# root.json goes into a board's write-once sector, beside the identity's public key.
MAX_ROOT_SIZE = 3072
# What the board's client takes, bytes (firmware/tidemark/tuf.py, Limits).
MAX_TARGETS_SIZE = 32_768
KEEP = 16  # releases of a board that stay in the metadata
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Repository:
    """The repository in `folder`, and the keys that are at hand to sign it.

    Changes are made in memory (`add`, `change`, `withdraw`, `rotate`) and come out with `publish`,
    which signs what changed and writes `timestamp.json` last: whoever serves the folder meanwhile
    serves the former state or the new one.
    """

    folder: Path
    keys: KeyStore
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    now: datetime | None = None  # None: the clock. Set it to sign as of another time.
    _metadata: dict[str, Metadata[Any]] = field(default_factory=dict[str, Metadata[Any]])
    _dirty: set[str] = field(default_factory=set[str])
    _images: dict[Path, bytes] = field(default_factory=dict[Path, bytes])

    # -- opening

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: KeyStore,
        *,
        root_threshold: int = 1,
        lifetimes: Lifetimes | None = None,
        now: datetime | None = None,
    ) -> Repository:
        """Make a new repository with version 1 of all roles, published.

        Raises ReleaseError: `repository-exists`, `root-threshold`, `no-key`.
        """
        repository = cls(folder, keys, lifetimes or Lifetimes(), now)
        if list((folder / "metadata").glob("*.json")):
            raise ReleaseError(
                "repository-exists", f"{folder} holds metadata already", "choose a new folder"
            )
        root = Root(consistent_snapshot=True)
        for role in ROLES:
            for signer in keys.signers(role):
                root.add_key(signer.public_key, role)
        if missing := [role for role in ROLES if not root.roles[role].keyids]:
            raise ReleaseError("no-key", f"no key of the role {missing[0]} in {keys.folder}")
        if not 1 <= root_threshold <= len(root.roles["root"].keyids):
            raise ReleaseError(
                "root-threshold",
                f"{root_threshold} of {len(root.roles['root'].keyids)} root keys can't sign",
            )
        root.roles["root"].threshold = root_threshold
        for signed in (root, Targets(), Snapshot(), Timestamp()):
            signed.version = 0  # the first `publish` makes it 1
            repository._metadata[signed.type] = Metadata[Any](signed)
        repository._dirty = {"root", "targets"}
        repository.publish()
        return repository

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: KeyStore,
        *,
        lifetimes: Lifetimes | None = None,
        now: datetime | None = None,
    ) -> Repository:
        """Open a repository that `create` made. Raises ReleaseError `no-repository`."""
        repository = cls(folder, keys, lifetimes or Lifetimes(), now)
        for role in ROLES:
            path = repository.path(role)
            try:
                repository._metadata[role] = Metadata[Any].from_bytes(path.read_bytes())
            except (OSError, DeserializationError) as error:
                raise ReleaseError(
                    "no-repository",
                    f"{path} is not there or can't be read",
                    "tidemark release init",
                ) from error
        return repository

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

    def path(self, role: str) -> Path:
        """Return the newest published file of `role`."""
        if role == "timestamp":
            return self.metadata_dir / "timestamp.json"
        found = self.metadata_dir.glob(f"*.{role}.json")
        versions = [int(path.name.split(".")[0]) for path in found if path.name[0].isdigit()]
        return self.metadata_dir / f"{max(versions, default=1)}.{role}.json"

    def root_bytes(self) -> bytes:
        """Return the newest published root.json: what provisioning writes to a board."""
        return self.path("root").read_bytes()

    def indices(self, board: str) -> list[int]:
        """Return the release indices of a board that the metadata names, rising."""
        return sorted(
            cast("int", custom_of(entry)["index"])
            for entry in self.targets.targets.values()
            if custom_of(entry).get("board") == board and custom_of(entry).get("kind") == "app"
        )

    def target_path(self, board: str, index: int) -> Path:
        """Return the file of a release. Raises ReleaseError `no-release`."""
        path = app_path(board, index)
        entry = self._entry(board, index)
        folder, _, name = path.rpartition("/")
        return self.targets_dir / folder / f"{entry.hashes['sha256']}.{name}"

    def status(self) -> list[RoleStatus]:
        """Return version and expiry of each role."""
        rows: list[RoleStatus] = []
        for role in ROLES:
            signed = cast("Signed", self._metadata[role].signed)
            entry = self.root.roles[role]
            keys, left = len(entry.keyids), signed.expires - self._now()
            rows.append(
                RoleStatus(role, signed.version, signed.expires, entry.threshold, keys, left)
            )
        return rows

    # -- changes

    def add(
        self,
        image: Path | bytes,
        *,
        board: str,
        version: str,
        index: int | None = None,
        attempt: int = 0,
        min_runtime: int = 0,
        cohort: int = 100,
        abort: bool = False,
        check_image: bool = True,
    ) -> int:
        """Add an application image as a release of `board`; returns its index.

        index: above all former ones of the board; None takes the next. cohort: percentage of the
        fleet that is offered it. check_image: refuse what no board could start; without it any
        bytes are taken, for tests. Raises ReleaseError: `index`, `version`, `board`, `attempt`,
        `min-runtime`, `cohort`, `image`.
        """
        data = read_image(image, check_image)
        highest = self._highest(board)
        index = highest + 1 if index is None else index
        if not highest < index <= MAX_INDEX:
            raise ReleaseError(
                "index",
                f"index {index} does not rise: {board} is at {highest}",
                f"undo a bad release with a new one: --index {highest + 1}",
            )
        if not board.isascii() or not board.replace("_", "").replace("-", "").isalnum():
            raise ReleaseError("board", f"{board!r} is no board's name")
        custom: Custom = {
            "board": board,
            "kind": "app",
            "index": index,
            "version": version,
            "attempt": attempt,
            "min_runtime": min_runtime,
            "cohort": cohort,
            "abort": abort,
        }
        check_custom(custom)
        entry = TargetFile(
            len(data),
            {"sha256": hashlib.sha256(data).hexdigest()},
            app_path(board, index),
            {"custom": custom},
        )
        self.targets.targets[entry.path] = entry
        self._images[self.target_path(board, index)] = data
        self._raise_highest(board, index)
        self._prune(board)
        self._dirty.add("targets")
        return index

    def change(
        self,
        board: str,
        index: int,
        *,
        attempt: int | None = None,
        cohort: int | None = None,
        abort: bool | None = None,
    ) -> None:
        """Change what may change of a release: widen its cohort, abort it, lift a rejection.

        Raises ReleaseError: `no-release`; `attempt` for one that does not rise; `cohort`.
        """
        entry = self._entry(board, index)
        custom = dict(custom_of(entry))
        if attempt is not None and attempt <= cast("int", custom["attempt"]):
            raise ReleaseError("attempt", f"attempt must be above {custom['attempt']}")
        for name, value in (("attempt", attempt), ("cohort", cohort), ("abort", abort)):
            if value is not None:
                custom[name] = value
        check_custom(custom)
        entry.unrecognized_fields["custom"] = custom
        self._dirty.add("targets")

    def withdraw(self, board: str, index: int) -> None:
        """Take a release out of the metadata; its index stays used.

        Boards that run it keep running it; to undo it, release a newer one. Raises ReleaseError
        `no-release`.
        """
        entry = self._entry(board, index)
        del self.targets.targets[entry.path]
        self._dirty.add("targets")

    def rotate(self, role: str) -> None:
        """Replace the keys of a role by one fresh key. The old key files stay where they are.

        For root the old keys sign the new root as well: they must still be here.
        """
        entry = self.root.roles[role]
        threshold = entry.threshold
        old = list(entry.keyids)
        signers = [self.keys.add(role) for _ in range(len(old) if role == "root" else 1)]
        for keyid in old:
            self.root.revoke_key(keyid, role)
        for signer in signers:
            self.root.add_key(signer.public_key, role)
        self.root.roles[role].threshold = threshold if role == "root" else 1
        self._dirty |= {"root"} if role == "root" else {"root", role}

    def add_key(self, role: str, signer: Signer, threshold: int | None = None) -> None:
        """Let one more key sign for `role`, and set its threshold if that is given.

        Raises ReleaseError `root-threshold` for a threshold out of range.
        """
        self.root.add_key(signer.public_key, role)
        entry = self.root.roles[role]
        if threshold is not None:
            if not 1 <= threshold <= len(entry.keyids):
                raise ReleaseError(
                    "root-threshold", f"{threshold} of {len(entry.keyids)} keys can't sign"
                )
            entry.threshold = threshold
        self._dirty |= {"root"} if role == "root" else {"root", role}

    def calendar(self) -> list[calendar.Due]:
        """Return when each role is to be signed again, the soonest first."""
        rows = [
            calendar.due(row.role, row.version, row.expires, self.lifetimes.of(row.role))
            for row in self.status()
        ]
        return sorted(rows, key=lambda row: row.renew)

    # -- publishing

    def publish(self, *, refresh: Iterable[str] = (), dry_run: bool = False) -> list[Path]:
        """Sign and write what changed, and snapshot and timestamp, which follow from it.

        refresh: further roles to sign again, for a new expiry. With nothing changed only the
        timestamp is new. What is staged is taken as it is, and must be signed by enough keys.
        dry_run: everything but the writing. Returns the files, in the order of writing. Raises
        ReleaseError: `no-key`, `root-size`, `targets-size`, `signatures`, `staged`, `signer`; then
        no file was written.
        """
        staged = staging.read(self.folder)
        if staged and (overlap := self._dirty | set(refresh) & set(staging.OFFLINE)):
            raise ReleaseError(
                "staged",
                f"{', '.join(sorted(overlap))} changed while others wait for signatures",
                "publish first, or tidemark release sign --discard",
            )
        dirty = self._dirty | set(refresh) | set(staged)
        if dirty & {"targets", "snapshot"}:
            dirty.add("snapshot")
        dirty.add("timestamp")
        former = copy.deepcopy(self._metadata)
        try:
            if staged:
                staging.check(read_root(self.path("root")), staged, self._metadata)
                self._metadata |= staged
            files = self._images | self._sign(dirty, set(staged))
        except BaseException:
            self._metadata = former
            raise
        if dry_run:
            self._metadata = former
            return list(files)
        # timestamp.json comes last: until then nobody sees the rest.
        for path, data in files.items():
            write(path, data)
        staging.discard(self.folder)
        self._dirty, self._images = set(), {}
        return list(files)

    def stage(self, *, refresh: Iterable[str] = ()) -> list[staging.Progress]:
        """Write the changed root and targets, signed by the keys that are here, for others to sign
        further: `sign_staged`, then `publish`. Raises ReleaseError: `staged`, `signer`.
        """
        if staging.read(self.folder):
            raise ReleaseError("staged", "something is staged already", "publish it, or sign it")
        wanted = (self._dirty | set(refresh)) & set(staging.OFFLINE)
        if not wanted:
            raise ReleaseError("staged", "neither root nor targets has changed")
        former = copy.deepcopy(self._metadata)
        for role in sorted(wanted):
            self._renew(role)
        # Images first: whoever signs can look at what the targets name.
        for path, data in self._images.items():
            write(path, data)
        staging.write(self.folder, [self._metadata[role] for role in sorted(wanted)])
        self._metadata, self._dirty, self._images = former, set(), {}
        return self.sign_staged()

    def staged(self) -> list[staging.Progress]:
        """Return how far what is staged is signed. Raises ReleaseError `staged`."""
        return staging.progress(read_root(self.path("root")), staging.read(self.folder))

    def sign_staged(self) -> list[staging.Progress]:
        """Sign what is staged with the keys that are here. Raises ReleaseError `staged`."""
        staged = staging.read(self.folder)
        if not staged:
            raise ReleaseError("staged", "nothing waits for signatures", "publish --stage")
        trusted = read_root(self.path("root"))
        for role in staged:
            staging.sign(trusted, staged, role, self.keys.signers(role))
        staging.write(self.folder, staged.values())
        return staging.progress(trusted, staged)

    def _renew(self, role: str) -> None:
        """Next version, new expiry, no signatures."""
        metadata = self._metadata[role]
        signed = cast("Signed", metadata.signed)
        signed.version += 1
        now = self._now()
        signed.expires = now + self.lifetimes.of(role)
        if role in staging.OFFLINE:
            # Boards raise their floor of time by it: only roles with offline keys carry it.
            signed.unrecognized_fields["issued"] = now.strftime(_TIME_FORMAT)
        metadata.signatures.clear()

    def _sign(self, dirty: set[str], finished: set[str]) -> dict[Path, bytes]:
        files: dict[Path, bytes] = {}
        published = self.path("root")
        delegators = [self.root] + ([read_root(published)] if published.is_file() else [])
        for role in ROLES:
            if role not in dirty:
                continue
            metadata = self._metadata[role]
            signed = cast("Signed", metadata.signed)
            if role not in finished:
                self._renew(role)
            if role == "snapshot":
                self.snapshot.meta["targets.json"] = meta_file(files, self.path("targets"))
            if role == "timestamp":
                self.timestamp.snapshot_meta = meta_file(files, self.path("snapshot"))
            if role not in finished:
                for signer in self._signers(role, delegators if role == "root" else [self.root]):
                    staging.add_signature(metadata, signer)
            data = metadata.to_bytes(JSONSerializer(compact=True))
            if role == "root" and len(data) > MAX_ROOT_SIZE:
                raise ReleaseError(
                    "root-size",
                    f"root.json has {len(data)} bytes, above {MAX_ROOT_SIZE}",
                    "use fewer root keys or a lower threshold",
                )
            if role == "targets" and len(data) > MAX_TARGETS_SIZE:
                raise ReleaseError("targets-size", f"targets.json has {len(data)} bytes")
            name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
            files[self.metadata_dir / name] = data
        return files

    def _signers(self, role: str, delegators: Sequence[Root]) -> list[Signer]:
        """Return signers that reach the threshold of `role` in each of `delegators`, no more.

        Each signature costs every board a check.
        """
        chosen: dict[str, Signer] = {}
        here = {signer.public_key.keyid: signer for signer in self.keys.signers(role)}
        for delegator in delegators:
            entry = delegator.roles[role]
            usable = [keyid for keyid in entry.keyids if keyid in here]
            if len(usable) < entry.threshold:
                raise ReleaseError(
                    "no-key",
                    f"{len(usable)} of {entry.threshold} keys of the role {role} are in "
                    f"{self.keys.folder}",
                    "put the medium with these keys in and pass --keys",
                )
            # Those that sign already come first: a key in both roots signs once.
            usable.sort(key=lambda keyid: keyid not in chosen)
            for keyid in usable[: entry.threshold]:
                chosen[keyid] = here[keyid]
        return list(chosen.values())

    def _now(self) -> datetime:
        return (self.now or datetime.now(UTC)).replace(microsecond=0)

    # -- release indices

    def _entry(self, board: str, index: int) -> TargetFile:
        entry = self.targets.targets.get(app_path(board, index))
        if entry is None:
            raise ReleaseError(
                "no-release", f"{board} has no release {index}", "tidemark release status"
            )
        return entry

    def _highest(self, board: str) -> int:
        used = cast("dict[str, int]", self.targets.unrecognized_fields.get("highest", {}))
        return max([used.get(board, 0), *self.indices(board)])

    def _raise_highest(self, board: str, index: int) -> None:
        # Kept in the signed metadata: an index stays used when its release is withdrawn or pruned.
        used = cast("dict[str, int]", self.targets.unrecognized_fields.setdefault("highest", {}))
        used[board] = index

    def _prune(self, board: str) -> None:
        for index in self.indices(board)[:-KEEP]:
            del self.targets.targets[app_path(board, index)]
