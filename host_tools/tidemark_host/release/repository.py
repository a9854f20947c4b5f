"""A TUF repository (specification 1.0.x) of application releases, as a folder of plain files."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    Metadata,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from tidemark_host.boardfile import Board
from tidemark_host.release import calendar, delegations, listing, runtimes, staging
from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.files import MAX_ROOT_SIZE, check_size, read_image, write
from tidemark_host.release.keys import ROLES, KeyStore
from tidemark_host.release.listing import FLEET, KEEP
from tidemark_host.release.model import (
    APP,
    RUNTIME,
    Custom,
    Lifetimes,
    app_path,
    check_custom,
    custom_of,
    meta_file,
    runtime_path,
    target_path,
)
from tidemark_host.release.state import State

__all__ = ["KEEP", "MAX_ROOT_SIZE", "Repository", "app_path"]
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Repository(State):
    """A repository to change and publish.

    Changes are made in memory (`add`, `change`, `withdraw`, `rotate`) and come out with `publish`,
    which signs what changed and writes `timestamp.json` last: whoever serves the folder meanwhile
    serves the former state or the new one.
    """

    would_write: list[Path] = field(default_factory=list[Path])  # by the dry run of `create`
    _dirty: set[str] = field(default_factory=set[str])
    _images: dict[Path, bytes] = field(default_factory=dict[Path, bytes])

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: KeyStore,
        *,
        root_threshold: int = 1,
        lifetimes: Lifetimes | None = None,
        now: datetime | None = None,
        dry_run: bool = False,
    ) -> Repository:
        """Make a new repository with version 1 of all roles, published unless `dry_run`.

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
        repository.would_write = repository.publish(dry_run=dry_run)
        return repository

    # -- changes

    def add(
        self,
        image: Path | bytes,
        *,
        board: str,
        version: str,
        role: str = FLEET,
        index: int | None = None,
        attempt: int = 0,
        min_runtime: int = 0,
        cohort: int = 100,
        abort: bool = False,
        check_image: bool = True,
        cabled: bool = False,
    ) -> int:
        """Add an application image as a release of `board`; returns its index.

        role: who signs it: a delegated role's reach the boards of its cohort only. index: above
        all former ones of the board, or that of a cohort's release of the same image, which then
        goes to all; None takes the next. cohort: percentage of the boards that is offered it.
        min_runtime: a published runtime's index, unless `cabled`: runtimes of such boards change
        over a cable only. check_image: refuse what no board could start; without it any bytes are
        taken, for tests. Raises ReleaseError: `index`, `version`, `board`, `attempt`,
        `min-runtime`, `runtime-missing`, `cohort`, `image`, `role`.
        """
        data = read_image(image, check_image)
        digest = hashlib.sha256(data).hexdigest()
        self._listing(role)
        if not board.isascii() or not board.replace("_", "").replace("-", "").isalnum():
            raise ReleaseError("board", f"{board!r} is no board's name")
        index = listing.pick_index(self.listings, role, board, index, digest)
        custom: Custom = {
            "board": board,
            "kind": APP,
            "index": index,
            "version": version,
            "attempt": attempt,
            "min_runtime": min_runtime,
            "cohort": cohort,
            "abort": abort,
        }
        check_custom(custom)
        if not cabled:
            listing.check_runtime(self.targets, board, min_runtime)
        self._put(role, custom, data)
        return index

    def add_runtime(
        self,
        file: Path | bytes,
        *,
        board: Board,
        version: str,
        index: int | None = None,
        attempt: int = 0,
        cohort: int = 100,
        abort: bool = False,
        check_image: bool = True,
    ) -> int:
        """Add a runtime (an ESP-IDF application image) of `board` to the fleet's releases; returns
        its index.

        Boards take it together with a release that has its index as `min_runtime`. index: above
        all former ones; None takes what the image says, or the next. The same image again changes
        nothing. check_image: refuse what the board could not start, and what was built with
        another index. Raises ReleaseError: `index`, `version`, `attempt`, `cohort`, `runtime`.
        """
        data, index = runtimes.read(file, board, index, check_image)
        digest = hashlib.sha256(data).hexdigest()
        index = listing.pick_runtime(self.targets, board.name, index, digest)
        if runtime_path(board.name, index) in self.targets.targets:
            return index
        names: Custom = {"board": board.name, "kind": RUNTIME, "index": index, "version": version}
        custom = {**names, "attempt": attempt, "cohort": cohort, "abort": abort}
        check_custom(custom)
        self._put(FLEET, custom, data)
        return index

    def _put(self, role: str, custom: Custom, data: bytes) -> None:
        board, index = str(custom["board"]), int(custom["index"])
        path = target_path(str(custom["kind"]), board, index, listing.cohort_of(role))
        digest = hashlib.sha256(data).hexdigest()
        entry = TargetFile(len(data), {"sha256": digest}, path, {"custom": custom})
        listing.put(self.listings, role, board, index, entry)
        self._images[self._file(entry)] = data
        self._dirty.add(role)

    def change(
        self,
        board: str,
        index: int,
        *,
        role: str = FLEET,
        kind: str = APP,
        attempt: int | None = None,
        cohort: int | None = None,
        abort: bool | None = None,
    ) -> None:
        """Change what may change of a release: widen its cohort, abort it, lift a rejection.

        Raises ReleaseError: `no-release`; `attempt` for one that does not rise; `cohort`.
        """
        entry = self.entry(board, index, role, kind)
        custom = dict(custom_of(entry))
        if attempt is not None and attempt <= cast("int", custom["attempt"]):
            least = cast("int", custom["attempt"]) + 1
            raise ReleaseError(
                "attempt", f"attempt must be above {custom['attempt']}", f"--attempt {least}"
            )
        for name, value in (("attempt", attempt), ("cohort", cohort), ("abort", abort)):
            if value is not None:
                custom[name] = value
        check_custom(custom)
        entry.unrecognized_fields["custom"] = custom
        self._dirty.add(role)

    def withdraw(self, board: str, index: int, role: str = FLEET, kind: str = APP) -> None:
        """Take a release out of the metadata; its index stays used.

        Boards that run it keep running it; to undo it, release a newer one. Raises ReleaseError
        `no-release`, `runtime-needed` for a runtime that a release asks for.
        """
        entry = self.entry(board, index, role, kind)
        if kind == RUNTIME and index in listing.needed_runtimes(self.listings, board):
            raise ReleaseError(
                "runtime-needed",
                f"a release of {board} needs runtime {index}",
                "withdraw or abort that release first",
            )
        del self._listing(role).targets[entry.path]
        self._dirty.add(role)

    # -- who signs

    def delegate(
        self, name: str, keys: Sequence[Key], patterns: Sequence[str] = (), threshold: int = 1
    ) -> None:
        """Let the keys of a cohort's team publish for the boards of that cohort, and only there.

        patterns: none for all boards. Raises ReleaseError: `role`, `role-exists`, `path-pattern`,
        `threshold`.
        """
        delegations.delegate(self.targets, name, keys, patterns, threshold)
        self._dirty.add("targets")
        if f"{name}.json" in self.snapshot.meta:
            # Taken back once: what it said then must not come back, nor its signatures stand.
            self._begin(name)
            self._dirty.add(name)

    def revoke(self, name: str) -> None:
        """Take back what `delegate` gave; the cohort's boards go on with the fleet's releases."""
        delegations.revoke(self.targets, name)
        # The snapshot goes on naming its last file: boards refuse one from which a role vanished.
        self._metadata.pop(name, None)
        self._dirty.add("targets")
        self._dirty.discard(name)

    def rotate(self, role: str) -> None:
        """Replace the keys of a role by fresh ones. The old key files stay where they are.

        For root the old keys sign the new root as well: they must still be here.
        """
        entry = self.role(role)
        count = len(entry.keyids) if role == "root" else 1
        threshold = entry.threshold if role == "root" else 1
        fresh = [self.keys.add(role).public_key for _ in range(count)]
        self._set_keys(role, drop=list(entry.keyids), add=fresh, threshold=threshold)

    def add_key(self, role: str, key: Key, threshold: int | None = None) -> None:
        """Let one more key sign for `role`, and set its threshold if that is given.

        Raises ReleaseError: `root-threshold` for a threshold out of range, `role`.
        """
        self._set_keys(role, add=[key], threshold=threshold)

    def drop_key(self, role: str, keyid: str, threshold: int | None = None) -> str:
        """Let a key sign no more for `role`; `keyid` may be cut short. Returns the whole id.

        Raises ReleaseError: `key-id` unless one key is meant, `root-threshold`, `role`.
        """
        found = [one for one in self.role(role).keyids if one.startswith(keyid)]
        if len(found) != 1 or not keyid:
            raise ReleaseError(
                "key-id",
                f"{len(found)} keys of {role} begin with {keyid!r}",
                "tidemark release status --json has the key ids",
            )
        self._set_keys(role, drop=found, threshold=threshold)
        return found[0]

    def _set_keys(
        self,
        role: str,
        *,
        drop: Sequence[str] = (),
        add: Sequence[Key] = (),
        threshold: int | None = None,
    ) -> None:
        entry = self.role(role)
        kept = {*entry.keyids, *(key.keyid for key in add)} - set(drop)
        threshold = entry.threshold if threshold is None else threshold
        if not 1 <= threshold <= len(kept):
            raise ReleaseError(
                "root-threshold",
                f"{threshold} of {len(kept)} keys can't sign",
                f"--threshold from 1 to {len(kept)}",
            )
        who = delegations.delegator(self.root, self.targets, role)
        for keyid in drop:
            who.revoke_key(keyid, role)
        for key in add:
            who.add_key(key, role)
        entry.threshold = threshold
        self._dirty.add("root" if role in ROLES else "targets")
        if role in self._metadata:
            self._dirty.add(role)

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
        offline = self._dirty | (set(refresh) - set(staging.ONLINE))
        if staged and offline:
            raise ReleaseError(
                "staged",
                f"{', '.join(sorted(offline))} changed while others wait for signatures",
                "tidemark release publish first, or tidemark release sign --discard",
            )
        for role in refresh:
            self.role(role)
        dirty = self._dirty | set(refresh) | set(staged)
        former = copy.deepcopy(self._metadata)
        try:
            if staged:
                staging.check(self._published(), staged)
                self._metadata |= staged
            dirty |= self._no_longer_signed(dirty)
            if dirty - {"root", "timestamp"}:
                dirty.add("snapshot")
            dirty.add("timestamp")
            files = self._images | self._sign(dirty, set(staged))
        except BaseException:
            self._metadata = former
            raise
        if dry_run:
            self._metadata = former
            return list(files)
        self.keys.save()
        # timestamp.json comes last: until then nobody sees the rest.
        for path, data in files.items():
            write(path, data)
        staging.discard(self.folder)
        self._dirty, self._images = set(), {}
        return list(files)

    def _no_longer_signed(self, dirty: set[str]) -> set[str]:
        """Return the further roles that a new root or targets takes the signatures of: boards
        would refuse them as they are."""
        found: set[str] = set()
        for role in self.roles:
            if role in dirty or role not in self._metadata:
                continue
            metadata = self._metadata[role]
            who = delegations.delegator(self.root, self.targets, role)
            try:
                who.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError:
                found.add(role)
        return found

    def stage(self, *, refresh: Iterable[str] = ()) -> list[staging.Progress]:
        """Write what changed but snapshot and timestamp, signed by the keys that are here, for
        others to sign further: `sign_staged`, then `publish`. Raises ReleaseError: `staged`,
        `signer`.
        """
        if staging.read(self.folder):
            raise ReleaseError(
                "staged",
                "something is staged already",
                "tidemark release publish, or tidemark release sign --discard",
            )
        changed = (self._dirty | set(refresh)) - set(staging.ONLINE)
        wanted = [role for role in self.roles if role in changed]
        if not wanted:
            raise ReleaseError("staged", "nothing that waits for others has changed")
        former = copy.deepcopy(self._metadata)
        for role in wanted:
            self._renew(role)
        self.keys.save()
        # Images first: whoever signs can look at what the targets name.
        for path, data in self._images.items():
            write(path, data)
        staging.write(self.folder, {role: self._metadata[role] for role in wanted})
        self._metadata, self._dirty, self._images = former, set(), {}
        return self.sign_staged()

    def staged(self) -> list[staging.Progress]:
        """Return how far what is staged is signed. Raises ReleaseError `staged`."""
        return staging.progress(self._published(), staging.read(self.folder))

    def sign_staged(self, *, dry_run: bool = False) -> list[staging.Progress]:
        """Sign what is staged with the keys that are here. Raises ReleaseError `staged`."""
        staged = staging.read(self.folder)
        if not staged:
            raise ReleaseError(
                "staged", "nothing waits for signatures", "--stage on the verb that changes it"
            )
        published = self._published()
        for role in staged:
            staging.sign(published, staged, role, self.keys.signers(role))
        if not dry_run:
            staging.write(self.folder, staged)
        return staging.progress(published, staged)

    def _renew(self, role: str) -> None:
        """Next version, new expiry, no signatures."""
        metadata = self._metadata[role]
        signed = cast("Signed", metadata.signed)
        signed.version += 1
        now = self._now()
        signed.expires = now + self.lifetimes.of(role)
        if role in ("root", "targets"):
            # Boards raise their floor of time by it: only roles with offline keys carry it.
            signed.unrecognized_fields["issued"] = now.strftime(_TIME_FORMAT)
        metadata.signatures.clear()

    def _sign(self, dirty: set[str], finished: set[str]) -> dict[Path, bytes]:
        files: dict[Path, bytes] = {}
        for role in self.roles:
            if role not in dirty:
                continue
            if role not in self._metadata:
                self._begin(role)
            metadata = self._metadata[role]
            if role not in finished:
                self._renew(role)
            if role == "snapshot":
                for name in self.listings:
                    if name not in dirty and f"{name}.json" not in self.snapshot.meta:
                        continue  # looked at, but it has said nothing yet
                    self.snapshot.meta[f"{name}.json"] = meta_file(files, self.path(name))
            if role == "timestamp":
                self.timestamp.snapshot_meta = meta_file(files, self.path("snapshot"))
            if role not in finished:
                for signer in self._signers(role):
                    staging.add_signature(metadata, signer)
            data = metadata.to_bytes(JSONSerializer(compact=True))
            check_size(role, len(data))
            version = cast("Signed", metadata.signed).version
            name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
            files[self.metadata_dir / name] = data
        return files

    def _signers(self, role: str) -> list[Signer]:
        """Return signers that reach the threshold of `role`, no more; for root also of the root
        that is published. Each signature costs every board a check.
        """
        chosen: dict[str, Signer] = {}
        here = {signer.public_key.keyid: signer for signer in self.keys.signers(role)}
        entries = [self.role(role)]
        if role == "root" and self.path("root").is_file():
            entries.append(self._read("root").signed.roles["root"])
        for entry in entries:
            usable = [keyid for keyid in entry.keyids if keyid in here]
            if len(usable) < entry.threshold:
                raise ReleaseError(
                    "no-key",
                    f"{len(usable)} of {entry.threshold} keys of the role {role} are in "
                    f"{self.keys.folder}",
                    "--keys with the folder that has them, or --stage here and tidemark release "
                    + ("publish there" if role in staging.ONLINE else "sign there"),
                )
            # Those that sign already come first: a key in both roots signs once.
            usable.sort(key=lambda keyid: keyid not in chosen)
            for keyid in usable[: entry.threshold]:
                chosen[keyid] = here[keyid]
        return list(chosen.values())
