"""A board with two runtime slots through whole lives: the real firmware over ESP-IDF's rules.

What runs is the firmware's: journal, slots, runtimes, stage 0, the end of a trial, the updater.
What it runs on is the host's model of bootloader and `esp_ota_ops` on a NOR flash that can lose
its power at each operation (runtime_model.py). `Life` judges from outside what happens.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from tests.esp32.runtime_model import (
    BOARD,
    ENCRYPTED,
    LAYOUT,
    NEW,
    OLD,
    REGIONS,
    ROMFS,
    SECTOR,
    SIZE,
    Client,
    Hang,
    Known,
    Port,
    Reset,
    Story,
    TrialBase,
    Violation,
    Watched,
    app,
    release,
    runtime,
)
from tidemark import reasons, stage0
from tidemark.slots import CONFIRMED
from tidemark.updater import Updater
from tidemark_host.boards.nor import BEFORE, TORN, PowerCut
from tidemark_host.esp32 import otadata
from tidemark_host.esp32.bootloader import BootError, Bootloader
from tidemark_host.esp32.otadata import State

LIVES = 60  # without a cut, until a board has to be at rest


def made(story: Story, *, weak: bool, hard: bool = False, encrypted: bool = False) -> Watched:
    """Return the flash of a provisioned board before the update."""
    places = ENCRYPTED if encrypted else ()
    flash = Watched(SIZE, weak=weak, hard=hard, encrypted=places, mapped=ROMFS if places else None)
    flash.sectors = []
    if encrypted:
        # Of the slots for runtimes the first start encrypts one that holds an image.
        for region in (LAYOUT.otadata, ROMFS):
            flash.encrypt_in_place(region or ROMFS)
    start = LAYOUT.ota[story.start].offset
    flash.program(start, _padded(runtime(OLD)))
    if story.start == 0 and not story.blank:
        Bootloader(flash, LAYOUT).boot()
    elif not story.blank:
        entry = otadata.Entry.made(2, State.VALID)
        otadata.write(flash, LAYOUT.otadata or LAYOUT.ota[0], 0, entry)
    base = Life(flash, story, Known()).base(story.start, OLD)
    base.slots.provision(release(OLD))
    base.regions["slot_a"].erase(1)
    base.regions["slot_a"].write(SECTOR, app(OLD))
    return flash


def _padded(data: bytes) -> bytes:
    return data + b"\xff" * (-len(data) % 256)


class Life:
    """One life of a board: from a reset to the next, to a loss of power, or to rest."""

    def __init__(self, flash: Watched, story: Story, known: Known) -> None:
        self.flash = flash
        self.story = story
        self.known = known
        self.running = -1
        self.client = Client(story)

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
        """A base that has recovered, outside a life."""
        port = Port(self, slot)
        base: Any = TrialBase(self, port, self._board(number), SimpleNamespace(), "")
        base.recover()
        return base

    def _board(self, number: int) -> Any:
        index = self.story.index if number == NEW else OLD
        return SimpleNamespace(
            NAME=BOARD, REGIONS=REGIONS, RUNTIME_INDEX=index, HEAP_FLOOR=0, PAGE=256,
            WATCHDOG_MS=8000, LEASE_BOOT_MS=30_000, LEASE_REPL_MS=600_000,
        )  # fmt: skip

    def _fault(self, number: int) -> str:
        known, story = self.known, self.story
        if known.trials < story.sound or known.confirming:
            return ""
        return story.former if number == OLD else story.fault

    def rescued(self, base: Any, why: str) -> None:
        """The base goes on without an application."""
        raise Violation(f"rescue: {why}")

    def live(self) -> None:
        """Live it. Raises Violation. PowerCut: the caller's."""
        self.knows(lives=self.known.lives + 1)
        if self.known.lives > LIVES:
            raise Violation(f"no rest after {LIVES} lives")
        if self.known.cause == "power-on":
            self.knows(marker=0, other=0)
        self._decays()
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
        except Hang:
            self.knows(cause="watchdog")
        finally:
            self.flash.life = None

    def _decays(self) -> None:
        """Whichever runtime decays now: what would start was authorised, or nothing does."""
        for region in LAYOUT.ota:
            flash = self.flash.twin()
            flash._buf[region.offset + 40] ^= 0x20  # type: ignore[reportPrivateUsage]
            try:
                boot = Bootloader(flash, LAYOUT).boot()
            except BootError:
                continue
            held = flash.view(LAYOUT.ota[boot.index].offset, boot.image.length)
            if held not in (runtime(OLD), self.story.image):
                raise Violation(f"slot {boot.index} would start bytes that nobody authorised")

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
        """From _boot.py to the end of main.py, and what waits behind it."""
        port = Port(self, slot)
        fault = self._fault(number)

        def made(port: Port, board: Any, supervisor: Any) -> TrialBase:
            if fault == "made":
                raise ValueError
            return TrialBase(self, port, board, supervisor, fault)

        module: Any = stage0
        former = module.base, module.Base, module._run_image
        module.base, module.Base, module._run_image = None, made, self._image
        try:
            module._begin(port, self._board(number))
            module.run()
        except Exception:
            if not fault:
                raise
            # MicroPython goes on to the REPL.
        finally:
            module.base, module.Base, module._run_image = former
        if not self.known.rest:
            port.waits()

    def _image(self, chosen: int) -> None:
        """In place of stage 0's: a romfs image is no part of this."""
        module: Any = stage0
        base = module.base
        module._hand_over()
        if base.fails == "link":
            base.mode, base.why = "rescue", "base-fault"
            module._run_rescue()
        number = OLD if base.runtimes.running == self.story.start else NEW
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
            self.knows(cause="power-on")
            raise Reset
        if ends == "watchdog":
            raise Hang
        if ends == "deadline":
            base.port.set_marker(reasons.encode("deadline"))
            base.port.reset()  # from a timer's callback, in which nothing is written
        if ends == "repl":
            raise KeyboardInterrupt
        if ends == "crash":
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
        if slots.crashes:
            raise Violation("a fault is counted of an application that had none")
        slots.acknowledged(1000)
        if slots.retry_due:
            base.reset("trial" if slots.retries else "update")
        outcome = self.update(base)
        if outcome == "staged":
            base.reset("trial" if slots.retries else "update")
        self.knows(rest=self._rest(base, outcome))

    def update(self, base: Any) -> str:
        """Run the update that is due; return its outcome."""
        regions = base.regions["slot_a"], base.regions["slot_b"]
        updater = Updater(
            BOARD, "0123456789abcdef", base.board.RUNTIME_INDEX, self.client, self.client,
            base.slots, base.journal, regions, lambda: 0, runtimes=base.runtimes,
        )  # fmt: skip
        for _ in range(2):
            for _ in updater.run(1):
                pass
            # What a slot held beyond what it was known to hold is seen once, and written anew.
            if updater.outcome != "target-hash":
                break
        return updater.outcome

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


def settle(
    flash: Watched,
    story: Story,
    known: Known | None = None,
    lives: int = -1,
    kind: type[Life] = Life,
) -> Known:
    """Let a board live without a cut until it is at rest, or for so many lives. Raises
    Violation."""
    known = known or Known()
    while not known.rest and lives:
        lives -= 1
        life = kind(flash, story, known)
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
    kind: type[Life] = Life,
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
                _stays(flash, story, point, choice, seen, kind)
            continue
        for choice in choices:
            sectors, after = _lived(flash, story, point, choice, seen, kind)
            stack.append(after)
            for at, sector in enumerate(sectors if point.cuts else ()):
                for variant in variants if sector in torn else ((BEFORE, -1),):
                    cut = at, *variant
                    stack.append(_lived(flash, story, point, choice, seen, kind, cut)[1])
    seen.states = len(met)
    return seen


def _stays(
    flash: Watched,
    story: Story,
    point: _Point,
    choice: tuple[str, ...],
    seen: Seen,
    kind: type[Life],
) -> None:
    """What is at rest comes to the same rest after the power was off; a mark of the former runtime
    that was cut off may take a restoration more. Raises Violation."""
    known = replace(point.known, rest="", lives=0, marker=0, other=0, cause="power-on")
    again = replace(point, known=known)
    while not again.known.rest:
        again = _lived(flash, story, again, choice, seen, kind)[1]
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
    kind: type[Life],
    cut: tuple[int, str, int] | None = None,
) -> tuple[list[int], _Point]:
    """One life from a point; return the sectors of its operations and the point at its end."""
    flash.restore(point.flash)
    flash.power_up(dict(zip(flash.weak_groups(), choice, strict=True)))
    path = (*point.path, f"{choice} cut {cut} {point.known}")
    if cut:
        flash.plan_cut(*cut, 0x0F)
    life = kind(flash, story, point.known)
    flash.sectors = []
    try:
        life.live()
    except PowerCut:
        life.knows(marker=0, other=0, cause="power-on", lives=0)
    except (Exception, Violation) as error:
        raise Violation(f"{type(error).__name__}: {error}\n  " + "\n  ".join(path)) from error
    sectors = flash.sectors
    flash.no_cut()
    seen.lives += 1
    seen.cuts += cut is not None
    # What weak cells read between lives means nothing: one form for all of them.
    flash.power_up({})
    return sectors, _Point(flash.snapshot(), life.known, point.cuts - (cut is not None), path)
