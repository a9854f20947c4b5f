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
