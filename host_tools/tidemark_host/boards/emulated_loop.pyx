# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The emulator's inner loop without its threads, its host clock and its PIO; see emulated_chip.py.

Compiled next to rp2040py by toolchain_rp2_emulator.py, into whose objects it reaches directly.
"""

from rp2040py.native._cortex_m0_core cimport CortexM0Core
from rp2040py.native._rp2040 cimport RP2040
from rp2040py.native._simulation_clock cimport ClockAlarm, SimulationClock

cdef double CYCLE_NS = 8.0


cdef class Loop:
    """Executes instructions, and advances the clock by what each of them takes."""

    cdef public bint stopped
    cdef RP2040 mcu

    def __init__(self, RP2040 mcu):
        self.mcu = mcu
        self.stopped = False

    cpdef advance(self, long count):
        """Execute up to `count` instructions or jumps to the next alarm, until `stopped`."""
        cdef CortexM0Core core = self.mcu.core
        cdef SimulationClock clock = self.mcu.clock
        cdef ClockAlarm alarm
        cdef double target
        while count > 0 and not self.stopped:
            count -= 1
            alarm = clock._next_alarm
            if core.waiting:
                if alarm is not None:
                    clock.tick(alarm.nanos - clock._nanos_counter)
                continue
            target = CYCLE_NS * core.execute_instruction()
            alarm = clock._next_alarm
            if alarm is not None and alarm.nanos <= clock._nanos_counter + target:
                clock.tick(target)
            else:
                clock._nanos_counter += target


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

    def read_uint32(self, unsigned int offset):
        """Read a register."""
        cdef unsigned int bit
        if offset == 0x70:
            self.csr &= 1
            return self.quotient
        if offset == 0x74:
            return self.remainder
        if offset == 0x78:
            return self.csr
        if offset == 0x60 or offset == 0x68:
            return self.dividend
        if offset == 0x64 or offset == 0x6C:
            return self.divisor
        if 0x100 <= offset < 0x180:
            bit = 1U << ((offset - 0x100) >> 2)
            if self.locks & bit:
                return 0
            self.locks |= bit
            return bit
        if offset == 0x5C:
            return self.locks
        if offset == 0:
            return 0
        return self.rest.read_uint32(offset)

    def write_uint32(self, unsigned int offset, long long value):
        """Write a register."""
        if 0x60 <= offset <= 0x6C:
            if offset & 4:
                self.divisor = <unsigned int>value
            else:
                self.dividend = <unsigned int>value
            self._divide(offset & 8)
        elif offset == 0x70:
            self.quotient = <unsigned int>value
            self.csr = 3
        elif offset == 0x74:
            self.remainder = <unsigned int>value
            self.csr = 3
        elif 0x100 <= offset < 0x180:
            self.locks &= ~(1U << ((offset - 0x100) >> 2))
        else:
            self.rest.write_uint32(offset, value)

    cdef _divide(self, bint signed):
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


cdef class Timer:
    """The emulator's timer with the reading of its counter in C."""

    cdef SimulationClock clock
    cdef object rest

    def __init__(self, RP2040 mcu):
        self.clock = mcu.clock
        self.rest = mcu.timer

    def __getattr__(self, name):
        return getattr(self.rest, name)

    def read_uint32(self, unsigned int offset):
        """Read a register."""
        cdef unsigned long long micros
        if offset == 0x28 or offset == 0x24:
            micros = <unsigned long long>((self.clock._nanos_counter - <double>self.rest._epoch_nanos) / 1000)
            return <unsigned int>(micros if offset == 0x28 else micros >> 32)
        return self.rest.read_uint32(offset)

    def write_uint32_atomic(self, offset, value, atomic_type):
        """Write a register."""
        self.rest.write_uint32_atomic(offset, value, atomic_type)
