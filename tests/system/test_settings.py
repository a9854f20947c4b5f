"""An image's settings, end to end: broker, gateway process, wire.

What crossed the wire is opened here with cbor2 and `cryptography` alone, by RFC 9052 and
docs/protocol.md: nothing of ours judges its own work.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from tidemark_host.hil.site import Site

ENCRYPT0, MAC0, SIGN1 = 16, 17, 18
READINGS = 12
SPACES = {"telemetry": 0, "backlog": 1}


async def run(site: Site, **settings: object) -> list[dict[str, Any]]:
    """Run a board until all its readings were accepted; returns them as they went upstream."""
    image = await asyncio.to_thread(site.image, "first", **settings, readings_max=READINGS)
    await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
    await site.until("all readings arrive", lambda: len(site.readings()) >= READINGS)
    # Whoever listens beside the gateway may hear them later.
    await site.until("all readings are heard", lambda: len(sent(site)) >= READINGS)
    rows = site.readings()
    assert len({(row["epoch"], row["index"]) for row in rows}) == len(rows) == READINGS
    # No counter twice (I1), whether it stands in the payload or in the IV.
    assert len(set(site.counters())) == len(site.counters())
    return rows


def sent(site: Site) -> list[tuple[str, Any, bytes]]:
    """Return (kind, COSE message, its bytes) of each reading that crossed the wire, once."""
    found = {m.payload: m.topic.rsplit("/", 1)[1] for m in site.capture.messages}
    return [(kind, cbor2.loads(raw), raw) for raw, kind in found.items() if kind in SPACES]


def sessions(site: Site) -> dict[str, dict[str, str]]:
    """Return the keys of each handshake, by kid."""
    lines = [json.loads(line) for line in site.keylog.read_text().splitlines()]
    return {line["kid"]: line for line in lines}


def external(site: Site, kind: str) -> bytes:
    (nonce,) = {line["boot_nonce"] for line in sessions(site).values()}  # the board booted once
    return cbor2.dumps([1, "up", site.id, kind, bytes.fromhex(nonce)])


def same(rows: list[dict[str, Any]], bodies: list[Any]) -> None:
    """What was sealed is what went upstream."""
    upstream = {(row["epoch"], row["index"]): row["reading"] for row in rows}
    sealed = {(e, i): {str(k): v for k, v in reading.items()} for e, i, reading in bodies}
    assert sealed == upstream


def seen_on_the_wire(site: Site, bodies: list[Any]) -> int:
    """Return how many of these bodies anybody who listens at the broker can read."""
    tails = [cbor2.dumps(body, canonical=True)[1:] for body in bodies]
    assert all(len(tail) >= 5 for tail in tails)
    return sum(any(tail in m.payload for m in site.capture.messages) for tail in tails)


async def test_confidential_readings_cross_the_wire_as_encrypt0_and_unreadable(
    blank_site: Site,
) -> None:
    site = blank_site
    rows = await run(site, confidential=True)
    assert {row["tags"]["trust"] for row in rows} == {"mac"}
    keys = sessions(site)
    ivs: list[bytes] = []
    bodies: list[Any] = []
    for kind, message, _ in sent(site):
        assert message.tag == ENCRYPT0
        protected, unprotected, sealed = message.value
        assert cbor2.loads(protected) == {1: 10}
        assert sorted(unprotected) == [4, 5]
        key = bytes.fromhex(keys[unprotected[4].hex()]["up_enc"])
        cipher = AESCCM(key, tag_length=8)
        iv = unprotected[5]
        structure = cbor2.dumps(["Encrypt0", protected, external(site, kind)])
        epoch, seq, *body = cbor2.loads(cipher.decrypt(iv, sealed, structure))
        assert iv == b"\0" + epoch.to_bytes(4, "big") + seq.to_bytes(4, "big") + bytes(4)
        assert seq & 3 == SPACES[kind]
        ivs.append(iv)
        bodies.append(body)
        with pytest.raises(InvalidTag):  # it is bound to its topic
            other = "backlog" if kind == "telemetry" else "telemetry"
            cipher.decrypt(iv, sealed, cbor2.dumps(["Encrypt0", protected, external(site, other)]))
    assert len(ivs) == len(set(ivs)) >= READINGS
    same(rows, bodies)
    assert seen_on_the_wire(site, bodies) == 0


async def test_readings_of_a_board_that_signs_prove_their_origin_to_anybody(
    blank_site: Site,
) -> None:
    site = blank_site
    rows = await run(site, integrity="sign")
    assert {row["tags"]["trust"] for row in rows} == {"signature"}
    public = Ed25519PublicKey.from_public_bytes(site.public)
    bodies: list[Any] = []
    for kind, message, _ in sent(site):
        assert message.tag == SIGN1
        protected, unprotected, payload, signature = message.value
        assert cbor2.loads(protected) == {1: -8} and unprotected == {}
        structure = ["Signature1", protected, external(site, kind), payload]
        public.verify(signature, cbor2.dumps(structure))
        with pytest.raises(InvalidSignature):
            public.verify(signature, cbor2.dumps([*structure[:3], payload + b"\0"]))
        _, seq, *body = cbor2.loads(payload)
        assert seq & 3 == SPACES[kind]
        bodies.append(body)
    same(rows, bodies)


async def test_readings_without_a_setting_are_authenticated_and_readable(blank_site: Site) -> None:
    # The search that finds nothing of confidential readings finds these.
    site = blank_site
    rows = await run(site)
    messages = sent(site)
    assert {message.tag for _, message, _ in messages} == {MAC0}
    bodies = [cbor2.loads(message.value[2])[2:] for _, message, _ in messages]
    same(rows, bodies)
    assert seen_on_the_wire(site, bodies) == len(bodies)
