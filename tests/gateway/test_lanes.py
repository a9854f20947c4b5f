"""Pacing: bad signatures throttle signature checks only, and no device for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tidemark_host import protocol
from tidemark_host.gateway.core import Message
from tidemark_host.gateway.lanes import (
    MAC_PER_BATCH,
    MAC_PER_DEVICE,
    MAC_QUEUE,
    SIGNED_BURST,
    SIGNED_PER_BATCH,
    SIGNED_PER_DEVICE,
    SIGNED_QUEUE,
    STRANGERS,
    STRANGERS_PER_BATCH,
    STRANGERS_PER_NAME,
    Lanes,
)
from tidemark_host.protocol import Refused


def signed(name: int, mark: int = 0) -> Message:
    return Message(protocol.topic_up(f"{name:016x}", "report"), b"\xd2" + mark.to_bytes(4, "big"))


def mac(mark: int = 0, name: int = 0) -> Message:
    return Message(
        protocol.topic_up(f"{name:016x}", "telemetry"), b"\xd1" + mark.to_bytes(4, "big")
    )


def everyone(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def refusals(lanes: Lanes, messages: Iterable[Message], known: Callable[[str], bool]) -> int:
    count = 0
    for message in messages:
        try:
            lanes.put(message, known)
        except Refused as refused:
            assert refused.code == "rate"
            count += 1
    return count


def test_mac_traffic_keeps_its_order_and_never_waits_for_signatures():
    lanes = Lanes()
    lanes.failed(10_000)
    for n in range(MAC_PER_DEVICE):
        lanes.put(signed(1, n), everyone) if n < SIGNED_PER_DEVICE else None
        lanes.put(mac(n), everyone)
    taken: list[Message] = []
    while lanes.wait_s() == 0.0:
        first, second = lanes.take(0.0)
        assert not second
        taken += first
    assert taken == [mac(n) for n in range(MAC_PER_DEVICE)]


def test_a_bad_signature_costs_mac_traffic_nothing():
    lanes = Lanes()
    lanes.failed(10_000)
    lanes.put(mac(), everyone)
    assert lanes.take(0.0) == ([mac()], [])


def test_devices_take_turns():
    lanes = Lanes()
    for n in range(SIGNED_PER_DEVICE):
        lanes.put(signed(1, n), everyone)
    lanes.put(signed(2), everyone)
    _, batch = lanes.take(0.0)
    assert signed(2) in batch[:2]
    assert len(batch) == SIGNED_PER_BATCH


def test_failures_pause_checks_and_time_brings_them_back():
    lanes = Lanes()
    lanes.put(signed(1), everyone)
    lanes.failed(int(SIGNED_BURST))
    assert lanes.take(0.0) == ([], [])
    wait = lanes.wait_s()
    assert wait and wait < 0.1
    assert lanes.take(wait + 0.001)[1] == [signed(1)]
    assert lanes.wait_s() is None


def test_a_true_word_among_garbage_in_its_name_gets_through_by_repeating():
    lanes, through = Lanes(), 0
    for n in range(400):
        for k in range(30):
            with pytest.raises(Refused) if k >= SIGNED_PER_DEVICE else _nothing():
                lanes.put(signed(1, 1000 + k), everyone)
        try:
            lanes.put(signed(1, 7), everyone)
        except Refused as refused:
            assert refused.code == "rate"
        while lanes.wait_s() is not None:
            through += lanes.take(float(n))[1].count(signed(1, 7))
    assert through > 100


def test_strangers_take_no_place_in_the_lanes_of_devices():
    lanes = Lanes()
    flood = [make(n, n) for n in range(MAC_QUEUE) for make in (signed, lambda n, m: mac(m, n))]
    assert refusals(lanes, flood, nobody) == len(flood) - STRANGERS
    assert refusals(lanes, [mac(1, n) for n in range(MAC_QUEUE)], everyone) == 0
    lanes.put(signed(1, 7), everyone)
    first, second = lanes.take(0.0)
    assert len(first) == STRANGERS_PER_BATCH + MAC_PER_BATCH
    assert second == [signed(1, 7)]


def test_one_stranger_leaves_room_for_a_device_that_is_enrolled_just_now():
    lanes = Lanes()
    assert refusals(lanes, [signed(1, n) for n in range(500)], nobody) == 500 - STRANGERS_PER_NAME
    lanes.put(signed(2), nobody)
    assert signed(2) in lanes.take(0.0)[0]
    while lanes.wait_s() is not None:
        lanes.take(0.0)


def test_mac_traffic_in_one_name_leaves_room_and_turns_for_others():
    lanes = Lanes()
    flood = [mac(n, 1) for n in range(MAC_QUEUE * 2)]
    assert refusals(lanes, flood, everyone) == len(flood) - MAC_PER_DEVICE
    others = [mac(n, 2) for n in range(10)]
    assert refusals(lanes, others, everyone) == 0
    first, _ = lanes.take(0.0)
    assert [m for m in first if m in others] == others
    assert set(first[:20]) & set(others) == set(others)


def test_every_queue_is_bounded():
    lanes = Lanes()
    per, names = MAC_PER_DEVICE, MAC_QUEUE // MAC_PER_DEVICE + 3
    flood = [mac(n, name) for name in range(names) for n in range(per)]
    assert refusals(lanes, flood, everyone) == len(flood) - MAC_QUEUE
    per, names = SIGNED_PER_DEVICE, SIGNED_QUEUE // SIGNED_PER_DEVICE + 3
    flood = [signed(name, n) for name in range(names) for n in range(per)]
    assert refusals(lanes, flood, everyone) == len(flood) - SIGNED_QUEUE


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
