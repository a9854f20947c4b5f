# Radios of network.WLAN's two kinds over an air that the test makes, with a clock that only they
# and the test move. What they model are the drivers' rules (docs/wifi.md names the sources), and
# that a call takes time.

from tidemark.compat import ticks_add


class Clock:
    def __init__(self, start=0):
        self.now = start  # as ticks: wraps
        self.passed = 0

    def ticks(self):
        return self.now

    def advance(self, ms):
        self.now = ticks_add(self.now, ms)
        self.passed += ms


class Air:
    """What is out there: one network, or none."""

    def __init__(self, ssid="barn", password="correct horse"):
        self.ssid = ssid
        self.password = password
        self.there = True
        self.dhcp = True
        self.scan_ms = 1500
        self.dhcp_ms = 1000


class Radio:
    """The common half. `calls`: names of the calls that were made, with the time each took."""

    call_ms = 20
    start_ms = 900

    def __init__(self, clock, air):
        self.clock = clock
        self.air = air
        self.calls = []
        self.given = []  # arguments of connect
        self.on = False
        self.mute = False  # each request to the chip runs into the driver's time-out
        self.broken = None  # what each request raises
        self.deaf = False  # says that it is joined, and nothing passes, until it was off
        self._began = None
        self._good = False

    def _call(self, name, ms):
        if self.broken:
            raise self.broken
        if self.mute:
            ms = 1000
        self.calls.append((name, ms))
        self.clock.advance(ms)

    def active(self, on=None):
        if on is None:
            return self.on
        if on and not self.on:
            self._start()
            self._call("active", self.start_ms)
        self._set(on)

    def connect(self, ssid, key=None):
        if not self.on:
            raise OSError(1)
        self._call("connect", 12 * (1000 if self.mute else 10))
        self.given.append((ssid, key))
        self._began = self.clock.passed
        self._good = (key or "") == self.air.password
        self._there = self.air.there and ssid == self.air.ssid

    def _age(self):
        return self.clock.passed - self._began if self._began is not None else -1


class Cyw43Radio(Radio):
    """cyw43_ctrl.c: `active(False)` does nothing to a station, `deinit` cuts the chip's power."""

    def _start(self):
        self.mute = False

    def _set(self, on):
        self.on = self.on or on

    def deinit(self):
        self._call("deinit", 20)
        self.deaf = False
        self.on = False
        self.mute = False
        self._began = None

    def disconnect(self):
        self._call("disconnect", self.call_ms)
        self._began = None

    def status(self):
        age = self._age()
        if age < 0:
            return 0
        if age < self.air.scan_ms:
            return 1
        if not self._there or not self.air.there:
            return -2
        if not self._good:
            return -3
        if age < self.air.scan_ms + self.air.dhcp_ms or not self.air.dhcp:
            return 2
        return 3


class Esp32Radio(Radio):
    """network_wlan.c: a reason stays until there is an address; without `reconnects=0` it goes on
    by itself, and `connect` refuses while it does."""

    start_ms = 300

    def __init__(self, clock, air):
        Radio.__init__(self, clock, air)
        self.reason = 0
        self.reconnects = -1

    def _start(self):
        pass

    def _set(self, on):
        if not on:
            self._call("active", 50)
            self._began = None
            self.deaf = False
        self.on = on

    def config(self, reconnects):
        self.reconnects = reconnects

    def disconnect(self):
        if not self.on:
            raise OSError("Wifi Not Started")
        self._call("disconnect", self.call_ms)
        if self._began is not None and not self._ended():
            self.reason = 8
        self._began = None

    def connect(self, ssid, key=None):
        if self._began is not None and not self._ended():
            raise OSError("Wifi Internal State Error")
        Radio.connect(self, ssid, key)

    def _ended(self):
        """Let time's outcome show in `reason`; True when the attempt is over."""
        if self._age() < self.air.scan_ms:
            return False
        if not self._there or not self.air.there:
            self.reason = 201
        elif not self._good:
            self.reason = 15
        else:
            return False
        if self.reconnects != 0:
            self._began = self.clock.passed
            return False
        return True

    def isconnected(self):
        if self._began is None or self._ended() or not self.air.dhcp:
            return False
        if self._age() < self.air.scan_ms + self.air.dhcp_ms:
            return False
        self.reason = 0
        return True

    def status(self, what=None):
        ended = self._began is None or self._ended()
        if what == "rssi":
            if ended or self._age() < self.air.scan_ms:
                raise OSError("Wifi Not Connected")
            return -60
        if self.isconnected():
            return 1010
        if self.reason in (201, 202):
            return self.reason
        if self.reason == 8:
            return 1000
        if not ended:
            return 1001
        return self.reason or 1000


KINDS = (Cyw43Radio, Esp32Radio)
