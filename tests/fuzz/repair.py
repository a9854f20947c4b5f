"""Sums, hashes and signatures made right again, so that a changed field gets past the check of it.

Each function takes an input of a target and returns one of the same length or shape. What it does
not understand it leaves as it is.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import struct
from typing import Any

import fuzz_flash
from securesystemslib.formats import encode_canonical
from tuf_maker import key

from tidemark import journal as journals

_STAMPS = (b"TMC1", b"TMO1")


def _crc(data: bytes) -> int:
    return binascii.crc32(data) & 0xFFFFFFFF


def _stamp(magic: bytes, number: bytes) -> bytes:
    head = magic + number + bytes(byte ^ 0xFF for byte in number)
    return head + struct.pack(">I", _crc(head))


def stamps(data: bytes) -> bytes:
    """Counter records, and headers of outbox sectors: magic, number, its complement, CRC-32."""
    out = bytearray(data)
    for at in range(0, len(out) - 15, 16):
        if bytes(out[at : at + 4]) in _STAMPS:
            out[at : at + 16] = _stamp(bytes(out[at : at + 4]), bytes(out[at + 4 : at + 8]))
    return bytes(out)


def outbox(data: bytes) -> bytes:
    """Stamps, and the readings behind them."""
    out = bytearray(stamps(data))
    for chunk in range(0, len(out), 512):
        at = chunk + 16
        while at + 16 <= min(chunk + 512, len(out)) and out[at + 1] == 1:
            size = int.from_bytes(out[at + 2 : at + 4], "big")
            body = bytes(out[at + 16 : at + 16 + size])
            crc = _crc(bytes(out[at + 1 : at + 12]) + body)
            out[at + 12 : at + 16] = crc.to_bytes(4, "big")
            at += (16 + size + 3) & ~3
    return bytes(out)


def journal(data: bytes) -> bytes:
    """Headers of both units, and each record whose head still makes sense."""
    out = bytearray(data)
    half = fuzz_flash.SECTOR
    for base in range(0, len(out), half):
        generation = 0
        if bytes(out[base : base + 4]) == b"TMJ1":
            out[base : base + 16] = _stamp(b"TMJ1", bytes(out[base + 4 : base + 8]))
            generation = int.from_bytes(out[base + 4 : base + 8], "big")
        for block in range(1, half // 128):
            at = base + block * 128
            if out[at : at + 16] != bytes(16) or len(out) < at + 128:
                continue
            kind, klen, vlen = struct.unpack_from(">BBH", out, at + 16)
            total = 8 + klen + vlen
            if total > 112 * 6:
                continue
            record = b"".join(bytes(out[i + 16 : i + 128]) for i in range(at, at + 6 * 128, 128))
            body = record[8:total].ljust(total - 8, b"\xff")
            crc = journals._crc(generation, block, kind, klen, vlen, body)
            out[at + 20 : at + 24] = crc.to_bytes(4, "big")
    return bytes(out)


def evidence(data: bytes) -> bytes:
    """Sums of records; the chain stays as it is."""
    out = bytearray(data)
    for at in range(0, len(out) - 63, 64):
        if out[at : at + 64] != b"\xff" * 64:
            out[at + 62 : at + 64] = (_crc(bytes(out[at : at + 62])) & 0xFFFF).to_bytes(2, "big")
    return bytes(out)


def provisioning(data: bytes) -> bytes:
    """The digest in the header."""
    out = bytearray(data)
    if len(out) < 256:
        return data
    size = int.from_bytes(out[16:18], "big")
    out[18:50] = hashlib.sha256(bytes(out[256 : 256 + size]).ljust(size, b"\xff")).digest()
    return bytes(out)


def slot_header(data: bytes) -> bytes:
    """The digest of the image in the header, where the fields are where they were."""
    out = bytearray(data)
    size = int.from_bytes(out[16:18], "big") if len(out) > 4352 else 0
    at = bytes(out[:256]).find(b"\x58\x20", 18)
    if size and at > 0:
        out[at + 2 : at + 34] = hashlib.sha256(bytes(out[4352:])).digest()
    return bytes(out)


def uf2(data: bytes) -> bytes:
    """Magic numbers of each block."""
    out = bytearray(data[: len(data) // 512 * 512])
    for at in range(0, len(out), 512):
        struct.pack_into("<2I", out, at, 0x0A324655, 0x9E5D5157)
        struct.pack_into("<I", out, at + 508, 0x0AB16F30)
    return bytes(out)


def metadata(data: bytes) -> bytes:
    """The signature over a TUF file, by the key that signed it."""
    try:
        document: Any = json.loads(data[1:])
        signed = document["signed"]
        message = encode_canonical(signed)
        assert isinstance(message, str)
        document["signatures"] = [key(signed["_type"]).sign(message.encode())]
        return data[:1] + json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    except Exception:
        # Any text may come: what is no document of ours is as good a test as it is.
        return data
