"""Pacing: bad signatures throttle signature checks only, and no device for good."""

from __future__ import annotations

import pytest

from tidemark_host import protocol
from tidemark_host.gateway.core import Message
from tidemark_host.gateway.lanes import (
    MAC_QUEUE,
    SIGNED_BURST,
    SIGNED_NAMES,
    SIGNED_PER_BATCH,
    SIGNED_PER_DEVICE,
    Lanes,
)
from tidemark_host.protocol import Refused


def signed(name: int, mark: int = 0) -> Message:
    return Message(protocol.topic_up(f"{name:016x}", "report"), b"\xd2" + mark.to_bytes(4, "big"))


def mac(mark: int = 0) -> Message:
    return Message(protocol.topic_up("0" * 16, "telemetry"), b"\xd1" + mark.to_bytes(4, "big"))


def everyone(_: str) -> bool:
    return True


def test_mac_traffic_keeps_its_order_and_never_waits_for_signatures():
    lanes = Lanes()
    lanes.failed(10_000)
    for n in range(300):
        lanes.put(signed(1, n), everyone) if n < SIGNED_PER_DEVICE else None
        lanes.put(mac(n), everyone)
    taken: list[Message] = []
    while lanes.wait_s() == 0.0:
        first, second = lanes.take(0.0)
        assert not second
        taken += first
    assert taken == [mac(n) for n in range(300)]


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


def test_strangers_fill_no_signature_lane():
    lanes = Lanes()
    for n in range(SIGNED_NAMES * 2):
        lanes.put(signed(n), lambda _: False)
    lanes.put(signed(1), everyone)
    assert signed(1) in lanes.take(0.0)[1]


def test_every_queue_is_bounded():
    lanes = Lanes()
    for n in range(MAC_QUEUE):
        lanes.put(mac(n), everyone)
    with pytest.raises(Refused) as refused:
        lanes.put(mac(), everyone)
    assert refused.value.code == "rate"
    for n in range(SIGNED_NAMES):
        lanes.put(signed(n), everyone)
    with pytest.raises(Refused):
        lanes.put(signed(SIGNED_NAMES), everyone)


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
