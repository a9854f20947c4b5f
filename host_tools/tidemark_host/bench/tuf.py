"""What an update costs the emulated Pico: a full refresh, a release, and what they need of heap.

Metadata comes from the board's own flash, as fast as a server could ever send it; what is taken is
kept on littlefs and in the journal, in flash, as on a board.
"""

# securesystemslib re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric import rsa
from securesystemslib.signer import CryptoSigner

from tidemark_host.bench import tuf_repository
from tidemark_host.bench.registry import Results, suite
from tidemark_host.boardfile import load_board
from tidemark_host.boards.emulated import Measured, measure
from tidemark_host.toolchain_build import REPO

CYCLES = 375_000_000  # 3 s: a full refresh and the verification of a release
HEAP = 48 * 1024  # a refresh with files of 4 KiB, the engine of Ed25519 included
HELD_MS = 50  # between two calls of the feed hook
IMAGE_SIZE = 100 * 1024
_FILE_SIZE = 4096
_MESSAGE = b"m" * 1000

_FEED = """
import time

_longest = _last = 0

def feed():
    global _longest, _last
    now = time.ticks_us()
    _longest = max(_longest, time.ticks_diff(now, _last))
    _last = now

def held(function, *args):
    # Microseconds of the longest time between two feeds, beginning and end included.
    global _longest, _last
    _longest = 0
    _last = time.ticks_us()
    function(*args)
    feed()
    return _longest
"""

_UPDATE = """
import gc, os, uctypes, vfs
import rp2
from tidemark import curve25519, image, tuf_delegations
from tidemark.flash import BlockDevice, Region
from tidemark.journal import Journal
from tidemark.slots import Release
from tidemark.store import Files
from tidemark.tuf_client import Client

class Flash:
    sector, page, size = 4096, 256, 0x200000

    def __init__(self):
        self._chip = rp2.Flash()
        self._floor = self.size - self._chip.ioctl(4, 0) * self.sector

    def view(self, off, n):
        return memoryview(uctypes.bytearray_at(0x10000000 + off, n))

    def read_into(self, off, buf):
        buf[:] = self.view(off, len(buf))

    def program(self, off, buf):
        self._chip.writeblocks((off - self._floor) // self.sector, buf, off % self.sector)

    def erase(self, off):
        self._chip.ioctl(6, (off - self._floor) // self.sector)

def read(path):
    path = "/bench/" + path
    with open(path, "rb") as file:
        return file.read(os.stat(path)[6])

def fetch(name, max_size):
    yield
    return read("repo/" + name) if name in os.listdir("/bench/repo") else None

def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value

def new_board():
    # As it was provisioned: nothing stored, no mark.
    for name in os.listdir("/files/tuf"):
        os.remove("/files/tuf/" + name)
    for index in range(journal_region.sectors):
        journal_region.erase(index)
    journal = Journal(journal_region)
    journal.recover()
    return Client(Files("/files/tuf"), journal, fetch, read("root.json"), feed=feed)

class Nothing:
    # In place of store and journal: what they write holds a board as long as its flash takes.
    def load(self, name):
        return None

    def mark(self, key, scope=b""):
        return 0, b""

    def ignore(self, *args):
        pass

    get = load
    save = remove = raise_mark = ignore

boards = []

def refresh():
    client = boards.pop()
    finish(client.refresh(NOW))
    return finish(client.find(PATH))["length"]

def release():
    image.check(slot, Release(DIGEST, LENGTH, 4, 0, "1.4.0"), feed)

def fits(kib):
    # Whether a refresh passes with that much heap in one piece and nothing else. Free bytes alone
    # say little: in how many holes they lie is the luck of what was allocated before.
    boards.append(new_board())
    gc.collect()
    room = bytearray(kib * 1024)
    ballast = None
    for size in (1024, 128, 16):
        try:
            while True:
                ballast = ballast, bytearray(size)
        except MemoryError:
            pass
    room = None
    gc.collect()
    try:
        refresh()
        return True
    except MemoryError:
        return False

flash = Flash()
journal_region = Region(flash, *JOURNAL)
slot = Region(flash, *SLOT)
device = BlockDevice(Region(flash, *FILES))
vfs.VfsLfs2.mkfs(device, progsize=256, readsize=256)
vfs.mount(vfs.VfsLfs2(device, progsize=256, readsize=256), "/files")
os.mkdir("/files/tuf")

boards.append(new_board())
bench.measure("refresh", refresh)
bench.measure("release", release)
boards.append(Client(Nothing(), Nothing(), fetch, read("root.json"), feed=feed))
result = {"held": max(held(refresh), held(release)), "by": curve25519.native.__name__}
"""
_SEARCH = """
kib = 52
while fits(kib):
    kib -= 2
result["free"] = (kib + 2) * 1024
"""

_SIGNATURES = """
from tidemark.tuf_keys import reaches_threshold

def verify(key, signature):
    role = {"keyids": ["k"], "threshold": 1}
    if not reaches_threshold(role, {"k": key}, MESSAGE, {"k": signature}, feed):
        raise ValueError("not verified")

result = {}
for name, key, signature in CASES:
    verify(key, signature)
    bench.measure(name, verify, key, signature)
    result[name] = held(verify, key, signature)
"""


@dataclass(frozen=True)
class Update:
    """A refresh and a release on the board. `held_ms`: the longest time between two feeds, writes
    to flash aside, since an erase alone takes longer.
    `kept`: bytes that stay in use afterwards, by the engine of Ed25519. `by`: its name. `free`:
    bytes of free heap, in one piece at its beginning, from which on a refresh passes beside them.
    """

    measured: Measured
    held_ms: float
    kept: int
    by: str
    free: int | None = None

    @property
    def cycles(self) -> int:
        """Return the cycles of refresh and release together."""
        return sum(self.measured.cycles.values())

    @property
    def heap(self) -> int:
        """Return the bytes of heap that a refresh needs in all; they were searched for."""
        assert self.free is not None
        return self.free + self.kept


def update(size: int, *, search: bool = False) -> Update:
    """Measure one update with metadata files of `size` bytes, or of their natural size for 0.

    search: also find the heap from which on, in steps of 2 KiB, a refresh always passes. With less
    it may still pass, as the holes happen to lie.
    """
    content = hashlib.sha256(b"image").digest() * (IMAGE_SIZE // 32)
    repository = tuf_repository.make(content, size)
    board = load_board(REPO / "boards" / tuf_repository.BOARD / "board.toml")
    regions = {name: (one.offset, one.size) for name, one in board.regions.items()}
    values = {
        "NOW": int(tuf_repository.NOW.timestamp()),
        "PATH": repository.delegated_path,
        "DIGEST": hashlib.sha256(content).digest(),
        "LENGTH": len(content),
        "JOURNAL": regions["journal"],
        "FILES": regions["outbox"],
        "SLOT": regions["slot_a"],
    }
    job = _FEED + _constants(values) + _UPDATE
    if search:
        job += _SEARCH
    files = {f"repo/{name}": data for name, data in repository.files.items()}
    measured = measure(
        {"root.json": repository.root, **files},
        job,
        timeout=300.0,
        flash={regions["slot_a"][0] + 4096: content},
    )
    said = measured.result
    return Update(
        measured,
        said["held"] / 1000,
        measured.costs["refresh"].kept,
        said["by"],
        said.get("free"),
    )


def signatures() -> tuple[Measured, dict[str, float]]:
    """Measure one verification of each kind of key; returns also the ms between two feeds."""
    makers: dict[str, Callable[[], CryptoSigner]] = {
        "Ed25519": CryptoSigner.generate_ed25519,
        "ECDSA P-256": CryptoSigner.generate_ecdsa,
        **{f"RSA-PSS {bits}": partial(_rsa, bits) for bits in (2048, 3072, 4096)},
    }
    cases: list[tuple[str, Mapping[str, object], str]] = []
    for name, make in makers.items():
        signer = make()
        key = signer.public_key
        value = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
        cases.append((name, value, signer.sign(_MESSAGE).signature))
    job = _FEED + _constants({"MESSAGE": _MESSAGE, "CASES": cases}) + _SIGNATURES
    measured = measure({}, job)
    return measured, {name: held / 1000 for name, held in measured.result.items()}


@suite("tuf")
def tuf(results: Results) -> None:
    """Measure an update's metadata and image, and each kind of signature."""
    natural = update(0)
    large = update(_FILE_SIZE, search=True)
    for name, one in (("files as they are", natural), ("files of 4 KiB", large)):
        cycles = one.measured.cycles
        results.add(f"refresh, {name}", cycles["refresh"], "cycles", variant=one.by)
        results.add("a release of 100 KiB in its slot", cycles["release"], "cycles")
        both = f"refresh and release, {name}"
        results.add(both, one.cycles, "cycles", variant=one.by, goal=CYCLES)
        held = f"longest time between two feeds, {name}"
        results.add(held, one.held_ms, "ms", variant=one.by, goal=HELD_MS)
    note = f"{large.kept} of it the engine's, for good"
    results.add("heap of a refresh, files of 4 KiB", large.heap, "bytes", goal=HEAP, note=note)
    measured, held_ms = signatures()
    for name, cycles in measured.cycles.items():
        results.add(f"verify {name}, 1,000 bytes", cycles, "cycles")
        results.add(f"longest time between two feeds, {name}", held_ms[name], "ms", goal=HELD_MS)


def _constants(values: Mapping[str, object]) -> str:
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


def _rsa(bits: int) -> CryptoSigner:
    return CryptoSigner(rsa.generate_private_key(public_exponent=65537, key_size=bits))
