"""An image's settings on a virtual board, end to end: broker, gateway process, wire."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tidemark_host.demo.site import Site, until

ENCRYPT0, SIGN1 = 0xD0, 0xD2
READINGS = 12
SENT = ("telemetry", "backlog")


@pytest.mark.parametrize(
    ("settings", "tag", "trust"),
    [({"confidential": True}, ENCRYPT0, "mac"), ({"integrity": "sign"}, SIGN1, "signature")],
    ids=["confidential", "signed"],
)
async def test_readings_arrive_as_the_setting_seals_them(
    tmp_path: Path, settings: dict[str, object], tag: int, trust: str
) -> None:
    async with Site(tmp_path / "site") as site:
        image = site.image("first", **settings, readings_max=READINGS)
        await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
        await until("all readings arrive", lambda: len(site.readings()) >= READINGS)
        rows = site.readings()
    assert len({(row["epoch"], row["index"]) for row in rows}) == len(rows) == READINGS
    assert {row["tags"]["trust"] for row in rows} == {trust}
    sent = [m for m in site.capture.messages if m.topic.rsplit("/", 1)[1] in SENT]
    assert len(sent) >= READINGS
    assert {message.payload[0] for message in sent} == {tag}
    # No counter twice (I1), whether it stands in the payload or in the IV.
    assert len(set(site.counters())) == len(site.counters())
