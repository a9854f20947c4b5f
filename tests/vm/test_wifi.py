# Joining a WiFi network, over radios that follow their drivers' rules and a clock of our own.
# Invariant I10: every attempt, pause and call has a bound.

import wifi_radio
from wifi_radio import Air, Clock

from tidemark.errors import LinkError, StateError
from tidemark.wifi import Cyw43, Esp32, Station

STEP_MS = 100
WATCHDOG_MS = 4000  # of a Pico W
DRIVERS = {wifi_radio.Cyw43Radio: Cyw43, wifi_radio.Esp32Radio: Esp32}


class Rig:
    """A station on a radio of one kind; `heard` is what it told, with the time."""

    def __init__(self, kind, air=None, share=0, password="correct horse", start=0):
        self.clock = Clock(start)
        self.air = air or Air()
        self.radio = kind(self.clock, self.air)
        self.share = share
        self.drawn_off = 0  # random numbers asked for while the radio was off
        self.opened = 0
        self.heard = []
        self.longest = 0  # ms that a single step took
        self.station = Station(
            self._open, DRIVERS[kind](), self._random, "barn", password, self.clock.ticks
        )

    def _open(self):
        self.opened += 1
        return self.radio

    def _random(self, n):
        if not self.radio.on:
            self.drawn_off += 1
        return self.share.to_bytes(n, "big")

    def step(self):
        before = self.clock.passed
        word = self.station.step()
        self.longest = max(self.longest, self.clock.passed - before)
        if word:
            self.heard.append((self.clock.passed, word))
        self.clock.advance(STEP_MS)
        return word

    def run(self, ms):
        end = self.clock.passed + ms
        while self.clock.passed < end:
            self.step()
        return self

    def until(self, word, limit_ms=120000):
        end = self.clock.passed + limit_ms
        while self.step() != word:
            assert self.clock.passed < end, self.heard
        return self

    def words(self):
        return [word for _, word in self.heard]

    def count(self, name):
        return sum(1 for call, _ in self.radio.calls if call == name)


def each_kind(test):
    """Return the test as one that runs on both kinds of radio."""

    def run():
        for kind in wifi_radio.KINDS:
            test(kind)

    try:
        run.__name__ = test.__name__
    except AttributeError:
        pass  # MicroPython's runner asks by the name in the module
    return run


def refused(call):
    try:
        call()
    except LinkError as error:
        return error.code
    raise AssertionError("not refused")


@each_kind
def test_joins_and_says_so_once(kind):
    rig = Rig(kind)
    assert not rig.station.up and refused(rig.station.check_up) == "joining"
    rig.until("joined", 10000).run(60000)
    assert rig.words() == ["joined"]
    assert rig.station.up and rig.station.error == "" and rig.station.failures == 0
    rig.station.check_up()
    assert rig.radio.given == [("barn", "correct horse")]


@each_kind
def test_open_network_is_joined_without_a_password(kind):
    rig = Rig(kind, Air(password=""), password="")
    rig.until("joined")
    assert rig.radio.given == [("barn", None)]


@each_kind
def test_each_kind_of_failure_has_its_code(kind):
    nowhere, closed, addressless, slow = Air(), Air(password="other"), Air(), Air()
    nowhere.there = False
    addressless.dhcp = False
    slow.scan_ms = 10**6
    for air, code in (
        (nowhere, "no-network"),
        (closed, "bad-password"),
        (addressless, "no-address"),
        (slow, "join-timeout"),
    ):
        rig = Rig(kind, air).run(100000)
        assert len(rig.heard) > 2 and set(rig.words()) == {code}, rig.heard
        assert rig.station.error == code and refused(rig.station.check_up) == code


@each_kind
def test_an_attempt_ends_within_its_bound(kind):
    air = Air()
    air.scan_ms = 10**6
    rig = Rig(kind, air).until("join-timeout")
    assert 20000 <= rig.clock.passed <= 20000 + 2000


@each_kind
def test_a_failure_that_is_known_ends_the_attempt_at_once(kind):
    air = Air()
    air.there = False
    assert Rig(kind, air).until("no-network").clock.passed < 4000


def test_a_code_left_from_before_is_not_taken_for_this_attempts_outcome():
    # ESP-IDF's driver goes on showing it while the next attempt, a good one, is under way.
    air = Air()
    air.there = False
    rig = Rig(wifi_radio.Esp32Radio, air).until("no-network")
    air.there = True
    rig.until("joined")
    assert rig.words() == ["no-network", "joined"]


def test_the_esp32_never_joins_by_itself():
    air = Air()
    air.there = False
    rig = Rig(wifi_radio.Esp32Radio, air).run(60000)
    assert rig.radio.reconnects == 0
    assert set(rig.words()) == {"no-network"}


def test_a_refusal_that_is_taken_back_is_none():
    class Fickle(wifi_radio.Cyw43Radio):
        doubts = 1

        def status(self):
            status = wifi_radio.Cyw43Radio.status(self)
            if status == 2 and self.doubts:
                self.doubts -= 1
                return -3
            return status

    DRIVERS[Fickle] = Cyw43
    rig = Rig(Fickle).until("joined")
    assert rig.words() == ["joined"]


def pauses(kind, share, count):
    """Return ms from each failure to the call that begins the next attempt."""
    air = Air()
    air.there = False
    rig = Rig(kind, air, share)
    found = []
    while len(found) < count:
        rig.until("no-network", 200000)
        failed = rig.clock.passed - STEP_MS
        calls = len(rig.radio.calls)
        while len(rig.radio.calls) == calls:
            rig.step()
        found.append(rig.clock.passed - STEP_MS - failed - rig.radio.calls[-1][1])
    return found


@each_kind
def test_pauses_double_up_to_a_minute_and_half_of_each_is_chance(kind):
    for share, part in ((0, 0.5), (0x8000, 0.75), (0xFFFF, 1.0)):
        expected = [min(1000 * 2**n, 60000) * part for n in range(9)]
        for pause, wanted in zip(pauses(kind, share, 9), expected):
            # One step of grain, one of switching the radio off.
            assert wanted - 1 <= pause <= wanted + 3 * STEP_MS, (share, pause, wanted)


@each_kind
def test_a_join_makes_the_next_pause_short_again(kind):
    air = Air()
    air.there = False
    rig = Rig(kind, air, 0xFFFF).run(300000)
    air.there = True
    rig.until("joined")
    air.there = False
    rig.until("wifi-lost")
    lost = rig.clock.passed
    air.there = True
    rig.until("joined")
    assert rig.clock.passed - lost < 1000 + 2500 + 6 * STEP_MS


@each_kind
def test_a_lost_network_is_told_and_joined_again(kind):
    rig = Rig(kind).until("joined")
    rig.air.there = False
    rig.until("wifi-lost", 1000)
    assert not rig.station.up and refused(rig.station.check_up) == "wifi-lost"
    rig.run(30000)
    rig.air.there = True
    rig.until("joined")
    assert rig.words()[:2] == ["joined", "wifi-lost"] and set(rig.words()[2:-1]) == {"no-network"}


@each_kind
def test_repeated_failures_switch_the_radio_off_and_on(kind):
    air = Air()
    air.there = False
    rig = Rig(kind, air)
    for cycles in (1, 2):
        while len(rig.heard) < 4 * cycles:
            rig.step()
        assert rig.opened == cycles
        rig.run(62000)
        assert rig.opened == cycles + 1
    air.there = True
    rig.until("joined")


def test_a_cyw43_that_answers_nothing_costs_two_seconds_and_is_powered_off():
    rig = Rig(wifi_radio.Cyw43Radio).until("joined")
    rig.air.there = False
    rig.until("wifi-lost")
    rig.radio.mute = True
    rig.longest = 0
    rig.until("radio-fault")
    # Joining would have been a dozen requests, a second each, with nobody to feed the watchdog.
    assert rig.longest <= 1000 and rig.radio.calls[-1] == ("disconnect", 1000)
    rig.air.there = True
    rig.until("joined")
    assert rig.count("deinit") == 1


# What ESP-IDF's and the CYW43's driver raise; RuntimeError: ESP_ERR_NO_MEM in MicroPython 1.25.
ERRORS = (OSError(5), RuntimeError("Wifi Unknown Error 0x0101"), MemoryError())


@each_kind
def test_a_driver_that_refuses_is_a_code_and_never_an_exception(kind):
    for error in ERRORS:
        rig = Rig(kind)
        rig.radio.broken = error
        rig.run(20000)
        assert set(rig.words()) == {"radio-fault"} and len(rig.heard) > 3
        rig.radio.broken = None
        rig.until("joined")


def silent(n):
    raise StateError("random-radio", "no radio")


def test_a_radio_that_can_not_be_switched_on_needs_no_noise():
    def nothing():
        raise OSError("Wifi Not Initialized")

    clock = Clock()
    station = Station(nothing, Esp32(), silent, "barn", "correct horse", clock.ticks)
    heard = []
    for _ in range(600):
        heard.append(station.step())
        clock.advance(STEP_MS)
    assert set(heard) == {"", "radio-fault"} and 4 < heard.count("radio-fault") < 60
    assert not station.lost


def test_a_driver_that_can_not_be_had_is_told_once_and_asked_for_once():
    asked = []

    def never():
        asked.append(1)
        raise LinkError("radio-fault")

    clock = Clock()
    station = Station(never, Esp32(), silent, "barn", "correct horse", clock.ticks)
    heard = []
    for _ in range(2000):
        heard.append(station.step())
        clock.advance(STEP_MS)
    assert heard[0] == "radio-fault" and not any(heard[1:])
    assert station.lost and len(asked) == 1
    assert refused(station.check_up) == "radio-fault"


def silence(rig, ms, every_ms=10000):
    """Let `ms` pass in which whoever is looked for does not answer, unless the radio is well."""
    end = rig.clock.passed + ms
    due = rig.clock.passed
    while rig.clock.passed < end:
        rig.step()
        if rig.station.up and rig.clock.passed >= due:
            due = rig.clock.passed + every_ms
            rig.station.unheard()
    return rig


@each_kind
def test_radio_that_only_says_it_is_joined_is_joined_anew_then_switched_off_and_on(kind):
    rig = Rig(kind, share=0xFFFF).until("joined")
    rig.radio.deaf = True
    silence(rig, 239000)
    assert rig.words() == ["joined"]
    silence(rig, 5000)
    assert rig.words() == ["joined", "no-answer", "joined"] and rig.opened == 1
    assert rig.radio.deaf
    silence(rig, 470000)
    assert rig.words() == ["joined", "no-answer", "joined"]
    silence(rig, 20000)
    assert rig.words() == ["joined", "no-answer"] * 2 + ["joined"] and rig.opened == 2
    assert not rig.radio.deaf
    rig.station.heard()
    rig.run(4000000)
    assert rig.words()[5:] == [] and rig.station.error == ""


@each_kind
def test_silence_that_is_no_fault_of_the_radios_disturbs_ever_more_seldom(kind):
    for share, part in ((0, 0.5), (0xFFFF, 1.0)):
        rig = Rig(kind, share=share).until("joined")
        silence(rig, 7 * 3600 * 1000, 60000)
        at = [ms for ms, word in rig.heard if word == "no-answer"]
        gaps = [at[i + 1] - at[i] for i in range(len(at) - 1)]
        wanted = [min(480000 << n, 3600000) * part for n in range(len(gaps))]
        for gap, want in zip(gaps, wanted):
            # Until it is joined again, the first attempt that fails, and steps.
            assert want <= gap <= want + 70000, (gap, want)
        assert len(gaps) >= 6


@each_kind
def test_an_answer_ends_a_silence_and_few_attempts_make_none(kind):
    rig = Rig(kind).until("joined")
    rig.station.unheard()
    rig.station.unheard()
    rig.run(3600000)
    rig.station.heard()
    for _ in range(100):
        rig.station.unheard()
        rig.run(100000)
        rig.station.unheard()
        rig.station.unheard()
        rig.station.heard()
    assert rig.words() == ["joined"]
    # It was none of those before that one which counts: joining anew comes first again.
    silence(rig, 200000)
    assert rig.opened == 1 and "no-answer" in rig.words()
    rig.station.heard()
    count = len(rig.heard)
    silence(rig, 200000)
    assert rig.opened == 1 and "no-answer" in rig.words()[count:]


@each_kind
def test_attempts_of_a_network_that_went_away_are_not_held_against_the_next(kind):
    rig = Rig(kind).until("joined")
    rig.station.unheard()
    rig.station.unheard()
    rig.air.there = False
    rig.until("wifi-lost")
    rig.run(600000)
    rig.air.there = True
    rig.until("joined")
    rig.station.unheard()
    rig.run(10000)
    assert rig.station.up and "no-answer" not in rig.words()


def test_silence_is_acted_upon_without_noise():
    rig = Rig(wifi_radio.Esp32Radio).until("joined")
    rig.station._random = silent
    silence(rig, 600000)
    assert "no-answer" in rig.words()


@each_kind
def test_no_step_makes_two_calls_or_comes_near_the_watchdog(kind):
    airs = [Air(), Air(password="other"), Air(), Air(), Air()]
    airs[2].there = False
    airs[3].dhcp = False
    airs[4].scan_ms = 10**6
    for air in airs:
        rig = Rig(kind, air)
        for _ in range(3000):
            calls = len(rig.radio.calls)
            rig.step()
            made = rig.radio.calls[calls:]
            # Switching off is two: neither asks the chip anything that it could leave unanswered.
            assert len(made) <= 1 or {name for name, _ in made} <= {"active", "deinit"}
        assert rig.longest < WATCHDOG_MS // 2, rig.longest


@each_kind
def test_nothing_happens_before_the_radio_may_start(kind):
    rig = Rig(kind)
    rig.station.delay(16000)
    rig.run(15900)
    assert rig.opened == 0 and not rig.radio.on and not rig.radio.calls
    rig.until("joined")
    assert rig.drawn_off == 0


@each_kind
def test_no_random_number_is_asked_for_before_the_radio_was_on(kind):
    air = Air()
    air.there = False
    rig = Rig(kind, air).until("no-network")
    assert rig.drawn_off == 0


@each_kind
def test_clock_that_wraps_changes_nothing(kind):
    for start in ((1 << 30) - 1, (1 << 30) - 2500, (1 << 30) - 21000):
        air = Air()
        air.there = False
        rig = Rig(kind, air, start=start).until("no-network")
        air.there = True
        rig.until("joined", 30000)


@each_kind
def test_password_is_in_no_word_and_no_text(kind):
    secret = "hunter2-hunter2"
    texts = []
    for spoil in ("", "there", "dhcp", "broken"):
        air = Air(password="other")
        if spoil in ("there", "dhcp"):
            setattr(air, spoil, False)
        rig = Rig(kind, air, password=secret)
        rig.radio.broken = OSError(5) if spoil == "broken" else None
        rig.run(60000)
        texts.extend(rig.words())
        texts.append(rig.station.error)
        texts.append(repr(rig.station))
        try:
            rig.station.check_up()
        except LinkError as error:
            texts.append(str(error))
    assert not [text for text in texts if secret in text or "barn" in text]
