# The application's entry: the base asks it for its tasks, and in a trial for its health.

from tidemark.compat import const
from tidemark.supervisor import Task

from . import sensors
from .health import Checks
from .telemetry import Telemetry

_SEND_MS = const(20)
_SLACK_MS = const(60000)  # the link may hold the loop for 10 s, an update's step for a few

_checks = Checks()


def tasks(base):
    """Return the application's tasks (list of Task) on `base` (tidemark.base.Base)."""
    period_ms = base.settings["period_ms"]
    telemetry = Telemetry(base, sensors.fitted(base.port), base.settings["readings_max"])
    _checks.add(telemetry.complaint)
    return [
        Task("sample", telemetry.sample, period_ms, period_ms + _SLACK_MS),
        Task("send", telemetry.send, _SEND_MS, _SLACK_MS),
    ]


def health(base):
    """Return what the application complains about (short str), or None while it is healthy."""
    return _checks.reason()
