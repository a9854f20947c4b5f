"""The judge of the power cuts sees what it is there for: each rule on what would break it."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from tests.powercut.broken import Broken
from tests.powercut.oracle import Banner, Oracle, State
from tests.powercut.setting import make_board
from tidemark_host.boards.nor import NorFlash

BOARD = make_board()
IMAGE = b"image" * 100


def _judge() -> Oracle:
    return Oracle(BOARD, images=(IMAGE,))


def _state(confirmed: int) -> State:
    return State(confirmed, [4, 3], [None, None], 1, 1, 1, [], b"", None)


def _content(name: str, image: bytes) -> bytes:
    content = bytearray(b"\xff" * BOARD.flash_size)
    start = BOARD.regions[name].offset + BOARD.sector
    content[start : start + len(image)] = image
    return bytes(content)


def test_judge_sees_a_write_into_the_slot_that_runs_or_is_confirmed() -> None:
    a, b = (BOARD.regions[name].offset + 5000 for name in ("slot_a", "slot_b"))
    judge = _judge()
    judge.operation("a", _state(0), b)
    with pytest.raises(Broken, match=r"I3.*runs"):
        judge.operation("a", None, a)
    with pytest.raises(Broken, match=r"I3.*confirmed"):
        judge.operation("", _state(1), b)


def test_judge_sees_an_image_that_nobody_published() -> None:
    judge = _judge()
    judge.runs("b", _content("slot_b", IMAGE))
    with pytest.raises(Broken, match="I3"):
        judge.runs("b", _content("slot_b", IMAGE[:-1] + b"?"))
    with pytest.raises(Broken, match="I3"):
        judge.runs("a", _content("slot_b", IMAGE))


def test_judge_sees_a_release_below_a_confirmed_one() -> None:
    judge = _judge()
    judge.booted(Banner("b", 2, "trial"))
    judge.concluded("confirmed", 2)
    judge.booted(Banner("b", 2, "normal"))
    with pytest.raises(Broken, match="I4"):
        judge.booted(Banner("a", 1, "normal"))


def test_judge_sees_a_rejected_release_tried_again_and_a_trial_without_end() -> None:
    judge = _judge()
    for _ in range(18):
        judge.booted(Banner("b", 2, "trial"))
    with pytest.raises(Broken, match=r"I5.*trial boots"):
        judge.booted(Banner("b", 2, "trial"))
    judge.concluded("rejected", 2)
    with pytest.raises(Broken, match=r"I5.*rejected"):
        judge.booted(Banner("b", 2, "trial"))


def test_judge_sees_a_reading_twice_upstream_and_one_that_is_owed() -> None:
    judge = _judge()
    judge.owed.add((3, 1))
    judge.forwarded("dev", "telemetry", 3, 1, "{}")
    assert not judge.owed
    judge.forwarded("dev", "backlog", 3, 1, '{"maybe_duplicate":true}')
    with pytest.raises(Broken, match="I2"):
        judge.forwarded("dev", "backlog", 3, 1, "{}")


def _claims(floor: int, root: int, time: int, number: int) -> dict[int, object]:
    head = hashlib.sha256(b"%d" % number).digest()[:16]
    return {1003: floor, 1004: [root], 1008: time, 1007: [number, head]}


@pytest.mark.parametrize("fallen", [(1, 3, 9, 5), (2, 2, 9, 5), (2, 3, 8, 5)])
def test_judge_sees_a_floor_that_falls(fallen: tuple[int, int, int, int]) -> None:
    judge = _judge()
    judge._claims(_claims(2, 3, 9, 5))
    with pytest.raises(Broken, match="I4"):
        judge._claims(_claims(*fallen))


def test_judge_sees_evidence_that_goes_back_or_has_two_hashes() -> None:
    judge = _judge()
    judge._claims(_claims(1, 1, 1, 5))
    with pytest.raises(Broken, match=r"I11.*head"):
        judge._claims(_claims(1, 1, 1, 4))
    with pytest.raises(Broken, match=r"I11.*two hashes"):
        judge._claims({**_claims(1, 1, 1, 5), 1007: [5, bytes(16)]})


def _ring(*events: tuple[str, bytes]) -> bytes:
    from tidemark.evidence import SLOT, Evidence
    from tidemark.flash import Region

    region = BOARD.regions["evidence"]
    flash = NorFlash(region.size)
    ring = Evidence(Region(flash, 0, region.size))
    ring.recover()
    for code, detail in events:
        ring.add(code, detail, SLOT)
    content = bytearray(b"\xff" * BOARD.flash_size)
    content[region.offset : region.end] = flash.view(0, region.size)
    return bytes(content)


def test_judge_sees_the_end_of_a_trial_that_the_ring_lacks() -> None:
    judge = _judge()
    judge.ended(dataclasses.replace(_state(0), last_trial=[2, 1, "inconclusive", "no-ack", 1]))
    judge.ended(dataclasses.replace(_state(0), last_trial=[2, 1, "inconclusive", "no-ack", 2]))
    judge.ended(dataclasses.replace(_state(0), last_trial=[2, 1, "confirmed", "ok", 3]))
    once, again = ("inconclusive", b"no-ack"), ("inconclusive", b"no-ack*")
    reset, done, boot = ("reset", b"rollback"), ("confirmed", b"2.0.0*"), ("boot", b"power-on")
    judge._check_ring(_ring(once, reset, again, boot, again, done))
    for short in ((once, boot, again, done), (once, reset, once)):
        with pytest.raises(Broken, match=r"I11.*the ring lacks it"):
            judge._check_ring(_ring(*short))


def test_judge_sees_an_epoch_that_falls_and_an_alarm() -> None:
    judge = _judge()
    judge._epoch(4)
    with pytest.raises(Broken, match="I1"):
        judge._epoch(3)
    with pytest.raises(Broken, match="I1"):
        judge.alarmed("alarm", {})
