"""What each fault does to whole packets, and that everything has a bound."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.network.rig import WAIT_S, Rig, connect, ids, packet, puback, publish, text
from tidemark_host.faults import proxy as module
from tidemark_host.faults.profiles import PROFILES, Profile


async def test_calm_proxy_passes_everything_as_it_came() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        sent = [connect("c"), publish(1), packet(0xC0, b""), publish(2, payload=bytes(2_000))]
        for at in range(0, len(data := b"".join(each.raw for each in sent)), 7):
            client.send_raw(data[at : at + 7])
        broker.send(packet(0x20, b"\0\0"), publish(9, "down"))
        assert await broker.get(4) == sent
        assert (await client.get(2))[1] == publish(9, "down")
        client.close()
        await broker.end()
        assert not rig.proxy.counts


async def test_lost_packet_vanishes_and_the_connection_lives() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(vanish=1.0), 1)
        client.send(publish(1))
        async with asyncio.timeout(WAIT_S):
            while not rig.proxy.counts["vanish"]:
                await asyncio.sleep(0.01)
        rig.proxy.calm()
        client.send(publish(2))
        assert ids(await broker.get(1)) == [2]


async def test_lie_is_an_acknowledgement_of_what_did_not_arrive() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(lie=1.0), 1)
        client.send(publish(5))
        assert await client.get(1) == [puback(5)]
        rig.proxy.calm()
        client.send(publish(6))
        assert ids(await broker.get(1)) == [6]


async def test_duplicate_comes_at_once_with_dup() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(duplicate=1.0), 1)
        client.send(publish(5))
        assert await broker.get(2) == [publish(5), publish(5).again()]
        broker.send(publish(8))
        assert await client.get(2) == [publish(8), publish(8).again()]


async def test_echo_comes_later_with_dup_once() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(echo=1.0), 1)
        client.send(publish(1))
        await broker.get(1)
        rig.proxy.profile = Profile("other")
        client.send(*(puback(n) for n in range(100, 100 + module.ECHO_PACKETS + 2)))
        found = await broker.get(1 + module.ECHO_PACKETS + 3)
        assert found.count(publish(1).again()) == 1 and found[1].kind == "PUBACK"


async def test_echoes_are_bounded() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(echo=1.0, life_s=(0.0, 0.0)), 1)
        client.send(*(publish(n) for n in range(1, 201)))
        found = await broker.get(200)
        assert len([each for each in found if each.raw[0] & 8]) <= 200
        rig.proxy.profile = Profile("other")
        client.send(*(puback(n) for n in range(1, 100)))
        found = await broker.get(len(found) + 99)
        assert sum(not each.raw[0] & 8 and each.kind == "PUBLISH" for each in found) == 200


async def test_packets_of_other_topics_change_places_and_those_of_one_keep_theirs() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(reorder=1.0), 1)
        client.send(publish(1, "a"), publish(2, "b"))
        assert ids(await broker.get(2)) == [2, 1]
        client.send(publish(3, "a"), publish(4, "a"))
        assert ids(await broker.get(4)) == [2, 1, 3, 4]
        client.send(publish(5, "a"), puback(6))
        assert ids(await broker.get(6))[4:] == [6, 5]
        client.send(puback(7), puback(8))
        assert ids(await broker.get(8))[6:] == [7, 8]
        rig.proxy.storm(Profile(reorder=1.0, strict=False), 1)
        client.send(publish(9, "a"), publish(10, "a"))
        assert ids(await broker.get(10))[8:] == [10, 9]


async def test_packet_that_nothing_overtakes_is_let_go() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(reorder=1.0), 1)
        client.send(publish(1))
        assert ids(await broker.get(1)) == [1]


@pytest.mark.parametrize("where", ["cut_before", "cut_within", "cut_after"])
async def test_connection_ends_around_a_packet_that_comes_again_on_the_next(where: str) -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        client.send(connect("board"))
        await broker.get(1)
        rig.proxy.storm(replace(Profile(resend=True), **{where: 1.0}), 1)
        client.send(publish(7))
        await client.end()
        await broker.end()
        before = connect("board").raw
        got = broker.raw[len(before) :]
        whole = publish(7).raw
        assert {
            "cut_before": got == b"",
            "cut_within": whole.startswith(got) and 0 < len(got) < len(whole),
            "cut_after": got == whole,
        }[where]
        rig.proxy.profile = Profile("other")
        client, broker = await rig.pair()
        client.send(connect("board"), publish(8))
        assert (await broker.get(3))[1:] == [publish(8), publish(7).again()]
        stranger, other = await rig.pair()
        stranger.send(connect("stranger"), publish(9))
        assert ids(await other.get(2)) == [9]


async def test_half_open_connection_is_silent_both_ways_and_then_ends() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(silence=1.0, silence_s=0.3), 1)
        client.send(publish(1))
        async with asyncio.timeout(WAIT_S):
            while not rig.proxy.counts["silence"]:
                await asyncio.sleep(0.01)
        rig.proxy.calm()
        broker.send(publish(2))
        client.send(publish(3))
        await client.end()
        await broker.end()
        assert (client.raw, broker.raw) == (b"", b"")


async def test_fragmented_packet_arrives_whole_and_so_does_what_is_sent_meanwhile() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(fragment=1.0), 1)
        sent = publish(1, payload=bytes(range(200)))
        client.send(sent, sent)
        broker.send(sent)
        assert await broker.get(2) == [sent, sent]
        assert await client.get(1) == [sent]


async def test_delay_keeps_the_order() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(delay=0.5, delay_s=0.02), 1)
        client.send(*(publish(n) for n in range(1, 41)))
        assert ids(await broker.get(40)) == list(range(1, 41))
        assert rig.proxy.counts["delay"] > 5


async def test_connection_ends_of_age_and_others_are_refused() -> None:
    async with Rig() as rig:
        rig.proxy.storm(Profile(life_s=(0.05, 0.1)), 1)
        client, broker = await rig.pair()
        await client.end()
        await broker.end()
        assert rig.proxy.counts["life"] == 1
        rig.proxy.storm(Profile(refuse=1.0), 1)
        client = await rig.client()
        await client.end()
        assert rig.proxy.counts["refuse"] == 1 and len(rig.brokers) == 1


async def test_same_seed_meets_the_same_packets() -> None:
    async def course(seed: int) -> list[str]:
        async with Rig() as rig:
            client, broker = await rig.pair()
            rig.proxy.storm(replace(PROFILES["hostile-broker"], vanish=0.0), seed)
            for number in range(1, 61):
                client.send(publish(number))
            lost = 0
            async with asyncio.timeout(WAIT_S):
                while rig.proxy.packets["up", "PUBLISH"] < 60:
                    await asyncio.sleep(0.01)
                lost = rig.proxy.counts["lie"]
                await broker.get(60 - lost)
            return [f"{event.action} {event.number}" for event in rig.proxy.events]

    first = await course(11)
    assert first and first == await course(11)
    assert first != await course(12)


async def test_broker_that_is_away_ends_the_connection() -> None:
    async with Rig() as rig:
        rig._server.close()
        client = await rig.client()
        await client.end()


async def test_packet_above_the_bound_ends_the_connection() -> None:
    async with Rig() as rig:
        client, broker = await rig.pair()
        client.send_raw(b"\x30\xff\xff\xff\x7f")
        await client.end()
        await broker.end()
        assert broker.raw == b""


async def test_connections_beyond_the_bound_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    async with Rig() as rig:
        pairs = [await rig.pair() for _ in range(2)]
        third = await rig.client()
        await third.end()
        pairs[0][0].close()
        await pairs[0][1].end()
        pairs[1][0].send(publish(1))
        assert ids(await pairs[1][1].get(1)) == [1]


async def test_proxy_ends_all_connections_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time
    async with Rig(limit_s=600.0) as rig:
        client, broker = await rig.pair()
        monkeypatch.setattr(loop, "time", lambda: now() + 600.0)
        await client.end()
        await broker.end()


async def test_stream_that_is_not_mqtt_is_carried_cut_and_never_thinned() -> None:
    async with Rig(stream=True) as rig:
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(vanish=1.0), 1)
        data = b"GET / HTTP/1.1\r\n\r\n" + bytes(5_000)
        client.send_raw(data)
        client.send_raw(b"end")
        async with asyncio.timeout(WAIT_S):
            while not broker.raw.endswith(b"end"):
                await asyncio.sleep(0.01)
        assert broker.raw == data + b"end"
        rig.proxy.storm(Profile(cut_before=1.0), 1)
        client.send_raw(b"more")
        await client.end()
        assert broker.raw == data + b"end"


async def test_what_a_connection_hears_is_told_before_anything_happens_to_it() -> None:
    async with Rig() as rig:
        seen: list[tuple[str, str]] = []
        rig.proxy.watch = lambda direction, each: seen.append((direction, each.kind))
        client, broker = await rig.pair()
        rig.proxy.storm(Profile(lie=1.0), 1)
        client.send(packet(0x82, b"\0\1" + text("a") + b"\1"), publish(1))
        await client.get(1)
        assert seen == [("up", "SUBSCRIBE"), ("up", "PUBLISH")]
        assert broker.raw.startswith(b"\x82")
