# The client workflow of TUF 1.0.3x, section 5, around the pure TrustedSet: fetches, persists,
# keeps the marks.

import hashlib

from tidemark.errors import TrustError
from tidemark.http import quote, quote_path
from tidemark.tuf import Limits, TrustedSet, find_role


class Client:
    """Keeps one board's view of one repository.

    store: `load(name)` -> bytes or None, `save(name, bytes)` atomically, `remove(name)`
    (`store.Files`). marks: the journal; its `get`, `mark` and `raise_mark` are used. fetch(path,
    max_size): generator that returns the bytes of a file (its path percent-encoded), or None where
    the repository has no such file; raises LinkError. provisioned: root.json's bytes. feed: called
    with no argument during long computations.

    A refused or interrupted run leaves files and marks of the roles that were verified before, and
    those only.
    """

    def __init__(self, store, marks, fetch, provisioned, limits=None, feed=None):
        self.store = store
        self.marks = marks
        self.fetch = fetch
        self.provisioned = provisioned
        self.limits = limits or Limits()
        self.feed = feed
        self.trusted = None

    @property
    def time_floor(self):
        """Unix seconds that is surely past, by `issued` of offline-signed metadata; 0 if there was
        none.
        """
        return self.marks.mark("time")[0]

    def refresh(self, now):
        """Generator: one pass of sections 5.3 to 5.6. Afterwards `trusted` holds the set.

        now: Unix seconds, or None: then only the root chain is walked, and TrustError("no-time")
        is raised. (Without time a board may also take strictly newer gateway-keys and revocations
        targets. That will be a second pass with `now` = the time floor, whose other targets are
        dropped; nothing of it is persisted.) Raises TrustError, LinkError, StateError.
        """
        trusted = self.trusted = TrustedSet(self.limits, now, self.feed)
        yield from self._refresh_root(trusted)
        if now is not None:
            # Now, not before: a root of this very walk may have raised the floor.
            trusted.now = max(now, self.time_floor)
        trusted.finish_root()
        scope = trusted.scope()
        rotated = False
        for key in ("timestamp", "snapshot", "targets"):
            trusted.floors[key] = self.marks.mark(key, scope)[0]
            rotated = rotated or (not trusted.floors[key] and self.marks.get(key) is not None)
        if rotated:
            # TUF 5.3.11. Removed before any mark rises in the new scope: a later run could not
            # tell any more that they belong to the old one.
            self.store.remove("timestamp")
            self.store.remove("snapshot")
        yield from self._refresh_timestamp(trusted, scope)
        yield from self._refresh_snapshot(trusted, scope)
        yield from self._refresh_targets(trusted, "targets", None)
        # Not beyond this run's time: else whoever had the targets key for a day could move the
        # floor past all that will ever be signed, and no new key would bring it back.
        self._raise_time(trusted.targets["targets"], trusted.now)

    def load_stored(self):
        """Verifies the stored files alone, without network: for provisioning, where the factory's
        metadata speaks for the image it came with. Expiry counts only against the floor of time.
        Raises TrustError.
        """
        trusted = self.trusted = TrustedSet(self.limits, self.time_floor, self.feed)
        trusted.load_root(self._stored_root())
        for name, take in (
            ("timestamp", trusted.update_timestamp),
            ("snapshot", trusted.update_snapshot),
            ("targets", trusted.update_targets),
        ):
            data = self.store.load(name)
            if data is None:
                raise TrustError(name + "-missing", "no stored file")
            take(data)

    # A file or a record takes a board up to 100 ms: whoever waits gets a turn before and after.

    def _save(self, name, data):
        self._feed()
        self.store.save(name, data)
        self._feed()

    def _raise_mark(self, key, number, payload=b"", scope=b""):
        self.marks.raise_mark(key, number, payload, scope)
        self._feed()

    def _feed(self):
        if self.feed:
            self.feed()

    # -- root

    def _stored_root(self):
        """The stored root if it is the one its mark names, else the provisioned one, from which
        the chain is walked.
        """
        number, payload = self.marks.mark("root")
        if number:
            data = self.store.load("root")
            if data is not None and hashlib.sha256(data).digest() == payload:
                # Firm before it is relied upon: a torn mark may read valid today and be gone
                # tomorrow.
                self._raise_mark("root", number, payload)
                return data
        return self.provisioned

    def _refresh_root(self, trusted):
        trusted.load_root(self._stored_root())
        marked, payload = self.marks.mark("root")
        if trusted.root.version >= marked:
            self._raise_time(trusted.root)
        left = self.limits.root_files + max(0, marked - trusted.root.version)
        while left:
            left -= 1
            name = "%d.root.json" % (trusted.root.version + 1)
            data = yield from self.fetch(name, self.limits.root_size)
            if data is None:
                break
            trusted.update_root(data)
            version = trusted.root.version
            digest = hashlib.sha256(data).digest()
            if version > marked or (version == marked and digest == payload):
                # The mark comes last: a cut between the two costs a walk from the provisioned
                # root.
                self._save("root", data)
                self._raise_mark("root", version, digest)
            # Else an intermediate root of a repeated walk, or the marked version with other
            # signatures: it is trusted for this run, and walked again in the next, until a newer
            # one comes.
            if version >= marked:
                self._raise_time(trusted.root)
        if trusted.root.version < marked:
            raise TrustError("root-rollback", "the chain ends below the mark")

    def _raise_time(self, metadata, latest=None):
        issued = metadata.issued
        if issued is None:
            return
        if latest is not None:
            issued = min(issued, latest)
        if issued > self.time_floor:
            self._raise_mark("time", issued)

    # -- the other roles

    def _refresh_timestamp(self, trusted, scope):
        data = self.store.load("timestamp")
        if data is not None:
            try:
                trusted.update_timestamp(data, True)
            except TrustError:
                pass  # an unusable copy is as good as none: the marks still hold
        data = yield from self.fetch("timestamp.json", self.limits.timestamp_size)
        if data is None:
            raise TrustError("timestamp-missing", "not in the repository")
        if trusted.update_timestamp(data):
            self._save("timestamp", data)
        trusted.check_timestamp()
        # What a role promises of the next one counts from here on, whether or not that one can be
        # had.
        self._raise_mark("timestamp", trusted.timestamp.version, b"", scope)
        self._raise_mark("snapshot", trusted.snapshot_info["version"], b"", scope)

    def _refresh_snapshot(self, trusted, scope):
        current = False
        data = self.store.load("snapshot")
        if data is not None:
            try:
                current = trusted.update_snapshot(data, True)
            except TrustError:
                pass
        if not current:
            info = trusted.snapshot_info
            limit = self.limits.snapshot_size
            data = yield from self._fetch_role(trusted, "snapshot", info, limit)
            trusted.update_snapshot(data)
            self._save("snapshot", data)
        self._raise_mark("targets", trusted.targets_info()["version"], b"", scope)

    def _refresh_targets(self, trusted, role, parent):
        name = quote(role)
        data = self.store.load(name)
        if data is not None:
            try:
                trusted.update_targets(data, role, parent)
                return
            except TrustError:
                pass
        info = trusted.targets_info(role)
        data = yield from self._fetch_role(trusted, role, info, self.limits.targets_size)
        trusted.update_targets(data, role, parent)
        self._save(name, data)

    def _fetch_role(self, trusted, role, info, limit):
        name = quote(role) + ".json"
        if trusted.root.signed.get("consistent_snapshot"):
            name = "%d.%s" % (info["version"], name)
        length = info.get("length")  # null stands for none
        data = yield from self.fetch(name, limit if length is None else min(limit, length))
        if data is None:
            kind = "snapshot" if role == "snapshot" else "targets"
            raise TrustError(kind + "-missing", "not in the repository")
        return data

    # -- targets

    def delegated(self, role):
        """Generator: returns the Metadata of a role that the top-level targets role delegates to
        by this name; None where it does not, or where the role has published nothing yet.
        """
        trusted = self.trusted
        if find_role(trusted.targets["targets"], role)[1] is None:
            return None
        if role + ".json" not in trusted.snapshot.signed["meta"]:
            return None
        yield from self._refresh_targets(trusted, role, "targets")
        return trusted.targets[role]

    def find(self, path):
        """Generator: returns the TARGETS entry for a target path, or None (TUF 5.6.7: delegations
        pre-order, first in the list first, a terminating one ends the search; at most
        `limits.delegations` roles are asked).
        """
        trusted = self.trusted
        stack = [("targets", None)]
        visited = []
        while stack and len(visited) <= self.limits.delegations:
            role, parent = stack.pop()
            if role in visited:
                continue
            visited.append(role)
            if parent is not None:
                yield from self._refresh_targets(trusted, role, parent)
            signed = trusted.targets[role].signed
            entry = signed["targets"].get(path)
            if entry is not None:
                return entry
            if signed.get("delegations") is None:
                continue
            from tidemark.tuf_delegations import roles_for

            children = []
            for name, terminating in roles_for(signed["delegations"], path):
                children.append((name, role))
                if terminating:
                    stack = []
                    break
            children.reverse()
            stack.extend(children)
        return None


def target_file(entry, path, consistent):
    """Percent-encoded path of a target's file under the targets base: with consistent snapshots
    its hash stands before its name (TUF 6.2). entry: TARGETS object; the first of sha256, sha512
    that it has.
    """
    path = quote_path(path)
    if not consistent:
        return path
    hashes = entry["hashes"]
    prefix = hashes.get("sha256") or hashes.get("sha512") or ""
    folder, slash, name = path.rpartition("/")
    return folder + slash + prefix + "." + name
