# `time` whose ticks begin with the chip and wrap at 2^30 ms as on a 32-bit port
# (MICROPY_PY_TIME_TICKS_PERIOD; ports/esp32/mphalport.c: mp_hal_ticks_ms is esp_timer's).

import time as _clock  # `time` will be its function
from time import *  # noqa: F403

import esp32_chip

_MASK = (1 << 30) - 1
_HALF = 1 << 29


def ticks_ms():
    """ms since the hard reset, 0 to 2^30 - 1."""
    return _clock.ticks_diff(_clock.ticks_ms(), esp32_chip.state["zero"]) & _MASK


def leap(ms):
    """Let that much time have passed in no time: for tests of what takes hours."""
    zero = esp32_chip.state["zero"]
    esp32_chip.state["zero"] = _clock.ticks_add(zero, -ms)


def ticks_diff(end, start):
    """As MicroPython's, -2^29 to 2^29 - 1."""
    return ((end - start + _HALF) & _MASK) - _HALF


def ticks_add(ticks, delta):
    """As MicroPython's."""
    return (ticks + delta) & _MASK
