"""How many messages a second one core accepts here: `python -m tidemark_host.gateway.measure`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.store import Store
from tidemark_host.inventory import Inventory


def main(devices: int = 50, each: int = 100, batch: int = 256) -> int:
    """Greet `devices`, then hand over `each` readings of every one in batches; print the rates."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        identity = GatewayIdentity.load_or_create(state)
        inventory = Inventory(state / "inventory.json")
        store = Store(state / "gateway.db")
        core = Core(identity, inventory, store)
        fleet = [FleetDevice(identity.public) for _ in range(devices)]
        for device in fleet:
            inventory.enroll(device.public, "FLEET")
        hellos = [
            Message(protocol.topic_up(d.id, "hello"), d.hello(core.sessions.nonce)) for d in fleet
        ]
        _rate("hello (signature, handshake, one commit each)", core, hellos, 1, fleet)
        readings = [
            Message(protocol.topic_up(d.id, "telemetry"), d.telemetry({1: 21.5}))
            for _ in range(each)
            for d in fleet
        ]
        _rate(f"telemetry (MAC, {batch} a commit)", core, readings, batch, fleet)
        reports = [Message(protocol.topic_up(d.id, "report"), d.report()) for d in fleet]
        _rate("report (signature, 8 a commit)", core, reports, 8, fleet)
        missing = devices * (each + 1) - len(store.next_rows(1 << 30))
        store.close()
    return 1 if missing else 0


def _rate(
    what: str, core: Core, messages: list[Message], batch: int, fleet: list[FleetDevice]
) -> None:
    by_id = {device.id: device for device in fleet}
    answers: list[Message] = []
    start = time.perf_counter()
    for at in range(0, len(messages), batch):
        answers += core.handle(messages[at : at + batch])
    took = time.perf_counter() - start
    for answer in answers:
        by_id[answer.topic.split("/")[2]].take(answer.topic, answer.payload)
    print(f"{what}: {len(messages) / took:,.0f} a second")


if __name__ == "__main__":
    sys.exit(main())
