"""One emulated RP2040 with its flash, built on rp2040py as emulated_mends.py mends it.

The emulator runs in the caller's thread and only while `run` is called: two runs that feed the
same bytes at the same emulated times are the same to the nanosecond. Times are emulated ones; the
core runs at 125 MHz, a cycle takes 8 ns. Not modelled: the second core, PIO (its start is an
error), waits for flash behind the XIP cache.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import operator
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidemark_host.boards.base import LOG_MAX, BoardError, Operation, Violation
from tidemark_host.boards.emulated_mends import mended
from tidemark_host.boards.nor import BEFORE, NorError, NorFlash, PowerCut
from tidemark_host.toolchain_rp2_emulator import load

CLOCK_HZ = 125_000_000
FLASH_SIZE = 0x200000  # bytes, a Pico's
SECTOR = 4096
PAGE = 256
# Written by a program under test to mark an instant; on the chip the register is read-only.
MARK_ADDRESS = 0x40000000
_SLICE = 1_000_000  # instructions between two looks at the host's signals
_PIO = (0x50200, 0x50300)  # addresses >> 12
_TIMER = 0x40054
_ROSC = 0x40060
_UNIQUE_ID = bytes.fromhex("e6605481db318c36")
_HAD_RUN = 1 << 16


@dataclass(frozen=True)
class Timing:
    """Emulated seconds that flash operations take, interrupts held off for all of it.

    Source: W25Q16JV data sheet, 9.6: sector erase 45 ms typical, 400 ms at most; page program
    0.4 ms typical, 3 ms at most.
    """

    erase_s: float = 0.045
    program_s: float = 0.0005


TYPICAL = Timing()


def with_runtime(image: bytes, runtime: Mapping[int, bytes]) -> bytes:
    """Return a whole flash: `image`, then blank; `runtime` (offset: content) where it is blank."""
    flash = bytearray(image.ljust(FLASH_SIZE, b"\xff"))
    end = max(offset + len(part) for offset, part in runtime.items())
    if bytes(flash[:end]) == b"\xff" * end:
        for offset, part in runtime.items():
            flash[offset : offset + len(part)] = part
    return bytes(flash)


class Chip:
    """The chip after power-on. `on_byte(uart, byte)` gets what the firmware sends.

    `on_mark(value)` is called at each write to MARK_ADDRESS, `on_reset(cause)` at each reset by
    the chip itself (`watchdog` or `reset`), `on_violation(violation)` when the flash refused.
    """

    def __init__(
        self,
        flash: Mapping[int, bytes],
        *,
        unique_id: bytes = _UNIQUE_ID,
        seed: bytes | int = 0,
        timing: Timing = TYPICAL,
        watchdog: bool = True,
        weak: bool = False,
    ) -> None:
        """Make a chip whose flash is blank but for `flash` (offset: content).

        `seed`: of the ring oscillator, the chip's source of randomness. `watchdog`: False for one
        that never bites. `weak`: as of `nor.NorFlash`.
        """
        self.on_byte: Callable[[int, int], None] | None = None
        self.on_mark: Callable[[int], None] | None = None
        self.on_reset: Callable[[str], None] | None = None
        self.on_violation: Callable[[Violation], None] | None = None
        self.resets = 0
        self.operations: deque[Operation] = deque(maxlen=LOG_MAX)
        self.interrupted: Operation | None = None
        self.variant = BEFORE  # of the cut that is planned
        self._timing = timing
        self._bites = watchdog
        self._mcu = self._make(unique_id, random.Random(seed))
        self.nor = NorFlash(self._mcu.flash[:FLASH_SIZE], SECTOR, PAGE, weak)
        for offset, content in flash.items():
            self.write_flash(offset, content)
        self._loop = _loop(self._mcu)
        self._stopped = False
        self._busy = False  # a flash operation is under way
        self._reset_due = False
        self._fault = ""
        self._cut: PowerCut | None = None
        self._input = [deque[int](), deque[int]()]
        self._feeds = [self._mcu.clock.create_alarm(self._feeder(uart)) for uart in (0, 1)]
        self._mcu.on_break = self._on_break
        self._mcu.leave_reset()

    @property
    def mcu(self) -> Any:
        """The emulator's own object, for what has no name here."""
        return self._mcu

    @property
    def nanoseconds(self) -> float:
        """Emulated time since power-on."""
        return float(self._mcu.clock.nanos)

    @property
    def cycles(self) -> int:
        """Cycles that the core has executed since its last reset; sleeping takes none."""
        return int(self._mcu.core.cycles)

    def lost(self, uart: int) -> int:
        """Return how many bytes a full receive FIFO has lost."""
        return int(self._mcu.uart[uart].lost)

    def byte_ns(self, uart: int) -> float:
        """Return how long a byte takes on the line."""
        return 10 * float(self._mcu.uart[uart].bit_ns)

    def waiting(self, uart: int) -> int:
        """Return how many bytes are still on their way to the firmware."""
        return len(self._input[uart])

    def read_flash(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of flash from `offset` on."""
        self._check(offset, size)
        return bytes(self._mcu.flash[offset : offset + size])

    def write_flash(self, offset: int, content: bytes) -> None:
        """Put `content` into the flash from outside, as a programmer would before power-on."""
        self._check(offset, len(content))
        self._mcu.flash[offset : offset + len(content)] = content

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > FLASH_SIZE:
            raise BoardError("bounds", f"{size} bytes at {offset:#x}: not in the flash")

    def send(self, data: bytes, uart: int = 0) -> None:
        """Send `data` to the firmware, each byte when it would have come over a real line."""
        idle = not self._input[uart]
        self._input[uart].extend(data)
        if idle and data:
            self._feeds[uart].schedule(10 * self._mcu.uart[uart].bit_ns)

    def run(self, seconds: float) -> bool:
        """Run until `stop` is called or `seconds` of emulated time are over; say if stopped.

        Raises BoardError `fault` when the firmware ends in a panic; PowerCut when a planned cut
        has come: the chip must not be run again then.
        """
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            self._loop.stopped = True

        deadline = self._mcu.clock.create_alarm(expire)
        deadline.schedule(seconds * 1e9)
        self._stopped = False
        try:
            while not (self._stopped or expired):
                self._loop.stopped = False
                while not self._loop.stopped:
                    self._loop.advance(_SLICE)
                if self._cut:
                    raise self._cut
                if self._reset_due:
                    self._reset_due = False
                    self._reset()
        finally:
            deadline.cancel()
        if self._fault:
            raise BoardError("fault", self._fault)
        return not expired

    def stop(self) -> None:
        """End `run` behind the instruction that is being executed; for the callbacks."""
        self._stopped = True
        self._loop.stopped = True

    def reset_pin(self) -> None:
        """Pull RUN low and release it. Source: RP2040 datasheet, 2.12 and 4.7.6: this clears the
        watchdog's reason and scratch registers, too."""
        mcu = self._mcu
        mcu.watchdog.disable()
        mcu.enter_reset()
        mcu.watchdog.reset()
        mcu.vreg_and_chip_reset.record_reset_cause(_HAD_RUN)
        mcu.leave_reset()

    # -- within the emulator ------------------------------------------------------------------

    def _make(self, unique_id: bytes, noise: random.Random) -> Any:
        mcu = load("rp2040").RP2040()
        mcu.load_bootrom(load("device.bootrom").BOOTROM_B1)
        logging = load("utils.logging")
        mcu.logger = logging.ConsoleLogger(logging.LogLevel.ERROR, True)
        # A hook at each call; the one it comes with is slower.
        mcu.core.bl_taken = operator.is_
        classes = mended()
        for number, uart in enumerate(mcu.uart):
            uart.__class__ = classes["Uart"]
            uart.fit(self._byte_to(number))
        mcu.watchdog.__class__ = classes["Watchdog"]
        mcu.watchdog.on_watchdog_trigger = self._watchdog
        mcu.ssi.__class__ = classes["Flash"]
        mcu.ssi.fit(unique_id, self._operate)
        for address in _PIO:
            mcu.peripherals[address] = classes["Pio"](mcu, mcu.peripherals[address])
        rosc = mcu.peripherals[_ROSC]
        rosc.__class__ = classes["Rosc"]
        rosc.fit(lambda: noise.getrandbits(1))
        system = mcu.peripherals[MARK_ADDRESS >> 12]
        system.__class__ = classes["System"]
        system.fit(self._mark)
        return mcu

    def _byte_to(self, uart: int) -> Callable[[int], None]:
        def emit(byte: int) -> None:
            if self.on_byte:
                self.on_byte(uart, byte)

        return emit

    def _mark(self, value: int) -> None:
        if self.on_mark:
            self.on_mark(value)

    def _feeder(self, uart: int) -> Callable[[], None]:
        def feed() -> None:
            pending = self._input[uart]
            line = self._mcu.uart[uart]
            if pending:
                line.feed_byte(pending.popleft())
            if pending:
                self._feeds[uart].schedule(10 * line.bit_ns)

        return feed

    def _watchdog(self) -> None:
        forced = bool(self._mcu.watchdog.read_uint32(8) & 2)
        if not forced and not self._bites:
            return
        if self._busy:
            # The chip's flash ends what it has begun, and the emulator can't be reset within it.
            self._reset_due = True
            self._loop.stopped = True
            return
        self._reset()

    def _reset(self) -> None:
        mcu = self._mcu
        # The chip's reset ends the count-down too, or it would reset the boot that follows.
        mcu.watchdog.disable()
        mcu.enter_reset(from_watchdog=True)
        mcu.leave_reset()
        self.resets += 1
        if self.on_reset:
            self.on_reset("reset" if mcu.watchdog.read_uint32(8) & 2 else "watchdog")

    def _operate(self, address: int, data: bytes | None, size: int) -> None:
        """Do what the flash chip has been told. Time passes with all interrupts held off."""
        now = time.monotonic()
        kind = "erase" if data is None else "program"
        operation = Operation(now, kind, address, size)
        try:
            if data is None:
                for start in range(address, address + size, SECTOR):
                    self.nor.erase(start)
            elif self._mcu.ssi.from_flash:
                raise NorError("source", "the data of a program lies in flash")
            else:
                self.nor.program(address, data)
        except NorError as error:
            if self.on_violation:
                self.on_violation(Violation(now, kind, address, size, error.code))
            return
        except PowerCut as cut:
            self._cut = cut
            self.interrupted = operation
            self._loop.stopped = True
            if self.variant == BEFORE:
                return
        self.operations.append(operation)
        if not self._cut:
            self._busy = True
            seconds = self._timing.erase_s if data is None else self._timing.program_s
            self._mcu.clock.tick(seconds * 1e9)
            self._busy = False

    def _on_break(self, code: int) -> None:
        # A breakpoint without a debugger: MicroPython's and pico-sdk's way to panic.
        self._fault = f"breakpoint {code} at {int(self._mcu.core.pc):#x}"
        self.stop()


def _loop(mcu: Any) -> Any:
    """Return the compiled loop where there is one, else the emulator's own."""
    try:
        native = load("native._tidemark_loop")
    except ImportError:
        return _Loop(mcu)
    mcu.sio = native.Sio(mcu)
    mcu.peripherals[_TIMER] = native.Timer(mcu)
    return native.Loop(mcu)


class _Loop:
    """What the emulator's loop reads; without the threads of its own Simulator."""

    def __init__(self, mcu: Any) -> None:
        self.rp2040 = mcu
        self.clock = mcu.clock
        self.stopped = False
        self._execute: Callable[[_Loop, int], None] = load("execute_batch").execute_batch

    def advance(self, _count: int) -> None:
        """Execute what the emulator takes for a batch, or until `stopped`."""
        self._execute(self, 1)
