"""Valid inputs to start from, made by our own encoders and peers when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import cbor2
import fuzz_flash
import fuzz_net
import fuzz_parsers
import mqtt_peer
import mux_world
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from gateway_side import Gateway, Identity
from tuf_maker import Maker

from nor import NorFlash
from tests.conftest import REPO
from tests.fuzz import host
from tidemark import cbor, config, cose, identity, image, slots
from tidemark.counter import Counter
from tidemark.evidence import REMOTE, SECURITY, Evidence
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.mux_frame import HEADER_SIZE, Reader
from tidemark.outbox import Outbox
from tidemark_host import protocol, romfs, uf2_file
from tidemark_host.chips import CHIPS
from tidemark_host.esp32.otadata import Entry, State

_AAD = cose.aad("up", "0" * 16, "telemetry", bytes(8))


def cbor_items() -> Iterator[bytes]:
    """Every type of the profile, and much that is beside it."""
    yield cbor.encode([1, -1, 24, 256, 1 << 32, (1 << 64) - 1, -(1 << 64)])
    yield cbor.encode({1: "text é", 2: b"bytes", 300: [None, True, False]})
    yield cbor.encode([0.0, -0.0, 1.5, 1e300, 1e-7, float("nan"), float("inf"), 5.96e-8])
    yield cbor.encode([[[[[[]]]]]])
    yield cbor2.dumps({1: [2**70, "x"], "a": 1.1})


def envelopes() -> Iterator[bytes]:
    """One of each algorithm."""
    payload = cbor.encode([1, 4, 1, 1, 20.5])
    for alg in (cose.HMAC_64, cose.HMAC_256):
        yield cose.mac0_seal(b"k" * 32, payload, _AAD, b"\1", alg)
    yield cose.sign1_seal(b"s" * 32, payload, _AAD)
    yield cose.encrypt0_seal(b"e" * 16, payload, _AAD, b"\1", cose.iv(cose.UP, 1, 4))


def documents() -> Iterator[bytes]:
    """Files of an update repository, whole and pretty-printed."""
    for _, data in fuzz_parsers.tuf_files():
        yield data
        yield json.dumps(json.loads(data), indent=1).encode()[:4096]
    yield b'{"signatures":[],"signed":{"a":"\\u00e9\\ud83d\\ude00","b":[1,-2,null,true]}}'


def metadata() -> Iterator[bytes]:
    """Each role with its number, and a next root."""
    for number, (_, data) in enumerate(fuzz_parsers.tuf_files()):
        yield bytes([number]) + data
    maker = Maker()
    maker.rotate("root", "root")
    yield b"\x04" + maker.files[maker.name("root")]


def targets() -> Iterator[bytes]:
    """Releases of a fleet and of a cohort; delegations in each of their forms."""
    entry = {
        "length": 100,
        "hashes": {"sha256": "ab" * 32},
        "custom": {"board": "VIRTUAL", "kind": "app", "index": 7, "version": "1.0", "cohort": 100},
    }
    paths = {"VIRTUAL/app-7.romfs": entry, "canary/VIRTUAL/app-8.romfs": entry}
    key = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00" * 32}}
    role = {"name": "x", "keyids": ["a"], "threshold": 1, "terminating": True}
    for how in ({"paths": ["*/app-?.romfs"]}, {"path_hash_prefixes": ["a", "0"]}):
        delegations = {"keys": {"a": key}, "roles": [role | how]}
        yield json.dumps({"targets": paths, "delegations": delegations}).encode()
    bins = {"keyids": ["a"], "threshold": 1, "bit_length": 4, "name_prefix": "b"}
    delegations = {"keys": {"a": key}, "succinct_roles": bins}
    yield json.dumps({"targets": {}, "delegations": delegations}).encode()


def _flash(size: int, sector: int) -> tuple[NorFlash, Region]:
    flash = NorFlash(size, sector, 256 if sector % 256 == 0 else sector)
    return flash, Region(flash, 0, size)


def _content(flash: NorFlash) -> bytes:
    return bytes(flash.view(0, flash.size))


def counters() -> Iterator[bytes]:
    """No boot, some boots, and enough to go round."""
    for boots in (0, 3, 16, 17, 70):
        flash, region = _flash(fuzz_flash.COUNTER_SIZE, 256)
        for _ in range(boots):
            Counter(region).open_epoch()
        yield _content(flash)


def journals() -> Iterator[bytes]:
    """A young journal, one with every kind of record, and one after a compaction."""
    flash, region = _flash(fuzz_flash.JOURNAL_SIZE, fuzz_flash.SECTOR)
    journal = Journal(region)
    journal.recover()
    yield _content(flash)
    journal.put("boot", b"state")
    yield _content(flash)
    journal.raise_mark("floor", 3, b"payload", b"scope")
    journal.put("key", bytes(range(200)))
    journal.delete("boot")
    yield _content(flash)
    for number in range(12):
        journal.raise_mark("floor", 4 + number, b"", b"scope")
    yield _content(flash)


def rings() -> Iterator[bytes]:
    """A ring with a few records, and one that went round."""
    for count in (0, 3, 40):
        flash, region = _flash(fuzz_flash.EVIDENCE_SIZE, 512)
        ring = Evidence(region)
        ring.recover()
        for number in range(count):
            kind = (SECURITY, REMOTE)[number % 2]
            ring.add("boot", b"power-on", kind, number, 4, number * 70_000, "power-on")
        yield _content(flash)


def records() -> Iterator[bytes]:
    for ring in rings():
        for at in range(0, 256, 64):
            yield ring[at : at + 64]


def outboxes() -> Iterator[bytes]:
    """Readings that wait and readings that are done, over a restart and round the ring."""
    for count in (0, 2, 30, 90):
        flash, region = _flash(fuzz_flash.OUTBOX_SIZE, 1024)
        box = Outbox(region)
        box.recover()
        for number in range(count):
            handle = box.add(1, number, bytes([number]) * (number % 60))
            if number % 3 == 0:
                box.ack(handle)
            if number % 20 == 19:
                box = Outbox(region)
                box.recover()
        yield _content(flash)


def provisionings() -> Iterator[bytes]:
    yield b""
    flash, region = _flash(fuzz_flash.PROVISIONING_SIZE, 4096)
    public = bytes(range(32))
    anchors = identity.Provisioning(public, b'{"signed":{}}', "0" * 16, bytes(32))
    identity.write_provisioning(region, anchors)
    yield _content(flash)[:512]


def configs() -> Iterator[bytes]:
    values: dict[int, object] = {
        config.BROKER_HOST: "192.0.2.7",
        config.BROKER_PORT: 1883,
        config.METADATA_URL: "http://192.0.2.7:8080/metadata/",
        config.TARGETS_URL: "http://h/targets",
        config.UPDATE_S: 3600,
        config.REPORT_S: 300,
        config.KEEPALIVE_S: 30,
    }
    yield cbor.encode(values)
    yield cbor.encode(values | {config.COHORT: "canary-2"})
    yield cbor.encode(values | {config.WIFI: ["barn", "correct horse", "DE"]})
    yield cbor.encode(values | {config.WIFI: ["b\u00e4rn", "0" * 64, ""]})


def headers() -> Iterator[bytes]:
    """A header with the image behind it."""
    body = b"\xd2\xcd\x31" + bytes(300)
    release = slots.Release(hashlib.sha256(body).digest(), len(body), 7, 1, "1.0.0")
    yield image.encode_header(release, "VIRTUAL") + b"\xff" * (4096 - 256 + 256) + body
    yield image.encode_header(release, "VIRTUAL")


def runtime_records() -> Iterator[bytes]:
    """Otadata and the runtimes' record at each turn of a pair's life."""
    valid, blank = Entry.made(1, State.VALID).encode(), b"\xff" * 32
    known = [1, 0, 1, b""]
    candidate = [1, bytes(32), 100, 2, "2.0", b"\3" * 32]
    for entries in (
        valid + blank,
        Entry.made(3, State.VALID).encode() + Entry.made(2, State.PENDING_VERIFY).encode(),
        blank + Entry.made(2, State.NEW).encode(),
    ):
        yield entries + cbor.encode([*known, None])
        yield entries + cbor.encode([*known, [1, *candidate]])
        yield entries + cbor.encode([*known, [2, *candidate]])
        yield entries + cbor.encode([1, 1, 2, bytes(32), None])


def _boot_records() -> Iterator[bytes | None]:
    """The state machine's record at each turn of a release's life."""
    journal = Journal(Region(NorFlash(2 * 4096), 0, 2 * 4096))
    journal.recover()
    machine = slots.Slots(journal)
    machine.recover()
    machine.provision(slots.Release(bytes(32), 100, 1, 0, "1.0"))
    yield journal.get("boot")
    machine.choose()
    new = slots.Release(b"\1" * 32, 200, 2, 0, "2.0")
    machine.begin_write(1, new)
    yield journal.get("boot")
    machine.finish_write(1)
    yield journal.get("boot")
    again = slots.Slots(journal)
    again.recover()
    again.choose()
    yield journal.get("boot")
    again.inconclusive("no-ack")
    yield journal.get("boot")
    again.acknowledged(1000)
    again.choose()
    again.fault("crash")
    yield journal.get("boot")


def boot_records() -> list[bytes]:
    """All of them: each was put before it was read."""
    return [record for record in _boot_records() if record]


def rejections() -> Iterator[bytes]:
    yield cbor.encode([[b"\3" * 16, 0, 19, "crash"], [b"\1" * 16, 3, 8, "heap"]])
    yield cbor.encode([[bytes([n]) * 16, 0, 9, "crash"] for n in range(16)])


# -- the network


def answers() -> Iterator[bytes]:
    """What a server says to a request from the start, and to one from byte 100 on."""
    body = bytes(range(60))
    yield b"\x00HTTP/1.1 200 OK\r\nContent-Length: 60\r\nServer: x\r\n\r\n" + body
    yield b"\x00HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    span = b"Content-Range: bytes 100-159/160\r\n"
    yield b"\x01HTTP/1.1 206 Partial Content\r\nContent-Length: 60\r\n" + span + b"\r\n" + body
    yield b"\x01HTTP/1.1 200 OK\r\nContent-Length: 160\r\n\r\n" + bytes(160)


def name_servers() -> Iterator[bytes]:
    """Answers: an address, an alias before one, no such name, one that was cut short."""
    asked = fuzz_net.DNS_QUESTION
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04"
    alias = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x0e\x10\x00\x04\x01x\xc0\x0c"

    def answer(flags: bytes, *records: bytes) -> bytes:
        counts = b"\x00\x01" + len(records).to_bytes(2, "big") + bytes(4)
        return asked[:2] + flags + counts + asked[12:] + b"".join(records)

    yield answer(b"\x81\x80", record + b"\xc0\x00\x02\x07")
    yield answer(b"\x81\x80", alias, *(record + bytes((10, 0, 0, n)) for n in range(6)))
    yield answer(b"\x81\x80", b"\x03www\x04barn\x00" + record[2:] + b"\xc0\x00\x02\x07")
    yield answer(b"\x81\x83")
    yield answer(b"\x83\x80", record + b"\xc0\x00\x02\x07")


def brokers() -> Iterator[bytes]:
    """A broker's side of a connection: CONNACK, SUBACK, then messages, answers, pings."""
    greeting = b"\x20\x02\x00\x00" + b"\x90\x03\x00\x01\x01"
    one = mqtt_peer.publish("d/ack", b"payload", 7)
    two = mqtt_peer.publish("d/x", b"p" * 200, 9, 0)
    yield b"\x00" + greeting + one + two + b"\xd0\x00"
    yield b"\x01" + greeting + b"\x40\x02\x00\x02" + one
    yield b"\x01" + greeting + one + b"\x40\x02\x00\x02" + two
    yield b"\x00" + greeting + mqtt_peer.publish("d/large", b"z" * 2000, 8) + one
    yield b"\x00\x20\x02\x00\x05"


def _contents(log: bytes) -> bytes:
    """Frames that crossed a line, as contents with a length before each."""
    way = mux_world.Way()
    way.arrived = log
    reader, out = Reader(), bytearray()
    while True:
        start = reader.next(way)
        if not start:
            return bytes(out)
        content = bytes(reader.raw[start : reader.end])
        out += bytes([len(content)]) + content


def _session() -> mux_world.World:
    world = mux_world.World()
    sock = world.open("echo", 1883)
    world.write(sock, b"x" * 300)
    world.read(sock, 300)
    sock.close()
    world.run(50)
    return world


def lines_to_board() -> Iterator[bytes]:
    """What a bridge says in an honest session."""
    log = _session().down.log
    yield b"\x00" + log
    yield b"\x01" + _contents(log)


def lines_to_bridge() -> Iterator[bytes]:
    """What a board says in an honest session."""
    log = _session().up.log
    yield b"\x00" + log
    yield b"\x01" + _contents(log)


def _frame(kind: int, channel: int, tag: int, seq: int, payload: bytes) -> bytes:
    head = bytes([kind, channel]) + bytes(2) + tag.to_bytes(4, "little")
    head += seq.to_bytes(4, "little") + bytes(4)
    return bytes([HEADER_SIZE + len(payload)]) + head + payload


# The tags of the board and of the bridge in such a session.
MUX_WORDS = tuple(
    _frame(kind | last, 0, tag, 1, b"ab")
    for kind in range(12)
    for last in (0, 128)
    for tag in (0x01030001, 0x01040002)
)


def device_messages() -> Iterator[bytes]:
    """Payloads that the gateway seals; and messages as they are."""
    device, gateway = Identity(), Gateway()
    yield b"\x00" + cbor.encode([gateway.id, b"nonce-02"])
    yield b"\x01" + cbor.encode([gateway.id, b"nonce-02"])
    share = bytes([9]) + bytes(31)
    welcome = cbor.encode([bytes(32), device.id, share, b"\x05", 0])
    yield b"\xc2" + welcome.replace(bytes(32), b"KNOWN", 1)
    yield b"\x83" + cbor.encode([bytes(8), 1_800_000_000, gateway.id]).replace(
        bytes(8), b"KNOWN", 1
    )
    yield b"\x84" + cbor.encode([1, 6, 1, 4])
    yield b"\x05" + cbor.encode([1, 6, "command"])
    for envelope in envelopes():
        yield b"\x04" + envelope


def gateway_messages() -> Iterator[bytes]:
    """Payloads of every kind that the device seals, by each algorithm; and a hello as it is."""
    site = host.Site()
    device = site.device
    bodies: dict[str, list[object]] = {
        "telemetry": [1, 1, [1, 20.5]],
        "backlog": [1, 2, {1: b"x"}],
        "report": [{256: b"x", 271: "1.0", 1009: [1, 0, "confirmed", "ok", 1], 1013: bytes(8)}],
        "alarm": [{1006: "safe"}],
        "evidence": [1, bytes(64)],
        "result": [1, 2, 3],
    }
    for number, kind in enumerate(host.KINDS[:-1]):
        space = protocol.UP[kind].space
        if space is None:
            message = device.hello(host.NONCE_MARK, share=bytes([9]) + bytes(31))
            yield bytes([0x40 | number]) + message
            payload = protocol.open_envelope(message, 4096).payload
            yield bytes([0xC0 | number]) + payload
            yield bytes([0x80 | number]) + payload
            continue
        for how in range(len(protocol.UP[kind].algs)):
            payload = protocol.counted(1, 1, space, *bodies[kind])
            yield bytes([0x80 | how << 4 | number]) + payload


def host_beacons() -> Iterator[bytes]:
    yield protocol.beacon("0123456789abcdef", b"nonce-02")


def images() -> Iterator[bytes]:
    yield romfs.pack({"agent/app.mpy": b"M\x06\x00" + bytes(40), "settings.json": b"{}"})
    yield romfs.pack({"a/b/c/d.txt": b"x" * 200, "a/e": b"", "z": b"\n"})
    yield romfs.pack({})


def uf2_files() -> Iterator[bytes]:
    for number, name in enumerate(("rp2040", "rp2350")):
        chip = CHIPS[name]
        yield bytes([number]) + uf2_file.encode({0: b"x" * 300, 0x10000: b"y" * 256}, chip)


def board_files() -> Iterator[bytes]:
    for path in sorted(REPO.glob("boards/*/board.toml")):
        yield path.read_bytes()


def bench_files() -> Iterator[bytes]:
    first = '[[board]]\nnickname = "desk-1"\nboard = "TIDEMARK_PICO_W"\nserial = "E66"\n'
    first += 'wifi = { ssid = "bench", open = true }\naddress = "192.0.2.7"\n'
    second = '[[board]]\nnickname = "b"\nboard = "VIRTUAL"\nserial = "E67"\nbaud = 115200\n'
    yield (first + 'power = { hub = "1-1.4", port = 2 }\n').encode()
    yield (first + second + 'link = "A5"\npower = { on = ["p", "1"], off = ["p"] }\n').encode()


def names_files() -> Iterator[bytes]:
    yield b'[desk]\nserial = "E661"\nboard = "TIDEMARK_PICO"\n\n[other]\nserial = "E662"\n'


def project_files() -> Iterator[bytes]:
    yield b'[agent]\nperiod_ms = 1000\nintegrity = "sign"\n\n[agent.app]\nx = 1\n'


def inventories() -> Iterator[bytes]:
    yield (host._inventory(host.Site().device.public).path).read_bytes()
    yield b'{"format": 1, "devices": []}'


def captures() -> Iterator[bytes]:
    files = host.capture_files()
    yield b"\x01" + files["capture.jsonl"]
    yield b"\x00" + files["keys.jsonl"]


def ecdsa_signatures() -> Iterator[bytes]:
    key = ec.derive_private_key(
        0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1()
    )
    deterministic = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    yield key.sign(b"sample", deterministic)
    yield key.sign(b"other", deterministic)


def pem_keys() -> Iterator[bytes]:
    keys = [ec.derive_private_key(7, ec.SECP256R1()).public_key()]
    # Any odd number passes for a modulus here: nothing is ever verified by it.
    modulus = int.from_bytes(hashlib.shake_256(b"modulus").digest(256), "big") | 1 << 2047 | 1
    keys.append(rsa.RSAPublicNumbers(65537, modulus).public_key())
    for key in keys:
        yield key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
