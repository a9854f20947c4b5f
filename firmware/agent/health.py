# The application's own checks: what has to hold before an unconfirmed image is confirmed.

from tidemark.compat import const
from tidemark.errors import ConfigError

_CHECKS_MAX = const(16)


class Checks:
    """A bounded list of checks, each a callable that returns a reason (short str) or None."""

    def __init__(self):
        self._checks = []

    def add(self, check):
        """Ask `check` from now on. Raises ConfigError("checks") after 16."""
        if len(self._checks) == _CHECKS_MAX:
            raise ConfigError("checks", "more than 16 health checks")
        self._checks.append(check)

    def reason(self):
        """Return the first reason to be unhealthy, or None."""
        for check in self._checks:
            found = check()
            if found:
                return found
        return None
