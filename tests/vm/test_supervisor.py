# The one place that feeds the watchdog, over a port whose clock the test turns.

from tidemark import reasons
from tidemark.supervisor import Supervisor, Task


class Port:
    def __init__(self):
        self.now = 0
        self.fed = 0
        self.armed = 0
        self.marker = 0
        self.resets = 0
        self.kept = False
        self.order = []

    def uptime_ms(self):
        return self.now

    def arm_watchdog(self, ms):
        self.armed = ms
        self.order.append("watchdog")

    def start_timer(self, ms, callback):
        self.order.append("timer")

    def feed(self):
        self.fed += 1

    def set_marker(self, marker):
        self.marker = marker

    def reset(self):
        self.resets += 1

    def interrupted(self):
        return self.kept


def quiet(*_):
    pass


def supervised(*tasks):
    port = Port()
    supervisor = Supervisor(port, quiet)
    supervisor.start(4000, 10000)
    for task in tasks:
        supervisor.add(task)
    return port, supervisor


def test_watchdog_is_armed_before_the_timer_that_feeds_it():
    port, _ = supervised()
    assert port.order == ["watchdog", "timer"] and port.armed == 4000


def test_feeds_while_the_lease_holds_and_resets_with_its_reason_at_the_end():
    port, supervisor = supervised()
    supervisor.tick()
    assert port.fed == 1
    port.now = 10000
    supervisor.tick()
    supervisor.tick()
    assert port.fed == 1 and port.resets == 1
    assert reasons.decode(port.marker) == "lease"


def test_boot_lease_of_a_trial_ends_as_a_missed_deadline():
    port, supervisor = supervised()
    supervisor.lease(10000, "deadline")
    port.now = 10000
    supervisor.tick()
    supervisor.tick()
    assert port.fed == 0 and port.resets == 0 and reasons.decode(port.marker) == "deadline"


def test_first_health_mark_ends_the_boot_lease():
    port, supervisor = supervised(Task("a", quiet, 10, 1000))
    supervisor.run_once()
    assert supervisor.marked and not supervisor.leased
    supervisor.tick()
    assert port.fed == 1


def test_missed_deadline_stops_feeding_for_good():
    port, supervisor = supervised(Task("a", quiet, 10, 1000), Task("b", quiet, 10, 500))
    supervisor.run_once()
    port.now = 501
    supervisor.tick()
    assert port.fed == 0 and supervisor.missed == "b"
    assert reasons.decode(port.marker) == "deadline"
    supervisor.run_once()
    supervisor.tick()
    assert port.fed == 0 and port.resets == 0, "the watchdog resets, not the software that failed"


def test_nothing_feeds_without_a_lease_or_a_task():
    port, supervisor = supervised()
    supervisor.end_lease()
    supervisor.tick()
    assert port.fed == 0


def test_interrupt_kept_by_the_callback_reaches_the_main_loop():
    port, supervisor = supervised(Task("a", quiet, 10, 1000))
    port.kept = True
    try:
        supervisor.run_once()
    except KeyboardInterrupt:
        return
    raise AssertionError("the interrupt was swallowed")


def test_task_steps_once_a_period():
    calls = []
    port, supervisor = supervised(Task("a", lambda: calls.append(port.now), 100, 1000))
    for now in range(0, 301, 20):
        port.now = now
        supervisor.run_once()
    assert calls == [0, 100, 200, 300]


def test_reason_survives_as_a_marker_and_junk_is_no_reason():
    for reason in reasons.REASONS:
        assert reasons.decode(reasons.encode(reason)) == reason
    for junk in (0, 1, 0x7D3AFFFF, 0xFFFFFFFF):
        assert reasons.decode(junk) == ""
