# Delegated targets roles: their shape, which paths they may speak for, and in which order they are
# asked (TUF 4.5, 5.6.7).

import hashlib

from tidemark.compat import const
from tidemark.errors import TrustError
from tidemark.tuf_keys import check_keys, check_role

_ROLES_MAX = const(64)  # in one list
_PATHS_MAX = const(64)  # patterns of one role
_PATH_MAX = const(512)  # characters of a target path or pattern
_BITS_MAX = const(32)


def check_delegations(delegations):
    """Raises TrustError("metadata-shape") unless this is a DELEGATIONS object of TUF 4.5."""
    if not isinstance(delegations, dict):
        raise TrustError("metadata-shape", "delegations")
    check_keys(delegations.get("keys"))
    roles = delegations.get("roles")
    succinct = delegations.get("succinct_roles")
    if (roles is None) == (succinct is None):
        raise TrustError("metadata-shape", "roles or succinct_roles")
    if succinct is not None:
        _check_succinct(succinct)
        return
    if not isinstance(roles, list) or len(roles) > _ROLES_MAX:
        raise TrustError("metadata-shape", "delegated roles")
    names = set()
    for role in roles:
        check_role(role)
        name = role.get("name")
        if not isinstance(name, str) or not name or name in names:
            raise TrustError("metadata-shape", "delegated role's name")
        if name in ("root", "timestamp", "snapshot", "targets"):
            raise TrustError("metadata-shape", "delegation to a top-level role")
        names.add(name)
        if not isinstance(role.get("terminating", False), bool):
            raise TrustError("metadata-shape", "terminating")
        paths = role.get("paths")
        prefixes = role.get("path_hash_prefixes")
        if (paths is None) == (prefixes is None):
            raise TrustError("metadata-shape", "paths or path_hash_prefixes")
        _check_strings(prefixes if paths is None else paths)


def _check_strings(values):
    if not isinstance(values, list) or len(values) > _PATHS_MAX:
        raise TrustError("metadata-shape", "paths")
    for value in values:
        if not isinstance(value, str) or len(value) > _PATH_MAX:
            raise TrustError("metadata-shape", "path")


def _check_succinct(succinct):
    check_role(succinct)
    bits = succinct.get("bit_length")
    prefix = succinct.get("name_prefix")
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= _BITS_MAX:
        raise TrustError("metadata-shape", "bit_length")
    if not isinstance(prefix, str) or not prefix:
        raise TrustError("metadata-shape", "name_prefix")


def matches_pattern(path, pattern):
    """Shell-style wildcards (`*`, `?`, `[seq]`, `[!seq]`), where none crosses a "/" (TUF 4.5,
    PATHPATTERN).
    """
    parts = path.split("/")
    patterns = pattern.split("/")
    if len(parts) != len(patterns) or len(path) > _PATH_MAX:
        return False
    for i in range(len(parts)):
        if not _matches_part(parts[i], patterns[i]):
            return False
    return True


def _matches_part(text, pattern):
    # One remembered star is enough: a later one makes earlier ones final. At most len(text) *
    # len(pattern) steps.
    at = p = 0
    star = mark = -1
    while at < len(text):
        step = 0
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, at
            p += 1
            continue
        if p < len(pattern):
            step = _match_one(text[at], pattern, p)
        if step:
            at += 1
            p += step
        elif star >= 0:
            mark += 1
            at = mark
            p = star + 1
        else:
            return False
    while p < len(pattern) and pattern[p] == "*":
        p += 1
    return p == len(pattern)


def _match_one(c, pattern, p):
    """Length of the pattern element at `p` if it takes the character `c`, else 0."""
    if pattern[p] == "?":
        return 1
    if pattern[p] == "[":
        first = p + 2 if pattern[p + 1 : p + 2] == "!" else p + 1
        end = pattern.find("]", first + 1)
        if end > 0:
            return end + 1 - p if _in_set(c, pattern, first, end) != (first == p + 2) else 0
    return 1 if pattern[p] == c else 0


def _in_set(c, pattern, at, end):
    while at < end:
        if at + 2 < end and pattern[at + 1] == "-":
            if pattern[at] <= c <= pattern[at + 2]:
                return True
            at += 3
        else:
            if pattern[at] == c:
                return True
            at += 1
    return False


def roles_for(delegations, path):
    """List of (role name, terminating) that `delegations` (checked) lets speak for a target path,
    in their order.
    """
    digest = hashlib.sha256(path.encode()).digest()
    succinct = delegations.get("succinct_roles")
    if succinct is not None:
        bits = succinct["bit_length"]
        number = int.from_bytes(digest[:4], "big") >> (32 - bits)
        width = (bits + 3) // 4
        text = "%x" % number
        return [(succinct["name_prefix"] + "-" + "0" * (width - len(text)) + text, True)]
    found = []
    for role in delegations["roles"]:
        if role.get("paths") is not None:
            hit = any(matches_pattern(path, pattern) for pattern in role["paths"])
        else:
            text = digest.hex()
            hit = any(text.startswith(prefix) for prefix in role["path_hash_prefixes"])
        if hit:
            found.append((role["name"], role.get("terminating", False)))
    return found
