"""One emulated RP2040 with its flash, built on rp2040py, whose defects are mended here.

The emulator runs in the caller's thread and only while `run` is called: two runs that feed the
same bytes at the same emulated times are the same to the nanosecond. Times are emulated ones; the
core runs at 125 MHz, a cycle takes 8 ns. Not modelled: the second core, PIO (its start is an
error), waits for flash behind the XIP cache, the duration of flash operations.
"""

# rp2040py is loaded by name from one of two builds; its objects have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable
from functools import cache as remember
from typing import Any

from tidemark_host.boards.base import BoardError
from tidemark_host.toolchain_rp2_emulator import load

CLOCK_HZ = 125_000_000
FLASH_SIZE = 0x200000  # bytes, a Pico's
# Written by a program under test to mark an instant; on the chip the register is read-only.
MARK_ADDRESS = 0x40000000
_BAUD = 115_200
_BYTE_NS = 10 * 1_000_000_000 // _BAUD  # start, 8 bits, stop
_SLICE = 1_000_000  # instructions between two looks at the host's signals
_PIO = (0x50200, 0x50300)  # addresses >> 12
_UNIQUE_ID = bytes.fromhex("e6605481db318c36")


class Chip:
    """The chip after power-on. `on_byte(uart, byte)` gets what the firmware sends.

    `on_mark(value)` is called at each write to MARK_ADDRESS.
    """

    def __init__(self, flash: dict[int, bytes]) -> None:
        """Make a chip whose flash is blank but for `flash` (offset: content)."""
        self.on_byte: Callable[[int, int], None] | None = None
        self.on_mark: Callable[[int], None] | None = None
        self.resets = 0
        self._mcu = _mcu(self)
        for offset, content in flash.items():
            self.write_flash(offset, content)
        self._loop = _loop(self._mcu)
        self._fault = ""
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
            self._feeds[uart].schedule(_BYTE_NS)

    def run(self, seconds: float) -> bool:
        """Run until `stop` is called or `seconds` of emulated time are over; say if stopped.

        Raises BoardError `fault` when the firmware ends in a panic.
        """
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            self._loop.stopped = True

        deadline = self._mcu.clock.create_alarm(expire)
        deadline.schedule(seconds * 1e9)
        self._loop.stopped = False
        try:
            while not self._loop.stopped:
                self._loop.advance(_SLICE)
        finally:
            deadline.cancel()
        if self._fault:
            raise BoardError("fault", self._fault)
        return not expired

    def stop(self) -> None:
        """End `run` behind the instruction that is being executed; for the callbacks."""
        self._loop.stopped = True

    def _feeder(self, uart: int) -> Callable[[], None]:
        def feed() -> None:
            pending = self._input[uart]
            if pending:
                self._mcu.uart[uart].feed_byte(pending.popleft())
            if pending:
                self._feeds[uart].schedule(_BYTE_NS)

        return feed

    def _on_break(self, code: int) -> None:
        # A breakpoint without a debugger: MicroPython's and pico-sdk's way to panic.
        self._fault = f"breakpoint {code} at {int(self._mcu.core.pc):#x}"
        self._loop.stopped = True


def _loop(mcu: Any) -> Any:
    """Return the compiled loop where there is one, else the emulator's own."""
    try:
        return load("native._tidemark_loop").Loop(mcu)
    except ImportError:
        return _Loop(mcu)


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


def _mcu(chip: Chip) -> Any:
    mcu = load("rp2040").RP2040()
    mcu.load_bootrom(load("device.bootrom").BOOTROM_B1)
    logging = load("utils.logging")
    mcu.logger = logging.ConsoleLogger(logging.LogLevel.ERROR, True)
    # A hook at each call; the one it comes with is slower.
    mcu.core.bl_taken = operator.is_
    mended = _mended()
    for number, uart in enumerate(mcu.uart):
        uart.__class__ = mended["Uart"]
        uart.on_byte = _byte_to(chip, number)
    mcu.watchdog.__class__ = mended["Watchdog"]
    mcu.watchdog.on_watchdog_trigger = lambda: _watchdog_reset(chip, mcu)
    mcu.ssi.__class__ = mended["Flash"]
    for address in _PIO:
        mcu.peripherals[address] = mended["Pio"](mcu, mcu.peripherals[address])
    system = mcu.peripherals[MARK_ADDRESS >> 12]
    system.__class__ = mended["System"]
    system.on_mark = _mark_to(chip)
    return mcu


def _byte_to(chip: Chip, uart: int) -> Callable[[int], None]:
    def on_byte(byte: int) -> None:
        if chip.on_byte:
            chip.on_byte(uart, byte)

    return on_byte


def _mark_to(chip: Chip) -> Callable[[int], None]:
    def on_mark(value: int) -> None:
        if chip.on_mark:
            chip.on_mark(value)

    return on_mark


def _watchdog_reset(chip: Chip, mcu: Any) -> None:
    # The chip's reset ends the count-down too, or it would reset the boot that follows.
    mcu.watchdog.disable()
    mcu.enter_reset(from_watchdog=True)
    mcu.leave_reset()
    chip.resets += 1


@remember
def _mended() -> dict[str, type]:
    """Return classes that stand in for rp2040py's; made late, since the import takes a while."""
    uart = load("peripherals.uart")
    watchdog = load("peripherals.watchdog")
    ssi = load("peripherals.ssi")
    system = load("peripherals.sysinfo")
    peripheral = load("peripherals.peripheral")

    class Uart(uart.RPUART):
        """The transmit interrupt comes with the end of a byte, not with each look at it.

        rp2040py raises it again in the write that clears it, and a handler never returns. Source:
        PL011 manual, 2.8.2: the interrupt is cleared by a write to UARTICR.
        """

        def check_interrupts(self) -> None:
            pending = self._interrupt_status & self._interrupt_mask
            self.rp2040.set_interrupt(self.irq, bool(pending))

        def write_uint32(self, offset: int, value: int) -> None:
            super().write_uint32(offset, value)
            if offset == uart.UARTDR:
                self._interrupt_status |= uart.UARTTXINTR
                self.check_interrupts()

    class Watchdog(watchdog.RPWatchdog):
        """A trigger by hand resets; what else the same write says is lost in the reset."""

        def disable(self) -> None:
            self._enable = False
            self.timer.enable = False
            self.alarm.enable = False

        def write_uint32(self, offset: int, value: int) -> None:
            if offset == watchdog.CTRL and value & watchdog.TRIGGER:
                self._reason = watchdog.FORCE
                self.on_watchdog_trigger()
                return
            super().write_uint32(offset, value)

    class Flash(ssi.RPSSI):
        """Answers "read unique id" (0x4B, four dummy bytes, eight bytes), as a W25Q does."""

        def _shift_byte(self, byte_out: int) -> int:
            answer = super()._shift_byte(byte_out)
            at = len(self._tx_buffer) - 6
            if self._tx_buffer[0] == 0x4B and at >= -1:
                return _UNIQUE_ID[(at + 1) % len(_UNIQUE_ID)]
            return answer

    class System(system.RP2040SysInfo):
        """Its first register is read-only: a write does nothing on the chip, and marks here."""

        def write_uint32(self, offset: int, value: int) -> None:
            if offset == 0:
                self.on_mark(value & 0xFFFFFFFF)

    class Pio(peripheral.BasePeripheral):
        """A PIO whose state machines can be set up, not started: nothing here runs them."""

        def __init__(self, mcu: Any, pio: Any) -> None:
            super().__init__(mcu, "PIO")
            self._pio = pio

        def read_uint32(self, offset: int) -> int:
            return int(self._pio.read_uint32(offset))

        def write_uint32_atomic(self, offset: int, value: int, atomic_type: int) -> None:
            starts = (peripheral.ATOMIC_NORMAL, peripheral.ATOMIC_SET)
            if offset == 0 and value & 0xF and atomic_type in starts:
                raise BoardError("pio", "PIO state machines do not run in the emulator")
            self._pio.write_uint32_atomic(offset, value, atomic_type)

    return {"Pio": Pio, "Uart": Uart, "Watchdog": Watchdog, "Flash": Flash, "System": System}
