"""Read a gateway's state from another process, while it runs: the demo, tests and people do."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any


class GatewayView:
    """The committed state of a gateway's file, read-only."""

    def __init__(self, path: Path) -> None:
        """`path`: `gateway.db` in the gateway's state directory."""
        self._path = path

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        uri = f"{self._path.resolve().as_uri()}?mode=ro"
        db = sqlite3.connect(uri, uri=True, timeout=5)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def upstream(self, device: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the messages accepted for upstream, in the order of their acceptance."""
        sql = (
            "SELECT body FROM upstream WHERE (?1 IS NULL OR device = ?1)"
            " AND (?2 IS NULL OR kind = ?2) ORDER BY id"
        )
        return [json.loads(row[0]) for row in self._rows(sql, device, kind)]

    def waiting(self) -> int:
        """Return how many messages upstream has not acknowledged yet."""
        return self._rows("SELECT count(*) FROM upstream WHERE delivered IS NULL")[0][0]

    def unconfirmed(self, limit: int) -> list[dict[str, Any]]:
        """Return the oldest messages, `limit` at most, that upstream has not acknowledged yet."""
        sql = "SELECT body FROM upstream WHERE delivered IS NULL ORDER BY id LIMIT ?"
        return [json.loads(row[0]) for row in self._rows(sql, limit)]

    def counts(self, device: str | None = None) -> dict[str, int]:
        """Return how often each code was counted, of all devices or of one."""
        sql = "SELECT code, sum(count) FROM counts WHERE (?1 IS NULL OR device = ?1) GROUP BY code"
        return dict(self._rows(sql, device))

    def events(self, device: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """Return what happened, oldest first: kinds boot, trial, update, health, alarm, ..."""
        sql = (
            "SELECT device, kind, detail, count, first, last FROM events"
            " WHERE (?1 IS NULL OR device = ?1) AND (?2 IS NULL OR kind = ?2) ORDER BY id"
        )
        return [
            {
                "device": row[0],
                "kind": row[1],
                **json.loads(row[2]),
                "count": row[3],
                "first": row[4],
                "last": row[5],
            }
            for row in self._rows(sql, device, kind)
        ]

    def claims(self, device: str) -> dict[str, Any]:
        """Return the last claims of a device by name, {} before its first hello."""
        rows = self._rows("SELECT claims FROM devices WHERE id = ?", device)
        return json.loads(rows[0][0]) if rows else {}

    def accepted(self) -> int:
        """Return how many messages were ever accepted for upstream."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'upstream'")
        return rows[0][0] if rows else 0

    def quarantined(self, device: str) -> float | None:
        """Return when the device was quarantined; an operator may have cleared it since."""
        rows = self._rows("SELECT quarantined FROM devices WHERE id = ?", device)
        return rows[0][0] if rows else None

    def is_quarantined(self, device: str, cleared: int) -> bool:
        """Say whether a device that was cleared `cleared` times is in quarantine now."""
        sql = "SELECT 1 FROM devices WHERE id = ? AND quarantined NOT NULL AND cleared >= ?"
        return bool(self._rows(sql, device, cleared))

    def seen(self, device: str) -> float | None:
        """Return when the device last told its claims (Unix seconds)."""
        rows = self._rows("SELECT claims_at FROM devices WHERE id = ?", device)
        return rows[0][0] if rows else None

    def evidence(self, device: str) -> list[tuple[int, bytes]]:
        """Return (number of the first record, whole records) of each evidence message."""
        sql = "SELECT number, records FROM evidence WHERE device = ? ORDER BY number"
        return [(row[0], row[1]) for row in self._rows(sql, device)]
