"""The releases that one targets role names: the fleet's (`targets`) or a cohort's own.

Releases of each kind have indices of their own: applications, and runtimes, which only the fleet's
role names.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tuf.api.metadata import TargetFile, Targets

from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.model import APP, MAX_INDEX, RUNTIME, custom_of, target_path

FLEET = "targets"
KEEP = 16  # releases of a board and kind that stay in the metadata of a role
FIRST_RUNTIME = 1  # what boards leave the factory with, published or not
_HIGHEST = {APP: "highest", RUNTIME: "highest-runtime"}


def cohort_of(role: str) -> str:
    """Return the cohort a role publishes for; "" is the whole fleet."""
    return "" if role == FLEET else role


def indices(targets: Targets, role: str, board: str, kind: str = APP) -> list[int]:
    """Return the release indices of a board and kind that a role names, rising."""
    found: list[int] = []
    for path, entry in targets.targets.items():
        index = custom_of(entry).get("index")
        mine = isinstance(index, int) and target_path(kind, board, index, cohort_of(role))
        if path == mine:
            found.append(cast("int", index))
    return sorted(found)


def entry(targets: Targets, role: str, board: str, index: int, kind: str = APP) -> TargetFile:
    """Return a release. Raises ReleaseError `no-release`."""
    found = targets.targets.get(target_path(kind, board, index, cohort_of(role)))
    if found is None:
        who = f"{board} in {role}" if cohort_of(role) else board
        what = "runtime" if kind == RUNTIME else "release"
        raise ReleaseError("no-release", f"{who} has no {what} {index}", "tidemark release status")
    return found


def highest(targets: Targets, role: str, board: str, kind: str = APP) -> int:
    """Return the highest index ever used by a role for a board and kind, 0 before the first.

    Kept in the signed metadata: an index stays used when its release is withdrawn or pruned.
    """
    used = cast("dict[str, int]", targets.unrecognized_fields.get(_HIGHEST[kind], {}))
    return max([used.get(board, 0), *indices(targets, role, board, kind)])


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
        for found in [targets.targets.get(target_path(APP, board, wanted, cohort_of(name)))]
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


def pick_runtime(targets: Targets, board: str, index: int | None, digest: str) -> int:
    """Return the index of a runtime: the next, or the wanted one if it may be used.

    It is above all used ones, and above that of the factory; or that of the same image, which is
    published already. Raises ReleaseError `index`.
    """
    top = max(FIRST_RUNTIME, highest(targets, FLEET, board, RUNTIME))
    wanted = top + 1 if index is None else index
    held = targets.targets.get(target_path(RUNTIME, board, wanted))
    same = held is not None and held.hashes.get("sha256") == digest
    if not same and not top < wanted <= MAX_INDEX:
        raise ReleaseError(
            "index",
            f"runtime index {wanted} does not rise: {board} is at {top}",
            f"build it with RUNTIME_INDEX={top + 1}",
        )
    return wanted


def needed_runtimes(listings: Mapping[str, Targets], board: str) -> set[int]:
    """Return the runtime indices that the published releases of a board ask for."""
    return {
        cast(
            "int",
            custom_of(targets.targets[target_path(APP, board, index, cohort)]).get(
                "min_runtime", 0
            ),
        )
        for role, targets in listings.items()
        for cohort in [cohort_of(role)]
        for index in indices(targets, role, board)
    }


def check_runtime(targets: Targets, board: str, least: int) -> None:
    """Refuse `min_runtime` of a release whose boards could not get that runtime over the air.

    Raises ReleaseError `runtime-missing`.
    """
    if least <= FIRST_RUNTIME:
        return
    held = targets.targets.get(target_path(RUNTIME, board, least))
    if held is None or custom_of(held).get("abort"):
        why = "is not published" if held is None else "was aborted"
        raise ReleaseError(
            "runtime-missing",
            f"min_runtime {least}: runtime {least} of {board} {why}",
            f"--runtime FILE --runtime-index {least} publishes it with the release",
        )


def put(
    listings: Mapping[str, Targets], role: str, board: str, index: int, new: TargetFile
) -> None:
    """Name a release, and let the oldest ones of its board and kind go, but for runtimes that a
    release needs."""
    kind, targets = cast("str", custom_of(new)["kind"]), listings[role]
    targets.targets[new.path] = new
    used = cast("dict[str, int]", targets.unrecognized_fields.setdefault(_HIGHEST[kind], {}))
    used[board] = index
    needed = needed_runtimes(listings, board) if kind == RUNTIME else set[int]()
    for old in indices(targets, role, board, kind)[:-KEEP]:
        if old not in needed:
            del targets.targets[target_path(kind, board, old, cohort_of(role))]
