"""Signed releases: a TUF repository of plain files, and the keys that sign it.

    keys = KeyStore.create(Path("keys"), root_keys=3)
    repository = Repository.create(Path("repo"), keys, root_threshold=2)
    repository.add(image, board="VIRTUAL", index=2, version="1.1.0")
    repository.publish()

Serve the folder with any web server: metadata under `metadata/`, images under `targets/`.
"""

from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.keys import ROLES, KeyStore
from tidemark_host.release.listing import FLEET
from tidemark_host.release.model import Lifetimes, RoleStatus, app_path
from tidemark_host.release.repository import Repository

__all__ = [
    "FLEET",
    "ROLES",
    "KeyStore",
    "Lifetimes",
    "ReleaseError",
    "Repository",
    "RoleStatus",
    "app_path",
]
