"""What an attacker on the broker sends in a board's name."""

from __future__ import annotations

import random
from collections.abc import Sequence

import aiomqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidemark_host import protocol
from tidemark_host.hil.site import Site
from tidemark_host.hil.waiting import HOST


def flip(message: bytes, chance: random.Random) -> bytes:
    """Return the message with one bit changed."""
    at = chance.randrange(len(message))
    altered = bytearray(message)
    altered[at] ^= 1 << chance.randrange(8)
    return bytes(altered)


def forge_report(site: Site, n: int) -> bytes:
    """Seal a report in the victim's name with a key of one's own."""
    epoch = max(epoch for epoch, _ in site.counters())
    payload = protocol.counted(epoch, 100_000 + n, 2, {})
    external = protocol.aad("up", site.id, "report", bytes(8))
    return protocol.sign(Ed25519PrivateKey.generate(), external, payload)


def forge_reading(site: Site, n: int) -> bytes:
    """Seal a reading under the session's own kid with a key of one's own."""
    envelope = protocol.open_envelope(site.capture.of(site.id, "telemetry")[-1])
    epoch = protocol.decode(envelope.payload)[0]
    payload = protocol.counted(epoch, 200_000 + n, 0, epoch, 200_000 + n, {1: 666})
    external = protocol.aad("up", site.id, "telemetry", bytes(8))
    return protocol.seal_mac(bytes(32), protocol.HMAC_64, envelope.kid or b"", external, payload)


async def publish(site: Site, kind: str, messages: Sequence[bytes]) -> None:
    """Send messages as an `up` kind of the site's board."""
    topic = protocol.topic_up(site.id, kind)
    async with aiomqtt.Client(HOST, site.broker.port, timeout=10) as client:
        for message in messages:
            await client.publish(topic, message, qos=1)
