"""A short soak in every test run: the packet id wraps on the real agent, with all checks."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tidemark_host.faults import soak
from tidemark_host.faults.oracle import PACKET_ID_MAX


@pytest.mark.timeout(180)
async def test_readings_arrive_once_while_the_packet_id_wraps(tmp_path: Path) -> None:
    counts: list[int] = []
    result = await soak.soak(
        tmp_path / "site",
        1_000,
        seed=1,
        first_id=PACKET_ID_MAX - 300,
        limit_s=150,
        say=lambda so_far, seconds: counts.append(so_far.arrived),
    )
    assert result.failures == []
    assert (result.arrived, result.twice, result.wraps) == (1_000, 0, 1)
    assert result.published >= 1_000
    assert all(a <= b for a, b in itertools.pairwise(counts))
    assert soak.replay(result) == "make soak MESSAGES=1000 SEED=1 PROFILE=mild"
