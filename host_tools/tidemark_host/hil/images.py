"""Application images of the demo: the real agent, and agents that fail in one way each."""

from __future__ import annotations

import hashlib
from pathlib import Path

# A faulty release is the real agent plus these lines at the end of its app.py: bugs that happen.
_HANGS = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    answers = [1, 2, 3, 4, 5]

    def wait_for_sensor():
        while not answers:  # the sensor has gone silent, and nobody gives up
            pass
        answers.pop()

    return _tasks(base) + [Task("sensor", wait_for_sensor, 100, 1000)]
"""
_CRASHES = """

import sensor_driver_that_was_not_packed  # noqa: F401
"""
_LOSES_LINK = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    def save_power():
        base.link.disconnect()  # "the radio is only needed when there is something to send"

    return _tasks(base) + [Task("power", save_power, 20, 5000)]
"""

FAULTS = {"good": "", "hangs": _HANGS, "crashes": _CRASHES, "loses-link": _LOSES_LINK}
TABLE_SIZE = 96 * 1024  # bytes of a calibration table: makes a download long enough to interrupt


def overlay(folder: Path, agent: Path, fault: str) -> Path:
    """Write an overlay folder over `agent` with one fault of `FAULTS` and a calibration table.

    The table's bytes come from a hash: no two equal sectors, the same in every run.
    """
    package = folder / "agent"
    package.mkdir(parents=True, exist_ok=True)
    (package / "app.py").write_text((agent / "app.py").read_text("utf-8") + FAULTS[fault], "utf-8")
    blocks = (
        hashlib.sha256(f"{folder.name} {n}".encode()).digest() for n in range(TABLE_SIZE // 32)
    )
    (folder / "calibration.bin").write_bytes(b"".join(blocks))
    return folder
