"""The firmware's half of the handshake against the gateway's core, on CPython."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.parts import Site
from tidemark_host import protocol
from tidemark_host.gateway.core import Message


class Identity:
    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.id = protocol.key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


class Counter:
    def __init__(self) -> None:
        self.epoch = 0
        self.counts = [0, 0, 0, 0]

    def open_epoch(self) -> int:
        self.epoch = self.epoch or 7
        return self.epoch

    def next(self, space: int) -> tuple[int, int]:
        self.counts[space] += 1
        return self.epoch, self.counts[space] << 2 | space


def test_firmware_session_greets_reports_and_is_acknowledged(site: Site):
    from tidemark.session import Session

    identity = Identity()
    site.inventory.enroll(identity.public, "FIRMWARE")
    for integrity in ("mac", "sign"):
        counter = Counter()
        counter.epoch = {"mac": 7, "sign": 8}[integrity]
        device = Session(
            identity, counter, site.identity.id, site.identity.public, os.urandom, integrity
        )

        def send(kind: str, message: bytes) -> dict[str, bytes]:
            topic = protocol.topic_up(identity.id, kind)
            answers = site.core.handle([Message(topic, bytes(message))])
            return {m.topic.rsplit("/", 1)[1]: m.payload for m in answers}

        beacon = protocol.parse_beacon(site.core.beacon().payload)
        assert beacon[0] == site.identity.id
        hello = device.hello(beacon[1], {259: b"VIRTUAL", 1006: "normal"})
        device.take_welcome(send("hello", hello)["welcome"])
        assert device.ready
        claims = {259: b"VIRTUAL", 1013: device.want_time(0), 1015: "ok"}
        for kind, body in (
            ("telemetry", [counter.epoch, 0, {1: 21.5}]),
            ("backlog", [1, 0, "old"]),
            ("report", [claims]),
            ("alarm", [{1015: "heap"}]),
            ("evidence", [0, b"record"]),
            ("result", [1, "done"]),
        ):
            message, epoch, seq = device.seal(kind, body)
            answers = send(kind, message)
            assert device.open("ack", answers["ack"]) == [epoch, seq], kind
            if kind == "report":
                assert device.take_time(answers["time"], 100) == int(
                    site.clock.now + 1_700_000_000
                )
    assert site.view.counts() == {"redelivery": 1}  # the same old reading, after the new boot
    assert site.view.claims(identity.id)["health"] == "ok"
