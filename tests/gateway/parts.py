"""A gateway's core without network, over real keys and files, and devices that talk to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tidemark_host import protocol
from tidemark_host.fleet.device import FleetDevice
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.store import Store
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import Inventory


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A gateway's core over real files, its clock, and what it sent."""

    path: Path
    clock: Clock = field(default_factory=Clock)
    sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start, or start again after `store.close()`: what was only in RAM is gone."""
        self.identity = GatewayIdentity.load_or_create(self.path)
        self.inventory = Inventory(self.path / "inventory.json")
        self.store = Store(self.path / "gateway.db")
        self.core = Core(
            self.identity,
            self.inventory,
            self.store,
            monotonic=self.clock,
            wall=lambda: self.clock.now + 1_700_000_000,
        )

    def restart(self) -> None:
        self.store.close()
        self.start()

    @property
    def view(self) -> GatewayView:
        self.core.tick()
        return GatewayView(self.path / "gateway.db")

    def device(self) -> FleetDevice:
        """A device that is enrolled and has booted."""
        device = FleetDevice(self.identity.public)
        self.inventory.enroll(device.public, "FLEET")
        return device

    def send(self, device: FleetDevice, kind: str, message: bytes) -> list[str]:
        """Hand one message over and the answers back; return the kinds of the answers."""
        answers = self.core.handle([Message(protocol.topic_up(device.id, kind), message)])
        self.sent += answers
        kinds: list[str] = []
        for answer in answers:
            if f"/{device.id}/" in answer.topic:
                kinds.append(device.take(answer.topic, answer.payload))
        return kinds

    def send_raw(self, device: FleetDevice, kind: str, message: bytes) -> list[str]:
        """Like `send`, but the device does not see the answers."""
        answers = self.core.handle([Message(protocol.topic_up(device.id, kind), message)])
        return [m.topic.rsplit("/", 1)[1] for m in answers]

    def greet(self, device: FleetDevice) -> bytes:
        """Run the handshake; return the hello."""
        hello = device.hello(self.core.sessions.nonce)
        assert self.send(device, "hello", hello) == ["welcome"]
        return hello

    def refusals(self, device: FleetDevice | None = None) -> dict[str, int]:
        return self.view.counts(device.id if device else None)

    def readings(self, device: FleetDevice) -> list[object]:
        return [row["reading"] for row in self.view.upstream(device.id, "telemetry")]


def flip(message: bytes, at: int = -1) -> bytes:
    changed = bytearray(message)
    changed[at] ^= 1
    return bytes(changed)
