"""The example for people who write their own gateway, on a capture from a real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.gateway.wire import WireDevice, until
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.broker import Mosquitto
from tidemark_host.gateway.capture import Capture
from tidemark_host.gateway.service import Gateway, GatewayConfig
from tidemark_host.inventory import Inventory

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "verify_capture.py"


def verify(folder: Path, keylog: bool = True) -> tuple[int, str]:
    words = [str(folder / "capture.jsonl"), str(folder / "inventory.json")]
    if keylog:
        words += ["--keylog", str(folder / "keys.jsonl")]
    # -I: neither this repository nor anything of ours is on its path.
    done = subprocess.run(
        [sys.executable, "-I", str(EXAMPLE), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def record(folder: Path, broker: Mosquitto) -> None:
    config = GatewayConfig(folder, (broker.host, broker.port), keylog=folder / "keys.jsonl")
    async with (
        Capture(broker.host, broker.port, folder / "capture.jsonl") as capture,
        Gateway(config) as gateway,
    ):
        device = FleetDevice(gateway.identity.public)
        Inventory(config.inventory_path).enroll(device.public, "FLEET")
        async with WireDevice(device, broker.host, broker.port) as wire:
            await wire.ready()
            for value in range(3):
                await wire.publish("telemetry", device.telemetry(value))
            await wire.publish("telemetry", device.telemetry({1: 20.5}, sign=True))
            await wire.publish("report", device.report(ask_time=True))
            await wire.answered()
        # Who listens beside the gateway may hear it later.
        await until(lambda: sum("/up/" in m.topic for m in capture.messages) == 6)


async def test_hello_report_and_telemetry_verify_by_the_page_alone(
    tmp_path: Path, private_broker: Mosquitto
):
    assert "import tidemark" not in EXAMPLE.read_text()
    await record(tmp_path, private_broker)
    code, said = await asyncio.to_thread(verify, tmp_path)
    assert code == 0, said
    for kind, count in (("hello", 1), ("report", 1), ("telemetry", 4)):
        assert said.count(f"/up/{kind}:") == count, said
    assert "6 hold, 0 do not" in said
    code, said = await asyncio.to_thread(verify, tmp_path, keylog=False)
    assert code == 0, said
    assert "3 hold, 0 do not, 3 not read" in said


async def test_a_flipped_bit_in_any_message_is_found(tmp_path: Path, private_broker: Mosquitto):
    await record(tmp_path, private_broker)
    path = tmp_path / "capture.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ups = [n for n, line in enumerate(lines) if "/up/" in line["topic"]]
    for n in ups:
        payload = bytearray.fromhex(lines[n]["payload"])
        for at in (-1, len(payload) // 2):
            altered = payload.copy()
            altered[at] ^= 0x10
            changed = [*lines]
            changed[n] = lines[n] | {"payload": altered.hex()}
            path.write_text("".join(json.dumps(line) + "\n" for line in changed))
            code, said = await asyncio.to_thread(verify, tmp_path)
            assert code == 1, said
            assert f"BAD  {lines[n]['topic']}" in said
