# How the base keeps a board with a radio on its network: told once, started late, only counted.

import gateway_side
import mqtt_peer  # noqa: F401 (gives umqtt its modules on CPython)

import tidemark_board
from nor import NorFlash
from tidemark import base as module
from tidemark import config, identity
from tidemark.base import Base
from tidemark.errors import LinkError
from tidemark.evidence import REMOTE, SIZE, parse

NETWORK = ["barn", "correct horse", "DE"]


def settings():
    return {
        config.BROKER_HOST: "192.0.2.7",
        config.BROKER_PORT: 1883,
        config.METADATA_URL: "http://192.0.2.7/metadata/",
        config.TARGETS_URL: "http://192.0.2.7/targets/",
        config.UPDATE_S: 3600,
        config.REPORT_S: 300,
        config.KEEPALIVE_S: 30,
        config.WIFI: NETWORK,
    }


class Station:
    """What a port's radio() returns: it says what the test tells it to."""

    def __init__(self):
        self.up = False
        self.words = []
        self.delays = []

    def step(self):
        return self.words.pop(0) if self.words else ""

    def delay(self, ms):
        self.delays.append(ms)


class Port:
    """A chip over a flash in our hands; `has_radio`: whether its link needs one."""

    kbd_intr = None

    def __init__(self, has_radio):
        self._flash = NorFlash(tidemark_board.FLASH_SIZE)
        self._source = gateway_side.fixed_random(b"port")
        self.station = Station() if has_radio else None
        self.told = []
        self.opened = 0
        self.may_draw = True

    def flash(self):
        return self._flash

    def reset_cause(self):
        return "power-on"

    def marker(self):
        return 0

    def set_marker(self, number):
        pass

    def uptime_ms(self):
        return 0

    def random(self, n):
        assert self.may_draw, "a random number before the radio may start"
        return self._source(n)

    def radio(self, *told):
        self.told.append(told)
        return self.station

    def open_socket(self, host, port, timeout_s):
        self.opened += 1
        self.may_draw = True
        raise LinkError("refused")


class Supervisor:
    marked = False

    def __init__(self):
        self.names = []

    def add(self, task):
        self.names.append(task.name)


def made(has_radio=True, short_boots=0, wifi=True):
    """A base that has been provisioned, at the moment at which it connects."""
    base = Base(Port(has_radio), tidemark_board, Supervisor())
    for part in (base.evidence, base.journal, base.counter, base.slots, base.outbox):
        part.recover()
    for _ in range(short_boots):
        base.record("boot", "power-on")
    base.identity = identity.birth(base.journal, base.port.random)
    gateway = bytes(32)
    base.provisioning = identity.Provisioning(
        base.identity.public, b"{}", identity.device_id(gateway), gateway
    )
    given = settings()
    if not wifi:
        del given[config.WIFI]
    base.config = config.check(given)
    base.settings = {"integrity": "mac", "confidential": False}
    base.mode = "normal"
    base.port.may_draw = False
    return base


def evidence(base):
    raw = base.evidence.read(1, 64)
    found = [parse(raw[at : at + SIZE]) for at in range(0, len(raw), SIZE)]
    return [(record[1], record[2]) for record in found]


def test_radio_is_told_its_network_once_and_nothing_is_drawn_before_it_is_up():
    base = made()
    assert base.connect()
    base.launch(None)
    assert base.port.told == [("barn", "correct horse", "DE", "tidemark-" + base.identity.id)]
    assert base.supervisor.names[:2] == ["radio", "link"]
    base.link.delay(0)
    base.connection.step()
    assert base.port.opened == 0 and not base.port.may_draw
    base.radio.up = True
    base.connection.step()
    assert base.port.opened == 1


def test_board_without_radio_takes_credentials_and_goes_on_without():
    base = made(has_radio=False)
    assert base.connect()
    base.launch(None)
    assert base.radio is None and "radio" not in base.supervisor.names
    base.link.delay(0)
    base.connection.step()
    assert base.port.opened == 1


def test_radio_without_credentials_is_never_started():
    base = made(wifi=False)
    assert base.connect()
    assert base.radio is None and base.port.told == []


def test_short_boots_delay_the_radio_itself():
    base = made(short_boots=7)
    assert base.connect()
    assert base.radio_delay_ms == 16000
    assert base.port.station.delays == [16000]


def test_what_the_air_does_is_said_and_only_counted():
    base = made(short_boots=1)
    assert base.connect()
    base.port.station.words = ["bad-password"] * 50 + ["joined", "wifi-lost"]
    before = len(evidence(base))
    said = []
    module.print = said.append
    try:
        for _ in range(60):
            base._radio_step()
    finally:
        del module.print
    assert evidence(base)[before:] == [(REMOTE, "bad-password"), (REMOTE, "wifi-lost")]
    assert said[-3:] == [
        "tidemark: wifi bad-password",
        "tidemark: wifi joined",
        "tidemark: wifi wifi-lost",
    ]
    assert not [line for line in said if "correct horse" in line]
