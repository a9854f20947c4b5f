"""An update on the emulated Pico: within 3 s, within 48 KiB of heap, and nobody waits long."""

from __future__ import annotations

import pytest

from tidemark_host.bench import tuf

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(900)]


def test_refresh_and_release_take_three_seconds_and_48_kib() -> None:
    # Files of 4 KiB made of many small fields: an honest repository's cost less.
    done = tuf.update(4096, search=True)
    assert done.cycles <= tuf.CYCLES, done.measured.cycles
    assert done.held_ms <= tuf.HELD_MS
    assert done.heap <= tuf.HEAP


def test_no_signature_holds_the_board_for_50_ms() -> None:
    measured, held_ms = tuf.signatures()
    assert set(held_ms) == set(measured.cycles)
    assert {name: ms for name, ms in held_ms.items() if ms > tuf.HELD_MS} == {}
