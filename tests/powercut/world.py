"""A simulated board in its world: gateway core, broker, mirror and judge, all in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.powercut import oracle
from tests.powercut.broken import Broken
from tests.powercut.esp32 import layout_of
from tests.powercut.life import Life, Prompt, Restart
from tests.powercut.network import BROKER, BROKER_PORT, MIRROR, Network
from tests.powercut.oracle import Oracle
from tests.powercut.pairs import Pairs
from tests.powercut.setting import MANY, PLAIN, RUNTIME_OF, RUNTIMES, Setting
from tidemark_host import protocol
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.nor import OLD
from tidemark_host.esp32.bootloader import BootError
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.store import Store
from tidemark_host.inventory import Inventory
from tidemark_host.provision import Anchors, LinkSettings, begin, finish
from tidemark_host.wifi import Wifi

READINGS = MANY["readings_max"]  # of a boot of the image "reads"
_LIMIT_MS = 1_200_000  # of simulated time: short boots in a row delay the radio up to ten minutes
_TICK_MS = 500
_IMAGES = ("slot_a", "slot_b", "ota_0", "ota_1")


class World:
    """One board and all around it. Everything is this process's, so a fork is a copy of it all."""

    def __init__(self, setting: Setting, seed: bytes = b"tidemark", board: str = PLAIN) -> None:
        self.setting = setting
        self.kit = setting.kits[board]
        self.board = self.kit.board
        handle = tempfile.mkdtemp(dir=setting.folder)
        self.inventory = Inventory(Path(handle) / "inventory.json")
        self.store = Store(Path(":memory:"))
        self.network = Network(self._published, self._retained, setting.mirror(board, "first"))
        self.life = Life(self.board, self.kit.program, self.network, seed)
        self.life.before = self._before
        self.life.tick = self._tick
        self.oracle = Oracle(self.board, images=tuple(setting.images.values()))
        regions = self.board.regions.values()
        places = [(r.name, r.offset, r.end) for r in regions if r.name != "runtime"]
        if self.board.esp32:
            rows = self.board.esp32.partitions
            chips = [row for row in rows if row.label in ("otadata", "ota_0", "ota_1")]
            places = [*places, *((row.label, row.offset, row.end) for row in chips)]
            layout = layout_of(self.board)
            self.oracle.pairs = Pairs(layout, RUNTIMES, RUNTIME_OF)
        self.places = places  # (name, offset, end) of what the flash holds
        self._images = [(start, end) for name, start, end in places if name in _IMAGES]
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
        self._changed = 0  # the operation, by number, that may have changed it

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
        if self._tried() and not self.life.nor.weak_groups():
            self.oracle.ended(self.state())
        self.told = {}
        self.banner = None
        self._seen = 0
        self._ticked = 0
        self.restarts.append(cause)
        if self.say:
            self.say(f"{self.life.now:7} ms  == {cause}")
        try:
            self.life.start(cause, raw)
        except BootError as error:
            raise Broken("I3", f"nothing starts: {error}") from error
        chip = self.life.chip
        if chip and cause != "soft":
            if self.say:
                self.say(f"{self.life.now:7} ms  == ota_{chip.slot}, runtime {chip.index}")
            self.oracle.started(self.life.nor, chip.slot, self.state())

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
        if any(start <= address < end for start, end in self._images):
            running = self.banner.slot if self.banner else ""
            self.oracle.operation(running, self.state(), address)
        else:
            self._changed = self.life.operations + 1
        self.next = (address, data)
        if self.say:
            self._tell(address, data)
        self.on_operation(address, data)

    def _tell(self, address: int, data: bytes | None) -> None:
        assert self.say
        for name, start, end in self.places:
            if start <= address < end:
                what = "erase" if data is None else "program"
                number = self.life.operations + 1
                self.say(f"{self.life.now:7} ms  {number:5} {what} {name}+{address - start:#x}")

    def state(self) -> oracle.State | None:
        """Return what the flash holds now, None while it can't be read."""
        at = self.life.operations
        # What is written into images changes nothing of it.
        if self._state[0] != at and self._state[0] < self._changed:
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
                self.oracle.booted(banner, self.state() if self.oracle.pairs else None)
                if banner.slot:
                    self.oracle.runs(banner.slot, self.life.content)
            words = line.split()
            if len(words) > 1 and words[0] == b"tidemark:":
                outcome = words[1].decode("ascii", "replace")
                if outcome in oracle.ENDS and self._tried():
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
            wifi=Wifi("barn", "correct horse", "DE") if self.kit.board.wifi else None,
        )
        finish(self, Anchors(self.kit.root, self.setting.gateway.public), link)
