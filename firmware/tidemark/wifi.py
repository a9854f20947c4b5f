# Joins a WiFi network and stays on it: pure, the radio, clock and randomness are handed in.
# One call into the radio's driver a step, since some of them block: docs/wifi.md has the bounds.

from tidemark.backoff import pause
from tidemark.compat import const, ticks_add, ticks_diff, ticks_ms
from tidemark.errors import LinkError

_JOIN_MS = const(20_000)  # scan, association, four-way handshake and DHCP
_BACKOFF_FIRST_MS = const(1000)
_BACKOFF_LAST_MS = const(60_000)
_CYCLE_AFTER = const(4)  # failures in a row: the radio is switched off and on
# Joined, and nobody answers: how long and over how many attempts before the board joins anew, from
# the second time on with the radio off and on. Doubled each time that it did not help.
_SILENCE_FIRST_MS = const(240_000)
_SILENCE_LAST_MS = const(3_600_000)
_SILENCE_ATTEMPTS = const(3)
# A driver's request to a CYW43 that does not answer ends after 1 s; joining makes a dozen of them.
_MUTE_MS = const(800)

UP = "up"
NO_ADDRESS = "no-address"
FAULT = "radio-fault"
NO_ANSWER = "no-answer"
# What a driver raises. ESP-IDF's codes without a name of their own, lack of memory among them, are
# a RuntimeError, in later versions of MicroPython a MemoryError (esp_exceptions_helper).
DRIVER_ERRORS = (OSError, RuntimeError, MemoryError)
_PENDING = ("", NO_ADDRESS)

_OFF = const(0)
_CLEAR = const(1)
_JOIN = const(2)
_WAIT = const(3)
_UP = const(4)
_CYCLE = const(5)


class Cyw43:
    """What `status()` of the CYW43 driver means (cyw43.h, CYW43_LINK_*)."""

    _WORDS = {-1: "join-failed", -2: "no-network", -3: "bad-password", 2: NO_ADDRESS, 3: UP}

    def prepare(self, nic):
        """Nothing: the driver joins once when told to."""

    def read(self, nic):
        """Return "up", "" while nothing is known, "no-address" while there is none yet, or the
        code of a failure."""
        return self._WORDS.get(nic.status(), "")


class Esp32:
    """What `status()` of ESP-IDF's driver means (ports/esp32/network_wlan.c; the reasons are those
    of esp_wifi_types.h, wifi_err_reason_t)."""

    _WORDS = {
        1000: "",  # idle
        1001: "",  # connecting
        201: "no-network",
        210: "no-network",  # there is one of that name, with security that does not fit
        211: "no-network",
        212: "no-network",  # too weak
        15: "bad-password",  # the four-way handshake ran out
        202: "bad-password",
        204: "bad-password",
    }

    def prepare(self, nic):
        """Stop the driver from joining again by itself: without pause, for ever."""
        nic.config(reconnects=0)

    def read(self, nic):
        """As `Cyw43.read`. The driver keeps a former failure's code until there is an address."""
        if nic.isconnected():
            return UP
        try:
            nic.status("rssi")  # of the access point, while there is one
            return NO_ADDRESS
        except OSError:
            return self._WORDS.get(nic.status(), "join-failed")


class Station:
    """One station interface, joined again for as long as `step` is called.

    `error`: code of the last failure, "" before one: `no-network`, `bad-password`, `no-address`,
    `join-timeout`, `join-failed`, `radio-fault` (the driver refuses or the chip does not answer),
    `wifi-lost`, `no-answer` (joined, and nobody could be reached). `failures`: int, in a row.
    `lost`: True once the interface could not be had: nothing but a reset helps.
    """

    def __init__(self, interface, driver, random, ssid, password, ticks=ticks_ms):
        """`interface()`: the network.WLAN or alike, called once the radio may start, and not again
        if it raises LinkError; `driver`: Cyw43() or Esp32(); `random(n)`: n random bytes, not
        asked for any earlier; `ssid`: str; `password`: str, "" for an open network; `ticks()`: ms,
        wrapping as compat.ticks_ms."""
        self._interface = interface
        self._nic = None
        self._driver = driver
        self._random = random
        self._ssid = ssid
        self._password = password
        self._ticks = ticks
        self._phase = _OFF
        self._due = ticks()  # of the next attempt
        self._until = 0  # of this attempt
        self._stale = ""  # what the driver said before it; None once it says something else
        self._last = ""  # what it said in the last step
        self._unanswered = 0  # attempts to reach somebody
        self._silent_until = 0  # then that many are too many
        self._silences = 0  # that were acted upon, since the last answer
        self.error = ""
        self.failures = 0
        self.lost = False

    @property
    def up(self):
        """True while joined, with an address, as of the last step."""
        return self._phase == _UP

    def check_up(self):
        """Raise LinkError with the reason unless `up`."""
        if self._phase != _UP:
            raise LinkError(self.error or "joining", "not on the WiFi network")

    def heard(self):
        """Somebody answered: the network carries."""
        self._unanswered = self._silences = 0

    def unheard(self):
        """An attempt to reach somebody failed. A driver may say for ever that it is joined to what
        carries nothing any more: for that reason they are counted."""
        if not self._unanswered:
            now = self._ticks()
            wait = pause(self._silences, _SILENCE_FIRST_MS, _SILENCE_LAST_MS, self._random, now)
            self._silent_until = ticks_add(now, wait)
        self._unanswered += 1

    def delay(self, ms):
        """Put off the first attempt by `ms` (int, below 2^29) from now: the radio stays off."""
        self._due = ticks_add(self._ticks(), ms)

    def step(self):
        """Do one bounded slice: at most one call of the driver that may block.

        Return what changed: "joined", the code of a failure, or "".
        """
        if self.lost:
            return ""
        try:
            return self._step()
        except DRIVER_ERRORS:
            # Its text is the driver's; the code is all that is kept.
            return self._fail(FAULT)
        except LinkError:
            self.lost = True
            return self._fail(FAULT)

    def _step(self):
        nic = self._nic
        phase = self._phase
        if phase == _WAIT:
            return self._wait()
        if phase == _UP:
            return self._watch()
        now = self._ticks()
        if ticks_diff(now, self._due) < 0:
            return ""
        if phase == _CYCLE:
            self._phase = _OFF
            if nic:
                nic.active(False)
                if hasattr(nic, "deinit"):
                    nic.deinit()  # the CYW43's active(False) leaves the chip on
        elif phase == _OFF:
            nic = self._nic = self._interface()
            nic.active(True)
            self._driver.prepare(nic)
            self._phase = _CLEAR
        elif phase == _CLEAR:
            nic.disconnect()
            if ticks_diff(self._ticks(), now) >= _MUTE_MS:
                return self._fail(FAULT)
            self._phase = _JOIN
        else:
            self._stale = self._last = self._driver.read(nic)
            nic.connect(self._ssid, self._password or None)
            self._until = ticks_add(now, _JOIN_MS)
            self._phase = _WAIT
        return ""

    def _watch(self):
        if self._driver.read(self._nic) != UP:
            return self._fail("wifi-lost")
        if self._unanswered < _SILENCE_ATTEMPTS:
            return ""
        if ticks_diff(self._ticks(), self._silent_until) < 0:
            return ""
        self._unanswered = 0
        self._silences += 1
        return self._fail(NO_ANSWER)

    def _wait(self):
        word = self._driver.read(self._nic)
        if word == UP:
            self._phase = _UP
            self.failures = self._unanswered = 0
            self.error = ""
            return "joined"
        if word != self._stale:
            self._stale = None
            # Twice in a row: a CYW43 may say that it was refused, and be let in a moment later.
            if word not in _PENDING and word == self._last:
                return self._fail(word)
        self._last = word
        if ticks_diff(self._ticks(), self._until) >= 0:
            return self._fail(word or "join-timeout")
        return ""

    def _fail(self, word):
        """Note a failure and set the next attempt, a random pause of at most a minute later."""
        now = self._ticks()
        wait = pause(self.failures, _BACKOFF_FIRST_MS, _BACKOFF_LAST_MS, self._random, now)
        self._due = ticks_add(now, wait)
        self.failures += 1
        cycle = word == FAULT or self.failures % _CYCLE_AFTER == 0
        if word == NO_ANSWER and self._silences > 1:
            cycle = True  # to join anew is gentler, and did not help
        self._phase = _CYCLE if cycle else _CLEAR
        self.error = word
        return word
