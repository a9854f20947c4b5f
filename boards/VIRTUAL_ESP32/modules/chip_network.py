# `network.WLAN` of a station that is in the air wherever its host is on a network: it joins at once.

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010


def country(code):
    """Keep the country: ESP-IDF's default is not changed by it."""


def hostname(name):
    """Keep the name for DHCP."""
    if len(name) > 32:
        raise ValueError


class WLAN:
    """The station; there is one, however often it is asked for."""

    _on = [False, False]
    _joined = [False]

    def __init__(self, interface=STA_IF):
        if interface != STA_IF:
            raise ValueError("only the station here")

    def active(self, on=None):
        if on is None:
            return self._on[0]
        self._on[0] = bool(on)
        if not on:
            self._joined[0] = False
        return self._on[0]

    def connect(self, ssid=None, key=None, **_):
        if not self._on[0]:
            raise OSError("Wifi Not Started")
        self._joined[0] = True

    def disconnect(self):
        self._joined[0] = False

    def isconnected(self):
        return self._joined[0]

    def status(self, what=None):
        if what == "rssi":
            if not self._joined[0]:
                raise OSError("Wifi Not Connected")
            return -50
        return STAT_GOT_IP if self._joined[0] else STAT_IDLE

    def config(self, **values):
        if set(values) != {"reconnects"}:
            raise ValueError("unknown config param")

    def ifconfig(self, *_):
        return ("127.0.0.1", "255.0.0.0", "0.0.0.0", "127.0.0.1")
