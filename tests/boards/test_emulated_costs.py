"""What the real image costs on the emulated Pico. The figures repeat exactly (`make bench`)."""

from __future__ import annotations

import pytest

from tidemark_host import toolchain
from tidemark_host.bench.board import BASE_HEAP, BOARD, FREE_HEAP, HAND_OVER_MS, costs

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(900)]


def test_image_keeps_its_goals_of_heap_and_hand_over() -> None:
    assert (BASE_HEAP, FREE_HEAP, HAND_OVER_MS) == (60 * 1024, 120 * 1024, 150)
    found = costs(toolchain.firmware(BOARD))
    # A blank board's boot alone takes 29 KB of it.
    assert 48 * 1024 < found.base_heap < BASE_HEAP
    assert found.free >= FREE_HEAP
    assert found.hand_over_ms < HAND_OVER_MS
    # A full outbox alone would be 400 ms more: it is recovered by what is handed over to.
    assert found.hand_over_ms < found.aged_ms < 2 * HAND_OVER_MS
