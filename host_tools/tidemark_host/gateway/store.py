"""What a gateway must not forget, in one SQLite file: WAL, synchronous FULL.

Acceptance of a message, its replay window and its row in the upstream queue are one transaction.
A `Store` belongs to one thread at a time; other processes read with `GatewayView`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tidemark_host.gateway.windows import Readings, ReadingWindow, ReplayWindow, Standing

KNOWN_EPOCHS = 16  # epochs of a device whose boot nonce is remembered
WINDOW_EPOCHS = 2  # epochs of a device whose replay windows are kept
EVENTS_PER_KIND = 64  # of each device
EVIDENCE_PER_DEVICE = 4096  # messages
_CACHE = 4096  # windows in RAM


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What is known of a device beyond the inventory."""

    epoch: int | None
    boot_nonce: bytes
    handshakes: int
    quarantined: int | None  # the inventory's `cleared` when it was; None: never
    claims: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the upstream queue."""

    id: int
    device: str
    kind: str
    body: str


class Store:
    """The file and a bounded cache of its windows. Changes only inside `transaction()`."""

    def __init__(self, path: Path, max_waiting: int = 1_000_000, keep_delivered: int = 100_000):
        """Open or make the file at `path`. The limits count rows of the upstream queue."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript((files("tidemark_host.gateway") / "schema.sql").read_text())
        self._mend()
        self._max_waiting = max_waiting
        self._keep_delivered = keep_delivered
        self._windows: OrderedDict[tuple[str, int, int], ReplayWindow] = OrderedDict()
        self._dirty: set[tuple[str, int, int]] = set()
        self._readings: OrderedDict[str, Readings] = OrderedDict()
        self._dirty_readings: dict[str, set[int]] = {}
        self._devices: dict[str, DeviceState] = {}
        self._waiting = self._count_waiting()

    def _mend(self) -> None:
        """Bring a file of an earlier schema up to this one."""
        if self._has("epochs", "hello"):
            self._db.execute("ALTER TABLE epochs DROP COLUMN hello")
        if not self._has("devices", "cleared"):
            self._db.execute("ALTER TABLE devices ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0")

    def _has(self, table: str, column: str) -> bool:
        sql = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
        return self._db.execute(sql, (table, column)).fetchone() is not None

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing: on an exception neither the file nor the cache has changed."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._flush()
            self._db.execute("COMMIT")
        except BaseException:
            self._windows.clear()
            self._dirty.clear()
            self._readings.clear()
            self._dirty_readings.clear()
            self._devices.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._waiting = self._count_waiting()
            raise

    def _flush(self) -> None:
        for key in self._dirty:
            row = (*key, self._windows[key].to_bytes())
            self._db.execute("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?)", row)
        for device, epochs in self._dirty_readings.items():
            readings = self._readings[device]
            for epoch in epochs & readings.windows.keys():
                row = (device, epoch, readings.windows[epoch].to_bytes())
                self._db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", row)
            for epoch in readings.dropped:
                sql = "DELETE FROM readings WHERE device = ? AND epoch = ?"
                self._db.execute(sql, (device, epoch))
            readings.dropped.clear()
        self._dirty.clear()
        self._dirty_readings.clear()
        while len(self._windows) > _CACHE:
            self._windows.popitem(last=False)
        while len(self._readings) > _CACHE:
            self._readings.popitem(last=False)
        if len(self._devices) > _CACHE:
            self._devices.clear()

    # --- Devices and epochs -----------------------------------------------------------------

    def device(self, device: str) -> DeviceState:
        """Return what is known; a device never seen has epoch None."""
        state = self._devices.get(device)
        if state is None:
            sql = "SELECT handshakes, quarantined, cleared, claims FROM devices WHERE id = ?"
            row = self._db.execute(sql, (device,)).fetchone()
            handshakes, since, cleared, claims = row or (0, None, 0, "{}")
            quarantined = None if since is None else cleared
            sql = (
                "SELECT epoch, boot_nonce FROM epochs WHERE device = ? ORDER BY epoch DESC LIMIT 1"
            )
            epoch, nonce = self._db.execute(sql, (device,)).fetchone() or (None, b"")
            state = DeviceState(epoch, nonce, handshakes, quarantined, json.loads(claims))
            self._devices[device] = state
        return state

    def boot_nonce(self, device: str, epoch: int) -> bytes | None:
        """Return the boot nonce accepted for an epoch, None if there is none or no longer."""
        sql = "SELECT boot_nonce FROM epochs WHERE device = ? AND epoch = ?"
        row = self._db.execute(sql, (device, epoch)).fetchone()
        return row[0] if row else None

    def accept_hello(self, device: str, epoch: int, boot_nonce: bytes) -> int:
        """Record a verified hello; return the number of this handshake, from 0."""
        number = self.device(device).handshakes
        self._touch(device)
        self._db.execute("UPDATE devices SET handshakes = ? WHERE id = ?", (number + 1, device))
        row = (device, epoch, boot_nonce)
        self._db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?)", row)
        for table, keep in (("epochs", KNOWN_EPOCHS), ("windows", WINDOW_EPOCHS)):
            sql = (
                f"DELETE FROM {table} WHERE device = ?1 AND epoch < (SELECT min(epoch) FROM"
                " (SELECT epoch FROM epochs WHERE device = ?1 ORDER BY epoch DESC LIMIT ?2))"
            )
            self._db.execute(sql, (device, keep))
        floor = self.window_floor(device)
        for key in [k for k in self._windows if k[0] == device and k[1] < floor]:
            del self._windows[key]
            self._dirty.discard(key)
        return number

    def window_floor(self, device: str) -> int:
        """Return the lowest epoch whose replay windows are still kept."""
        sql = (
            "SELECT min(epoch) FROM (SELECT epoch FROM epochs WHERE device = ?"
            " ORDER BY epoch DESC LIMIT ?)"
        )
        (floor,) = self._db.execute(sql, (device, WINDOW_EPOCHS)).fetchone()
        return floor or 0

    def quarantine(self, device: str, reason: str, cleared: int, now: float) -> None:
        """Restrict a device to hello and evidence until an operator clears it once more.

        `cleared`: how often that was done so far; `now` is for people and decides nothing.
        """
        self._touch(device)
        sql = "UPDATE devices SET quarantined = ?, cleared = ?, reason = ? WHERE id = ?"
        self._db.execute(sql, (now, cleared, reason, device))

    def set_claims(self, device: str, claims: dict[str, Any], now: float) -> None:
        """Keep the device's last claims (JSON-safe)."""
        self._touch(device)
        sql = "UPDATE devices SET claims = ?, claims_at = ? WHERE id = ?"
        self._db.execute(sql, (json.dumps(claims), now, device))

    def _touch(self, device: str) -> None:
        self._devices.pop(device, None)
        self._db.execute("INSERT OR IGNORE INTO devices (id) VALUES (?)", (device,))

    # --- Windows ----------------------------------------------------------------------------

    def _window(self, key: tuple[str, int, int]) -> ReplayWindow:
        window = self._windows.get(key)
        if window is None:
            sql = "SELECT data FROM windows WHERE device = ? AND epoch = ? AND space = ?"
            row = self._db.execute(sql, key).fetchone()
            window = ReplayWindow.from_bytes(row[0]) if row else ReplayWindow()
            self._windows[key] = window
        self._windows.move_to_end(key)
        return window

    def standing(self, device: str, epoch: int, space: int, n: int, tag: bytes) -> Standing:
        """Say how a counter stands; changes nothing."""
        return self._window((device, epoch, space)).standing(n, tag)

    def mark(self, device: str, epoch: int, space: int, n: int, tag: bytes) -> int:
        """Remember a counter that stands NEW; return by how much the window's top rose."""
        key = (device, epoch, space)
        self._dirty.add(key)
        return self._window(key).mark(n, tag)

    def reading(self, device: str, epoch: int, index: int) -> Standing:
        """Say how a reading stands and remember a new one."""
        readings = self._readings.get(device)
        if readings is None:
            sql = "SELECT epoch, data FROM readings WHERE device = ?"
            rows = self._db.execute(sql, (device,)).fetchall()
            readings = Readings({row[0]: ReadingWindow.from_bytes(row[1]) for row in rows})
            self._readings[device] = readings
        self._readings.move_to_end(device)
        standing = readings.standing(epoch, index)
        if standing is Standing.NEW:
            readings.mark(epoch, index)
            self._dirty_readings.setdefault(device, set()).add(epoch)
        return standing

    # --- Upstream queue ---------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether the upstream queue takes another row."""
        return self._waiting < self._max_waiting

    @property
    def waiting(self) -> int:
        """Rows not yet delivered."""
        return self._waiting

    def _count_waiting(self) -> int:
        sql = "SELECT count(*) FROM upstream WHERE delivered IS NULL"
        return int(self._db.execute(sql).fetchone()[0])

    def enqueue(self, device: str, kind: str, epoch: int, index: int, body: str) -> None:
        """Put one message into the upstream queue."""
        sql = "INSERT INTO upstream (device, kind, epoch, idx, body) VALUES (?, ?, ?, ?, ?)"
        self._db.execute(sql, (device, kind, epoch, index, body))
        self._waiting += 1

    def next_rows(self, limit: int, after: int = 0) -> list[Row]:
        """Return up to `limit` rows that wait, oldest first."""
        sql = (
            "SELECT id, device, kind, body FROM upstream"
            " WHERE delivered IS NULL AND id > ? ORDER BY id LIMIT ?"
        )
        return [Row(*row) for row in self._db.execute(sql, (after, limit))]

    def delivered(self, ids: Sequence[int], now: float) -> None:
        """Mark rows that the upstream broker has acknowledged; old ones are dropped."""
        if not ids:
            return
        sql = "UPDATE upstream SET delivered = ? WHERE id = ? AND delivered IS NULL"
        self._waiting -= self._db.executemany(sql, [(now, row) for row in ids]).rowcount
        limit = max(ids) - self._keep_delivered
        self._db.execute("DELETE FROM upstream WHERE id < ? AND delivered IS NOT NULL", (limit,))

    # --- What happened ----------------------------------------------------------------------

    def add_counts(self, counts: Counter[tuple[str, str]], now: float) -> None:
        """Add to the counters, keyed (device id or "", code)."""
        sql = (
            "INSERT INTO counts VALUES (?1, ?2, ?3, ?4) ON CONFLICT (device, code)"
            " DO UPDATE SET count = count + ?3, last = ?4"
        )
        rows = [(device, code, n, now) for (device, code), n in counts.items()]
        self._db.executemany(sql, rows)

    def add_event(self, device: str, kind: str, detail: dict[str, Any], now: float) -> bool:
        """Record an event; one like the last of its kind raises that one's count instead.

        Return whether it is a new one. Each device keeps `EVENTS_PER_KIND` of a kind.
        """
        text = json.dumps(detail, sort_keys=True)
        sql = (
            "SELECT id, detail FROM events WHERE device = ? AND kind = ? ORDER BY id DESC LIMIT 1"
        )
        row = self._db.execute(sql, (device, kind)).fetchone()
        if row and row[1] == text:
            sql = "UPDATE events SET count = count + 1, last = ? WHERE id = ?"
            self._db.execute(sql, (now, row[0]))
            return False
        sql = "INSERT INTO events (device, kind, detail, first, last) VALUES (?, ?, ?, ?, ?)"
        self._db.execute(sql, (device, kind, text, now, now))
        sql = (
            "DELETE FROM events WHERE device = ?1 AND kind = ?2 AND id NOT IN (SELECT id FROM"
            " events WHERE device = ?1 AND kind = ?2 ORDER BY id DESC LIMIT ?3)"
        )
        self._db.execute(sql, (device, kind, EVENTS_PER_KIND))
        return True

    def add_evidence(self, device: str, number: int, records: bytes) -> None:
        """Keep whole evidence records as sent, the newest `EVIDENCE_PER_DEVICE` messages."""
        sql = "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?)"
        self._db.execute(sql, (device, number, records))
        sql = (
            "DELETE FROM evidence WHERE device = ?1 AND number <= (SELECT number FROM evidence"
            " WHERE device = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)"
        )
        self._db.execute(sql, (device, EVIDENCE_PER_DEVICE))
