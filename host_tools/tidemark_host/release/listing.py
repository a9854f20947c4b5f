"""The releases that one targets role names: the fleet's (`targets`) or a cohort's own."""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tuf.api.metadata import TargetFile, Targets

from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.model import MAX_INDEX, app_path, custom_of

FLEET = "targets"
KEEP = 16  # releases of a board that stay in the metadata of a role


def cohort_of(role: str) -> str:
    """Return the cohort a role publishes for; "" is the whole fleet."""
    return "" if role == FLEET else role


def indices(targets: Targets, role: str, board: str) -> list[int]:
    """Return the release indices of a board that a role names, rising."""
    found: list[int] = []
    for path, entry in targets.targets.items():
        index = custom_of(entry).get("index")
        if isinstance(index, int) and path == app_path(board, index, cohort_of(role)):
            found.append(index)
    return sorted(found)


def entry(targets: Targets, role: str, board: str, index: int) -> TargetFile:
    """Return a release. Raises ReleaseError `no-release`."""
    found = targets.targets.get(app_path(board, index, cohort_of(role)))
    if found is None:
        who = f"{board} in {role}" if cohort_of(role) else board
        raise ReleaseError(
            "no-release", f"{who} has no release {index}", "tidemark release status"
        )
    return found


def highest(targets: Targets, role: str, board: str) -> int:
    """Return the highest index ever used by a role for a board, 0 before the first.

    Kept in the signed metadata: an index stays used when its release is withdrawn or pruned.
    """
    used = cast("dict[str, int]", targets.unrecognized_fields.get("highest", {}))
    return max([used.get(board, 0), *indices(targets, role, board)])


def pick_index(
    listings: Mapping[str, Targets], role: str, board: str, index: int | None, digest: str
) -> int:
    """Return the index of a new release of `role`: the next, or the wanted one if it may be used.

    One index names one image of a board, whoever publishes it: it is above all used ones of all
    roles, or that of another role's release of the same image, above all used by this role.
    Raises ReleaseError `index`.
    """
    top = max(highest(targets, name, board) for name, targets in listings.items())
    wanted = top + 1 if index is None else index
    same = any(
        found is not None and found.hashes.get("sha256") == digest
        for name, targets in listings.items()
        for found in [targets.targets.get(app_path(board, wanted, cohort_of(name)))]
        if name != role
    )
    floor = highest(listings[role], role, board) if same else top
    if not floor < wanted <= MAX_INDEX:
        raise ReleaseError(
            "index",
            f"index {wanted} does not rise: {board} is at {floor}",
            f"undo a bad release with a new one: --index {top + 1}",
        )
    return wanted


def put(targets: Targets, role: str, board: str, index: int, new: TargetFile) -> None:
    """Name a release, and let the oldest ones of the board go."""
    targets.targets[new.path] = new
    used = cast("dict[str, int]", targets.unrecognized_fields.setdefault("highest", {}))
    used[board] = index
    for old in indices(targets, role, board)[:-KEEP]:
        del targets.targets[app_path(board, old, cohort_of(role))]
