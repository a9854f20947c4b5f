"""Parsers of the host's side, run as the table runs the firmware's: bytes in, a word out.

A refusal leaves as the typed error of its module, whose `code` is the word then.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import sqlite3
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.conftest import REPO
from tidemark_host import boardfile, codec, discovery, evidence, protocol, romfs, uf2_file
from tidemark_host.chips import CHIPS
from tidemark_host.cli import build
from tidemark_host.fleet.device import FleetDevice, _Session
from tidemark_host.gateway.core import Core, Message
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.gateway.store import Store
from tidemark_host.hil import places
from tidemark_host.inventory import Inventory, InventoryError
from tidemark_host.protocol import Refused

ERRORS = (
    Refused,
    boardfile.BoardFileError,
    discovery.DiscoveryError,
    evidence.EvidenceError,
    places.PlaceError,
    romfs.ImageError,
    uf2_file.Uf2Error,
    InventoryError,
)

KINDS = (*protocol.UP, "command")
GATEWAY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
DEVICE = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
# Stand for what only one run knows.
NONCE_MARK, KID_MARK = b"GW-NONCE", b"KID"


@functools.cache
def _folder() -> Path:
    """A folder for files that a parser wants as files; it ends with the process."""
    _kept.append(tempfile.TemporaryDirectory(prefix="tidemark-fuzz-"))
    return Path(_kept[0].name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _inventory(public: bytes) -> Inventory:
    inventory = Inventory(_folder() / "devices.json")
    inventory.enroll(public, "FLEET")
    return inventory


class Site:
    """A gateway's core with one device that has booted, all of it in memory."""

    def __init__(self) -> None:
        public = GATEWAY.public_key().public_bytes_raw()
        self.device = FleetDevice(public, DEVICE)
        self.device.boot_nonce = b"bootboot"
        identity = GatewayIdentity(GATEWAY, public, protocol.key_id(public))
        self.store = Store(Path(":memory:"))
        inventory = _inventory(self.device.public)
        self.core = Core(identity, inventory, self.store, None, lambda: 1e3, lambda: 1e9)
        self.core.sessions._nonces = [NONCE_MARK]

    def send(self, kind: str, message: bytes) -> list[Message]:
        return self.core.handle([Message(protocol.topic_up(self.device.id, kind), message)])

    def greet(self) -> None:
        answers = self.send("hello", self.device.hello(self.core.sessions.nonce))
        self.device.take(answers[0].topic, answers[0].payload)
        self.core._counts.clear()

    def state(self) -> list[str]:
        database: sqlite3.Connection = self.store._db
        return list(database.iterdump())

    def seal(self, kind: str, payload: bytes, how: int) -> bytes:
        """Seal a payload as the device would."""
        device, session = self.device, self.device.session
        nonce = b"" if kind == "hello" else device.boot_nonce
        external = protocol.aad("up", device.id, kind, nonce)
        algs = protocol.UP[kind].algs
        alg = algs[how % len(algs)]
        if alg == protocol.EDDSA or session is None:
            return protocol.sign(device.key, external, payload)
        if alg != protocol.AES_CCM:
            return protocol.seal_mac(session.keys.up_mac, alg, session.kid, external, payload)
        iv = protocol.make_iv("up", device.epoch, 1 << 2 | (protocol.UP[kind].space or 0))
        return protocol.encrypt(session.keys.up_enc, session.kid, iv, external, payload)


def gateway(data: bytes) -> str:
    """First byte: low bits the kind, 0x80 for a payload that the device seals (0x30: how), 0x40
    for a device that has not greeted. A refusal changes nothing but its count.
    """
    first = data[0] if data else 0
    kind = KINDS[(first & 7) % len(KINDS)]
    site = Site()
    if not first & 0x40:
        site.greet()
    message = data[1:]
    if first & 0x80 and kind != "command":
        message = site.seal(kind, message, first >> 4 & 3)
    before = site.state()
    answers = site.send(kind, message)
    codes = sorted(code for _, code in site.core._counts)
    assert "internal" not in codes
    assert set(codes) <= set(protocol.CODES), codes
    down = {answer.topic.rsplit("/", 1)[1] for answer in answers}
    if not down - {"challenge"}:
        refused = [code for code in codes if code not in ("jump", "redelivery")]
        assert len(refused) == 1, codes
        # An alarm is meant to stay.
        assert refused[0] in ("clone", "epoch") or site.state() == before
        return refused[0]
    for row in site.store.next_rows(10):
        assert row.body.isascii() and json.loads(row.body)["device"] == site.device.id
    site.store.close()
    return f"taken {' '.join(sorted(down))} {' '.join(codes)}"


def beacon(data: bytes) -> str:
    """What a device reads of a gateway's beacon, by the host's half of the protocol."""
    gateway_id, nonce = protocol.parse_beacon(data)
    assert protocol.beacon(gateway_id, nonce) == data
    return "taken"


def codec_item(data: bytes) -> str:
    """A value that encodes to the bytes it came from, and JSON that can hold it."""
    value = codec.decode(data)
    assert codec.encode(value) == data
    json.dumps(codec.json_safe(value), allow_nan=False)
    return "taken"


def romfs_image(data: bytes) -> str:
    """The names in an image; packed anew they are the same."""
    found = romfs.list_files(data)
    assert len(found) <= romfs.MAX_FILES
    return f"taken {len(found)} {hashlib.sha256(repr(found).encode()).hexdigest()[:8]}"


def uf2(data: bytes) -> str:
    """First byte: the chip. What is read is what writing it again reads back."""
    chip = CHIPS["rp2350" if data and data[0] & 1 else "rp2040"]
    parts = uf2_file.decode(data[1:], chip)
    assert sum(map(len, parts.values())) <= len(data)
    for offset, content in uf2_file.spans(parts):
        assert 0 <= offset < 1 << 24 and len(content) <= len(data)
    if all(len(content) == 256 and not offset % 256 for offset, content in parts.items()):
        again = uf2_file.decode(uf2_file.encode(parts, chip), chip) if parts else parts
        assert again == parts
    return f"taken {len(parts)}"


def board_toml(data: bytes) -> str:
    """A board whose regions do not overlap, and whose module says what the file does."""
    board = boardfile.parse_board(data)
    end = 0
    for region in sorted(board.regions.values(), key=lambda region: region.offset):
        assert region.offset >= end and region.end <= board.flash_size
        assert not region.offset % board.sector and not region.size % board.sector
        end = region.end
    made: dict[str, Any] = {}
    exec(boardfile.generate_board_module(board), made)
    assert made["NAME"] == board.name and len(made["REGIONS"]) == len(board.regions)
    boardfile.generate_header(board)
    return f"taken {board.name}"


def _as_file(name: str, read: Callable[[Path], object], data: bytes) -> object:
    path = _folder() / name
    path.write_bytes(data)
    return read(path)


def bench_toml(data: bytes) -> str:
    """Places with names and serial numbers of their own."""
    found = _as_file("bench.toml", places.read, data)
    assert isinstance(found, list) and len(found) <= places.MAX_BOARDS
    names = [place.nickname for place in found]
    assert len(names) == len(set(names))
    return f"taken {len(found)}"


def names_toml(data: bytes) -> str:
    """Nicknames, which written again are the same."""
    found = _as_file("boards.toml", discovery.read_names, data)
    assert isinstance(found, dict)
    path = _folder() / "again.toml"
    discovery._write_names(found, path)
    assert discovery.read_names(path) == found
    return f"taken {len(found)}"


def project_toml(data: bytes) -> str:
    """The settings of an application image in a project's file."""
    found = _as_file("project.toml", build.read_settings, data)
    if found is not None:
        assert repr(tomllib.loads(data.decode())["agent"]) == repr(found)
    return "none" if found is None else "taken"


def inventory(data: bytes) -> str:
    """An inventory, as a gateway reads it while it runs."""
    path = _folder() / "inventory.json"
    path.write_bytes(data)
    devices = list(Inventory(path))
    for device in devices:
        assert protocol.key_id(device.public_bytes) == device.id
    return f"taken {len(devices)}"


@functools.cache
def _verifier() -> Any:
    path = REPO / "docs" / "examples" / "verify_capture.py"
    spec = importlib.util.spec_from_file_location("verify_capture", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def capture(data: bytes) -> str:
    """First byte odd: a capture file, even: a key log; the other file is a good one."""
    folder, odd = _folder(), bool(data and data[0] & 1)
    good = capture_files()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    (folder / ("capture.jsonl" if odd else "keys.jsonl")).write_bytes(data[1:])
    words = [str(folder / "capture.jsonl"), str(folder / "capture-inventory.json")]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = _verifier().main([*words, "--keylog", str(folder / "keys.jsonl")])
        except SystemExit as end:
            code = end.code
    said = out.getvalue().splitlines()
    assert code in (0, 1, 2)
    # A peer's bytes never make a line of their own, and never a control character.
    assert all(line.isprintable() for line in said)
    return f"ended {code}"


@functools.cache
def capture_files() -> dict[str, bytes]:
    """A capture, its inventory and its key log, of one device."""
    device = Site().device
    hello = device.hello(NONCE_MARK, share=bytes([9]) + bytes(31))
    keys = protocol.SessionKeys(b"a" * 32, b"b" * 16, b"c" * 32, b"d" * 16)
    device.session = _Session(keys, b"\x05", device.epoch)
    messages = [
        ("hello", hello),
        ("telemetry", device.telemetry(1.5)),
        ("report", device.report()),
    ]
    messages.append(("telemetry", device.telemetry([1, 2], encrypt=True)))
    lines = [
        {"time": 1.0, "topic": protocol.topic_up(device.id, kind), "payload": message.hex()}
        for kind, message in messages
    ]
    log = {
        "device": device.id,
        "kid": device.session.kid.hex(),
        "epoch": device.epoch,
        "up_mac": keys.up_mac.hex(),
        "up_enc": keys.up_enc.hex(),
    }
    devices = {"devices": [{"id": device.id, "public": device.public.hex()}]}
    return {
        "capture.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "capture-inventory.json": json.dumps(devices).encode(),
        "keys.jsonl": (json.dumps(log) + "\n").encode(),
    }


def evidence_region(data: bytes) -> str:
    """A ring as `tidemark evidence` reads it off a board's flash."""
    ring = evidence.read_ring(data)
    for record in ring.records:
        assert record.code.isascii() and record.detail.isprintable()
    assert ring.why.isprintable()
    numbers = [record.number for record in ring.records]
    assert numbers == sorted(set(numbers))
    return f"taken {len(numbers)} {len(ring.gaps)} {len(ring.broken)}"


PARSERS: dict[str, Callable[[bytes], str]] = {
    "gateway": gateway,
    "host-beacon": beacon,
    "host-cbor": codec_item,
    "host-evidence": evidence_region,
    "romfs": romfs_image,
    "uf2": uf2,
    "board-toml": board_toml,
    "bench-toml": bench_toml,
    "names-toml": names_toml,
    "project-toml": project_toml,
    "inventory": inventory,
    "capture": capture,
}
