"""The judge outside the board: what left it, what was promised, what its flash says at the end.

It keeps every message that ever left the board and every effect upstream, and raises `Broken` as
soon as an invariant of the design (section 3) does not hold. Nothing of it is the board's memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.powercut.broken import Broken
from tests.powercut.pairs import Pairs
from tidemark_host import protocol
from tidemark_host.boardfile import Board
from tidemark_host.boards.nor import NorFlash
from tidemark_host.evidence import Record, read_ring

_BANNER = re.compile(
    rb"^tidemark: (?:slot (\w), release (\d+) \([^)]*\), (\w+)|(rescue|safe) \(([^)]*)\))", re.M
)
_TRIAL_BOOTS = 18  # the first, 16 after a lost supply, and one whose loss is not yet counted
_FLOOR, _MARKS, _HEAD, _TIME_FLOOR, _SLOTS = 1003, 1004, 1007, 1008, 1002
ENDS = ("confirmed", "rejected", "inconclusive")  # of a trial: claim 1009, and events
_ROOT, _REGIONS = "root", ("slot_a", "slot_b")


@dataclass(frozen=True)
class Banner:
    """What stage 0 handed over to: `slot` a or b, or "" for rescue and safe mode."""

    slot: str
    release: int
    mode: str
    why: str = ""


@dataclass
class State:
    """What the flash holds, by the firmware's own code on a copy."""

    confirmed: int  # slot, 2: none
    states: list[int]
    releases: list[Any]
    floor: int
    root: int
    epoch: int
    waiting: list[tuple[int, int]]  # readings not acknowledged: (epoch, index)
    public: bytes
    last_trial: list[Any] | None

    @property
    def release(self) -> int:
        """Return the index of the confirmed release, 0: none."""
        return self.releases[self.confirmed].index if self.confirmed < 2 else 0


def banners(text: bytes) -> list[Banner]:
    """Return the hand-overs of a console text."""
    found: list[Banner] = []
    for slot, release, mode, other, why in _BANNER.findall(text):
        if other:
            found.append(Banner("", 0, other.decode(), why.decode()))
        else:
            found.append(Banner(slot.decode(), int(release), mode.decode()))
    return found


def read_state(board: Board, content: bytes) -> State:
    """Read a flash by the firmware's own code. Raises its errors."""
    from tidemark.counter import Counter
    from tidemark.flash import Region
    from tidemark.journal import Journal
    from tidemark.outbox import Outbox
    from tidemark.slots import Slots

    def region(name: str) -> Any:
        part = board.regions[name]
        copy = NorFlash(bytearray(content[part.offset : part.end]))
        return Region(copy, 0, part.size)

    journal = Journal(region("journal"))
    journal.recover()
    counter = Counter(region("counter"))
    outbox = Outbox(region("outbox"))
    outbox.recover()
    slots = Slots(journal)
    slots.recover()
    seed = journal.affirm("key")
    return State(
        slots.confirmed,
        [slots.state(0), slots.state(1)],
        [slots.release(0), slots.release(1)],
        journal.mark("floor")[0],
        journal.mark("root")[0],
        counter.recover(),
        [(item[1], item[2]) for item in outbox.pending(limit=1 << 16)],
        _public(seed) if seed else b"",
        slots.last_trial,
    )


@cache
def _public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


@dataclass
class Oracle:
    """The judge of one world."""

    board: Board
    public: bytes = b""
    images: tuple[bytes, ...] = ()  # what the owner has published
    sent: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    hellos: dict[tuple[str, int], bytes] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    heads: dict[int, bytes] = field(default_factory=dict)
    upstream: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    owed: set[tuple[int, int]] = field(default_factory=set)  # readings that must arrive
    confirmed: int = 0  # the highest release that was ever told to be confirmed
    trial_boots: dict[int, int] = field(default_factory=dict)
    last_trial: list[Any] | None = None  # as the flash had it at the last start
    rejected: set[int] = field(default_factory=set)
    epoch: int = 0  # the highest that left the board
    messages: int = 0
    pairs: Pairs | None = None  # of a board with runtime slots
    ends: set[tuple[Any, ...]] = field(default_factory=set)  # of trials, as the journal had them

    @property
    def device(self) -> str:
        """Return the board's id, "" before it has a key."""
        return protocol.key_id(self.public) if self.public else ""

    # -- what leaves the board

    def left(self, topic: str, payload: bytes) -> None:
        """A message was published. I1, I4, I9, I11."""
        device, kind = protocol.parse_topic(topic)
        self.messages += 1
        if self.public and device != protocol.key_id(self.public):
            raise Broken("I9", f"a message of {device}, which is not this board")
        envelope = protocol.open_envelope(payload, protocol.UP[kind].limit)
        if kind == "hello":
            hello = protocol.parse_hello(envelope.payload)
            before = self.hellos.setdefault((device, hello.epoch), hello.boot_nonce)
            if before != hello.boot_nonce:
                raise Broken("I1", f"epoch {hello.epoch} was opened by two boots")
            self._epoch(hello.epoch)
            self._claims(hello.claims)
            return
        space = protocol.UP[kind].space
        assert space is not None
        counted = protocol.peek_counted(envelope, space)
        former = self.sent.setdefault((device, counted.epoch, counted.seq), payload)
        if former != payload:
            raise Broken("I1", f"({counted.epoch}, {counted.seq}) carries two messages")
        self._epoch(counted.epoch)
        if kind == "report":
            self._claims(counted.body[0])

    def _epoch(self, epoch: int) -> None:
        if epoch < self.epoch:
            raise Broken("I1", f"epoch {epoch} after {self.epoch}")
        self.epoch = epoch

    def _claims(self, claims: dict[int, Any]) -> None:
        if _FLOOR in claims:
            roots = claims[_MARKS]
            told = {"floor": claims[_FLOOR], "time": claims[_TIME_FLOOR], _ROOT: roots[0]}
            for name, value in told.items():
                if value < self.told.get(name, 0):
                    raise Broken("I4", f"{name} was {self.told[name]}, now {value}")
                self.told[name] = value
        number, head = claims[_HEAD]
        if number < self.told.get("head", 0):
            raise Broken("I11", f"evidence head was {self.told['head']}, now {number}")
        self.told["head"] = number
        if self.heads.setdefault(number, head) != head:
            raise Broken("I11", f"evidence record {number} has two hashes")

    # -- what the gateway did

    def forwarded(self, device: str, kind: str, epoch: int, number: int, text: str) -> None:
        """The gateway queued a message for upstream. I2."""
        key = (device, kind if kind not in ("telemetry", "backlog") else "reading", epoch, number)
        if key in self.upstream and '"maybe_duplicate":true' not in text:
            raise Broken("I2", f"{key} went upstream twice")
        self.upstream[key] = text
        if key[1] == "reading":
            self.owed.discard((epoch, number))

    def alarmed(self, kind: str, detail: dict[str, Any]) -> None:
        """The gateway recorded an event about the board."""
        if kind == "alarm":
            raise Broken("I1", f"the gateway raised an alarm: {detail}")

    # -- what the board runs

    def started(self, flash: NorFlash, slot: int, state: State | None) -> None:
        """A bootloader started a runtime slot. I3, I4, I5."""
        last = state.last_trial if state else None
        if last and last != self.last_trial:
            # Journalled, and the power failed before it was printed: the next trial counts anew.
            self.last_trial = last
            self.trial_boots.pop(last[0], None)
        if self.pairs:
            self.pairs.started(flash, slot, self._release(state))

    def _release(self, state: State | None) -> int:
        """Return the confirmed release; the first, which comes with the board, before any."""
        return max(self.confirmed, state.release if state else 0, 1)

    def booted(self, banner: Banner, state: State | None = None) -> None:
        """Stage 0 handed over. I3, I4, I5."""
        if banner.mode == "trial":
            count = self.trial_boots.get(banner.release, 0) + 1
            self.trial_boots[banner.release] = count
            if count > _TRIAL_BOOTS:
                raise Broken("I5", f"release {banner.release} had {_TRIAL_BOOTS} trial boots")
            if banner.release in self.rejected:
                raise Broken("I5", f"release {banner.release} was rejected and is tried again")
        if banner.slot and banner.release < self.confirmed:
            raise Broken("I4", f"release {banner.release} runs, {self.confirmed} was confirmed")
        if self.pairs and banner.slot:
            trial = banner.mode == "trial"
            self.pairs.handed_over(banner.release, trial, self._release(state))
        if banner.mode == "normal":
            self.confirmed = max(self.confirmed, banner.release)

    def runs(self, slot: str, content: bytes) -> None:
        """Stage 0 handed over to the image in a slot. I3."""
        start = self.board.regions[f"slot_{slot}"].offset + self.board.sector
        if not any(content.startswith(image, start) for image in self.images):
            raise Broken("I3", f"slot {slot} runs bytes that nobody has published")

    def concluded(self, outcome: str, release: int) -> None:
        """A trial's end was printed: it was journalled before."""
        if outcome == "confirmed":
            self.confirmed = max(self.confirmed, release)
        elif outcome == "rejected":
            self.rejected.add(release)
        self.trial_boots.pop(release, None)
        if self.pairs:
            self.pairs.concluded()

    def ended(self, state: State | None) -> None:
        """The journal holds this for firm, between two boots."""
        if state and state.last_trial:
            self.ends.add(tuple(state.last_trial))

    def operation(self, running: str, state: State | None, address: int) -> None:
        """The flash is about to change at `address`. I3."""
        if self.pairs:
            self.pairs.operation(address, self._release(state))
        for number, name in enumerate(_REGIONS):
            region = self.board.regions[name]
            if region.offset <= address < region.end:
                if running == name[-1]:
                    raise Broken("I3", f"writes into slot {running}, which runs")
                if state and state.confirmed == number:
                    raise Broken("I3", f"writes into the confirmed slot {name[-1]}")

    def anew(self) -> None:
        """The board's state was lost, and an operator makes another board of it."""
        self.public = b""
        self.told.clear()
        self.heads.clear()
        self.owed.clear()
        self.ends.clear()
        self.epoch = self.confirmed = 0

    # -- at the end

    def check(self, content: bytes) -> State:
        """Check the flash against all that was seen."""
        state = read_state(self.board, content)
        if self.public and state.public != self.public:
            raise Broken("I9", "the board's key is another one")
        if state.epoch < self.epoch:
            raise Broken(
                "I1", f"epoch {self.epoch} left the board, its counter says {state.epoch}"
            )
        if state.confirmed < 2:
            release = state.releases[state.confirmed]
            region = self.board.regions[_REGIONS[state.confirmed]]
            start = region.offset + self.board.sector
            image = content[start : start + release.length]
            if hashlib.sha256(image).digest() != release.digest:
                raise Broken("I3", "the confirmed slot does not hold its image")
            if state.floor != release.index:
                raise Broken("I4", f"floor {state.floor}, release {release.index} confirmed")
            if release.index < self.confirmed:
                raise Broken("I4", f"release {release.index} after {self.confirmed}")
        if self.pairs:
            self.pairs.check(content, self._release(state))
        if self.owed:
            raise Broken("I2", f"stored readings never arrived: {sorted(self.owed)}")
        self.ended(state)
        self._check_ring(content)
        return state

    def _check_ring(self, content: bytes) -> None:
        region = self.board.regions["evidence"]
        ring = read_ring(content[region.offset : region.end])
        if ring.broken:
            raise Broken("I11", f"the evidence chain breaks at {ring.broken}")
        top = ring.records[-1].number if ring.records else 0
        if top < self.told.get("head", 0):
            raise Broken("I11", f"record {self.told['head']} was told, the ring ends at {top}")
        if ring.records and ring.records[0].number == 1:  # else it has wrapped
            kept = Counter(_ends(ring.records))
            needed = Counter(_end(end[2], end[3]) for end in self.ends)
            for end in sorted(needed - kept):
                raise Broken("I11", f"a trial ended {' '.join(end)}, the ring lacks it")


def _end(outcome: str, reason: str) -> tuple[str, ...]:
    """Return what journal and ring both have: with a confirmation the ring has the version."""
    return (outcome,) if outcome == "confirmed" else (outcome, reason)


def _ends(records: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    """Yield the trials' ends of a ring; one that is told again, with a `*`, once."""
    last: tuple[str, ...] = ()
    for record in records:
        if record.code in ENDS:
            end = _end(record.code, record.detail.removesuffix("*"))
            if end != last or not record.detail.endswith("*"):
                yield end
            last = end
        elif record.code != "boot":
            last = ()
