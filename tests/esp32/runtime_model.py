"""A board with two runtime slots, as the firmware meets it: flash, port, mirror, and a base whose
own modules may fail. What is done with it is in runtime_world.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.esp32 import tiny
from tidemark.base import Base
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.slots import Release
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32 import flash as host
from tidemark_host.esp32.bootloader import Layout
from tidemark_host.esp32.encryption import EncryptedNor
from tidemark_host.esp32.image import ESP32, Segment, make_image
from tidemark_host.esp32.ota_ops import IDF_5_4, OtaError, OtaOps, Rules
from tidemark_host.esp32.otadata import OtadataError

if TYPE_CHECKING:
    from tests.esp32.runtime_world import Life

SECTOR = 4096
LAYOUT = Layout(
    host.Region(1 * SECTOR, 2 * SECTOR),
    (host.Region(3 * SECTOR, 2 * SECTOR), host.Region(5 * SECTOR, 2 * SECTOR)),
)
_NAMES = ("slot_a", "slot_b", "provisioning", "counter", "journal", "evidence", "outbox")
REGIONS = {name: ((7 + 2 * i) * SECTOR, 2 * SECTOR) for i, name in enumerate(_NAMES)}
SIZE = (7 + 2 * len(_NAMES)) * SECTOR
# The partition romfs, both slots: the one that is mapped. With flash encryption on it is encrypted
# as these are.
ROMFS = host.Region(REGIONS["slot_a"][0], 4 * SECTOR)
ENCRYPTED = (LAYOUT.otadata or ROMFS, *LAYOUT.ota, ROMFS)
OLD, NEW = 1, 2  # releases: application and runtime of one number belong together
BOARD = "TINY"


class Violation(BaseException):
    """A promise was broken; no `except Exception` of the firmware may survive it."""


class Reset(BaseException):
    """The board resets itself; no `except Exception` of the firmware may survive it."""


class Hang(BaseException):
    """What runs does so for ever, and keeps the timer that feeds from running."""


def app(number: int) -> bytes:
    return b"application %d " % number * 20


def runtime(number: int) -> bytes:
    """A runtime that the bootloader starts."""
    return tiny.image(number)


def large(number: int) -> bytes:
    """A runtime of more than a sector, so that it can be there in part."""
    return make_image([Segment(ESP32.ram, bytes(n * n % (251 + number) for n in range(4608)))])


def release(number: int, attempt: int = 0) -> Any:
    data = app(number)
    return Release(hashlib.sha256(data).digest(), len(data), number, attempt, f"{number}.0")


FINE = runtime(NEW)


@dataclass(frozen=True)
class Story:
    """What the new release is like.

    `trials`: how its trial ends, the first time it runs, the second, ...; the last for ever.
    `image`: the runtime's bytes. `index`: what the runtime says it is. `reaches`: whether it gets
    to stage 0. `fault`: where its base fails ("made", "read", "hangs", "loops", "known", "choice",
    "chooses" for ever, "link", "blank": without provisioning), once so many trials (`sound`) have
    begun and until the pair may be confirmed; `former`: where the old one's fails from then on.
    `start`: slot of the old runtime. `blank`: otadata as it comes from the factory. `served`: what
    the mirror has for the runtime's bytes instead, by request of a life, the last for ever.
    `memory`: where the linker put the marker in either runtime. "own": at two places, and each
    keeps what it wrote there; "lost": what one writes destroys the other's; "shared": at one.
    """

    trials: tuple[str, ...] = ("confirm",)
    image: bytes = FINE
    index: int = NEW
    reaches: bool = True
    fault: str = ""
    sound: int = 0
    former: str = ""
    start: int = 0
    blank: bool = False
    served: tuple[bytes, ...] = ()
    memory: str = "own"
    rules: Rules = IDF_5_4


@dataclass(frozen=True)
class Known:
    """What the world knows between two lives."""

    marker: int = 0  # in RTC memory, of the old runtime or of both
    other: int = 0  # of the new one, if it has its own
    cause: str = "power-on"
    confirmed: int = OLD  # the release, once slots.confirm has returned or its record was seen
    marked: bool = False  # the new runtime: mark_valid has begun
    confirming: bool = False  # slots.confirm has begun
    chosen: bool = False  # set_boot of the new runtime has begun
    boots: int = 0  # of the new runtime since then, while it was not marked
    trials: int = 0
    lives: int = 0  # since the last cut
    rest: str = ""  # how it ended


class Watched(EncryptedNor):
    """The flash, with somebody who sees each change of a runtime slot before it happens."""

    life: Life | None = None
    sectors: list[int]  # of each operation since it was set

    def erase(self, addr: int) -> None:
        self._sees(addr, 1)
        super().erase(addr)

    def program(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        self._sees(addr, len(data) // self.page)
        super().program(addr, data)

    def _sees(self, addr: int, count: int) -> None:
        self.sectors += [addr // SECTOR] * count
        if self.life:
            self.life.sees(addr)


class _Response:
    """What a mirror serves, from `start` on."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data[start:]
        self.start = start
        self.left = len(self._data)

    def readinto(self, view: memoryview) -> int:
        count = min(len(view), self.left)
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        self.left -= count
        return count

    def close(self) -> None:
        pass


class Client:
    """Metadata that was verified, and the mirror's files."""

    def __init__(self, story: Story) -> None:
        self._files: dict[str, bytes] = {}
        self._entries: dict[str, Any] = {}
        self._served = list(story.served)
        self._add(f"{BOARD}/app-{NEW}.romfs", app(NEW), "app", min_runtime=NEW)
        self._add(f"{BOARD}/runtime-{NEW}.bin", story.image, "runtime")
        root = SimpleNamespace(signed={"consistent_snapshot": False})
        targets = SimpleNamespace(signed={"targets": self._entries})
        self.trusted = SimpleNamespace(root=root, targets={"targets": targets})

    def _add(self, path: str, data: bytes, kind: str, **more: int) -> None:
        custom = {"board": BOARD, "kind": kind, "index": NEW, "version": "2.0", **more}
        digest = hashlib.sha256(data).hexdigest()
        self._entries[path] = {
            "length": len(data),
            "hashes": {"sha256": digest},
            "custom": custom,
        }
        self._files[path] = data

    def refresh(self, now: int) -> Generator[None]:
        yield

    def find(self, path: str) -> Generator[None, None, Any]:
        yield
        return self._entries.get(path)

    def get(self, path: str, start: int, size: int) -> Generator[None, None, _Response]:
        yield
        data = self._files[path]
        if self._served and "/runtime-" in path:
            data = self._served.pop(0) if len(self._served) > 1 else self._served[0]
        return _Response(data, start)


class PortRuntimes:
    """esp32.Partition of the runtime that runs, over the model of esp_ota_ops."""

    def __init__(self, life: Life, running: int) -> None:
        self._life = life
        self._ops = OtaOps(life.flash, LAYOUT, running, rules=life.story.rules)
        self.running = running
        self.otadata = Region(life.flash, LAYOUT.otadata.offset, 2 * SECTOR)  # type: ignore[union-attr]
        self.regions = tuple(Region(life.flash, r.offset, r.size) for r in LAYOUT.ota)

    def set_boot(self, slot: int) -> None:
        is_new = slot != self._life.story.start
        if is_new:
            self._life.knows(chosen=True, boots=0)
        self._call(lambda: self._ops.set_boot_partition(slot))
        if is_new:
            # Not before: a mark that was cut off may come out of an erase that is cut off, too.
            self._life.knows(marked=False)

    def mark_valid(self) -> None:
        if self.running != self._life.story.start:
            self._life.knows(marked=True)
        self._call(self._ops.mark_app_valid_cancel_rollback)

    def _call(self, call: Any) -> None:
        try:
            call()
        except (OtaError, OtadataError) as error:
            raise StateError("ota-refused", error.code) from error


class Port:
    """A chip's registers over the flash. The markers outlive each reset but a loss of power."""

    kbd_intr = None

    def __init__(self, life: Life, running: int) -> None:
        self._life = life
        is_old = running == life.story.start
        self._own = "marker" if is_old or life.story.memory == "shared" else "other"
        if life.story.memory == "lost":
            life.knows(**{"other" if is_old else "marker": 0})
        self._runtimes = PortRuntimes(life, running)
        self._now = 1000
        self._tick: Callable[[], None] = lambda: None

    def flash(self) -> NorFlash:
        return self._life.flash

    def runtimes(self) -> PortRuntimes:
        return self._runtimes

    def reset_cause(self) -> str:
        return self._life.known.cause

    def marker(self) -> int:
        return getattr(self._life.known, self._own)

    def set_marker(self, number: int) -> None:
        self._life.knows(**{self._own: number})

    def arm_watchdog(self, ms: int) -> None:
        pass

    def start_timer(self, ms: int, tick: Callable[[], None]) -> None:
        self._tick = tick

    def feed(self) -> None:
        pass

    def uptime_ms(self) -> int:
        return self._now

    def waits(self) -> None:
        """Nothing more happens but the timer, until the lease has run out."""
        self._now += 3_600_000
        self._tick()
        raise Hang  # what does not reset by itself then is bitten

    def reset(self) -> None:
        self._life.knows(cause="reset")
        raise Reset


class TrialBase(Base):
    """The base without what is no part of this: evidence, counter, identity, link."""

    def __init__(self, life: Life, port: Port, board: Any, supervisor: Any, fault: str) -> None:
        super().__init__(port, board, supervisor)
        self._life = life
        self.fails = fault
        self.provisioning: Any = SimpleNamespace()
        self.connection: Any = SimpleNamespace(
            report_when_due=lambda ms: None, report_soon=lambda: None, reports_acked=1
        )
        self.link: Any = SimpleNamespace(state="up")
        self.config: Any = {6: 1}

    def record(self, code: str, detail: str = "", kind: int = 0) -> None:
        if code == "rescue":
            self._life.rescued(self, detail)

    def recover(self) -> None:
        if self.fails == "read":
            raise ValueError
        if self.fails == "hangs":
            raise Hang
        if self.fails == "loops":
            self.port.waits()
        self.journal.recover()
        self.runtimes.recover()
        self.slots.recover()
        if self.fails == "known":
            raise StateError("flash-worn")
        if self.fails == "blank":
            self.provisioning = None
        if self.fails == "choice":
            self.runtimes.settle = None
        if self.fails == "chooses":
            self.runtimes.settle = lambda confirmed: self.port.waits()
