# `machine` as far as the firmware's port uses it, by the esp32 port of MicroPython 1.25
# (ports/esp32/modmachine.c, machine_wdt.c, machine_timer.c, machine_rtc.c).

import esp32_chip
import unix_chip

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

# mp_machine_reset_cause: ESP_RST_POWERON and ESP_RST_BROWNOUT are one number.
_CAUSES = {
    "power-on": PWRON_RESET,
    "brownout": PWRON_RESET,
    "reset": HARD_RESET,
    "watchdog": WDT_RESET,
    "deep-sleep": DEEPSLEEP_RESET,
    "soft": SOFT_RESET,
}

_ARM = 4
_RESET_STATE = 0x3FF48034  # RTC_CNTL_RESET_STATE_REG of the ESP32
_WDTCONFIG0 = 0x3FF4808C  # of the RTC watchdog
_WDTWPROTECT = 0x3FF480A4
_WDT_WKEY = 0x50D83AA1
_WDT_EN = 0x80000000
_WDT_REST = 0x40004880  # first stage resets the chip; lengths of resets; no counting in sleep
_STAT_VECTOR_SEL = 0x3000  # what else reads 1 there after a reset
_TIMERS = 4  # SOC_TIMER_GROUP_TOTAL_TIMERS
_USER_MEMORY = 2048  # MICROPY_HW_RTC_USER_MEM_MAX


def reset_cause():
    """As mp_machine_reset_cause."""
    return _CAUSES.get(esp32_chip.state["cause"], 0)


def reset():
    """esp_restart: all but RTC memory begins anew."""
    unix_chip.reset()


def deepsleep(ms=None):
    """Sleep, then start as after a reset; the time is not waited for here."""
    unix_chip.leave(esp32_chip.DEEP_SLEEP)


def unique_id():
    """The 6 bytes of esp_efuse_mac_get_default."""
    return esp32_chip.state["uid"][:6]


class _Registers:
    """Those that the port knows; any other is a mistake."""

    def __init__(self):
        self._open = False
        self._config = _WDT_EN | _WDT_REST

    def __getitem__(self, address):
        if address == _RESET_STATE:
            reason = esp32_chip.state["reason"]
            return _STAT_VECTOR_SEL | reason << 6 | reason  # of both processors
        if address == _WDTCONFIG0:
            return self._config
        raise ValueError("no such register here")

    def __setitem__(self, address, word):
        if address == _WDTWPROTECT:
            self._open = word == _WDT_WKEY
        elif address != _WDTCONFIG0:
            raise ValueError("no such register here")
        elif self._open:
            self._config = word & 0xFFFFFFFF
            if not word & _WDT_EN:
                unix_chip.ask(esp32_chip.END_BOOT)


mem32 = _Registers()


class WDT:
    """The task watchdog. Once made it can't be stopped; a second one sets another time-out."""

    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError()
        if timeout <= 0:
            raise ValueError("WDT timeout too short")
        unix_chip.ask(_ARM, timeout)

    def feed(self):
        unix_chip.feed()


class Timer:
    """One of the chip's four. A number that is used again is the same timer."""

    ONE_SHOT = 0
    PERIODIC = 1
    _running = {}

    def __init__(self, number, mode=PERIODIC, period=-1, callback=None):
        if not 0 <= number < _TIMERS:
            raise ValueError("invalid Timer number")
        self._number = number
        if mode != self.PERIODIC:
            raise ValueError("not here")
        self.deinit()
        running = unix_chip.start_timer(period, lambda _: callback(self))
        self._running[number] = running

    def deinit(self):
        unix_chip.stop_timer(self._running.pop(self._number, None))


class RTC:
    """`memory` alone: 2,048 bytes that outlive every reset but a loss of power."""

    def memory(self, data=None):
        if data is None:
            return unix_chip.ask(esp32_chip.RTC_READ) or b""
        if len(data) > _USER_MEMORY:
            raise ValueError("buffer too long")
        unix_chip.ask(esp32_chip.RTC_WRITE, 0, data)
