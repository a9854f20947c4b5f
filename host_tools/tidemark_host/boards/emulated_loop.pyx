# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The emulator's inner loop without its threads, its host clock and its PIO; see emulated_chip.py.

Most instructions are executed here (emulated_thumb.pxi), the others by the emulator's core.
Compiled next to rp2040py by toolchain_rp2_emulator.py, into whose objects it reaches directly.
"""

import sys

cimport cython
from libc.string cimport memcpy

from rp2040py.native._cortex_m0_core cimport CortexM0Core
from rp2040py.native._rp2040 cimport RP2040
from rp2040py.native._simulation_clock cimport ClockAlarm, SimulationClock

cdef double CYCLE_NS = 8.0
cdef unsigned int FLASH = 0x10000000
cdef unsigned int RAM = 0x20000000
cdef unsigned int SIO = 0xD0000000U
cdef unsigned int TIMER = 0x40054000
cdef unsigned int UART0_FLAGS = 0x40034018
cdef unsigned int UART1_FLAGS = 0x40038018
if sys.byteorder != "little":
    raise ImportError("memories are read in the host's order of bytes")

include "emulated_thumb.pxi"


@cython.final
cdef class Bus:
    """The registers that are read and written most often, without Python in between."""

    cdef Sio sio
    cdef Timer timer
    cdef list uarts

    def __init__(self, mcu):
        # Whoever put other objects there has theirs asked.
        self.sio = mcu.sio if isinstance(mcu.sio, Sio) else None
        timer = mcu.peripherals.get(TIMER >> 12)
        self.timer = timer if isinstance(timer, Timer) else None
        self.uarts = list(mcu.uart)

    cdef inline int read(self, unsigned int address, unsigned int* target) except -1:
        """Read a register, aligned; return the instruction's cycles, 0: left to the core."""
        if address - SIO < 0x200 and self.sio is not None:
            return 1 if self.sio.look(address - SIO, target) else 0
        if address - TIMER < 0x30 and self.timer is not None:
            return 4 if self.timer.look(address - TIMER, target) else 0
        if address == UART0_FLAGS or address == UART1_FLAGS:
            return self.flags(address == UART1_FLAGS, target)
        return 0

    cdef int flags(self, bint second, unsigned int* target) except -1:
        """Read UARTFR, which firmware polls until there is room, as emulated_mends.py keeps it."""
        cdef long long held = getattr(self.uarts[second], "_flags", -1)
        if held < 0:
            return 0
        target[0] = <unsigned int>held
        return 4

    cdef inline int write(self, unsigned int address, unsigned int value) except -1:
        if address - SIO < 0x200 and self.sio is not None:
            return 1 if self.sio.put(address - SIO, value) else 0
        return 0


@cython.final
cdef class Loop:
    """Executes instructions, and advances the clock by what each of them takes."""

    cdef public bint stopped
    cdef public bint plain  # all instructions are left to the emulator's core
    cdef public long long left  # how many were
    cdef RP2040 mcu
    cdef Memory memory
    cdef Bus bus

    def __init__(self, RP2040 mcu):
        self.mcu = mcu
        self.memory = Memory(mcu)
        self.bus = Bus(mcu)
        self.stopped = self.plain = False
        self.left = 0

    cpdef advance(self, long count):
        """Execute up to `count` instructions or jumps to the next alarm, until `stopped`."""
        cdef CortexM0Core core = self.mcu.core
        cdef SimulationClock clock = self.mcu.clock
        cdef Memory memory = self.memory
        cdef Bus bus = self.bus
        cdef unsigned int* registers = &core.registers[0]
        cdef bint quick = not self.plain
        cdef int took
        cdef double target
        while count > 0 and not self.stopped:
            count -= 1
            if core.waiting:
                if clock._next_alarm is not None:
                    clock.tick(clock._next_alarm.nanos - clock._nanos_counter)
                continue
            took = 0
            if quick and not core.interrupts_updated:
                took = execute(core, memory, bus, registers)
            if took:
                core.cycles += took
            else:
                took = core.execute_instruction()
                self.left += 1
            target = CYCLE_NS * took
            if clock._next_alarm is not None and clock._next_alarm.nanos <= clock._nanos_counter + target:
                clock.tick(target)
            else:
                clock._nanos_counter += target


@cython.final
cdef class Sio:
    """The emulator's SIO with its busiest registers, divider and spinlocks, in C.

    All 64-bit divisions of the firmware go through them, those for the time of day among them.
    """

    cdef CortexM0Core core
    cdef object rest
    cdef unsigned int dividend, divisor, quotient, remainder, csr, locks

    def __init__(self, RP2040 mcu):
        self.core = mcu.core
        self.rest = mcu.sio
        self._clear()

    cdef _clear(self):
        self.dividend = self.quotient = self.remainder = self.csr = self.locks = 0
        self.divisor = 1

    def __getattr__(self, name):
        return getattr(self.rest, name)

    def reset(self):
        """Back to power-on."""
        self._clear()
        self.rest.reset()

    cdef bint look(self, unsigned int offset, unsigned int* value) noexcept:
        """Read a register; return False when it is not one of those that are kept here."""
        cdef unsigned int bit
        if offset == 0x70:
            self.csr &= 1
            value[0] = self.quotient
        elif offset == 0x74:
            value[0] = self.remainder
        elif offset == 0x78:
            value[0] = self.csr
        elif offset == 0x60 or offset == 0x68:
            value[0] = self.dividend
        elif offset == 0x64 or offset == 0x6C:
            value[0] = self.divisor
        elif 0x100 <= offset < 0x180:
            bit = 1U << ((offset - 0x100) >> 2)
            value[0] = 0 if self.locks & bit else bit
            self.locks |= bit
        elif offset == 0x5C:
            value[0] = self.locks
        elif offset == 0:
            value[0] = 0
        else:
            return False
        return True

    cdef bint put(self, unsigned int offset, unsigned int value) noexcept:
        """Write a register; as `look`."""
        if 0x60 <= offset <= 0x6C:
            if offset & 4:
                self.divisor = value
            else:
                self.dividend = value
            self._divide(offset & 8)
        elif offset == 0x70:
            self.quotient = value
            self.csr = 3
        elif offset == 0x74:
            self.remainder = value
            self.csr = 3
        elif 0x100 <= offset < 0x180:
            self.locks &= ~(1U << ((offset - 0x100) >> 2))
        else:
            return False
        return True

    def read_uint32(self, unsigned int offset):
        """Read a register."""
        cdef unsigned int value
        return value if self.look(offset, &value) else self.rest.read_uint32(offset)

    def write_uint32(self, unsigned int offset, long long value):
        """Write a register."""
        if not self.put(offset, <unsigned int>value):
            self.rest.write_uint32(offset, value)

    cdef void _divide(self, bint signed) noexcept:
        cdef long long dividend, divisor
        if not self.divisor:
            self.quotient = 0xFFFFFFFFU if self.dividend else 1
            self.remainder = self.dividend
        elif signed:
            dividend, divisor = <int>self.dividend, <int>self.divisor
            self.quotient = <unsigned int>(dividend / divisor)
            self.remainder = <unsigned int>(dividend % divisor)
        else:
            self.quotient = self.dividend / self.divisor
            self.remainder = self.dividend % self.divisor
        self.csr = 3
        self.core.cycles += 8


@cython.final
cdef class Timer:
    """The emulator's timer with the reading of its counter in C."""

    cdef SimulationClock clock
    cdef object rest

    def __init__(self, RP2040 mcu):
        self.clock = mcu.clock
        self.rest = mcu.timer

    def __getattr__(self, name):
        return getattr(self.rest, name)

    cdef bint look(self, unsigned int offset, unsigned int* value) except -1:
        """Read the counter; return False for another register."""
        cdef unsigned long long micros
        if offset != 0x28 and offset != 0x24:
            return False
        micros = <unsigned long long>((self.clock._nanos_counter - <double>self.rest._epoch_nanos) / 1000)
        value[0] = <unsigned int>(micros if offset == 0x28 else micros >> 32)
        return True

    def read_uint32(self, unsigned int offset):
        """Read a register."""
        cdef unsigned int value
        return value if self.look(offset, &value) else self.rest.read_uint32(offset)

    def write_uint32_atomic(self, offset, value, atomic_type):
        """Write a register."""
        self.rest.write_uint32_atomic(offset, value, atomic_type)
