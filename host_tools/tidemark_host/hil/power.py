"""What switches a board's supply: a program, run with a bound."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tidemark_host.boards.base import BoardError

_TOOL_S = 30.0


@dataclass(frozen=True)
class Command:
    """A relay's program. `settle_s`: how long the supply takes to fall, or to rise."""

    turn_on: Sequence[str]
    turn_off: Sequence[str]
    settle_s: float = 0.5

    def on(self) -> None:
        """Raises BoardError `power`."""
        self._run(self.turn_on)

    def off(self) -> None:
        """Raises BoardError `power`."""
        self._run(self.turn_off)

    def __str__(self) -> str:
        return self.turn_on[0]

    def _run(self, argv: Sequence[str]) -> None:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TOOL_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BoardError("power", f"{argv[0]}: {error}") from error
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise BoardError("power", f"{argv[0]}: {' '.join(last) or f'exit {done.returncode}'}")
        time.sleep(self.settle_s)


def uhubctl(hub: str, port: int) -> Command:
    """Return the switch of a USB hub's port. `hub`: its location, as uhubctl prints it."""
    base = ("uhubctl", "-l", hub, "-p", str(port), "-a")
    return Command((*base, "on"), (*base, "off"), settle_s=2.0)
