"""The gateway on real brokers, in process and as a process of its own that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.gateway.wire import LIMIT_S, Consumer, WireDevice, until
from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.broker import NO_DELAY, EmbeddedBroker, Mosquitto
from tidemark_host.gateway.service import Gateway, GatewayConfig
from tidemark_host.inventory import Inventory

Broker = EmbeddedBroker | Mosquitto


def config_for(path: Path, broker: Broker, **more: Any) -> GatewayConfig:
    return GatewayConfig(path, (broker.host, broker.port), **more)


def enroll(gateway: Gateway) -> FleetDevice:
    device = FleetDevice(gateway.identity.public)
    Inventory(gateway.config.inventory_path).enroll(device.public, "FLEET")
    return device


async def test_telemetry_goes_from_device_to_upstream(tmp_path: Path, broker: Broker):
    async with (
        Gateway(config_for(tmp_path, broker)) as gateway,
        Consumer(broker.host, broker.port) as consumer,
    ):
        device = enroll(gateway)
        async with WireDevice(device, broker.host, broker.port) as wire:
            await wire.ready()
            await wire.telemetry(50)
            await until(lambda: len(consumer.readings(device.id)) == 50)
        assert consumer.readings(device.id) == list(range(50))
        await until(lambda: gateway.view.waiting() == 0)
        assert [r["reading"] for r in gateway.view.upstream(device.id)] == list(range(50))


async def test_one_command_with_its_own_broker(tmp_path: Path):
    async with Gateway(GatewayConfig(tmp_path)) as gateway:
        device = enroll(gateway)
        async with WireDevice(device, *gateway.broker) as wire:
            await wire.ready()
            await wire.telemetry(5)
        assert len(gateway.view.upstream(device.id)) == 5


async def test_a_client_that_comes_late_gets_the_retained_beacon_once(
    tmp_path: Path, broker: Broker
):
    async with Gateway(config_for(tmp_path, broker)) as gateway:
        await asyncio.wait_for(gateway.connected.wait(), LIMIT_S)
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.subscribe("tm/1/gw/+/beacon", qos=1)
            async with asyncio.timeout(LIMIT_S):
                message = await anext(client.messages)
            assert message.retain
            assert isinstance(message.payload, bytes)
            assert protocol.parse_beacon(message.payload)[0] == gateway.identity.id
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.subscribe("other/topic", qos=1)
            await client.publish("other/topic", b"mine", qos=1)
            async with asyncio.timeout(LIMIT_S):
                message = await anext(client.messages)
            assert message.payload == b"mine"


async def test_duplicate_delivery_has_no_second_effect(tmp_path: Path, broker: Broker):
    async with Gateway(config_for(tmp_path, broker)) as gateway:
        device = enroll(gateway)
        async with WireDevice(device, broker.host, broker.port) as wire:
            await wire.ready()
            message = device.telemetry("once")
            for _ in range(3):
                await wire.publish("telemetry", message)
            await until(lambda: wire.seen.count("ack") == 3)
        await until(lambda: gateway.view.counts(device.id) == {"redelivery": 2})
        assert len(gateway.view.upstream(device.id)) == 1


async def test_junk_flood_does_not_stop_good_traffic(tmp_path: Path, broker: Broker):
    async with Gateway(config_for(tmp_path, broker)) as gateway:
        device, other = enroll(gateway), enroll(gateway)
        other.hello(bytes(8))  # never sent: this one is only spoken for
        forged = FleetDevice(gateway.identity.public, other.key)
        forged.id = device.id
        stop = asyncio.Event()

        async def flood() -> None:
            kinds = [*protocol.UP, "nonsense"]
            address = (broker.host, broker.port)
            async with aiomqtt.Client(*address, timeout=10, socket_options=NO_DELAY) as client:
                client.pending_calls_threshold = 1000
                n = 0
                while not stop.is_set():
                    junk = [os.urandom(n % 1500), forged.report(), forged.hello(bytes(8))]
                    for message in junk:
                        topic = protocol.topic_up(device.id, kinds[n % len(kinds)])
                        await client.publish(topic, message, qos=n % 2)
                        n += 1

        flooding = asyncio.create_task(flood())
        async with WireDevice(device, broker.host, broker.port) as wire:
            await until(lambda: sum(gateway.view.counts().values()) > 100)
            await wire.ready()
            await wire.telemetry(30)
            await wire.publish("report", device.report())
            await wire.deliver()
        assert not flooding.done()
        stop.set()
        await flooding
        assert len(gateway.view.upstream(device.id, "telemetry")) == 30
        assert len(gateway.view.upstream(device.id, "report")) == 1


async def test_oversized_messages_are_counted(tmp_path: Path, broker: Broker):
    async with Gateway(config_for(tmp_path, broker)) as gateway:
        device = enroll(gateway)
        async with WireDevice(device, broker.host, broker.port) as wire:
            await wire.ready()
            await wire.publish("telemetry", b"\xd1" + bytes(2000))
            await wire.publish("hello", b"\xd2" + bytes(20000))
            await until(lambda: gateway.view.counts(device.id).get("size") == 2)
            await wire.telemetry(1)


async def test_embedded_broker_refuses_packets_beyond_its_limit():
    async with EmbeddedBroker() as broker:
        _, hostile = await asyncio.open_connection(broker.host, broker.port)
        connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01h"
        hostile.write(connect + b"\x30\xff\xff\xff\x7f" + bytes(1000))
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.subscribe("a", qos=1)
            await client.publish("a", b"b", qos=1)
            async with asyncio.timeout(LIMIT_S):
                assert (await anext(client.messages)).payload == b"b"
        hostile.close()


async def test_it_outlives_its_broker(tmp_path: Path, broker: Broker):
    async with Gateway(config_for(tmp_path, broker)) as gateway:
        device = enroll(gateway)
        async with WireDevice(device, broker.host, broker.port) as wire:
            await wire.ready()
            await wire.telemetry(3)
        await broker.stop()
        await until(lambda: not gateway.connected.is_set())
        await broker.start()
        await until(gateway.connected.is_set)
        async with WireDevice(device, broker.host, broker.port) as wire:
            for value in range(3, 6):
                await wire.publish("telemetry", device.telemetry(value))
            await wire.deliver()
            await until(lambda: gateway.view.waiting() == 0)
        assert [r["reading"] for r in gateway.view.upstream(device.id)] == list(range(6))


async def test_upstream_may_be_away_and_misses_nothing(tmp_path: Path, private_broker: Mosquitto):
    config = GatewayConfig(tmp_path, upstream=(private_broker.host, private_broker.port))
    await private_broker.stop()
    async with Gateway(config) as gateway:
        device = enroll(gateway)
        async with WireDevice(device, *gateway.broker) as wire:
            await wire.ready()
            await wire.telemetry(20)
        assert gateway.view.waiting() == 20
        await private_broker.start()
        async with Consumer(private_broker.host, private_broker.port) as consumer:
            # Rows sent before the consumer came are the broker's affair: send one more.
            async with WireDevice(device, *gateway.broker) as wire:
                await wire.publish("telemetry", device.telemetry(20))
                await wire.deliver()
            await until(lambda: gateway.view.waiting() == 0)
            await until(lambda: 20 in consumer.readings(device.id))
            assert consumer.readings(device.id) == sorted(consumer.readings(device.id))


@asynccontextmanager
async def process(state: Path, broker: Broker) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """A gateway as the command starts it; killed at the end if it still runs."""
    where = f"{broker.host}:{broker.port}"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidemark_host", "gateway", "--json"),
        *("--state", str(state), "--broker", where),
        stdout=PIPE,
    )
    try:
        assert child.stdout
        line = await asyncio.wait_for(child.stdout.readline(), LIMIT_S)
        yield child, json.loads(line)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_a_killed_gateway_loses_nothing_and_repeats_nothing(
    tmp_path: Path, private_broker: Mosquitto
):
    broker = private_broker
    async with Consumer(broker.host, broker.port) as consumer:
        async with process(tmp_path, broker) as (child, ready):
            device = FleetDevice(bytes.fromhex(ready["public"]))
            inventory = Inventory(tmp_path / "inventory.json")
            inventory.enroll(device.public, "FLEET")
            async with WireDevice(device, broker.host, broker.port) as wire:
                await wire.ready()
                for value in range(100):
                    await wire.publish("telemetry", device.telemetry(value))
                # In the midst of it: some are acknowledged and some are not.
                await until(lambda: wire.seen.count("ack") >= 10)
                child.send_signal(signal.SIGKILL)
                await child.wait()
        acknowledged = 100 - len(device.unanswered)
        assert acknowledged >= 10
        async with process(tmp_path, broker) as (child, again):
            assert again["gateway"] == ready["gateway"]
            async with WireDevice(device, broker.host, broker.port) as wire:
                device.session = None
                await wire.ready()
                # What was not acknowledged is sealed again, under new counters.
                waiting = [seq >> 2 for seq in device.unanswered]
                device.unanswered.clear()
                for index in waiting:
                    message = device.seal("telemetry", device.epoch, index, index - 1)
                    await wire.publish("telemetry", message)
                await wire.deliver()
                await until(lambda: len(consumer.readings(device.id)) == 100)
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), LIMIT_S) == 0
    from tidemark_host.gateway.view import GatewayView

    rows = GatewayView(tmp_path / "gateway.db").upstream(device.id)
    assert sorted(r["index"] for r in rows) == list(range(1, 101))
    assert consumer.readings(device.id) == [r["reading"] for r in rows]


async def test_state_of_another_gateway_is_not_readable_by_others(tmp_path: Path):
    async with Gateway(GatewayConfig(tmp_path, keylog=tmp_path / "keys")) as gateway:
        assert (tmp_path / "gateway.key").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "gateway.pub").read_text().strip() == gateway.identity.public.hex()


@pytest.mark.parametrize("words", [[], ["--broker", "127.0.0.1:1", "--embedded-broker"]])
async def test_the_command_wants_one_broker(tmp_path: Path, words: list[str]):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidemark_host", "gateway", "--state", str(tmp_path), *words),
        stderr=PIPE,
    )
    _, said = await asyncio.wait_for(child.communicate(), LIMIT_S)
    assert child.returncode != 0
    assert b"--embedded-broker" in said
