"""What a release says of itself, and how long its metadata lives."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tuf.api.metadata import MetaFile, TargetFile

from tidemark_host.release.errors import ReleaseError

MAX_INDEX = 0xFFFF_FFFF
MAX_ATTEMPT = 65_535
MAX_VERSION = 24
APP, RUNTIME = "app", "runtime"  # `kind` in `custom`
_DAY = timedelta(days=1)

Custom = dict[str, Any]


@dataclass(frozen=True)
class Lifetimes:
    """How long new metadata is valid. A board that sees nothing fresher takes no update then."""

    root: timedelta = 365 * _DAY
    targets: timedelta = 180 * _DAY
    snapshot: timedelta = 30 * _DAY
    timestamp: timedelta = 7 * _DAY
    delegated: timedelta = 90 * _DAY

    def of(self, role: str) -> timedelta:
        """Return the lifetime of `role`, a top-level one or a delegated one by its name."""
        top = role in ("root", "targets", "snapshot", "timestamp")
        return cast("timedelta", getattr(self, role if top else "delegated"))


@dataclass(frozen=True)
class RoleStatus:
    """One row of `tidemark release status`."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: int
    left: timedelta


def app_path(board: str, index: int, cohort: str = "") -> str:
    """Return the target path of a release: the board looks for the highest index of its name, and
    of its name in its cohort."""
    path = f"{board}/app-{index}.romfs"
    return f"{cohort}/{path}" if cohort else path


def runtime_path(board: str, index: int) -> str:
    """Return the target path of a runtime. A board asks for it by index, when a release needs
    it."""
    return f"{board}/runtime-{index}.bin"


def target_path(kind: str, board: str, index: int, cohort: str = "") -> str:
    """Return the target path of a release of `kind` ("app", "runtime")."""
    return runtime_path(board, index) if kind == RUNTIME else app_path(board, index, cohort)


def custom_of(entry: TargetFile) -> Mapping[str, Any]:
    custom = entry.custom
    return cast("Mapping[str, Any]", custom) if isinstance(custom, dict) else {}


def check_custom(custom: Mapping[str, Any]) -> None:
    version = cast("str", custom["version"])
    if not 0 < len(version) <= MAX_VERSION or not version.isascii() or not version.isprintable():
        raise ReleaseError("version", f"a version has 1 to {MAX_VERSION} printable characters")
    if " " in version:
        raise ReleaseError("version", "a version has no blanks")
    for name, most in (("attempt", MAX_ATTEMPT), ("min_runtime", MAX_INDEX), ("cohort", 100)):
        if not 0 <= cast("int", custom.get(name, 0)) <= most:
            raise ReleaseError(name.replace("_", "-"), f"{name} is 0 to {most}")


def meta_file(files: Mapping[Path, bytes], published: Path) -> MetaFile:
    """Return version, length and hash of a role's file: the one about to be written, if any."""
    role = published.name.split(".")[1]
    new = [path for path in files if path.name.endswith(f".{role}.json")]
    path = new[0] if new else published
    data = files[path] if new else path.read_bytes()
    version = int(path.name.split(".")[0])
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
