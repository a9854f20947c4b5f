"""Application images for demo and bench: the real agent, and agents that fail in one way each."""

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
_STALLS = """

def tasks(base, _tasks=tasks):
    import sys
    from tidemark.supervisor import Task

    turns = [1, 2, 3, 4, 5]

    def transform():
        # One call into native code that takes years: no timer, and so no supervisor, gets a turn.
        turns.pop() if turns else all(range(1, sys.maxsize))

    return _tasks(base) + [Task("transform", transform, 100, 60000)]
"""
_CRASHES = """

import sensor_driver_that_was_not_packed  # noqa: F401
"""
_LOSES_LINK = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    def save_power():
        base.link.disconnect()  # "the radio is only needed when there is something to send"

    return _tasks(base) + [Task("power", save_power, 20, 60000)]
"""
_LEAKS = """

def tasks(base, _tasks=tasks):
    import gc
    from tidemark.supervisor import Task

    history = []

    def keep():
        gc.collect()
        if gc.mem_free() > base.board.HEAP_FLOOR - 4096:
            history.append(bytearray(8192))  # "we may want to look at it later"

    return _tasks(base) + [Task("history", keep, 1, 60000)]
"""
_UNWELL = """

_checks.add(lambda: "bearing")  # a check of the application's own that never holds
"""

FAULTS = {
    "good": "",
    "hangs": _HANGS,
    "stalls": _STALLS,
    "crashes": _CRASHES,
    "loses-link": _LOSES_LINK,
    "leaks": _LEAKS,
    "unwell": _UNWELL,
}
TABLE_SIZE = 96 * 1024  # bytes of a calibration table: makes a download long enough to interrupt


def overlay(folder: Path, agent: Path, fault: str, table: int = TABLE_SIZE) -> Path:
    """Write an overlay folder over `agent` with one fault of `FAULTS` and a calibration table.

    `table`: its bytes, a multiple of 32, from a hash: no two equal sectors, the same in every run.
    """
    package = folder / "agent"
    package.mkdir(parents=True, exist_ok=True)
    (package / "app.py").write_text((agent / "app.py").read_text("utf-8") + FAULTS[fault], "utf-8")
    blocks = (hashlib.sha256(f"{folder.name} {n}".encode()).digest() for n in range(table // 32))
    (folder / "calibration.bin").write_bytes(b"".join(blocks))
    return folder
