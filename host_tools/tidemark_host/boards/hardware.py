"""The virtual board's hardware: what its processor asks of flash, watchdog and reset logic.

The channel is a stream socket. A request is `<BBHI` (op, id, payload length, argument) and a
payload of at most 4,096 bytes; its answer `<BBHI` (status, id, payload length, value) and one.
Status 0 is success, 1 a refusal with a code in ASCII as payload. docs/virtual-board.md has the
table of operations.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from tidemark_host.boards.base import LOG_MAX, Operation, Violation
from tidemark_host.boards.nor import BEFORE, NorError, NorFlash, PowerCut

FRAME = struct.Struct("<BBHI")
INFO = struct.Struct("<IIIIIBB8s")
PAYLOAD_MAX = 4096
CAUSES = ("unknown", "power-on", "watchdog", "reset", "brownout", "soft", "deep-sleep")
WATCHDOG_MIN_MS = 1
WATCHDOG_MAX_MS = 8388  # the RP2040's longest


class Op(IntEnum):
    """Operations of a request."""

    HELLO = 1
    PROGRAM = 2
    ERASE = 3
    ARM = 4
    FEED = 5
    RESET = 6
    MARKER = 7
    SOFT_RESET = 8


@dataclass(frozen=True)
class Frame:
    """One request: `op` as sent, `id` to be repeated in the answer, `arg` 32 bits unsigned."""

    op: int
    id: int
    arg: int
    payload: bytes


class FrameError(Exception):
    """A frame longer than the channel allows: the peer does not speak this protocol."""


def refusal(frame: Frame, code: str, value: int = 0) -> bytes:
    """Return the answer that refuses a request: a code, and a number that goes with it."""
    return FRAME.pack(1, frame.id, len(code), value & 0xFFFFFFFF) + code.encode("ascii")


class Frames:
    """Cuts a byte stream into frames; holds at most one frame that is not complete."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raises FrameError."""
        self._held += data
        frames: list[Frame] = []
        while len(self._held) >= FRAME.size:
            op, number, length, arg = FRAME.unpack_from(self._held)
            if length > PAYLOAD_MAX:
                raise FrameError(f"a payload of {length} bytes")
            end = FRAME.size + length
            if len(self._held) < end:
                break
            frames.append(Frame(op, number, arg, bytes(self._held[FRAME.size : end])))
            del self._held[:end]
        return frames


class Hardware:
    """Flash, watchdog, marker register and unique id: all that outlives the processor.

    After a request that ends the run of the processor, `wants` tells how: `reset`, `soft` or
    `soft-raw`. A planned cut leaves `handle` as PowerCut.
    """

    def __init__(
        self, nor: NorFlash, unique_id: bytes, watchdog_max_ms: int = WATCHDOG_MAX_MS
    ) -> None:
        self.nor = nor
        self._watchdog_max_ms = watchdog_max_ms
        self.operations: deque[Operation] = deque(maxlen=LOG_MAX)
        self.violations: deque[Violation] = deque(maxlen=LOG_MAX)
        self.feeds = 0
        self.variant = BEFORE
        self.interrupted: Operation | None = None
        self._plan: tuple[int, str, int, int] | None = None
        self.marker = 0
        self.watchdog_s: float | None = None
        self.watchdog_due = 0.0
        self.cause = "power-on"
        self.raw = False
        self.wants = ""
        self._unique_id = unique_id
        self._since = time.monotonic()

    def cut_at(self, n: int, variant: str, count: int, mask: int) -> None:
        """Plan a power cut at the `n`-th flash operation from now (1: the next)."""
        self.variant = variant
        self._plan = (n - 1, variant, count, mask)
        self.nor.plan_cut(*self._plan)

    def power_off(self) -> None:
        """Forget a planned cut."""
        self._plan = None
        self.nor.no_cut()

    def power_up(self, readings: dict[int, str]) -> None:
        """Give weak cells their values for the boot that starts. A cut planned for it stays."""
        self.nor.power_up(readings)
        if self._plan:
            self.nor.plan_cut(*self._plan)

    def start(self, cause: str, raw: bool = False) -> None:
        """Begin a run of the processor. Only `soft` leaves watchdog and uptime as they are."""
        self.cause = cause
        self.raw = raw
        if cause == "power-on":
            self.marker = 0
        if cause != "soft":
            self.watchdog_s = None
            self._since = time.monotonic()

    def handle(self, frame: Frame) -> bytes:
        """Carry out a request and return its answer, empty if it has none. Raises PowerCut."""
        value = 0
        payload = b""
        match frame.op:
            case Op.HELLO:
                payload = self._info()
            case Op.PROGRAM | Op.ERASE:
                code = self._flash(frame)
                if code:
                    return refusal(frame, code)
            case Op.ARM:
                ms = min(max(frame.arg, WATCHDOG_MIN_MS), self._watchdog_max_ms)
                self.watchdog_s = ms / 1000
                self._feed()
            case Op.FEED:
                self._feed()
                return b""
            case Op.MARKER:
                self.marker = frame.arg
            case Op.RESET:
                self.wants = "reset"
                return b""
            case Op.SOFT_RESET:
                self.wants = "soft-raw" if frame.arg else "soft"
                return b""
            case _:
                return self.handle_more(frame)
        return FRAME.pack(0, frame.id, len(payload), value) + payload

    def handle_more(self, frame: Frame) -> bytes:
        """As `handle`, of an operation that only some boards have."""
        return refusal(frame, "op")

    def _info(self) -> bytes:
        nor = self.nor
        elapsed_ms = int((time.monotonic() - self._since) * 1000)
        return INFO.pack(
            nor.size,
            nor.sector,
            nor.page,
            self.marker,
            elapsed_ms & 0xFFFFFFFF,
            CAUSES.index(self.cause),
            self.raw,
            self._unique_id,
        )

    def bites_at(self) -> float | None:
        """Return when the watchdog bites unless it is fed, None while it is not armed."""
        return None if self.watchdog_s is None else self.watchdog_due

    def stood_still(self, seconds: float) -> None:
        """Host and processor did not run for so long: no watchdog counts that."""
        self.watchdog_due += seconds

    def _feed(self) -> None:
        self.feeds += 1
        if self.watchdog_s is not None:
            self.watchdog_due = time.monotonic() + self.watchdog_s

    def _flash(self, frame: Frame) -> str:
        """Do a program or an erase; return a code when the chip's rules forbid it."""
        try:
            self.operate(frame.arg, frame.payload if frame.op == Op.PROGRAM else None)
        except NorError as error:
            return error.code
        return ""

    def operate(self, addr: int, data: bytes | None) -> None:
        """Program pages, or erase a sector (None): logged, and cut where a cut is planned.

        Raises NorError, which is a violation; PowerCut.
        """
        now = time.monotonic()
        kind, length, step = (
            ("program", len(data), self.nor.page)
            if data is not None
            else ("erase", self.nor.sector, self.nor.sector)
        )
        before = self.nor.operations
        cut: PowerCut | None = None
        try:
            if data is not None:
                self.nor.program(addr, data)
            else:
                self.nor.erase(addr)
        except NorError as error:
            self.violations.append(Violation(now, kind, addr, length, error.code))
            raise
        except PowerCut as error:
            cut = error
        done = self.nor.operations - before
        for i in range(done):
            self.operations.append(Operation(now, kind, addr + i * step, step))
        if cut is not None:
            # A cut "before" leaves its operation undone and uncounted; else it is the last one.
            at = addr + (done if self.variant == BEFORE else done - 1) * step
            self.interrupted = Operation(now, kind, at, step)
            raise cut
