# A board for whole update runs: metadata and image over HTTP from a peer in this process, slots,
# journal and download on a NOR flash that enforces the chip's rules.

import hashlib

from http_peer import Peer
from tuf_maker import NOW, Maker, MemoryStore

from nor import NorFlash
from tidemark import image
from tidemark.flash import Region
from tidemark.http import Client as HttpClient
from tidemark.journal import Journal
from tidemark.slots import CONFIRMED, STAGED, Release, Slots
from tidemark.target import app_path
from tidemark.tuf_client import Client as TufClient
from tidemark.updater import Updater

ID = "0123456789abcdef"
BOARD = "VIRTUAL"
SECTORS = 12  # of a slot


def content(index, size=40000):
    block = hashlib.sha256(b"%d" % index).digest()
    return (block * (size // 32 + 1))[:size]


class Rig:
    """A board with one confirmed image in slot 0, a repository and a server."""

    def __init__(self, cohort=""):
        self.cohort = cohort
        self.maker = Maker()
        self.peer = Peer()
        self.flash = NorFlash((8 + 2 * SECTORS) * 4096)
        self.store = MemoryStore()
        self.root = self.maker.files["1.root.json"]
        self.now = NOW
        self.uptime = 0
        self.boot()
        factory = content(1)
        digest = hashlib.sha256(factory).digest()
        self.slots.provision(Release(digest, len(factory), 1, 0, "1.0.0"))
        self.regions[0].write(image.HEADER_SIZE, factory)
        self.factory = bytes(self.regions[0].view(0, self.regions[0].size))
        self.boot()

    def boot(self):
        """A boot on this flash: everything in RAM is made anew."""
        self.journal = Journal(Region(self.flash, 0, 8 * 4096))
        self.journal.recover()
        self.slots = Slots(self.journal)
        self.slots.recover()
        self.slots.resolve("power-on", "")
        self.slots.running = self.slots.confirmed
        size = SECTORS * 4096
        start = 8 * 4096
        self.regions = [Region(self.flash, start + i * size, size) for i in (0, 1)]
        http = HttpClient(self.peer.open, "http://u/metadata")
        client = TufClient(self.store, self.journal, http.fetch, self.root)
        self.updater = Updater(
            BOARD,
            ID,
            1,
            client,
            HttpClient(self.peer.open, "http://u/targets"),
            self.slots,
            self.journal,
            self.regions,
            lambda: self.uptime,
            cohort=self.cohort,
        )

    def offer(self, index, data=None, board=BOARD, **change):
        """Publishes a release; returns the URL path of its image."""
        path = app_path(BOARD, index)
        self.maker.targets[path], url = self.entry(path, index, data, board, **change)
        self.publish()
        return url

    def entry(self, path, index, data=None, board=BOARD, **change):
        """(TARGETS entry, URL path) of a release whose image the server has."""
        data = content(index) if data is None else data
        digest = hashlib.sha256(data).digest().hex()
        custom = {"board": board, "kind": "app", "index": index, "version": "1.0.%d" % index}
        custom.update({"attempt": 0, "min_runtime": 0, "cohort": 100, "abort": False})
        custom.update(change)
        entry = {"length": len(data), "hashes": {"sha256": digest}, "custom": custom}
        parts = path.split("/")
        url = "/targets/%s/%s.%s" % ("/".join(parts[:-1]), digest, parts[-1])
        self.peer.files[url] = data
        return entry, url

    def publish(self):
        self.maker.publish("targets", "snapshot", "timestamp")
        for name in self.maker.files:
            self.peer.files["/metadata/" + name] = self.maker.files[name]

    def run(self):
        """One run to its end; returns the outcome."""
        for _ in self.updater.run(self.now):
            pass
        assert self.peer.open_sockets == 0
        self.check()
        return self.updater.outcome

    def check(self):
        """The confirmed slot is as it was, and what is STAGED holds what was authorised (I3)."""
        assert self.slots.state(0) == CONFIRMED
        assert bytes(self.regions[0].view(0, self.regions[0].size)) == self.factory
        if self.slots.state(1) == STAGED:
            release = self.slots.release(1)
            image.check(self.regions[1], release)
            assert image.decode_header(self.regions[1].read(0, 256)) == (BOARD, release)

    def downloads(self):
        return [asked for asked in self.peer.asked if asked[0].startswith("/targets/")]
