# The trusted set of TUF metadata: bytes in, trusted roles out, in the order of the specification
# 1.0.3x, section 5. No I/O and no clock: tuf_client fetches, persists and keeps the marks.

import hashlib

from tidemark import canonjson
from tidemark.errors import CodecError, TrustError
from tidemark.signedjson import open_signed
from tidemark.tuf_keys import (
    check_keys,
    check_role,
    check_signatures,
    identify,
    reaches_threshold,
    unhex,
)

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
_MAX_VERSION = 1 << 53
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


# What is kept of a role's file in RAM (`signedjson.open_signed`). Signatures are checked over all
# of it, and on flash it is kept byte for byte.
_KEYS = {"*": {"keytype": None, "scheme": None, "keyval": {"public": None}}}
_ROLE = {"keyids": None, "threshold": None}
_DELEGATED = {
    "name": None, "keyids": None, "threshold": None, "terminating": None, "paths": None,
    "path_hash_prefixes": None, "bit_length": None, "name_prefix": None,
}  # fmt: skip
_META = {"*": {"version": None, "length": None, "hashes": None}}
_TARGETS = {"*": {"length": None, "hashes": None, "custom": None}}
_DELEGATIONS = {"keys": _KEYS, "roles": _DELEGATED, "succinct_roles": _DELEGATED}
_SHAPE = {
    "_type": None, "spec_version": None, "version": None, "expires": None, "issued": None,
    "consistent_snapshot": None, "keys": _KEYS, "roles": {"*": _ROLE}, "meta": _META,
    "targets": _TARGETS, "delegations": _DELEGATIONS,
}  # fmt: skip


class Limits:
    """Bounds of one client. Sizes in bytes. Change them on an instance; the class has a small
    board's.
    """

    root_size = 8192
    timestamp_size = 4096
    snapshot_size = 16384
    targets_size = 32768
    root_files = 32  # new root files walked in one run, beyond those below our own mark
    delegations = 32  # delegated roles visited in the search for one target
    depth = 10  # arrays and objects within one another


class Metadata:
    """One verified role: `signed` is its object, of which only the fields that are read here are
    kept; `expires` in Unix seconds.
    """

    def __init__(self, signed, expires):
        self.signed = signed
        self.version = signed["version"]
        self.expires = expires

    @property
    def issued(self):
        """Unix seconds of the field `issued` that our release tool writes, or None."""
        text = self.signed.get("issued")
        return None if text is None else parse_time(text)


def parse_time(text):
    """Unix seconds of "YYYY-MM-DDTHH:MM:SSZ" (TUF 4.2.1), years 1970 to 9999. Raises
    TrustError("metadata-time").
    """
    try:
        if not isinstance(text, str) or len(text) != 20:
            raise ValueError
        for i in range(20):
            mark = "    -  -  T  :  :  Z"[i]
            if text[i] != mark and (mark != " " or not "0" <= text[i] <= "9"):
                raise ValueError
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    except ValueError:
        raise TrustError("metadata-time", "not a UTC time")
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < 1970 or not 1 <= month <= 12 or not 1 <= day <= _MONTH_DAYS[month - 1]:
        raise TrustError("metadata-time", "no such day")
    if (month == 2 and day == 29 and not leap) or hour > 23 or minute > 59 or second > 59:
        raise TrustError("metadata-time", "no such time")
    past = year - 1
    days = (year - 1970) * 365 + past // 4 - past // 100 + past // 400 - 477
    days += _DAYS_BEFORE[month - 1] + (1 if leap and month > 2 else 0) + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def _is_version(value):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_VERSION


def _is_length(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_VERSION


def _check_file_info(info, versioned):
    """A METAFILES or TARGETS entry: {version | length and hashes}. Raises
    TrustError("metadata-shape").
    """
    if not isinstance(info, dict):
        raise TrustError("metadata-shape", "file entry")
    if versioned and not _is_version(info.get("version")):
        raise TrustError("metadata-shape", "file version")
    length = info.get("length")
    hashes = info.get("hashes")
    if (length is not None or not versioned) and not _is_length(length):
        raise TrustError("metadata-shape", "file length")
    if hashes is None and versioned:
        return
    if not isinstance(hashes, dict) or not hashes:
        raise TrustError("metadata-shape", "hashes")
    for name, value in hashes.items():
        if not isinstance(value, str) or len(value) > 256:
            raise TrustError("metadata-shape", "hash")
        size = 32 if name == "sha256" else 64 if name == "sha512" else 0
        if size and unhex(value, size) is None:
            raise TrustError("metadata-shape", "hash")


def matches(info, data):
    """None if `data` has the length and every known hash of a file entry, else "length" or "hash".

    Hashes of unknown algorithms are passed over, but a list of nothing else is a mismatch.
    """
    length = info.get("length")
    if length is not None and len(data) != length:
        return "length"
    hashes = info.get("hashes")
    if hashes is None:
        return None
    known = False
    if "sha256" in hashes:
        known = True
        if hashlib.sha256(data).digest() != unhex(hashes["sha256"], 32):
            return "hash"
    if "sha512" in hashes:
        known = True
        from tidemark import sha512

        if sha512.digest(data) != unhex(hashes["sha512"], 64):
            return "hash"
    return None if known else "hash"


class TrustedSet:
    """Roles verified so far in one update run.

    `now`: Unix seconds, fixed for the run (TUF 5.1), or None: without time nothing but the root
    chain is taken. Every method verifies before it changes anything: after a TrustError the set is
    what it was.
    """

    def __init__(self, limits=None, now=None, feed=None):
        self.limits = limits or Limits()
        self.now = now
        self.feed = feed
        self.root = None
        self.timestamp = None
        self.snapshot = None
        self.targets = {}  # role name: Metadata, "targets" and delegated ones
        # "timestamp", "snapshot", "targets": least version, from the journal's marks
        self.floors = {}

    # -- root, TUF 5.2 and 5.3

    def load_root(self, data):
        """Takes a root that is trusted already (provisioned, or matching its mark); it must verify
        by itself.
        """
        root, message, signatures = self._parse("root", data, self.limits.root_size)
        self._verify("root", root, "root", message, signatures)
        self.root = root

    def update_root(self, data):
        """Takes the next root (TUF 5.3.3 to 5.3.5): signed by the threshold of the trusted one and
        of itself, version exactly one higher. An intermediate one may be expired.
        """
        if self.timestamp or self.snapshot:
            raise TrustError("order", "root after timestamp")
        root, message, signatures = self._parse("root", data, self.limits.root_size)
        self._verify("root", self.root, "root", message, signatures)
        self._verify("root", root, "root", message, signatures)
        if root.version != self.root.version + 1:
            raise TrustError("root-version", "%d follows %d" % (root.version, self.root.version))
        self.root = root

    def finish_root(self):
        """The chain ends here: the final root must not be expired (TUF 5.3.10)."""
        self._check_time(self.root, "root")

    def scope(self):
        """First 8 bytes of the hash of the timestamp and snapshot key sets: marks of another scope
        are void, so that rotating either role's keys recovers from a fast-forward attack (TUF
        5.3.11).
        """
        signed = self.root.signed
        sets = []
        for name in ("timestamp", "snapshot"):
            names = []
            for keyid in signed["roles"][name]["keyids"]:
                key = signed["keys"].get(keyid)
                identity = identify(key) if key else None
                if identity:
                    names.append(identity[0] + " " + identity[1].hex())
                else:
                    names.append("? " + keyid)
            sets.append(sorted(names))
        return hashlib.sha256(canonjson.encode(sets)).digest()[:8]

    # -- timestamp, TUF 5.4

    def update_timestamp(self, data, stored=False):
        """Takes a timestamp. Returns False when its version is the trusted one's: that is kept
        (TUF 5.4.3.1).

        stored: it was verified once before: its expiry matters only if nothing newer comes
        (`check_timestamp`).
        """
        if self.snapshot:
            raise TrustError("order", "timestamp after snapshot")
        new, message, signatures = self._parse("timestamp", data, self.limits.timestamp_size)
        self._verify("timestamp", self.root, "timestamp", message, signatures)
        promised = new.signed["meta"]["snapshot.json"]["version"]
        old = self.timestamp
        if old:
            if new.version == old.version:
                return False
            if new.version < old.version:
                raise TrustError("timestamp-rollback", "%d after %d" % (new.version, old.version))
            if promised < old.signed["meta"]["snapshot.json"]["version"]:
                raise TrustError("snapshot-rollback", "promised by the timestamp")
        if new.version < self.floors.get("timestamp", 0):
            raise TrustError("timestamp-rollback", "below the mark")
        if promised < self.floors.get("snapshot", 0):
            raise TrustError("snapshot-rollback", "promised below the mark")
        if not stored:
            self._check_time(new, "timestamp")
        self.timestamp = new
        return True

    def check_timestamp(self):
        """Raises TrustError("timestamp-expired") unless the trusted timestamp may vouch for a
        snapshot (TUF 5.4.4).
        """
        self._check_time(self.timestamp, "timestamp")

    # -- snapshot, TUF 5.5

    @property
    def snapshot_info(self):
        """What the timestamp says of snapshot.json: {version, length?, hashes?}."""
        return self.timestamp.signed["meta"]["snapshot.json"]

    def update_snapshot(self, data, stored=False):
        """Takes a snapshot. Returns True if it is the one the timestamp promises.

        stored: it was verified once before; one that is no longer current, or has expired, only
        serves the rollback check (False).
        """
        if self.targets:
            raise TrustError("order", "snapshot after targets")
        self.check_timestamp()
        info = self.snapshot_info
        wrong = matches(info, data)
        if wrong and not stored:
            raise TrustError("snapshot-" + wrong, "not what the timestamp promises")
        new, message, signatures = self._parse("snapshot", data, self.limits.snapshot_size)
        self._verify("snapshot", self.root, "snapshot", message, signatures)
        current = not wrong and new.version == info["version"]
        if not stored and not current:
            raise TrustError("snapshot-version", "%d came" % new.version)
        if current:
            self._check_no_rollback(new.signed["meta"])
            if not stored:
                self._check_time(new, "snapshot")
            current = self.now < new.expires
        self.snapshot = new
        return current

    def _check_no_rollback(self, meta):
        """No role is missing or older than in the trusted snapshot (TUF 5.5.5), nor targets below
        its mark.
        """
        if self.snapshot:
            for name, old in self.snapshot.signed["meta"].items():
                new = meta.get(name)
                if new is None:
                    raise TrustError("snapshot-removed", "a role vanished")
                if new["version"] < old["version"]:
                    raise TrustError("targets-rollback", "in the snapshot")
        if meta["targets.json"]["version"] < self.floors.get("targets", 0):
            raise TrustError("targets-rollback", "below the mark")

    # -- targets, TUF 5.6

    def targets_info(self, role="targets"):
        """What the snapshot says of a targets role. Raises TrustError("targets-missing")."""
        info = self.snapshot.signed["meta"].get(role + ".json")
        if info is None:
            raise TrustError("targets-missing", "not in the snapshot")
        return info

    def update_targets(self, data, role="targets", parent=None):
        """Takes a targets role. `parent`: name of the delegating targets role; None for the top
        level, which the root delegates. A role reached over two parents must verify for each.
        """
        info = self.targets_info(role)
        wrong = matches(info, data)
        if wrong:
            raise TrustError("targets-" + wrong, "not what the snapshot promises")
        new, message, signatures = self._parse("targets", data, self.limits.targets_size)
        delegator = self.targets[parent] if parent else self.root
        self._verify("targets", delegator, role, message, signatures)
        if new.version != info["version"]:
            raise TrustError("targets-version", "%d came" % new.version)
        self._check_time(new, "targets")
        self.targets[role] = new

    # -- shared

    def _parse(self, kind, data, limit):
        """(Metadata, signed bytes, signatures) of a file of type `kind`, shape checked (TUF 4.3 to
        4.6).
        """
        if len(data) > limit:
            raise TrustError("metadata-size", "%s of %d bytes" % (kind, len(data)))
        try:
            signatures, signed, message = open_signed(
                data, limit, self.limits.depth, _SHAPE, self.feed
            )
        except CodecError as error:
            raise TrustError("metadata-json", error.code)
        if not isinstance(signed, dict):
            raise TrustError("metadata-shape", "no signed part")
        if signed.get("_type") != kind:
            raise TrustError("metadata-type", "not a " + kind)
        signatures = check_signatures(signatures)
        _check_spec_version(signed.get("spec_version"))
        if not _is_version(signed.get("version")):
            raise TrustError("metadata-shape", "version")
        metadata = Metadata(signed, parse_time(signed.get("expires")))
        _CHECKS[kind](signed)
        if metadata.issued is not None and metadata.issued > metadata.expires:
            raise TrustError("metadata-time", "issued after it expires")
        return metadata, message, signatures

    def _verify(self, kind, delegator, role, message, signatures):
        if self.feed:
            self.feed()
        keys, entry = find_role(delegator, role)
        if entry is None or not reaches_threshold(entry, keys, message, signatures, self.feed):
            raise TrustError(kind + "-threshold", "not signed by enough keys")

    def _check_time(self, metadata, kind):
        if self.now is None:
            raise TrustError("no-time", "freshness is unknown")
        if self.now >= metadata.expires:
            raise TrustError(kind + "-expired", "at %d" % metadata.expires)


def find_role(delegator, name):
    """(keys, role object or None) by which `delegator` (Metadata of root or of a targets role)
    delegates to `name`.
    """
    signed = delegator.signed
    if signed["_type"] == "root":
        return signed["keys"], signed["roles"].get(name)
    delegations = signed.get("delegations")
    if delegations is None:
        return {}, None
    for role in delegations.get("roles") or ():
        if role["name"] == name:
            return delegations["keys"], role
    succinct = delegations.get("succinct_roles")
    if succinct and name.startswith(succinct["name_prefix"] + "-"):
        return delegations["keys"], succinct
    return delegations["keys"], None


def _check_spec_version(text):
    parts = text.split(".") if isinstance(text, str) and len(text) <= 16 else ()
    if len(parts) not in (2, 3) or parts[0] != "1":
        raise TrustError("spec-version", "not 1.x")
    for part in parts:
        if not part or part.strip("0123456789"):
            raise TrustError("spec-version", "not numbers")


def _check_root(signed):
    check_keys(signed.get("keys"))
    roles = signed.get("roles")
    consistent = signed.get("consistent_snapshot", True)
    if not isinstance(roles, dict) or not isinstance(consistent, bool):
        raise TrustError("metadata-shape", "root")
    for name in TOP_LEVEL:
        check_role(roles.get(name))


def _check_meta(signed, name):
    meta = signed.get("meta")
    if not isinstance(meta, dict) or name not in meta:
        raise TrustError("metadata-shape", "meta")
    for info in meta.values():
        _check_file_info(info, True)


def _check_timestamp(signed):
    _check_meta(signed, "snapshot.json")


def _check_snapshot(signed):
    _check_meta(signed, "targets.json")


def _check_targets(signed):
    targets = signed.get("targets")
    if not isinstance(targets, dict):
        raise TrustError("metadata-shape", "targets")
    for info in targets.values():
        _check_file_info(info, False)
    if signed.get("delegations") is not None:
        from tidemark.tuf_delegations import check_delegations

        check_delegations(signed["delegations"])


_CHECKS = {
    "root": _check_root,
    "timestamp": _check_timestamp,
    "snapshot": _check_snapshot,
    "targets": _check_targets,
}
