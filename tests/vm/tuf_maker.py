# An update repository in memory, signed with the firmware's own Ed25519, so that it runs on both
# interpreters. Every file that was ever published stays at hand in `files`; tests replay and break
# them. Repositories made by python-tuf are in tests/unit/test_tuf_python_tuf.py.

import hashlib

from nor import NorFlash
from tidemark import canonjson, ed25519
from tidemark.errors import LinkError, TidemarkError
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.tuf_client import Client

NOW = 1800000000  # 2027-01-15T08:00:00Z
ROLES = ("root", "targets", "snapshot", "timestamp")
EXPIRES = "2027-06-01T00:00:00Z"
LONG_AGO = "2026-06-01T00:00:00Z"


class Key:
    def __init__(self, name, scheme="ed25519"):
        self.seed = hashlib.sha256(name.encode()).digest()
        self.public = ed25519.public_key(self.seed)
        self.id = hashlib.sha256(self.public).digest().hex()
        self.scheme = scheme

    @property
    def object(self):
        return {
            "keytype": "ed25519",
            "scheme": self.scheme,
            "keyval": {"public": self.public.hex()},
        }

    def sign(self, message):
        sig = ed25519.sign(self.seed, message, self.public)
        return {"keyid": self.id, "sig": sig.hex()}


_keys = {}


def key(name):
    if name not in _keys:
        _keys[name] = Key(name)
    return _keys[name]


class Maker:
    """`signed` holds the roles as they will be signed next; `keys` who signs them."""

    def __init__(self, consistent=True):
        self.files = {}
        self.asked = []
        self.keys = {role: [key(role)] for role in ROLES}
        self.signed = {}
        self.extra = {"root": {}, "targets": {}, "snapshot": {}, "timestamp": {}}
        self.versions = {role: 0 for role in ROLES}
        self.expires = {role: EXPIRES for role in ROLES}
        self.thresholds = {role: 1 for role in ROLES}
        self.targets = {}
        self.delegations = None
        self.delegated = []  # roles that have published
        self.consistent = consistent
        self.with_hashes = True
        self.former_root_keys = []
        self.publish("root", "targets", "snapshot", "timestamp")

    def common(self, role):
        signed = {
            "_type": role,
            "spec_version": "1.0.31",
            "version": self.versions[role],
            "expires": self.expires[role],
        }
        for name in self.extra[role]:
            signed[name] = self.extra[role][name]
        return signed

    def make(self, role):
        """The signed part of `role`, before it is signed."""
        signed = self.common(role)
        if role == "root":
            signed["consistent_snapshot"] = self.consistent
            signed["keys"] = {}
            signed["roles"] = {}
            for name in ROLES:
                for one in self.keys[name]:
                    signed["keys"][one.id] = one.object
                signed["roles"][name] = {
                    "keyids": [one.id for one in self.keys[name]],
                    "threshold": self.thresholds[name],
                }
        elif role == "targets":
            signed["targets"] = self.targets
            if self.delegations:
                signed["delegations"] = self.delegations
        elif role == "snapshot":
            names = ["targets"] + self.delegated
            signed["meta"] = {name + ".json": self.info(name) for name in names}
        else:
            signed["meta"] = {"snapshot.json": self.info("snapshot")}
        return signed

    def info(self, role):
        info = {"version": self.versions[role]}
        if self.with_hashes:
            data = self.files[self.name(role)]
            info["length"] = len(data)
            info["hashes"] = {"sha256": hashlib.sha256(data).digest().hex()}
        return info

    def name(self, role):
        if role == "timestamp" or (role != "root" and not self.consistent):
            return role + ".json"
        return "%d.%s.json" % (self.versions[role], role)

    def publish(self, *roles, **how):
        """Signs and publishes `roles` in this order; `bump=False` keeps their versions."""
        for role in roles:
            if how.get("bump", True):
                self.versions[role] += 1
            self.sign(role, self.make(role))

    def sign(self, role, signed, keys=None, name=None):
        """Publishes a signed part as it is given; by other keys, or under another name."""
        message = canonjson.encode(signed)
        if not keys:
            keys = self.keys[role] + (self.former_root_keys if role == "root" else [])
        signatures = [one.sign(message) for one in keys]
        self.put(name or self.name(role), {"signatures": signatures, "signed": signed})

    def delegate(self, name, paths, terminating=True):
        """From the next targets on a role, by the key of its name, speaks for `paths`."""
        delegations = self.delegations = self.delegations or {"keys": {}, "roles": []}
        one = key(name)
        delegations["keys"][one.id] = one.object
        role = {"name": name, "keyids": [one.id], "threshold": 1, "terminating": terminating}
        role["paths"] = paths
        delegations["roles"].append(role)

    def publish_delegated(self, name, targets, by=None, expires=EXPIRES):
        """Signs the targets of a delegated role; the next snapshot names it. by: another key."""
        if name not in self.delegated:
            self.delegated.append(name)
        self.versions[name] = self.versions.get(name, 0) + 1
        signed = {"_type": "targets", "spec_version": "1.0.31", "version": self.versions[name]}
        signed["expires"] = expires
        signed["targets"] = targets
        self.sign(name, signed, [by or key(name)])

    def put(self, name, document):
        self.files[name] = canonjson.encode(document)

    def rotate(self, role, *names):
        """New keys for a role, in a new root. Old root keys sign the new root, too."""
        if role == "root":
            self.former_root_keys = self.keys["root"]
        self.keys[role] = [key(name) for name in names]
        self.publish("root")
        self.former_root_keys = []

    def fetch(self, name, max_size):
        yield
        self.asked.append(name)
        data = self.files.get(name)
        if data is not None and len(data) > max_size:
            raise LinkError("too-large", "endless data")
        return data


class MemoryStore:
    def __init__(self):
        self.files = {}

    def load(self, name):
        return self.files.get(name)

    def remove(self, name):
        self.files.pop(name, None)

    def save(self, name, data):
        self.files[name] = bytes(data)


def journal(flash=None):
    flash = flash or NorFlash(8 * 4096)
    marks = Journal(Region(flash, 0, flash.size))
    marks.recover()
    return marks


class Board:
    """A client with what it keeps: `files` and the journal outlive `restart`."""

    def __init__(self, maker, provisioned=None):
        self.maker = maker
        self.provisioned = provisioned or maker.files["%d.root.json" % maker.versions["root"]]
        self.store = MemoryStore()
        self.flash = NorFlash(8 * 4096)
        self.restart()

    def restart(self):
        self.journal = journal(self.flash)
        self.client = Client(self.store, self.journal, self.maker.fetch, self.provisioned)

    def refresh(self, now=NOW):
        """One run; returns "ok" or the code of the refusal."""
        try:
            for _ in self.client.refresh(now):
                pass
        except TidemarkError as error:
            return error.code
        return "ok"

    def state(self):
        """What a refusal must leave as it is."""
        keys = self.journal.keys()
        marks = [(name, self.journal.get(name)) for name in keys]
        return dict(self.store.files), marks

    def versions(self):
        trusted = self.client.trusted
        roles = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets["targets"])
        return [role.version for role in roles]


def refused(board, code, now=NOW):
    """The run ends with `code`, and files and marks are what they were."""
    before = board.state()
    assert board.refresh(now) == code, board.refresh(now)
    assert board.state() == before
