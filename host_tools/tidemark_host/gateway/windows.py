"""Replay windows: which counters were seen. RFC 6479 rings, pure, with fixed size.

Cost of one look-up or update is bounded by the width, whatever the counter.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Self

WIDTH = 1024  # counters
TAG = 4  # bytes kept of a MAC or signature
EPOCHS = 16  # creation epochs whose readings are remembered


class Standing(Enum):
    """What a window knows of a counter."""

    NEW = "new"
    SAME = "same"  # seen with the same tag: a redelivery
    OTHER = "other"  # seen with another tag
    STALE = "stale"  # below the window


class ReplayWindow:
    """Ring of `WIDTH` counters from 1 on, with the first `TAG` bytes of the seal of each."""

    __slots__ = ("_seen", "_tags", "top")

    def __init__(self) -> None:
        self.top = 0
        self._seen = bytearray(WIDTH)
        self._tags = bytearray(WIDTH * TAG)

    def standing(self, n: int, tag: bytes) -> Standing:
        """Say how counter `n` (>= 1) with seal `tag` stands; changes nothing."""
        if n > self.top:
            return Standing.NEW
        if n <= self.top - WIDTH:
            return Standing.STALE
        slot = n % WIDTH
        if not self._seen[slot]:
            return Standing.NEW
        kept = bytes(self._tags[slot * TAG : slot * TAG + TAG])
        return Standing.SAME if kept == tag[:TAG] else Standing.OTHER

    def mark(self, n: int, tag: bytes) -> int:
        """Remember `n`, which must stand NEW; return by how much the top rose."""
        rise = max(0, n - self.top)
        if rise >= WIDTH:
            self._seen = bytearray(WIDTH)
        else:
            for skipped in range(self.top + 1, n + 1):
                self._seen[skipped % WIDTH] = 0
        self.top = max(self.top, n)
        slot = n % WIDTH
        self._seen[slot] = 1
        self._tags[slot * TAG : slot * TAG + TAG] = tag[:TAG].ljust(TAG, b"\0")
        return rise

    def to_bytes(self) -> bytes:
        """Return the window for the store."""
        return struct.pack(">Q", self.top) + self._seen + self._tags

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError when `data` is not a stored window."""
        if len(data) != 8 + WIDTH + WIDTH * TAG:
            raise ValueError("not a replay window")
        window = cls()
        (window.top,) = struct.unpack_from(">Q", data)
        window._seen = bytearray(data[8 : 8 + WIDTH])
        window._tags = bytearray(data[8 + WIDTH :])
        return window


class ReadingWindow:
    """Indices of readings created in one epoch, from 0 on."""

    __slots__ = ("_seen", "top")

    def __init__(self) -> None:
        self.top = -1
        self._seen = bytearray(WIDTH)

    def standing(self, index: int) -> Standing:
        """Return NEW, SAME or STALE (below the window: not known); changes nothing."""
        if index > self.top:
            return Standing.NEW
        if index <= self.top - WIDTH:
            return Standing.STALE
        return Standing.SAME if self._seen[index % WIDTH] else Standing.NEW

    def mark(self, index: int) -> None:
        """Remember `index`, which must stand NEW."""
        if index - self.top >= WIDTH:
            self._seen = bytearray(WIDTH)
        else:
            for skipped in range(self.top + 1, index + 1):
                self._seen[skipped % WIDTH] = 0
        self.top = max(self.top, index)
        self._seen[index % WIDTH] = 1

    def to_bytes(self) -> bytes:
        """Return the window for the store."""
        return struct.pack(">q", self.top) + self._seen

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError when `data` is not a stored window."""
        if len(data) != 8 + WIDTH:
            raise ValueError("not a reading window")
        window = cls()
        (window.top,) = struct.unpack_from(">q", data)
        window._seen = bytearray(data[8:])
        return window


class Readings:
    """The reading windows of one device: its `EPOCHS` highest creation epochs."""

    __slots__ = ("dropped", "windows")

    def __init__(self, windows: dict[int, ReadingWindow] | None = None) -> None:
        self.windows = windows or {}
        self.dropped: list[int] = []  # epochs that fell out since the store last looked

    def standing(self, epoch: int, index: int) -> Standing:
        """Return NEW, SAME, or STALE when it can't be told; changes nothing."""
        window = self.windows.get(epoch)
        if window is not None:
            return window.standing(index)
        full = len(self.windows) >= EPOCHS
        return Standing.STALE if full and epoch < min(self.windows) else Standing.NEW

    def mark(self, epoch: int, index: int) -> None:
        """Remember a reading that stands NEW."""
        if epoch not in self.windows:
            while len(self.windows) >= EPOCHS:
                lowest = min(self.windows)
                del self.windows[lowest]
                self.dropped.append(lowest)
            self.windows[epoch] = ReadingWindow()
        self.windows[epoch].mark(index)
