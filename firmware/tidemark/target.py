# What a target of kind "app" says of itself, and which of them is this board's next release
# (design 7).
#
# A release is the target path `<board>/app-<index>.romfs`, its index in decimal without leading
# zeros, and carries in `custom`: board, kind, index, version, attempt, min_runtime, cohort
# (percentage), abort. A release for the boards of one named cohort only has the path
# `<cohort>/<board>/app-<index>.romfs`. A runtime is `<board>/runtime-<index>.bin` of kind runtime;
# a board takes none by itself, only with an application whose min_runtime is its index.

import hashlib

from tidemark.compat import const
from tidemark.errors import TrustError
from tidemark.slots import Release
from tidemark.tuf_keys import unhex

_INDEX_MAX = 0xFFFFFFFF
_ATTEMPT_MAX = const(65535)
_VERSION_MAX = const(24)
_SUFFIX = ".romfs"
ANY_RUNTIME = _INDEX_MAX  # of a board that can take a newer one


def app_path(board, index, cohort=""):
    """Target path of a board's application release: the whole fleet's, or a cohort's."""
    path = "%s/app-%d%s" % (board, index, _SUFFIX)
    return cohort + "/" + path if cohort else path


def runtime_path(board, index):
    """Target path of a board's runtime: the whole fleet's, there is no other."""
    return "%s/runtime-%d.bin" % (board, index)


def index_of(board, path, cohort=""):
    """Release index (int) of a path that `app_path` made for this board, else None."""
    prefix = app_path(board, 0, cohort)[: -len(_SUFFIX) - 1]
    if not path.startswith(prefix) or not path.endswith(_SUFFIX):
        return None
    digits = path[len(prefix) : len(path) - len(_SUFFIX)]
    if not 0 < len(digits) <= 10 or digits[0] == "0":
        return None
    for c in digits:
        if not "0" <= c <= "9":
            return None
    return int(digits)


def _integer(custom, name, least, most, default=None):
    value = custom.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TrustError("target-shape", name)
    return value


def parse_app(path, entry, board, runtime=0, cohort=""):
    """The `Release` that a TARGETS entry of kind app authorises for `board`.

    runtime: this board's runtime index, ANY_RUNTIME if it can take a newer one. cohort: the
    board's; a path may be of either form. Raises TrustError: "target-shape", "wrong-kind",
    "wrong-board", "wrong-index" (path and custom disagree), "runtime-too-old".
    """
    release = _parse("app", entry, board)
    index = release.index
    if path not in (app_path(board, index), app_path(board, index, cohort)):
        raise TrustError("wrong-index", "path and custom disagree")
    if min_runtime(entry) > runtime:
        raise TrustError("runtime-too-old", "needs a newer runtime")
    return release


def min_runtime(entry):
    """Least index (int) of the runtime that an application needs. Raises TrustError
    "target-shape"."""
    return _integer(entry["custom"], "min_runtime", 0, _INDEX_MAX, 0)


def parse_runtime(path, entry, board):
    """The `Release` that a TARGETS entry of kind runtime names for `board`, taken back or not.
    Raises as `parse_app`."""
    release = _parse("runtime", entry, board)
    if path != runtime_path(board, release.index):
        raise TrustError("wrong-index", "path and custom disagree")
    return release


def _parse(kind, entry, board):
    custom = entry.get("custom")
    if not isinstance(custom, dict):
        raise TrustError("target-shape", "no custom object")
    if custom.get("kind") != kind:
        raise TrustError("wrong-kind", "not of kind " + kind)
    if custom.get("board") != board:
        raise TrustError("wrong-board", "made for another board")
    index = _integer(custom, "index", 1, _INDEX_MAX)
    attempt = _integer(custom, "attempt", 0, _ATTEMPT_MAX, 0)
    _integer(custom, "cohort", 0, 100, 100)
    if not isinstance(custom.get("abort", False), bool):
        raise TrustError("target-shape", "abort")
    version = custom.get("version")
    if not isinstance(version, str) or not 0 < len(version) <= _VERSION_MAX:
        raise TrustError("target-shape", "version")
    for c in version:
        if not " " < c < "\x7f":
            raise TrustError("target-shape", "version")
    digest = unhex(entry["hashes"].get("sha256"), 32)
    if digest is None or entry["length"] < 1:
        raise TrustError("target-shape", "needs a length and a sha256")
    return Release(digest, entry["length"], index, attempt, version)


def in_cohort(digest, device_id, percentage):
    """True if this device is among the `percentage` that a release (32-byte digest) is offered to.

    The first 4 bytes, big-endian, of SHA-256(digest + ASCII device id), mod 100: every release
    draws its own canaries.
    """
    drawn = hashlib.sha256(digest + device_id.encode()).digest()
    return int.from_bytes(drawn[:4], "big") % 100 < percentage


def percentage(entry):
    """Share (0 to 100) of the boards that a parsed TARGETS entry is offered to."""
    return entry["custom"].get("cohort", 100)


def is_aborted(entry):
    """True if this TARGETS entry says that the owner took the release back."""
    custom = entry.get("custom")
    return isinstance(custom, dict) and custom.get("abort") is True


def choose(listings, board, device_id, runtime=0, cohort=""):
    """(path, Release) of the newest release for this board and device, or None when there is none.

    listings: `targets` objects of verified metadata, the top-level role's first. Newest is the
    highest index that is not aborted and whose percentage this device is in; of one index the
    first listing, and the fleet's path before the cohort's. Whether a role may speak for the
    path is not asked here. Raises TrustError as `parse_app` does, for the first one met that is
    not in order: an owner's mistake is to be seen, not passed over for an older release.
    """
    found = []
    for number in range(len(listings)):
        for path in listings[number]:
            index = index_of(board, path)
            if index is not None:
                found.append((-index, number, 0, path))
            elif cohort:
                index = index_of(board, path, cohort)
                if index is not None:
                    found.append((-index, number, 1, path))
    found.sort()
    for _, number, _, path in found:
        entry = listings[number][path]
        if is_aborted(entry):
            continue
        release = parse_app(path, entry, board, runtime, cohort)
        if in_cohort(release.digest, device_id, percentage(entry)):
            return path, release
    return None
