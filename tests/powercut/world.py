"""A simulated board in its world: gateway core, broker, mirror and judge, all in this process."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.powercut import oracle
from tests.powercut.life import Life, Program, Prompt, Restart, compiled
from tests.powercut.network import BROKER, BROKER_PORT, MIRROR, Network
from tests.powercut.oracle import Broken, Oracle
from tidemark_host import protocol, toolchain
from tidemark_host.boardfile import Board, generate_board_module, parse_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.nor import OLD
from tidemark_host.factory import factory_image
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.store import Store
from tidemark_host.hil.images import FAULTS
from tidemark_host.inventory import Inventory
from tidemark_host.provision import Anchors, LinkSettings, begin, finish
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_build import firmware_dir

# As boards/VIRTUAL, with regions so small that they wrap within a scenario, and a quicker trial.
_BOARD = """
name = "SIMULATED"
chip = "unix"
[flash]
size = 0x2A000
sector = 4096
page = 256
[regions]
runtime = [0x00000, 0x01000]
provisioning = [0x01000, 0x01000]
counter = [0x02000, 0x02000]
journal = [0x04000, 0x04000]
evidence = [0x08000, 0x02000]
outbox = [0x0A000, 0x03000]
slot_a = [0x0D000, 0x06000]
slot_b = [0x13000, 0x06000]
vfs = [0x19000, 0x11000]
[watchdog]
timeout_ms = 4000
[trial]
hold_ms = 300
limit_ms = 20000
backoff_ms = 1000
[lease]
boot_ms = 30000
repl_ms = 60000
[health]
heap_floor = 16384
[limits]
runtime_max = 0x1000
heap = 262144
"""
_FACTORY, _ROOT, _WALL = "factory.bin", "root.json", "wall"  # files of a setting
_PORT = Path(__file__).parent / "micropython" / "sim_port.py"
_ONE = {"period_ms": 1000, "readings_max": 1}
_MANY = {"period_ms": 200, "readings_max": 6}
_TABLE = 6144  # bytes of a table in each image: more than two sectors of slot
# Bugs of an application that end in each way a trial can: app.py and these lines.
_STALLS = """

def tasks(base, _tasks=tasks):
    import time
    from tidemark.supervisor import Task

    def wait():
        while True:
            time.sleep_ms(100)

    return _tasks(base) + [Task("sensor", wait, 100, 5000)]
"""
_HOARDS = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    return _tasks(base) + [Task("history", lambda: bytearray(1 << 20), 1, 60000)]
"""
IMAGES: Mapping[str, str] = {
    "first": "",
    "good": "",
    "reads": "",
    "crashes": FAULTS["crashes"],
    "unwell": FAULTS["unwell"],
    "stalls": _STALLS,
    "hoards": _HOARDS,
}
READINGS = _MANY["readings_max"]  # of a boot of the image "reads"
_LIMIT_MS = 1_200_000  # of simulated time: short boots in a row delay the radio up to ten minutes
_TICK_MS = 500
_OUTCOMES = ("confirmed", "rejected", "inconclusive")


@dataclass(frozen=True)
class Setting:
    """What all worlds of a run share: files, keys, the flash of a provisioned board."""

    board: Board
    program: Program
    folder: Path
    gateway: GatewayIdentity
    images: Mapping[str, bytes]
    factory: bytes
    root: bytes
    wall: float

    def mirror(self, name: str) -> Path:
        """Return the folder of an update repository."""
        return self.folder / "updates" / name


def make_board() -> Board:
    """Return the simulated board."""
    return parse_board(_BOARD.encode())


def make_setting(folder: Path) -> Setting:
    """Build and sign everything in an empty folder. Takes some seconds."""
    board = make_board()
    own = folder / "board"
    own.mkdir(parents=True)
    (own / "sim_port.mpy").write_bytes(compiled(_PORT))
    (own / "tidemark_board.py").write_text(generate_board_module(board))
    agent = firmware_dir() / "agent"
    images: dict[str, bytes] = {}
    app = (agent / "app.py").read_text("utf-8")
    for name, fault in IMAGES.items():
        overlay = folder / "overlays" / name
        (overlay / "agent").mkdir(parents=True)
        (overlay / "agent" / "app.py").write_text(app + fault, "utf-8")
        blocks = (hashlib.sha256(f"{name} {n}".encode()).digest() for n in range(_TABLE // 32))
        (overlay / "calibration.bin").write_bytes(b"".join(blocks))
        settings = _MANY if name == "reads" else _ONE
        out = folder / f"{name}.romfs"
        images[name] = build_image([agent, overlay], settings, out).read_bytes()
    keys = KeyStore.create(folder / "keys")
    base = folder / "updates" / "first"
    repository = Repository.create(base, keys)
    repository.add(images["first"], board=board.name, version="1.0.0")
    repository.publish()
    factory = factory_image(board, base, app_path(board.name, 1))
    (folder / _FACTORY).write_bytes(factory)
    (folder / _ROOT).write_bytes(repository.root_bytes())
    (folder / _WALL).write_text(str(time.time()))
    return open_setting(folder)


def open_setting(folder: Path) -> Setting:
    """Return what `make_setting` made in a folder: the same keys, images and time."""
    return Setting(
        make_board(),
        Program(toolchain.runtime(), folder / "board"),
        folder,
        GatewayIdentity.load_or_create(folder / "gateway"),
        {name: (folder / f"{name}.romfs").read_bytes() for name in IMAGES},
        (folder / _FACTORY).read_bytes(),
        (folder / _ROOT).read_bytes(),
        float((folder / _WALL).read_text()),
    )


class World:
    """One board and all around it. Everything is this process's, so a fork is a copy of it all."""

    def __init__(self, setting: Setting, seed: bytes = b"tidemark") -> None:
        self.setting = setting
        self.board = setting.board
        handle = tempfile.mkdtemp(dir=setting.folder)
        self.inventory = Inventory(Path(handle) / "inventory.json")
        self.store = Store(Path(":memory:"))
        self.network = Network(self._published, self._retained, setting.mirror("first"))
        self.life = Life(setting.board, setting.program, self.network, seed)
        self.life.before = self._before
        self.life.tick = self._tick
        self.oracle = Oracle(setting.board, images=tuple(setting.images.values()))
        self.core = Core(
            setting.gateway,
            self.inventory,
            self.store,
            monotonic=lambda: self.life.now / 1000,
            wall=lambda: setting.wall + self.life.now / 1000,
        )
        self._watch_store()
        self.readings: dict[int, list[str]] = {}  # of weak cells, by group, one a boot
        self._read: dict[int, str] = {}  # what they read as in this boot
        self.on_operation: Callable[[int, bytes | None], None] = lambda _a, _d: None
        self.deaf: Callable[[World], bool] = lambda _world: False  # the gateway is not there
        self.told: dict[int, Any] = {}  # claims of the last report accepted in this boot
        self.banner: oracle.Banner | None = None  # of this boot
        self.banners: list[oracle.Banner] = []
        self.restarts: list[str] = []
        self.next: tuple[int, bytes | None] = (0, None)  # the flash operation about to be done
        self.say: Callable[[str], None] | None = None  # told each step of a replay
        self.lost = False  # its state was lost on purpose, and it has not begun anew
        self._seen = 0  # of the console's text
        self._ticked = 0
        self._state: tuple[int, oracle.State | None] = (-1, None)

    # -- power

    def power_on(self, raw: bool = False) -> None:
        """Begin a boot after a loss of power; weak cells read as `readings` says."""
        nor = self.life.nor
        chosen: dict[int, str] = {}
        for group in nor.weak_groups():
            row = self.readings.get(group, [OLD])
            chosen[group] = row[0]
            if len(row) > 1:
                del row[0]
        nor.power_up(chosen)
        self._read = chosen
        self._state = (-1, None)  # neither a cut-off operation nor another reading is counted
        self._begin("power-on", raw)

    @property
    def unread(self) -> bool:
        """Whether cells that are still weak have a reading that no boot has seen yet."""
        for group in self.life.nor.weak_groups():
            if self._read.get(group) != self.readings.get(group, [OLD])[-1]:
                return True
        return False

    def _begin(self, cause: str, raw: bool = False) -> None:
        self._look()
        self.life.stop()
        self.told = {}
        self.banner = None
        self._seen = 0
        self._ticked = 0
        self.restarts.append(cause)
        if self.say:
            self.say(f"{self.life.now:7} ms  == {cause}")
        self.life.start(cause, raw)

    def power_off(self) -> None:
        """Take the power away between operations."""
        self._look()
        self.life.stop()

    def run(self, goal: Callable[[World], bool], what: str) -> None:
        """Run until `goal` holds; `what` names it.

        Raises Broken when it does not come, nor.PowerCut, and what a defect raises.
        """
        limit = self.life.now + _LIMIT_MS
        while not goal(self):
            event = self.life.step()
            if isinstance(event, Restart):
                self._begin(event.cause)
            if self.life.now > limit:
                self._look()
                raise Broken("liveness", f"not reached in {_LIMIT_MS // 1000} s: {what}")
        self._look()

    def fork(self) -> None:
        """Make this copy of the world its own, after `os.fork` in the child; its board is off."""
        self._look()
        self.life.fork()
        self.network.drop_all()

    def forget(self) -> None:
        """Leave nothing of a forked world behind."""
        self.life.stop()
        if self.inventory.path.stem == str(os.getpid()):
            self.inventory.path.unlink(missing_ok=True)

    # -- what the board does

    def _before(self, address: int, data: bytes | None) -> None:
        self._look()
        slot = next((n for n in ("slot_a", "slot_b") if self._inside(n, address)), None)
        if slot:
            running = self.banner.slot if self.banner else ""
            self.oracle.operation(running, self.state(), address)
        self.next = (address, data)
        if self.say:
            self._tell(address, data)
        self.on_operation(address, data)

    def _tell(self, address: int, data: bytes | None) -> None:
        assert self.say
        for name, region in self.board.regions.items():
            if region.offset <= address < region.end:
                what = "erase" if data is None else "program"
                number = self.life.operations + 1
                self.say(
                    f"{self.life.now:7} ms  {number:5} {what} {name}+{address - region.offset:#x}"
                )

    def _inside(self, name: str, address: int) -> bool:
        region = self.board.regions[name]
        return region.offset <= address < region.end

    def state(self) -> oracle.State | None:
        """Return what the flash holds now, None while it can't be read."""
        at = self.life.operations
        if self._state[0] != at:
            try:
                self._state = (at, oracle.read_state(self.board, self.life.content))
            except Exception:  # the firmware refuses it too: nothing is confirmed that is known
                self._state = (at, None)
        return self._state[1]

    def _look(self) -> None:
        """Read what the board has printed since."""
        new = self.life.said_from(self._seen)
        new = new[: new.rfind(b"\n") + 1]
        if not new:
            return
        self._seen += len(new)
        for line in new.splitlines():
            if self.say:
                self.say(f"{self.life.now:7} ms  | {line.decode('utf-8', 'replace')}")
            for banner in oracle.banners(line):
                self.banner = banner
                self.banners.append(banner)
                self.oracle.booted(banner)
                if banner.slot:
                    self.oracle.runs(banner.slot, self.life.content)
            words = line.split()
            if len(words) > 1 and words[0] == b"tidemark:":
                outcome = words[1].decode("ascii", "replace")
                if outcome in _OUTCOMES and self._tried():
                    self.oracle.concluded(outcome, self._tried())

    def _tried(self) -> int:
        trials = [banner.release for banner in self.banners if banner.mode == "trial"]
        return trials[-1] if trials else 0

    def _retained(self) -> list[tuple[str, bytes]]:
        beacon = self.core.beacon()
        return [] if self.deaf(self) else [(beacon.topic, beacon.payload)]

    def _published(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        self._look()
        if self.say:
            self.say(f"{self.life.now:7} ms  > {topic}")
        self.oracle.left(topic, payload)
        if self.deaf(self):
            return []
        answers = self.core.handle([Message(topic, payload)])
        kind = protocol.parse_topic(topic)[1]
        if kind == "report" and any(a.topic.endswith("/ack") for a in answers):
            envelope = protocol.open_envelope(payload)
            self.told = protocol.peek_counted(envelope, 2).body[0]
        return [(answer.topic, answer.payload) for answer in answers]

    def _tick(self, now: int) -> None:
        if now - self._ticked < _TICK_MS:
            return
        self._ticked = now
        for message in self.core.tick():
            if not self.deaf(self):
                self.network.deliver(message.topic, message.payload)

    def _watch_store(self) -> None:
        store, judge = self.store, self.oracle
        enqueue, add_event = store.enqueue, store.add_event

        def queued(device: str, kind: str, epoch: int, index: int, body: str) -> None:
            judge.forwarded(device, kind, epoch, index, body)
            enqueue(device, kind, epoch, index, body)

        def noted(device: str, kind: str, detail: dict[str, Any], now: float) -> bool:
            judge.alarmed(kind, detail)
            return add_event(device, kind, detail, now)

        store.enqueue = queued
        store.add_event = noted

    # -- what an operator does

    def exec(self, code: str, timeout: float = 10.0) -> str:
        """Run code at the board's prompt and return what it printed: `provision.Console`."""
        before = len(self.life.said)
        sent = False
        while True:
            event = self.life.step(b"" if sent else code.encode())
            if isinstance(event, Restart):
                raise Broken("I7", f"reset by {event.cause} at the prompt")
            if isinstance(event, Prompt):
                if sent:
                    break
                sent = True
        out = self.life.said[before:].decode("utf-8", "replace")
        if event.failed:
            raise BoardError("exec", out)
        return out

    def begin(self) -> None:
        """Have the board make its key, and put it into the inventory."""
        born = begin(self)
        if self.oracle.public and born.public != self.oracle.public:
            raise Broken("I9", "the board shows another key than before")
        self.oracle.public = born.public
        if born.id not in self.inventory:
            # A file of this fork's own: the others have not seen this board.
            own = self.inventory.path.with_name(f"{os.getpid()}.json")
            if own != self.inventory.path:
                if self.inventory.path.is_file():
                    shutil.copyfile(self.inventory.path, own)
                self.inventory.path = own
            self.inventory.enroll(born.public, self.board.name)

    def finish(self) -> None:
        """Give the board the owner's anchors."""
        link = LinkSettings(
            BROKER,
            BROKER_PORT,
            f"http://{MIRROR}/metadata/",
            f"http://{MIRROR}/targets/",
            update_s=60,
            report_s=30,
        )
        finish(self, Anchors(self.setting.root, self.setting.gateway.public), link)
