"""What a board has said on its serial console, line by line with the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from tidemark_host.boards.base import BoardTimeout, Line

LINES_MAX = 20_000  # lines the log keeps; older ones go
_LINE_MAX = 4096  # bytes of a line; the rest starts a new one


class ConsoleLog:
    """Lines with the time each was completed. Their numbers stay when old lines go.

    `len` is the number of the next line: what `wait_for` has found is before it, finished or not.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._first = 0  # number of the oldest line kept
        self._open = bytearray()
        self._told = False  # the open line has been returned: for who comes later it is over
        self._changed = threading.Condition()

    def __len__(self) -> int:
        with self._changed:
            return self._first + len(self._lines) + self._told

    def __iter__(self) -> Iterator[Line]:
        with self._changed:
            return iter(list(self._lines))

    def __getitem__(self, index: int) -> Line:
        with self._changed:
            if index < 0:
                return self._lines[index]
            if index < self._first:
                raise IndexError(f"line {index} is no longer kept")
            return self._lines[index - self._first]

    def add(self, data: bytes) -> None:
        """Take what the board has printed."""
        with self._changed:
            for part in data.splitlines(keepends=True):
                self._open += part
                if part.endswith(b"\n") or len(self._open) >= _LINE_MAX:
                    self._end_line()
            self._changed.notify_all()

    def note(self, text: str) -> None:
        """Add a line of the host's own, marked with `#`: power, resets, faults."""
        with self._changed:
            if self._open:
                self._end_line()
            self._lines.append(Line(time.monotonic(), f"# {text}"))
            self._changed.notify_all()

    def wait_for(self, text: str, timeout: float = 10.0, since: int = 0) -> Line:
        """Return the first line from number `since` on that contains `text`, be it unfinished.

        Raises BoardTimeout with the last lines of the log.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._lines[max(0, since - self._first) :]:
                    since += 1
                    if text in line.text:
                        return line
                end = self._first + len(self._lines)
                since = max(since, end)
                if since == end and text in _decode(self._open):
                    self._told = bool(self._open)
                    return Line(time.monotonic(), _decode(self._open))
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            last = "\n".join(line.text for line in self._lines[-15:])
        raise BoardTimeout(f"no {text!r} on the console within {timeout} s; it ends in\n{last}")

    def _end_line(self) -> None:
        self._lines.append(Line(time.monotonic(), _decode(self._open)))
        self._open.clear()
        self._told = False
        if len(self._lines) > LINES_MAX:
            gone = len(self._lines) - LINES_MAX
            del self._lines[:gone]
            self._first += gone


def _decode(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "backslashreplace").rstrip("\r\n")
