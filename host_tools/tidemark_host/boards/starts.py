"""When a board that only its console shows has started, and why: by what it said before, by what
was done to it, and by its port, which goes and comes back with a board that is a USB device.

A chip does not tell the host why it started. What nobody here did and the board did not announce
is `unknown`: a watchdog's bite, a supply that failed, a finger on the reset button. What the board
itself made of it is in its evidence.
"""

from __future__ import annotations

UNKNOWN = "unknown"
_LINE_MAX = 512
_SOFT = b"MPY: soft reboot"
_RAW = b"raw REPL; CTRL-B"
_STARTS = (b"tidemark: slot ", b"tidemark: not prov", b"tidemark: rescue (", b"tidemark: safe")
# The supervisor's last words, and the cause of the start that follows them.
_ANNOUNCED = (
    (b"tidemark: reset, reason", "reset"),
    (b"tidemark: the lease ran out", "reset"),
    (b"missed its deadline", "watchdog"),
)


class Starts:
    """`heard` and `came_back` return the causes of the starts that they show, in order."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._cause = ""  # of the next start: done by the host or announced by the board
        self._soft = False  # a soft reset was told, whose start may be told as well
        self._told = False  # the port was away for a start, which may be told as well

    def expect(self, cause: str) -> None:
        """The host does something that starts the board; "": it did not, after all."""
        self._cause = cause

    def came_back(self) -> list[str]:
        """The board's port had gone by itself and is there again."""
        self._line.clear()
        self._soft, self._told = False, True
        return [self._take()]

    def heard(self, data: bytes) -> list[str]:
        """The board said this; whole lines count, of at most 512 bytes each."""
        causes: list[str] = []
        for byte in data:
            if byte != 10:
                if len(self._line) < _LINE_MAX:
                    self._line.append(byte)
                continue
            line = bytes(self._line).rstrip(b"\r")
            self._line.clear()
            causes += self._read(line)
        return causes

    def _read(self, line: bytes) -> list[str]:
        if line.endswith(_SOFT):
            self._soft = True
            return ["soft"]
        if _RAW in line:
            self._soft = False
            return []
        for words, cause in _ANNOUNCED:
            if words in line:
                # A reset that the host asked for may be announced too.
                self._cause = self._cause or cause
                self._told = False
                return []
        if not any(words in line for words in _STARTS):
            return []
        if self._told or self._soft:
            self._told = self._soft = False
            return []
        return [self._take()]

    def _take(self) -> str:
        cause, self._cause = self._cause or UNKNOWN, ""
        return cause
