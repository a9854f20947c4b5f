"""A cohort's own role, end to end: a board takes what the role signs, and no more."""

from __future__ import annotations

import asyncio
import copy

import pytest

from tidemark_host.hil.site import Site
from tidemark_host.release import app_path

CANARY = "canary"


@pytest.mark.slow
async def test_board_of_a_cohort_takes_its_roles_release_and_refuses_a_path_outside(
    blank_site: Site,
) -> None:
    site = blank_site
    first = await asyncio.to_thread(site.image, "v1")
    await asyncio.to_thread(site.flash_and_provision, first, "1.0.0", CANARY)
    await site.until("a reading", site.readings)
    repository = site.repository
    board = site.definition.name
    repository.delegate(CANARY, [repository.keys.add(CANARY).public_key])
    second = await asyncio.to_thread(site.image, "v2")
    index = repository.add(second, board=board, version="1.1.0", role=CANARY)
    repository.publish()
    assert repository.indices(board) == [1]
    await site.until("confirmed", lambda: (index, "confirmed", "ok") in site.trials(), 60)
    assert site.claims()["floor"] == index
    assert {row["tags"]["cohort"] for row in site.readings()} == {CANARY}

    # The team signs a path of the whole fleet's, with an index above all.
    listing = repository.listings[CANARY]
    stray = copy.deepcopy(repository.entry(board, index, CANARY))
    stray.unrecognized_fields["custom"]["index"] = index + 1
    stray.hashes["sha256"] = "00" * 32
    stray.path = app_path(board, index + 1)
    listing.targets[stray.path] = stray
    repository.publish(refresh=[CANARY])
    await site.until("it is refused", lambda: site.claims().get("update") == "not-delegated", 60)
    asked = len(site.mirror.requests)
    await site.until("another run", lambda: len(site.mirror.requests) > asked + 1, 60)
    assert not [path for path, _, _ in site.mirror.requests if "00" * 32 in path]

    # The owner takes the team's say back; the fleet's releases still reach the board.
    repository.revoke(CANARY)
    last = await asyncio.to_thread(site.image, "v3")
    index = repository.add(last, board=board, version="1.2.0", index=index + 1)
    repository.publish()
    await site.until("confirmed", lambda: (index, "confirmed", "ok") in site.trials(), 60)
