#!/usr/bin/env python3
"""Verify captured messages by docs/protocol.md alone: the start of a gateway of your own.

    pip install cbor2 cryptography
    python verify_capture.py CAPTURE INVENTORY [--keylog KEYLOG]

CAPTURE: JSON lines {"topic", "payload" (hex), ...} as `tidemark gateway` sites record with
`tidemark_host.gateway.capture`, or as you write them from `mosquitto_sub -v -t 'tm/#'`.
INVENTORY: the gateway's inventory.json (or any {"devices": [{"id", "public"}]}).
KEYLOG: what `tidemark gateway --keylog FILE` wrote; without it only what is signed is verified.

Prints a line for each upward message, and exits 1 if any of them does not hold. It checks seals,
not freshness: replay windows and nonces are a gateway's state, which a capture does not have.
"""

import argparse
import hashlib
import hmac
import json
import sys
from pathlib import Path

import cbor2
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

ALGORITHM = {4: 8, 5: 32, -8: 64}  # HMAC 256/64, HMAC 256/256, Ed25519: bytes of the seal


class Bad(Exception):
    """A message that does not hold."""


# What reading hostile bytes may end in.
ERRORS = (
    *(Bad, InvalidSignature, InvalidTag, cbor2.CBORError, LookupError, TypeError, ValueError),
    *(AttributeError, OverflowError, RecursionError),
)


def plain(text):
    """Return text for a terminal: nothing that others sent controls it or begins a line."""
    return ascii(text)[1:-1][:120]


def exact(data):
    """Decode deterministic CBOR: what encodes to other bytes is refused."""
    value = cbor2.loads(data)
    if cbor2.dumps(value, canonical=True) != data:
        raise Bad("not the deterministic encoding")
    return value


def unpack(message):
    """Return (algorithm, kid or None, protected header, payload, seal) of a COSE message."""
    if message[:1] not in (b"\xd1", b"\xd2"):  # tags 17 COSE_Mac0 and 18 COSE_Sign1
        raise Bad("neither COSE_Mac0 nor COSE_Sign1")
    protected, unprotected, payload, seal = exact(message[1:])
    alg = exact(protected)[1]
    signed = message[0] == 0xD2
    if signed != (alg == -8) or len(seal) != ALGORITHM[alg]:
        raise Bad("algorithm")
    return alg, unprotected.get(4), protected, payload, seal


def sealed_bytes(alg, protected, device, kind, nonce, payload):
    """Return what the seal covers (RFC 9052, 4.4 and 6.3)."""
    aad = cbor2.dumps([1, "up", device, kind, nonce], canonical=True)
    context = "Signature1" if alg == -8 else "MAC0"
    return cbor2.dumps([context, protected, aad, payload], canonical=True)


def decrypt(message, device, kind, boots, sessions):
    """Return the fields of a COSE_Encrypt0 (tag 16): its IV says which counter it has."""
    protected, unprotected, data = exact(message[1:])
    kid, iv = unprotected[4], unprotected[5]
    epoch, seq = int.from_bytes(iv[1:5], "big"), int.from_bytes(iv[5:9], "big")
    session, nonce = sessions.get((device, epoch, kid)), boots.get((device, epoch))
    if exact(protected) != {1: 10} or iv != iv[:9] + bytes(4) or iv[0] != 0:
        raise Bad("algorithm or IV")
    if session is None or nonce is None:
        raise Bad("no key of this session in the key log, or no hello of this boot")
    aad = cbor2.dumps([1, "up", device, kind, nonce], canonical=True)
    covered = cbor2.dumps(["Encrypt0", protected, aad], canonical=True)  # RFC 9052, 5.3
    cipher = AESCCM(bytes.fromhex(session["up_enc"]), tag_length=8)
    fields = exact(cipher.decrypt(iv, data, covered))
    if fields[:2] != [epoch, seq]:
        raise Bad("the IV names another counter than the payload")
    return fields


def verify(topic, message, publics, boots, sessions):
    """Return the payload of one upward message. `boots`: boot nonces by (device, epoch), filled
    from each hello that holds; `sessions`: the key log by (device, epoch, kid)."""
    device, kind = topic.split("/")[2], topic.split("/")[4]
    if message[:1] == b"\xd0" and kind in ("telemetry", "backlog"):
        return decrypt(message, device, kind, boots, sessions)
    alg, kid, protected, payload, seal = unpack(message)
    fields = exact(payload)
    nonce = b"" if kind == "hello" else boots.get((device, fields[0]))
    if nonce is None:
        raise Bad("no hello of this boot was captured")
    data = sealed_bytes(alg, protected, device, kind, nonce, payload)
    if alg == -8:
        public = publics.get(device)
        if public is None or hashlib.sha256(public).hexdigest()[:16] != device:
            raise Bad("device is not in the inventory")
        Ed25519PublicKey.from_public_bytes(public).verify(seal, data)
    else:
        session = sessions.get((device, fields[0], kid))
        if session is None:
            raise Bad("no key of this session in the key log")
        tag = hmac.digest(bytes.fromhex(session["up_mac"]), data, "sha256")[: len(seal)]
        if not hmac.compare_digest(tag, seal):
            raise Bad("MAC")
    if kind == "hello":
        version, suite, ident, key, _gateway, _nonce, boot_nonce, epoch, _share, _claims = fields
        if (version, suite, ident, key) != (1, 1, device, publics[device]):
            raise Bad("hello of another device or protocol")
        boots[device, epoch] = boot_nonce
    return fields


def main(argv=None):
    parser = argparse.ArgumentParser(description="Verify captured messages.")
    parser.add_argument("capture")
    parser.add_argument("inventory")
    parser.add_argument("--keylog")
    arguments = parser.parse_args(argv)
    devices = json.loads(Path(arguments.inventory).read_text())["devices"]
    publics = {device["id"]: bytes.fromhex(device["public"]) for device in devices}
    boots, sessions, good, bad, unread = {}, {}, 0, 0, 0
    if arguments.keylog:
        for line in Path(arguments.keylog).read_bytes().splitlines():
            try:
                entry = json.loads(line)
                sessions[entry["device"], entry["epoch"], bytes.fromhex(entry["kid"])] = entry
            except ERRORS as e:
                print(f"{arguments.keylog}: no key log: {type(e).__name__}", file=sys.stderr)
                return 1
    for line in Path(arguments.capture).read_bytes().splitlines():
        topic = "?"
        try:
            entry = json.loads(line)
            topic, message = entry["topic"], bytes.fromhex(entry["payload"])
            if topic.split("/")[3] != "up":
                continue
            if not arguments.keylog and message[:1] in (b"\xd0", b"\xd1"):
                unread += 1
                continue
            payload = verify(topic, message, publics, boots, sessions)
        except ERRORS as e:
            bad += 1
            print(plain(f"BAD  {topic}: {type(e).__name__} {e}"))
        else:
            good += 1
            print(plain(f"good {topic}: {payload[:5]!r}"))
    print(f"{good} hold, {bad} do not, {unread} not read for want of a key log")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main())
