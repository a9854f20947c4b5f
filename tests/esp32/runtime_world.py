"""A board with two runtime slots through whole lives: the real firmware over ESP-IDF's rules.

What runs is the firmware's: journal, slots, runtimes, stage 0's choice, the end of a trial, the
updater. What it runs on is the host's model of bootloader and `esp_ota_ops` on a NOR flash that
can lose its power at each operation. `Life` judges from outside what happens.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from tests.esp32 import tiny
from tidemark import stage0
from tidemark.base import Base
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.slots import CONFIRMED, NONE, Release
from tidemark.updater import Updater
from tidemark_host.boards.nor import BEFORE, TORN, NorFlash, PowerCut
from tidemark_host.esp32 import flash as host
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.bootloader import Bootloader, Layout
from tidemark_host.esp32.ota_ops import IDF_5_4, OtaError, OtaOps, Rules
from tidemark_host.esp32.otadata import OtadataError, State

SECTOR = 4096
LAYOUT = Layout(
    host.Region(1 * SECTOR, 2 * SECTOR),
    (host.Region(3 * SECTOR, 2 * SECTOR), host.Region(5 * SECTOR, 2 * SECTOR)),
)
_NAMES = ("slot_a", "slot_b", "provisioning", "counter", "journal", "evidence", "outbox")
REGIONS = {name: ((7 + 2 * i) * SECTOR, 2 * SECTOR) for i, name in enumerate(_NAMES)}
SIZE = (7 + 2 * len(_NAMES)) * SECTOR
OLD, NEW = 1, 2  # releases: application and runtime of one number belong together
LIVES = 60  # without a cut, until a board has to be at rest
_BOARD = "TINY"


class Violation(AssertionError):
    """A promise was broken."""


class Reset(BaseException):
    """The board resets itself; no `except Exception` of the firmware may survive it."""


def app(number: int) -> bytes:
    return b"application %d " % number * 20


def runtime(number: int) -> bytes:
    """A runtime that the bootloader starts."""
    return tiny.image(number)


def release(number: int, attempt: int = 0) -> Any:
    data = app(number)
    return Release(hashlib.sha256(data).digest(), len(data), number, attempt, f"{number}.0")


FINE = runtime(NEW)


@dataclass(frozen=True)
class Story:
    """What the new release is like.

    `trials`: how its trial ends, the first time it runs, the second, ...; the last for ever.
    `image`: the runtime's bytes. `index`: what the runtime says it is. `reaches`: whether it gets
    to stage 0. `start`: slot of the old runtime. `blank`: otadata as it comes from the factory.
    """

    trials: tuple[str, ...] = ("confirm",)
    image: bytes = FINE
    index: int = NEW
    reaches: bool = True
    start: int = 0
    blank: bool = False
    rules: Rules = IDF_5_4


@dataclass(frozen=True)
class Known:
    """What the world knows between two lives."""

    marker: int = 0
    cause: str = "power-on"
    confirmed: int = OLD  # the release, once slots.confirm has returned or its record was seen
    marked: bool = False  # the new runtime: mark_valid has begun
    confirming: bool = False  # slots.confirm has begun
    chosen: bool = False  # set_boot of the new runtime has begun
    boots: int = 0  # of the new runtime since then, while it was not marked
    trials: int = 0
    lives: int = 0  # since the last cut
    rest: str = ""  # how it ended


class Watched(NorFlash):
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


def made(story: Story, *, weak: bool, hard: bool = False) -> Watched:
    """Return the flash of a provisioned board before the update."""
    flash = Watched(SIZE, weak=weak, hard=hard)
    flash.sectors = []
    start = LAYOUT.ota[story.start].offset
    flash.program(start, _padded(runtime(OLD)))
    if story.start == 0 and not story.blank:
        Bootloader(flash, LAYOUT).boot()
    elif not story.blank:
        entry = otadata.Entry.made(2, State.VALID)
        otadata.write(flash, LAYOUT.otadata or LAYOUT.ota[0], 0, entry)
    base = Life(flash, story, Known()).base(story.start, OLD)
    base.slots.provision(release(OLD))
    base.regions["slot_a"].write(SECTOR, app(OLD))
    return flash


def _padded(data: bytes) -> bytes:
    return data + b"\xff" * (-len(data) % 256)


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


class _Client:
    """Metadata that was verified, and the mirror's files."""

    def __init__(self, story: Story) -> None:
        self._files: dict[str, bytes] = {}
        self._entries: dict[str, Any] = {}
        self._add(f"{_BOARD}/app-{NEW}.romfs", app(NEW), "app", min_runtime=NEW)
        self._add(f"{_BOARD}/runtime-{NEW}.bin", story.image, "runtime")
        root = SimpleNamespace(signed={"consistent_snapshot": False})
        targets = SimpleNamespace(signed={"targets": self._entries})
        self.trusted = SimpleNamespace(root=root, targets={"targets": targets})

    def _add(self, path: str, data: bytes, kind: str, **more: int) -> None:
        custom = {"board": _BOARD, "kind": kind, "index": NEW, "version": "2.0", **more}
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
        return _Response(self._files[path], start)


class _Runtimes:
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


class _Port:
    """A chip's registers over the flash. The marker outlives each reset but a loss of power."""

    kbd_intr = None

    def __init__(self, life: Life, running: int) -> None:
        self._life = life
        self._runtimes = _Runtimes(life, running)

    def flash(self) -> NorFlash:
        return self._life.flash

    def runtimes(self) -> _Runtimes:
        return self._runtimes

    def reset_cause(self) -> str:
        return self._life.known.cause

    def marker(self) -> int:
        return self._life.known.marker

    def set_marker(self, number: int) -> None:
        self._life.knows(marker=number)

    def uptime_ms(self) -> int:
        return 1000

    def reset(self) -> None:
        self._life.knows(cause="reset")
        raise Reset


class _Base(Base):
    """The base without what is no part of this: evidence, counter, identity, link."""

    def record(self, code: str, detail: str = "", kind: int = 0) -> None:
        pass

    def recover(self) -> None:
        self.journal.recover()
        self.slots.recover()
        self.runtimes.recover()


class Life:
    """One life of a board: from a reset to the next, to a loss of power, or to rest."""

    def __init__(self, flash: Watched, story: Story, known: Known) -> None:
        self.flash = flash
        self.story = story
        self.known = known
        self.running = -1
        self._client = _Client(story)

    def knows(self, **changes: Any) -> None:
        self.known = replace(self.known, **changes)

    def sees(self, addr: int) -> None:
        """A slot that runs, or that is the confirmed release's, is never written."""
        for slot, region in enumerate(LAYOUT.ota):
            if region.offset <= addr < region.offset + region.size:
                if slot == self.running:
                    raise Violation(f"writes into slot {slot}, which runs")
                if slot == self._slot_of(self.known.confirmed):
                    raise Violation(f"writes into the confirmed slot {slot}")

    def _slot_of(self, number: int) -> int:
        return self.story.start if number == OLD else 1 - self.story.start

    def base(self, slot: int, number: int) -> Any:
        index = self.story.index if number == NEW else OLD
        board = SimpleNamespace(
            NAME=_BOARD, REGIONS=REGIONS, RUNTIME_INDEX=index, HEAP_FLOOR=0, PAGE=256
        )
        base: Any = _Base(_Port(self, slot), board, SimpleNamespace(marked=False))
        base.connection = SimpleNamespace(
            report_when_due=lambda ms: None, report_soon=lambda: None, reports_acked=1
        )
        base.link = SimpleNamespace(state="up")
        base.config = {6: 1}
        base.recover()
        return base

    def live(self) -> None:
        """Live it. Raises Violation. PowerCut: the caller's."""
        self.knows(lives=self.known.lives + 1)
        if self.known.lives > LIVES:
            raise Violation(f"no rest after {LIVES} lives")
        boot = Bootloader(self.flash, LAYOUT).boot()
        slot = boot.index
        # An image that is none starts nowhere; what starts is one of two.
        number = OLD if slot == self.story.start else NEW
        self._started(number)
        if number == NEW and not self.story.reaches:
            self.knows(cause="watchdog")
            return
        self.running = slot
        self.flash.life = self
        try:
            self._runs(slot, number)
        except Reset:
            pass
        finally:
            self.flash.life = None

    def _started(self, number: int) -> None:
        known = self.known
        if number == OLD:
            if known.confirmed == NEW:
                raise Violation("the former runtime starts after the new pair was confirmed")
            return
        if not known.chosen:
            raise Violation("a runtime starts that was never chosen")
        if known.marked or known.confirmed == NEW:
            return
        self.knows(boots=known.boots + 1)
        if known.boots:
            raise Violation("a runtime on trial starts twice")
        if self._state() == State.VALID:
            raise Violation("a runtime that nobody marked starts as VALID")

    def _state(self) -> int:
        assert LAYOUT.otadata
        entries = otadata.read(self.flash, LAYOUT.otadata)
        index = otadata.active(entries)
        return -1 if index is None else entries[index].state

    def _runs(self, slot: int, number: int) -> None:
        from tidemark import reasons

        base = self.base(slot, number)
        base.port.set_marker(reasons.encode("lease"))
        base.port.set_marker(0)
        stage0.base = base
        chosen = stage0._choose()
        if chosen == NONE:
            raise Violation(f"rescue: {base.why}")
        held = base.slots.release(chosen).index
        if held != number:
            raise Violation(f"application {held} runs on runtime {number}")
        if base.mode == "trial":
            self._trial(base, held)
            return
        if held == NEW and not (self.known.confirming or self.known.confirmed == NEW):
            raise Violation("the new release runs outside its trial")
        if held == OLD and self.known.confirmed == NEW:
            raise Violation("the former release runs after the new one was confirmed")
        if held == NEW:
            self.knows(confirmed=NEW)
        self._normal(base)

    def _trial(self, base: Any, held: int) -> None:
        if held != NEW:
            raise Violation(f"application {held} is on trial")
        trials = self.story.trials
        ends = trials[min(self.known.trials, len(trials) - 1)]
        self.knows(trials=min(self.known.trials + 1, len(trials)))
        if ends == "power":
            self.knows(cause="power-on", marker=0)
        elif ends == "watchdog":
            self.knows(cause="watchdog")
        elif ends == "deadline":
            from tidemark import reasons

            self.knows(cause="watchdog", marker=reasons.encode("deadline"))
        elif ends == "crash":
            base.crashed(ValueError("of the application"))
        else:
            verdict = {
                "confirm": ("confirm", "ok"),
                "health": ("reject", "health"),
                "no-ack": ("inconclusive", "no-ack"),
            }[ends]
            base._app = None
            base._trial = SimpleNamespace(step=lambda *shown: verdict)
            confirm = base.slots.confirm
            base.slots.confirm = lambda: self._confirms(base, confirm)
            base._report_step()
            if base.slots.confirmed != base.slots.running:
                raise Violation("a trial that ended goes on")
            self._normal(base)

    def _confirms(self, base: Any, confirm: Any) -> Any:
        """The commit: from here on the new pair is the one."""
        if self._state() != State.VALID:
            raise Violation("the application is confirmed before its runtime is VALID")
        self.knows(confirming=True)
        events = confirm()
        self.knows(confirmed=NEW)
        return events

    def _normal(self, base: Any) -> None:
        """A confirmed release: acknowledged, looks for updates, repeats a trial."""
        slots = base.slots
        slots.acknowledged(1000)
        if slots.retry_due:
            base.reset("trial" if slots.retries else "update")
        regions = base.regions["slot_a"], base.regions["slot_b"]
        updater = Updater(
            _BOARD, "0123456789abcdef", base.board.RUNTIME_INDEX, self._client, self._client,
            slots, base.journal, regions, lambda: 0, runtimes=base.runtimes,
        )  # fmt: skip
        for _ in range(2):
            for _ in updater.run(1):
                pass
            # What a slot held beyond what it was known to hold is seen once, and written anew.
            if updater.outcome != "target-hash":
                break
        if updater.outcome == "staged":
            base.reset("trial" if slots.retries else "update")
        self.knows(rest=self._rest(base, updater.outcome))

    def _rest(self, base: Any, outcome: str) -> str:
        runtimes, slots = base.runtimes, base.slots
        if slots.state(slots.confirmed) != CONFIRMED or runtimes.running != runtimes.confirmed:
            raise Violation("at rest on what is not confirmed")
        charge = runtimes.table()[2]
        if self._state() != charge:
            return "fallback"  # another slot's entry is in charge until the next reset
        if charge != State.VALID:
            raise Violation("at rest on an entry that is not VALID")
        if outcome == "current":
            return "confirmed"
        last = slots.last_trial
        return f"{outcome}: {last[3]}" if last else outcome


def settle(flash: Watched, story: Story, known: Known | None = None, lives: int = -1) -> Known:
    """Let a board live without a cut until it is at rest, or for so many lives. Raises
    Violation."""
    known = known or Known()
    while not known.rest and lives:
        lives -= 1
        life = Life(flash, story, known)
        life.live()
        known = life.known
    return known


@dataclass
class Seen:
    """What a search saw."""

    lives: int = 0
    cuts: int = 0
    states: int = 0
    rests: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Point:
    """The start of a life. `cuts`: that may still come; `path`: how it was reached."""

    flash: tuple[object, ...]
    known: Known
    cuts: int
    path: tuple[str, ...] = ()

    def key(self) -> bytes:
        text = repr((self.flash[1], self.known, self.cuts))
        return hashlib.sha256(bytes(self.flash[0]) + text.encode()).digest()  # type: ignore[call-overload]


WEAK = ((BEFORE, -1), (TORN, -1))
# Firm: how many bytes of a page or of a sector's erase were done.
FIRM = ((BEFORE, -1), *((TORN, count) for count in (0, 1, 4, 24, 26, 28, 31, 2048)))


def explore(
    flash: Watched,
    story: Story,
    cuts: int,
    readings: Sequence[str],
    known: Known | None = None,
    variants: Sequence[tuple[str, int]] = WEAK,
    torn: Collection[int] = range(SIZE // SECTOR),
) -> Seen:
    """Live every life of a board, its power cut before or within each operation, at most `cuts`
    times, until each is at rest.

    The cells that a cut left without a value read anew in each life, in each of `readings`. A cut
    right after an operation is one right before the next. torn: sectors in which an operation may
    be cut within (what a journal makes of that is its own tests' affair). Raises Violation with
    the path to it.
    """
    seen = Seen()
    met: set[bytes] = set()
    stack = [_Point(flash.snapshot(), known or Known(), cuts)]
    while stack:
        point = stack.pop()
        if point.key() in met:
            continue
        met.add(point.key())
        flash.restore(point.flash)
        choices = itertools.product(readings, repeat=len(flash.weak_groups()))
        if point.known.rest:
            seen.rests.add(point.known.rest)
            for choice in choices:
                _stays(flash, story, point, choice, seen)
            continue
        for choice in choices:
            sectors, after = _lived(flash, story, point, choice, seen)
            stack.append(after)
            for at, sector in enumerate(sectors if point.cuts else ()):
                for variant in variants if sector in torn else ((BEFORE, -1),):
                    cut = at, *variant
                    stack.append(_lived(flash, story, point, choice, seen, cut)[1])
    seen.states = len(met)
    return seen


def _stays(
    flash: Watched, story: Story, point: _Point, choice: tuple[str, ...], seen: Seen
) -> None:
    """What is at rest comes to the same rest after the power was off; a mark of the former runtime
    that was cut off may take a restoration more. Raises Violation."""
    known = replace(point.known, rest="", lives=0, marker=0, cause="power-on")
    again = replace(point, known=known)
    while not again.known.rest:
        again = _lived(flash, story, again, choice, seen)[1]
        choice = (choice[0],) * len(flash.weak_groups()) if choice else ()
    if again.known.rest != point.known.rest:
        path = "\n  ".join(again.path)
        raise Violation(f"{point.known.rest}, then {again.known.rest}\n  {path}")


def _lived(
    flash: Watched,
    story: Story,
    point: _Point,
    choice: tuple[str, ...],
    seen: Seen,
    cut: tuple[int, str, int] | None = None,
) -> tuple[list[int], _Point]:
    """One life from a point; return the sectors of its operations and the point at its end."""
    flash.restore(point.flash)
    flash.power_up(dict(zip(flash.weak_groups(), choice, strict=True)))
    path = (*point.path, f"{choice} cut {cut} {point.known}")
    if cut:
        flash.plan_cut(*cut, 0x0F)
    life = Life(flash, story, point.known)
    flash.sectors = []
    try:
        life.live()
    except PowerCut:
        life.knows(marker=0, cause="power-on", lives=0)
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}\n  " + "\n  ".join(path)) from error
    sectors = flash.sectors
    flash.no_cut()
    seen.lives += 1
    seen.cuts += cut is not None
    # What weak cells read between lives means nothing: one form for all of them.
    flash.power_up({})
    return sectors, _Point(flash.snapshot(), life.known, point.cuts - (cut is not None), path)
