"""What a hostile or careless mirror and owner do to the repository, undone afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata
from tuf.api.metadata import Targets as TufTargets  # pyright: ignore[reportPrivateImportUsage]

from tidemark_host.hil.site import Site
from tidemark_host.release import KeyStore, Repository, app_path


@dataclass(frozen=True)
class Attempt:
    """One thing that must not be installed; `codes`: what the board may call it."""

    text: str
    codes: tuple[str, ...]
    act: Callable[[Site], None]

    @contextmanager
    def staged(self, site: Site) -> Generator[None]:
        """The mirror serves it while the block runs, then the honest repository again."""
        metadata = site.repository.metadata_dir
        honest = site.folder / "honest"
        shutil.copytree(metadata, honest)
        try:
            self.act(site)
            yield
        finally:
            shutil.rmtree(metadata)
            honest.rename(metadata)
            reopen(site)


def reopen(site: Site) -> None:
    """Sign the honest state once more, with versions above whatever was served meanwhile."""
    site.repository = Repository.open(site.repository.folder, site.repository.keys)
    versions = site.repository
    versions.timestamp.version += 100
    versions.snapshot.version += 100
    versions.targets.version += 100
    versions.publish(refresh=("targets",))


def _older(site: Site) -> None:
    """The owner's own signature, but an index below the floor."""
    repository = site.repository
    floor = int(site.claims()["floor"])
    for index in repository.indices(site.definition.name):
        if index >= floor:
            repository.withdraw(site.definition.name, index)
    repository.publish()


def _replayed(site: Site) -> None:
    """What this very repository served an hour ago: all of it the owner's own signatures."""
    shutil.rmtree(site.repository.metadata_dir)
    shutil.copytree(site.yesterday, site.repository.metadata_dir)


def _wrongly_signed(site: Site) -> None:
    """A stranger's timestamp key over otherwise good metadata."""
    stranger = KeyStore.create(site.folder / f"stranger-{len(list(site.folder.iterdir()))}")
    path = site.repository.metadata_dir / "timestamp.json"
    metadata = Metadata[Any].from_file(str(path))
    metadata.signed.version += 1
    metadata.signatures.clear()
    for signer in stranger.signers("timestamp"):
        metadata.sign(signer)
    # The key id that root names over a signature that is not that key's.
    document = json.loads(metadata.to_bytes())
    root = Metadata[Any].from_bytes(site.repository.root_bytes()).signed
    document["signatures"][0]["keyid"] = root.roles["timestamp"].keyids[0]
    path.write_text(json.dumps(document), "utf-8")


def _strange_targets(site: Site) -> None:
    """Release metadata signed by a stranger, under snapshot and timestamp that name it rightly."""
    stranger = KeyStore.create(site.folder / f"stranger-{len(list(site.folder.iterdir()))}")
    repository = site.repository
    repository.targets.version += 1
    path = repository.path("targets")
    document = Metadata[Any].from_file(str(path))
    document.signed.version = repository.targets.version
    document.signatures.clear()
    for signer in stranger.signers("targets"):
        document.sign(signer)
    version = repository.targets.version
    (path.parent / f"{version}.targets.json").write_bytes(document.to_bytes())
    repository.snapshot.meta["targets.json"].version = version
    for role in ("snapshot", "timestamp"):
        signed = getattr(repository, role)
        signed.version += 1
        if role == "timestamp":
            signed.snapshot_meta.version = repository.snapshot.version
            signed.snapshot_meta.length = signed.snapshot_meta.hashes = None
        else:
            signed.meta["targets.json"].length = signed.meta["targets.json"].hashes = None
        metadata = Metadata[Any](signed)
        for signer in repository.keys.signers(role):
            metadata.sign(signer, append=True)
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.snapshot.json"
        (path.parent / name).write_bytes(metadata.to_bytes())


def _foreign(site: Site) -> None:
    """Rightly signed, newest of all, but made for another board."""
    repository = site.repository
    index = max(repository.indices(site.definition.name)) + 1
    image: Path = repository.target_path(site.definition.name, index - 1)
    path = app_path(site.definition.name, index)
    custom = {
        "board": "OTHER",
        "kind": "app",
        "index": index,
        "version": "9.9.9",
        "attempt": 0,
        "min_runtime": 0,
        "cohort": 100,
        "abort": False,
    }
    data = image.read_bytes()
    entry = {
        "length": len(data),
        "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
        "custom": custom,
    }
    document = repository.targets.to_dict()
    document["targets"][path] = entry
    repository.targets.targets[path] = TufTargets.from_dict(document).targets[path]
    repository.publish(refresh=("targets",))


ATTEMPTS = (
    Attempt("an older release, signed by the owner", ("below-floor",), _older),
    Attempt("yesterday's metadata, replayed by the mirror", ("timestamp-rollback",), _replayed),
    Attempt("a release signed by a stranger", ("targets-threshold",), _strange_targets),
    Attempt("a timestamp signed by a stranger", ("timestamp-threshold",), _wrongly_signed),
    Attempt("a release made for another board", ("wrong-board",), _foreign),
)
