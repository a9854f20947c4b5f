# What the end of an update run leaves in the evidence ring.

import mqtt_peer  # noqa: F401 (gives umqtt its modules on CPython)

from tidemark.errors import StateError, TrustError
from tidemark.evidence import REMOTE, SLOT
from tidemark.updates import Updates


class Base:
    """What a run's end needs of the base; `told`: what was recorded and refused."""

    retry_due = None

    def __init__(self):
        self.told = []
        self.connection = self.slots = self

    def uptime_ms(self):
        return 0

    def report_soon(self):
        pass

    def record(self, code, detail, kind):
        self.told.append((code, detail, kind))

    def untold(self):
        return []

    def record_all(self, events):
        self.told.extend(events)

    def refuse(self, error, detail):
        self.told.append((error, detail))


class Ran(Updates):
    """After a run with this outcome, without the parts that a run needs."""

    def __init__(self, base, outcome, error=None):
        self._base = base
        self._period_ms = 1000
        self.updater = self
        self.error = error
        self._outcome = outcome

    @property
    def outcome(self):
        return self._outcome


def told(outcome, error=None):
    base = Base()
    Ran(base, outcome, error)._finish(0)
    return base.told


def test_refusal_of_an_update_is_counted_under_its_own_code():
    for code in ("timestamp-expired", "timestamp-rollback", "memory"):
        assert told(code, TrustError(code)) == [(code, "update", REMOTE)]


def test_staged_release_is_an_event_of_the_slots_and_its_own_state_a_refusal():
    assert told("staged") == [("update", "staged", SLOT)]
    worn = StateError("slot-worn")
    assert told("slot-worn", worn) == [(worn, "update")]
    assert told("current") == told("none") == []
