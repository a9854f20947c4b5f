# How the base keeps a board with a radio on its network: told once, started late, only counted.

import gateway_side
import mqtt_peer  # noqa: F401 (gives umqtt its modules on CPython)

import tidemark_board
from nor import NorFlash
from tidemark import base as module
from tidemark import config, identity, reasons, slots
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
        self.lost = False
        self.heards = 0
        self.words = []
        self.delays = []

    def heard(self):
        self.heards += 1

    def step(self):
        return self.words.pop(0) if self.words else ""

    def delay(self, ms):
        self.delays.append(ms)


class Port:
    """A chip over a flash in our hands; `has_radio`: whether its link needs one."""

    kbd_intr = None

    def __init__(self, has_radio):
        self._flash = NorFlash(tidemark_board.FLASH_SIZE)
        self.kept = 0
        self.now = 0
        self.prepared = []
        self.while_prepared = []
        self.pair = None
        self._source = gateway_side.fixed_random(b"port")
        self.station = Station() if has_radio else None
        self.told = []
        self.opened = 0
        self.may_draw = True

    def flash(self):
        return self._flash

    def runtimes(self):
        return self.pair

    def reset_cause(self):
        return "power-on"

    def marker(self):
        return self.kept

    def set_marker(self, number):
        self.kept = number

    def uptime_ms(self):
        return self.now

    def reset(self):
        raise Reset

    def prepare_radio(self, allowed):
        self.prepared.append(allowed)
        self.while_prepared.append(reasons.decode(self.kept))

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


class Reset(Exception):
    pass


class Supervisor:
    marked = False

    def __init__(self):
        self.names = []

    def add(self, task):
        self.names.append(task.name)


def made(has_radio=True, short_boots=0, wifi=True, port=None):
    """A base that has been provisioned, at the moment at which it connects.

    `port`: a former one's, with what its flash holds."""
    base = Base(port or Port(has_radio), tidemark_board, Supervisor())
    base.port.may_draw = True
    for part in (base.evidence, base.journal, base.counter, base.slots, base.outbox):
        part.recover()
    for _ in range(short_boots):
        base.record("boot", "power-on")
    base.identity = identity.load(base.journal)
    if not base.identity:
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


def test_driver_is_had_under_a_marker_that_blames_nobody():
    base = made()
    base.prepare_radio()
    assert base.port.prepared == [True] and base.port.while_prepared == ["radio-start"]


def test_driver_whose_start_ended_the_last_boot_is_left_alone():
    base = made()
    base.prepare_radio()  # aborts: what is found next is the marker
    base = made(port=base.port)
    assert base.reason == "radio-start"
    base.prepare_radio()
    assert base.port.prepared == [True, False]


def test_runtimes_first_boot_keeps_its_marker_while_the_driver_starts():
    base = made()
    base.arrived = True
    base.port.kept = reasons.encode("runtime")
    base.prepare_radio()
    assert base.port.while_prepared == ["runtime"] and base.port.prepared == [True]


def test_board_without_credentials_has_no_driver_started():
    base = made(wifi=False)
    base.prepare_radio()
    assert base.port.prepared == [] and base.port.kept == 0


def test_link_that_is_up_has_heard_somebody():
    base = made()
    assert base.connect()
    base._radio_step()
    assert base.radio.heards == 0
    base.link.state = "up"
    base._radio_step()
    assert base.radio.heards == 1


def lose(base, limit_ms=10000000):
    """Let `base` find that there is no driver; return the uptime at which it resets, or None."""
    assert base.connect()
    base.radio.lost = True
    base.port.now = 0
    while base.port.now < limit_ms:
        base.port.now += 1000
        try:
            base._radio_step()
        except Reset:
            return base.port.now
    return None


def test_board_without_a_driver_is_reset_ever_more_seldom():
    base = made()
    waits = []
    for _ in range(9):
        waits.append(lose(base) // 1000)
        assert reasons.decode(base.port.kept) == "radio"
        base = made(port=base.port)
        for code in ("boot", "healthy", "rescue", "app-fault"):
            base.record(code, base.reason)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    # The driver started; what is lost another day begins anew.
    base.port.kept = reasons.encode("update")
    assert lose(made(port=base.port)) == 60000


def test_abort_in_the_drivers_start_counts_as_a_reset_for_it():
    base = made()
    for wait in (60, 120, 240):
        base.prepare_radio()  # aborts
        base = made(port=base.port)
        base.prepare_radio()
        assert base.port.prepared[-1] is False and lose(base) == wait * 1000
        base = made(port=base.port)


def test_resets_are_seldom_also_when_the_ring_does_not_tell_of_the_last_one():
    base = made()
    assert lose(base) == 60000
    base = made(port=base.port)
    for _ in range(70):
        base.record("boot", "power-on")
    assert lose(base) == 3600000


class Pair:
    """What a base asks of its runtimes."""

    def __init__(self, is_confirmed):
        self.is_confirmed = is_confirmed
        self.on_candidate = not is_confirmed


def test_runtime_on_trial_is_not_reset_for_its_radio():
    base = made()
    base.runtimes = Pair(False)
    assert lose(base) is None
    base = made()
    base.runtimes = Pair(True)
    assert lose(base) == 60000


class Judge:
    def step(self, *shown):
        return "inconclusive", "no-ack"


def trial(lost, runtimes=None):
    """Return a base whose trial ran out of time, as the next boot finds it."""
    base = made()
    first = slots.Release(b"1" * 32, 4096, 1, 1, "1.0.0")
    base.slots.provision(first)
    next_one = slots.Release(b"2" * 32, 4096, 2, 1, "1.1.0")
    base.slots.begin_write(1, next_one)
    base.slots.finish_write(1)
    assert base.slots.choose() == (1, "trial")
    assert base.connect()
    base.radio.lost = lost
    base.runtimes = runtimes
    base._trial = Judge()
    try:
        base._report_step()
    except Reset:
        return base.slots
    raise AssertionError("goes on")


def counted(found):
    """Acknowledge the former image at once; return whether that counts against the release."""
    found.running = 0
    found.acknowledged(1000)
    return found.counted


def test_trial_that_had_no_radio_never_counts_against_the_release():
    for lost, runtimes, reason, count in (
        (False, None, "no-ack", 1),
        (True, None, "radio", 0),
        (True, Pair(True), "radio", 0),
        # The driver came with the runtime.
        (True, Pair(False), "no-ack", 1),
    ):
        found = trial(lost, runtimes)
        assert found.last_trial[2:4] == ["inconclusive", reason]
        assert counted(found) == count, (lost, reason)
