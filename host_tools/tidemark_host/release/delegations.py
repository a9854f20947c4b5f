"""Delegated roles: a team publishes for the boards of its cohort, by a key of its own.

The role has the cohort's name and speaks for `<cohort>/<board>/app-<index>.romfs` only.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, Targets

from tidemark_host.release.errors import ReleaseError
from tidemark_host.release.keys import ROLES

_NAME = re.compile(r"[a-z0-9-]{1,32}")  # as in firmware/tidemark/config.py
MAX_ROLES = 32  # a board asks at most as many in one search
_MAX_PATTERN = 512

Published = dict[str, Metadata[Any]]


def check_name(name: str) -> None:
    """Raises ReleaseError `role` for what can't be a cohort's name."""
    if not _NAME.fullmatch(name) or name in (*ROLES, "default"):
        raise ReleaseError(
            "role",
            f"{name!r} can't be the name of a cohort",
            "1 to 32 of a-z, 0-9 and -, but root, targets, snapshot, timestamp and default",
        )


def names(targets: Targets) -> list[str]:
    """Return the delegated roles in the order in which boards ask them."""
    roles = targets.delegations.roles if targets.delegations else None
    return list(roles or {})


def role_of(root: Root, targets: Targets, name: str) -> Role:
    """Return keys and threshold of a role. Raises ReleaseError `role` for an unknown one."""
    if name in ROLES:
        return root.roles[name]
    roles = targets.delegations.roles if targets.delegations else None
    if not roles or name not in roles:
        raise ReleaseError(
            "role",
            f"no role is called {name!r}",
            "tidemark release status lists them; tidemark release delegate makes a cohort's",
        )
    return roles[name]


def delegator(root: Root, targets: Targets, name: str) -> Root | Targets:
    """Return who names the keys of a role."""
    return root if name in ROLES else targets


def delegate(
    targets: Targets, name: str, keys: Sequence[Key], patterns: Sequence[str], threshold: int
) -> None:
    """Let a role of this name, `threshold` of `keys` signing, speak for `patterns`; it ends the
    search.

    patterns: none for all boards. Raises ReleaseError: `role`, `role-exists`, `path-pattern`,
    `threshold`.
    """
    check_name(name)
    if name in names(targets):
        raise ReleaseError("role-exists", f"{name} is delegated already", "add-key, or rotate")
    if len(names(targets)) >= MAX_ROLES:
        raise ReleaseError("role", f"at most {MAX_ROLES} delegated roles")
    if not 1 <= threshold <= len({key.keyid for key in keys}):
        raise ReleaseError(
            "threshold",
            f"{threshold} of {len(keys)} keys can't sign",
            "--public once for each member of the team",
        )
    patterns = list(patterns) or [f"{name}/*/app-*.romfs"]
    for pattern in patterns:
        if not pattern.startswith(f"{name}/") or len(pattern) > _MAX_PATTERN:
            raise ReleaseError(
                "path-pattern",
                f"{pattern!r} is not below {name}/",
                f"boards of the cohort look there only: --path '{name}/VIRTUAL/app-*.romfs'",
            )
    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    roles = targets.delegations.roles
    assert roles is not None
    roles[name] = DelegatedRole(name, [], threshold, terminating=True, paths=patterns)
    for key in keys:
        targets.add_key(key, name)


def revoke(targets: Targets, name: str) -> None:
    """Take a role's say back. Raises ReleaseError `role`."""
    if name not in names(targets):
        raise ReleaseError(
            "role", f"no delegated role is called {name!r}", "tidemark release status lists them"
        )
    delegations = targets.delegations
    assert delegations is not None and delegations.roles is not None
    for keyid in list(delegations.roles[name].keyids):
        targets.revoke_key(keyid, name)
    del delegations.roles[name]
    if not delegations.roles:
        targets.delegations = None
