# `network.WLAN` of a station in an air with one network, for which it takes a moment: what
# MicroPython 1.25's driver says of it (ports/esp32/network_wlan.c). The sockets are the host's.

import time

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010

_SSID = "bench"
_KEY = "nobody is kept out"
_JOIN_MS = 150
_NO_AP_FOUND = 201
_HANDSHAKE_TIMEOUT = 204
_ASSOC_LEAVE = 8

# The host's stack connects to it no more than lwIP to anything without an address.
_NO_ROUTE = "255.255.255.255"

_state = {"on": False, "wedged": False, "began": None, "outcome": 0, "reason": 0, "reconnects": -1}


def country(code):
    """Keep the country: ESP-IDF's default is not changed by it."""
    if len(code) != 2:
        raise ValueError


def hostname(name):
    """Keep the name for DHCP."""
    if len(name) > 32:
        raise ValueError


def wedge(on=True):
    """Have the radio lose its address, and say that it is joined: the driver hears of an address
    that comes (IP_EVENT_STA_GOT_IP), and of none that goes. Off and on mends it."""
    _state["wedged"] = on


def wedged():
    """Return whether it is."""
    return _state["wedged"]


def route(host):
    """Return the address that stands for `host` as long as the radio is as it is."""
    return _NO_ROUTE if _state["wedged"] else host


def _over():
    """Return whether an attempt has come to its end."""
    began = _state["began"]
    if began is None or time.ticks_diff(time.ticks_ms(), began) < _JOIN_MS:
        return False
    if _state["outcome"]:
        # The reason stays until there is an address; by itself the driver begins anew.
        _state["reason"] = _state["outcome"]
        _state["began"] = None if _state["reconnects"] == 0 else time.ticks_ms()
        return _state["began"] is None
    _state["reason"] = 0
    return True


class WLAN:
    """The station; there is one, however often it is asked for."""

    def __init__(self, interface=STA_IF):
        if interface != STA_IF:
            raise ValueError("only the station here")

    def active(self, on=None):
        if on is not None:
            _state["on"] = bool(on)
            if not on:
                _state["began"] = None
                _state["wedged"] = False
        return _state["on"]

    def connect(self, ssid=None, key=None):
        if not _state["on"]:
            raise OSError("Wifi Not Started")
        if _state["began"] is not None and not _over():
            raise OSError("Wifi Internal State Error")
        wrong = _HANDSHAKE_TIMEOUT if key != _KEY else 0
        _state["outcome"] = _NO_AP_FOUND if ssid != _SSID else wrong
        _state["began"] = time.ticks_ms()

    def disconnect(self):
        if not _state["on"]:
            raise OSError("Wifi Not Started")
        if _state["began"] is not None:
            _state["reason"] = _ASSOC_LEAVE
        _state["began"] = None

    def isconnected(self):
        return _over() and _state["began"] is not None

    def status(self, what=None):
        if what == "rssi":
            if not self.isconnected():
                raise OSError("Wifi Not Connected")
            return -50
        if self.isconnected():
            return STAT_GOT_IP
        if _state["reason"] == _ASSOC_LEAVE:
            return STAT_IDLE
        if _state["reason"] == _NO_AP_FOUND:
            return _NO_AP_FOUND
        if _state["began"] is not None:
            return STAT_CONNECTING
        return _state["reason"] or STAT_IDLE

    def config(self, **values):
        if set(values) != {"reconnects"}:
            raise ValueError("unknown config param")
        _state["reconnects"] = values["reconnects"]

    def ifconfig(self):
        if _state["wedged"]:
            return ("0.0.0.0",) * 4
        return ("127.0.0.1", "255.0.0.0", "0.0.0.0", "127.0.0.1")
