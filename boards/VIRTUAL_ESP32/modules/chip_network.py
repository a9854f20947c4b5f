# `network` of the esp32 port (ports/esp32/network_wlan.c) in an air that has one network, whose
# access point takes a station at once.

SSID = "virtual air"
KEY = "shared by all of them"

STA_IF = 0
AP_IF = 1

# STAT_*, and reasons of esp_wifi_types.h, wifi_err_reason_t.
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_WRONG_PASSWORD = 202
STAT_NO_AP_FOUND = 201

_state = {"on": False, "status": STAT_IDLE, "country": "XX", "hostname": "mpy-esp32"}


def country(code=None):
    """Two letters, given or told."""
    if code is not None:
        _state["country"] = code
    return _state["country"]


def hostname(name=None):
    """At most 32 characters, given or told."""
    if name is not None:
        if len(name) > 32:
            raise ValueError()
        _state["hostname"] = name
    return _state["hostname"]


class WLAN:
    """The station; there is one, however often it is asked for."""

    def __init__(self, interface=STA_IF):
        if interface != STA_IF:
            raise ValueError("only the station here")

    def active(self, on=None):
        if on is not None:
            _state["on"] = bool(on)
            if not on:
                _state["status"] = STAT_IDLE
        return _state["on"]

    def connect(self, ssid=None, key=None):
        self._need()
        if ssid != SSID:
            _state["status"] = STAT_NO_AP_FOUND
        else:
            _state["status"] = STAT_GOT_IP if key == KEY else STAT_WRONG_PASSWORD

    def disconnect(self):
        self._need()
        _state["status"] = STAT_IDLE

    def isconnected(self):
        return _state["status"] == STAT_GOT_IP

    def status(self, what=None):
        if what is None:
            return _state["status"]
        if what != "rssi":
            raise ValueError("unknown status param")
        if not self.isconnected():
            raise OSError(-0x300F, "ESP_ERR_WIFI_NOT_CONNECT")
        return -50

    def config(self, *names, **values):
        """`reconnects` and others are taken; the station here never joins by itself."""

    def ifconfig(self):
        # Its network is the host's.
        address = "127.0.0.1" if self.isconnected() else "0.0.0.0"
        return (address, "255.0.0.0", address, address)

    def _need(self):
        if not _state["on"]:
            raise OSError(-0x3002, "ESP_ERR_WIFI_NOT_STARTED")
