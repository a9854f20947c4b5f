# The radio of the ports that have one (rp2 with a CYW43, esp32), and sockets over it.
# What decides is tidemark/wifi.py.

import network
from tidemark import wifi
from tidemark.errors import LinkError
from tidemark.port import sockets

_state = {}


def on():
    """Switch the radio on without joining, if it is off, and return whether it is on now: an ESP32
    makes its random numbers of the radio's noise."""
    try:
        nic = _nic()
        if not nic.active():
            nic.active(True)
        return nic.active()
    except wifi.DRIVER_ERRORS + (LinkError,):
        return False


def prepare(allowed):
    """Have the driver take its memory (esp_wifi_init), before an application takes what there is;
    nothing is switched on. `allowed` False: the driver is left alone in this boot."""
    if not allowed:
        _state["tried"] = True
    try:
        _nic()
    except LinkError:
        pass  # the station tells, once it is asked to join


def radio(driver, random, ssid, password, country, hostname):
    """Return the boot's wifi.Station for these credentials; starts nothing.

    `driver`: wifi.Cyw43() or wifi.Esp32(); `country`: two letters or "", `hostname`: at most 32
    characters. A port's `radio` is this with the first two given.
    """
    # The driver takes both when the radio starts, or joins.
    if country:
        network.country(country)
    network.hostname(hostname)
    station = _state["station"] = wifi.Station(_nic, driver, random, ssid, password)
    _state["random"] = random
    return station


def open_socket(host, port, timeout_s):
    """Return a connected stream socket. Raises LinkError: the station's while it is not joined,
    else `resolve`, `refused`, `timeout`. Never waits longer than `timeout_s`."""
    station = _state.get("station")
    if station is None:
        raise LinkError("no-wifi", "no WiFi credentials")
    station.check_up()
    server = _nic().ifconfig()[3]
    try:
        return sockets.open_socket(
            host, port, timeout_s, server, _state["random"], station.heard
        )
    except LinkError:
        station.unheard()
        raise


def _nic():
    """Return the station's network.WLAN, which is made once. Raises LinkError `radio-fault`."""
    if "nic" not in _state:
        if "tried" in _state:
            # ESP-IDF's default interface is there by then, and a second one is an assertion that
            # fails (ports/esp32/network_wlan.c, esp_initialise_wifi; wifi_default.c).
            raise LinkError("radio-fault", "the radio's driver can't be had in this boot")
        _state["tried"] = True
        try:
            _state["nic"] = network.WLAN(network.STA_IF)
        except wifi.DRIVER_ERRORS:
            raise LinkError("radio-fault", "the radio's driver did not start")
    return _state["nic"]
