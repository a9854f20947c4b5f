"""When metadata has to be signed again: a table, and an iCalendar file (RFC 5545)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Due:
    """`renew`: the day by which the role is to be signed again, a third of its lifetime before it
    expires."""

    role: str
    version: int
    renew: datetime
    expires: datetime

    @property
    def command(self) -> str:
        if self.role == "timestamp":
            return "tidemark release publish"
        return f"tidemark release publish --refresh {self.role}"


def due(role: str, version: int, expires: datetime, lifetime: timedelta) -> Due:
    return Due(role, version, expires - lifetime / 3, expires)


def icalendar(rows: Iterable[Due], name: str, now: datetime | None = None) -> str:
    """Return the text of an iCalendar file: for each row an event with an alarm at its start."""
    stamp = (now or datetime.now(UTC)).strftime(_STAMP)
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Tidemark//release//EN"]
    for row in rows:
        lines += [
            "BEGIN:VEVENT",
            f"UID:{row.role}-{row.version}@{_text(name)}.tidemark",
            f"DTSTAMP:{stamp}",
            f"DTSTART:{row.renew.strftime(_STAMP)}",
            f"DTEND:{row.expires.strftime(_STAMP)}",
            f"SUMMARY:{_text(name)}: sign {row.role} again",
            f"DESCRIPTION:Version {row.version} expires then. {_text(row.command)}",
            *("BEGIN:VALARM", "ACTION:DISPLAY", "TRIGGER:PT0S"),
            *(f"DESCRIPTION:sign {row.role}", "END:VALARM", "END:VEVENT"),
        ]
    lines.append("END:VCALENDAR")
    return "".join(_folded(line) + "\r\n" for line in lines)


def _text(text: str) -> str:
    for mark in "\\;,":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", "\\n")


def _folded(line: str) -> str:
    # RFC 5545, 3.1: at most 75 octets a line; one that goes on starts with a blank.
    data = line.encode()
    parts = [data[:75]] + [data[at : at + 74] for at in range(75, len(data), 74)]
    return "\r\n ".join(part.decode(errors="replace") for part in parts)
