# What MicroPython and CPython name differently, in one place.
# Every other module of the base is the same file on both and imports these names from here.

import time

try:
    from micropython import const
except ImportError:

    def const(value):
        """Return `value`: the stand-in for MicroPython's compile-time constant."""
        return value


try:
    ticks_ms = time.ticks_ms
    ticks_diff = time.ticks_diff
    ticks_add = time.ticks_add
    sleep_ms = time.sleep_ms
except AttributeError:
    # CPython: the wrap of a 32-bit port, so that code which compares ticks with `<` fails in tests.
    _PERIOD = 1 << 30
    _HALF = 1 << 29

    def ticks_ms():
        """Return milliseconds of a monotonic clock, wrapping at 2^30."""
        return (time.monotonic_ns() // 1000000) & (_PERIOD - 1)

    def ticks_diff(end, start):
        """Return `end - start` in ms across a wrap, in -2^29 to 2^29 - 1."""
        return ((end - start + _HALF) & (_PERIOD - 1)) - _HALF

    def ticks_add(ticks, delta):
        """Return the tick value `delta` ms (may be negative) after `ticks`."""
        return (ticks + delta) & (_PERIOD - 1)

    def sleep_ms(ms):
        """Sleep for `ms` milliseconds."""
        time.sleep(ms / 1000)
