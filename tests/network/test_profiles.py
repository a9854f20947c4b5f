"""Which fault meets which packet depends on the seed and the packet's number alone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.network.rig import connect, packet, publish, text
from tidemark_host.faults.packets import MAX_PACKET, Packet, PacketError, puback, read_packet
from tidemark_host.faults.profiles import ACTIONS, PASS, PROFILES, Profile, ProfileError


def test_same_seed_and_number_give_the_same_fault_and_others_another() -> None:
    profile = PROFILES["hostile-broker"]

    def course(seed: int) -> list[tuple[str, float]]:
        found = [profile.decide(seed, "up", "PUBLISH", n) for n in range(1, 500)]
        return [(each.action, each.amount) for each in found]

    assert course(7) == course(7)
    assert course(7) != course(8)
    assert [profile.decide(7, "down", "PUBLISH", n).action for n in range(1, 500)] != [
        action for action, _ in course(7)
    ]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_faults_come_at_the_rates_of_the_profile(name: str) -> None:
    profile, total = PROFILES[name], 20_000
    counts = Counter(profile.decide(3, "up", "PUBLISH", n).action for n in range(1, total + 1))
    for action in ACTIONS:
        wanted = profile.rates()[action] * total
        assert abs(counts[action] - wanted) <= 5 * wanted**0.5 + 3, action


def test_fault_that_a_packet_cannot_have_leaves_it_alone() -> None:
    assert Profile(lie=1.0).decide(1, "down", "PUBLISH", 1) is PASS
    assert Profile(lie=1.0).decide(1, "up", "PUBACK", 1) is PASS
    assert Profile(duplicate=1.0).decide(1, "up", "PUBLISH0", 1) is PASS
    assert Profile(reorder=1.0).decide(1, "up", "CONNECT", 1) is PASS
    assert Profile(vanish=1.0).decide(1, "down", "chunk", 1) is PASS
    assert Profile(cut_within=1.0).decide(1, "down", "chunk", 1).action == "cut_within"


@pytest.mark.parametrize(
    "wrong",
    [
        {"vanish": -0.1},
        {"vanish": 1.1},
        {"vanish": 0.6, "lie": 0.6},
        {"refuse": 2.0},
        {"delay_s": 60.0},
        {"silence_s": 3_600.0},
        {"life_s": (2.0, 1.0)},
        {"life_s": (0.0, 1e9)},
    ],
)
def test_profile_outside_its_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ProfileError):
        Profile(**wrong)  # type: ignore[arg-type]


async def test_lives_of_connections_lie_between_their_bounds() -> None:
    profile = Profile(life_s=(3.0, 5.0), refuse=0.5)
    lives = [profile.life(1, n) for n in range(1, 100)]
    assert all(3.0 <= life < 5.0 for life in lives) and len(set(lives)) == len(lives)
    assert 20 < sum(profile.is_refused(1, n) for n in range(1, 100)) < 80
    assert profile.slower(10.0).life_s == (30.0, 50.0)


# -- packets --------------------------------------------------------------------------------------


async def read_all(data: bytes) -> list[Packet]:
    reader = asyncio.StreamReader(limit=2**20)
    reader.feed_data(data)
    reader.feed_eof()
    found: list[Packet] = []
    while got := await read_packet(reader):
        found.append(got)
    return found


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8))
def test_packets_in_a_stream_are_told_apart(wanted: list[tuple[int, bytes]]) -> None:
    packets = [packet(first, body) for first, body in wanted]
    assert asyncio.run(read_all(b"".join(each.raw for each in packets))) == packets


@given(st.binary(max_size=200))
def test_any_bytes_end_in_packets_or_in_a_packet_error(data: bytes) -> None:
    try:
        packets = asyncio.run(read_all(data))
    except PacketError:
        return
    assert data.startswith(b"".join(each.raw for each in packets))
    for each in packets:
        for name in ("topic", "packet_id", "payload", "client_id"):
            try:
                getattr(each, name)
            except PacketError:
                assert len(each.raw) <= MAX_PACKET


async def test_length_of_five_bytes_and_packet_above_the_bound_are_errors() -> None:
    for head in (b"\x30\xff\xff\xff\xff\x01", b"\x30\x81\x80\x04"):
        with pytest.raises(PacketError):
            await read_all(head)


def test_fields_of_a_packet_are_those_of_the_standard() -> None:
    sent = publish(0x1234, "a/b", b"xyz")
    assert (sent.kind, sent.topic, sent.packet_id, sent.payload) == (
        *("PUBLISH", "a/b", 0x1234, b"xyz"),
    )
    assert sent.again().raw == bytes([0x3A]) + sent.raw[1:]
    assert packet(0x30, text("t") + b"x").kind == "PUBLISH0"
    assert (puback(7).kind, puback(7).packet_id) == ("PUBACK", 7)
    assert connect("board-1").client_id == "board-1"
