# The radio of a port, over a module `network` in our hands: the driver is had once or never.

import sys

from tidemark.errors import LinkError
from tidemark.wifi import Esp32


class Network:
    """Stands in for `network`: a second construction after one that failed aborts."""

    STA_IF = 0

    def __init__(self, *errors):
        self.errors = list(errors)  # of the constructions to come
        self.made = 0
        self.failed = False
        self.active_error = None
        self.is_active = False

    def country(self, code):
        pass

    def hostname(self, name):
        pass

    def WLAN(self, interface):
        assert not self.failed, "assert failed: esp_netif_create_default_wifi_sta"
        self.made += 1
        if self.errors:
            self.failed = True
            raise self.errors.pop(0)
        return self

    def active(self, on=None):
        if self.active_error:
            raise self.active_error
        if on is not None:
            self.is_active = on
        return self.is_active

    def config(self, reconnects):
        pass

    def disconnect(self):
        pass

    def connect(self, ssid, key):
        pass

    def isconnected(self):
        return True

    def ifconfig(self):
        return ("192.0.2.2", "255.255.255.0", "192.0.2.1", "192.0.2.53")


ERRORS = (RuntimeError("Wifi Unknown Error 0x0101"), MemoryError(), OSError("Wifi Internal Error"))


def wlan(network):
    """Return the port's module as a boot begins with it."""
    sys.modules["network"] = network
    from tidemark.port import wlan as module

    module.network = network
    module._state.clear()
    return module


def noise(n):
    return bytes(n)


def joined(module):
    station = module.radio(Esp32(), noise, "barn", "correct horse", "", "board")
    station.delay(0)
    for _ in range(4):
        station.step()
    assert station.up
    return station


def refused(call, *args):
    try:
        call(*args)
    except LinkError as error:
        return error.code
    raise AssertionError("not refused")


def test_driver_is_had_early_and_once_and_nothing_is_switched_on():
    network = Network()
    module = wlan(network)
    module.prepare(True)
    assert network.made == 1 and not network.is_active
    module.prepare(True)
    assert module.on() and network.is_active
    joined(module)
    assert network.made == 1


def test_driver_that_failed_is_not_asked_for_again_whoever_wants_it():
    for error in ERRORS:
        network = Network(error)
        module = wlan(network)
        module.prepare(True)
        module.prepare(True)
        assert not module.on()
        station = module.radio(Esp32(), noise, "barn", "correct horse", "", "board")
        assert station.step() == "radio-fault" and station.lost
        assert refused(module.open_socket, "192.0.2.7", 1883, 1) == "radio-fault"
        assert network.made == 1


def test_driver_that_is_not_to_be_touched_is_lost_from_the_start():
    network = Network()
    module = wlan(network)
    module.prepare(False)
    station = module.radio(Esp32(), noise, "barn", "correct horse", "", "board")
    assert station.step() == "radio-fault" and station.lost and not module.on()
    assert network.made == 0


def test_radio_that_can_not_be_switched_on_gives_no_randomness_and_no_exception():
    network = Network()
    module = wlan(network)
    for error in ERRORS:
        network.active_error = error
        assert not module.on()
    network.active_error = None
    assert module.on()


class Sockets:
    """Stands in for port/sockets.py. `outcomes`: whether somebody answers, code of the error."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def open_socket(self, host, port, timeout_s, server, random, heard):
        answered, code = self.outcomes.pop(0)
        if answered:
            heard()
        if code:
            raise LinkError(code)
        return "socket"


def test_attempts_that_nobody_answers_are_counted_and_others_not():
    module = wlan(Network())
    station = joined(module)
    real = module.sockets
    silent = (False, "timeout"), (False, "resolve")
    module.sockets = Sockets(*silent, (True, "refused"), (True, None))
    found = []
    try:
        for code in ("timeout", "resolve", "refused"):
            assert refused(module.open_socket, "broker", 1883, 1) == code
            found.append(station._unanswered)
        assert module.open_socket("broker", 1883, 1) == "socket"
        found.append(station._unanswered)
    finally:
        module.sockets = real
    # A refusal shows that the network carries; the attempt may begin a new count, and no more.
    assert found == [1, 2, 1, 0]
