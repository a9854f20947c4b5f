"""What rp2040py lacks or has wrong for a board that runs this firmware, mended from outside.

Each class stands in for one of rp2040py's: `fit` is called once, where the emulator's own object
has taken the class. tests/boards/test_emulated_mends.py shows each defect in the emulator as it
comes, and is skipped where upstream has mended it.
"""

# rp2040py is loaded by name from one of two builds; its objects have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache as remember
from typing import Any

from tidemark_host.boards.base import BoardError
from tidemark_host.toolchain_rp2_emulator import load

PERIPHERAL_HZ = 48_000_000  # MicroPython feeds the uarts from the USB clock
XIP_BASE = 0x10000000
_XIP_END = 0x14000000
_PROGRAM, _ERASE_SECTOR, _ERASE_BLOCK, _READ_UNIQUE_ID = 0x02, 0x20, 0xD8, 0x4B
_ERASES = {_ERASE_SECTOR: 4096, _ERASE_BLOCK: 65536}
_WATCHED = 40  # a byte of a program's data, behind which the source's pointer is looked for
_FIFO = 32
_IFLS = 0x34
_TXFF, _BUSY = 1 << 5, 1 << 3
_RTINTR = 1 << 6
_LEVELS = (4, 8, 16, 24, 28)  # of a FIFO, by the fields of UARTIFLS
_TIMEOUT_BITS = 32
_RANDOMBIT = 0x1C


@remember
def mended() -> dict[str, Any]:
    """Return classes that stand in for rp2040py's; made late, since the import takes a while."""
    uart = load("peripherals.uart")
    watchdog = load("peripherals.watchdog")
    ssi = load("peripherals.ssi")
    system = load("peripherals.sysinfo")
    peripheral = load("peripherals.peripheral")

    class Uart(uart.RPUART):
        """Both FIFOs with their levels, and the time that a byte takes on the line.

        rp2040py sends in no time, never fills up, raises the receive interrupt at each byte, and
        raises the transmit interrupt again in the write that clears it: a handler never returns.
        Source: PL011 manual (DDI 0183), 2.8 and 3.3.
        """

        def fit(self, emit: Callable[[int], None]) -> None:
            """`emit(byte)` gets each byte when its stop bit has been sent."""
            self.lost = 0  # bytes that came when the FIFO was full
            self._emit = emit
            self._sending = self.rp2040.clock.create_alarm(self._sent)
            self._silence = self.rp2040.clock.create_alarm(self._timed_out)
            self._clear()

        def _clear(self) -> None:
            self._tx: deque[int] = deque()
            self._shifting: int | None = None
            self._levels = 0x12
            self._flags = -1  # of UARTFR; -1: not as they were

        def reset(self) -> None:
            super().reset()
            self._sending.cancel()
            self._silence.cancel()
            self._clear()

        @property
        def bit_ns(self) -> float:
            """How long a bit takes."""
            return (self.baud_divider or 1.0) * 16 * 1e9 / PERIPHERAL_HZ

        @property
        def depth(self) -> int:
            """Bytes that each FIFO holds."""
            return _FIFO if self.fifos_enabled else 1

        @property
        def flags(self) -> int:
            held = self.rx_fifo.item_count
            bits = uart.RXFE if not held else 0
            bits |= uart.RXFF if held >= self.depth else 0
            bits |= uart.TXFE if not self._tx else 0
            bits |= _TXFF if len(self._tx) >= self.depth else 0
            return bits | (_BUSY if self._shifting is not None else 0)

        def check_interrupts(self) -> None:
            pending = self._interrupt_status & self._interrupt_mask
            self.rp2040.set_interrupt(self.irq, bool(pending))

        def feed_byte(self, value: int) -> None:
            held = self.rx_fifo.item_count
            if held >= self.depth:
                self.lost += 1
                return
            self.rx_fifo.push(value)
            self._flags = -1
            self._silence.schedule(_TIMEOUT_BITS * self.bit_ns)
            if held + 1 >= self._rx_level():
                self._interrupt_status |= uart.UARTRXINTR
            self.check_interrupts()

        def _rx_level(self) -> int:
            return _LEVELS[min(self._levels >> 3 & 7, 4)] if self.fifos_enabled else 1

        def _tx_level(self) -> int:
            return _LEVELS[min(self._levels & 7, 4)] if self.fifos_enabled else 0

        def _timed_out(self) -> None:
            if not self.rx_fifo.empty:
                self._interrupt_status |= _RTINTR
                self.check_interrupts()

        def _sent(self) -> None:
            byte, self._shifting = self._shifting, None
            self._flags = -1
            if self._tx:
                self._shift()
            if byte is not None:
                self._emit(byte)

        def _shift(self) -> None:
            self._shifting = self._tx.popleft()
            self._sending.schedule(10 * self.bit_ns)
            if len(self._tx) == self._tx_level():
                self._interrupt_status |= uart.UARTTXINTR
                self.check_interrupts()

        def read_uint32(self, offset: int) -> int:
            if offset == uart.UARTDR:
                self._flags = -1
                value = self.rx_fifo.pull()
                if self.rx_fifo.item_count < self._rx_level():
                    self._interrupt_status &= ~uart.UARTRXINTR
                self._interrupt_status &= ~_RTINTR
                if not self.rx_fifo.empty:
                    self._silence.schedule(_TIMEOUT_BITS * self.bit_ns)
                self.check_interrupts()
                return int(value)
            if offset == _IFLS:
                return self._levels
            if offset == uart.UARTFR:
                # The register that is read most often.
                if self._flags < 0:
                    self._flags = self.flags
                return self._flags
            return int(super().read_uint32(offset))

        def write_uint32(self, offset: int, value: int) -> None:
            self._flags = -1
            if offset == uart.UARTDR:
                if len(self._tx) < self.depth:
                    self._tx.append(value & 0xFF)
                if self._shifting is None:
                    self._shift()
            elif offset == _IFLS:
                self._levels = value & 0x3F
            elif offset == uart.UARTICR:
                self._interrupt_status &= ~self.raw_write_value
                if not self.rx_fifo.empty and self.raw_write_value & _RTINTR:
                    self._silence.schedule(_TIMEOUT_BITS * self.bit_ns)
                self.check_interrupts()
            else:
                super().write_uint32(offset, value)

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
        """A chip with an id of its own (0x4B, as a W25Q has it), whose operations take time.

        rp2040py answers 0x4B with ff, writes at once, and takes a program whose data is read from
        the very flash that is being written, which no chip can.
        """

        def fit(self, unique_id: bytes, operate: Callable[[int, bytes | None, int], None]) -> None:
            """`operate(address, data, size)` does a program, or an erase (`data` None)."""
            self._unique_id = unique_id
            self._operate = operate
            self._before: list[int] = []
            self.from_flash = False  # the last program's data lay in flash

        def _shift_byte(self, byte_out: int) -> int:
            answer = int(super()._shift_byte(byte_out))
            count = len(self._tx_buffer)
            if self._tx_buffer[0] == _READ_UNIQUE_ID and count > 5:
                return self._unique_id[(count - 6) % len(self._unique_id)]
            if self._tx_buffer[0] == _PROGRAM and _WATCHED <= count <= _WATCHED + 1:
                self._watch(count == _WATCHED)
            return answer

        def _watch(self, first: bool) -> None:
            """Tell where the boot ROM's loop reads from: its pointer goes up by one a byte."""
            registers = [int(value) for value in self.rp2040.core.registers[:8]]
            if first:
                self._before = registers
                return
            self.from_flash = any(
                now == before + 1 and XIP_BASE <= now < _XIP_END
                for before, now in zip(self._before, registers, strict=True)
            )

        def _apply_command(self) -> None:
            command = bytes(self._tx_buffer)
            opcode = command[0] if command else 0
            if opcode in _ERASES and len(command) >= 4 and self._write_enabled:
                size = _ERASES[opcode]
                address = int.from_bytes(command[1:4], "big") & ~(size - 1)
                self._close()
                self._operate(address, None, size)
            elif opcode == _PROGRAM and len(command) > 4 and self._write_enabled:
                self._close()
                address = int.from_bytes(command[1:4], "big")
                self._operate(address, command[4:], len(command) - 4)
            else:
                super()._apply_command()

        def _close(self) -> None:
            self._write_enabled = False
            self._tx_buffer = bytearray()

    class Rosc(peripheral.UnimplementedPeripheral):
        """A ring oscillator whose bit is random. rp2040py's is always 1."""

        def fit(self, bit: Callable[[], int]) -> None:
            self._bit = bit

        def read_uint32(self, offset: int) -> int:
            return self._bit() if offset == _RANDOMBIT else int(super().read_uint32(offset))

    class System(system.RP2040SysInfo):
        """Its first register is read-only: a write does nothing on the chip, and marks here."""

        def fit(self, mark: Callable[[int], None]) -> None:
            self._mark = mark

        def write_uint32(self, offset: int, value: int) -> None:
            if offset == 0:
                self._mark(value & 0xFFFFFFFF)

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

    return {
        "Uart": Uart,
        "Watchdog": Watchdog,
        "Flash": Flash,
        "Rosc": Rosc,
        "System": System,
        "Pio": Pio,
    }
