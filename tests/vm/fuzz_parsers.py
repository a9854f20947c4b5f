# What fuzzing runs on both interpreters: each function takes bytes, hands them to a parser of the
# firmware and returns a word that says what became of them. The same bytes give the same word
# everywhere. A refusal leaves as the TidemarkError that it is; whatever else is raised is a finding.
# tests/fuzz has the table, the seeds and the comparison with other parsers.

import binascii
import hashlib
import struct

from nor import NorFlash
from tidemark import canonjson, cbor, config, cose, ecdsa_p256, identity, image, rsa_pss, slots
from tidemark.compat import ticks_add, utf8
from tidemark.counter import Counter
from tidemark.errors import LinkError, StateError, TidemarkError
from tidemark.evidence import SIZE, SYSTEM, Evidence, is_valid, parse
from tidemark.flash import Region
from tidemark.http import Client
from tidemark.journal import Journal
from tidemark.outbox import Outbox
from tidemark.signedjson import open_signed

SECTOR = 2048
PAGE = 256
COUNTER_SIZE = 4 * 256
EVIDENCE_SIZE = 3 * 512
JOURNAL_SIZE = 2 * SECTOR
OUTBOX_SIZE = 3 * 1024
PROVISIONING_SIZE = 4096


def mark(*parts):
    """A short word for any values: the same for the same values."""
    return "%08x" % (binascii.crc32(repr(parts).encode()) & 0xFFFFFFFF)


def _mark_bytes(data):
    return "%08x" % (binascii.crc32(bytes(data)) & 0xFFFFFFFF)


# -- codecs


def cbor_item(data):
    """A value that encodes to the bytes it came from."""
    value = cbor.decode(data)
    assert cbor.encode(value) == data
    return "taken"


def envelope(data):
    """A COSE message by shape, as the session looks at it first."""
    if data[:1] == b"\xd0":
        kid, nonce, protected, body = cose.encrypt0_peek(data)
        parts = (protected, {4: kid, 5: nonce}, body)
        assert cbor.encode(cbor.Tagged(cose.TAG_ENCRYPT0, parts)) == data
        return "encrypt0"
    tag, alg, _, payload = cose.peek(data)
    assert payload in data
    return "%d %d" % (tag, alg)


def json_text(data):
    """Metadata's JSON; the word is of its canonical form."""
    return "taken " + _mark_bytes(canonjson.encode(canonjson.loads(data, 4096)))


_SHAPE = {"_type": None, "version": None, "keys": {"*": {"keyval": {"public": None}}}, "meta": None}


def signed_json(data):
    """A metadata file, opened by the short way where it is canonical."""
    signatures, signed, message = open_signed(data, 4096, 10, _SHAPE)
    if signed is None:
        return "empty"
    return "taken " + _mark_bytes(message) + _mark_bytes(canonjson.encode(signed))


def pem_key(data):
    """A public key of either kind."""
    try:
        text = utf8(data)
    except ValueError:
        return "no-text"
    for module in (ecdsa_p256, rsa_pss):
        public = module.decode(text)
        if public is not None:
            return "taken " + _mark_bytes(public)
    return "none"


_P256 = (
    b"\x60\xfe\xd4\xba\x25\x5a\x9d\x31\xc9\x61\xeb\x74\xc6\x35\x6d\x68"
    b"\xc0\x49\xb8\x92\x3b\x61\xfa\x6c\xe6\x69\x62\x2e\x60\xf2\x9f\xb6"
    b"\x79\x03\xfe\x10\x08\xb8\xbc\x99\xa4\x1a\xe9\xe9\x56\x28\xbc\x64"
    b"\xf2\xf1\xb2\x0c\x2d\x7e\x9f\x51\x77\xa3\xc2\x94\xd4\x46\x22\x99"
)


def ecdsa_signature(data):
    """A DER signature over "sample" by the key of RFC 6979, A.2.5."""
    return "good" if ecdsa_p256.verify(_P256, b"sample", data) else "bad"


# -- update metadata

_made = {}


def _repository():
    """Files of a repository, and a trusted set that has taken them up to each role."""
    if not _made:
        from tidemark.tuf import TrustedSet
        from tuf_maker import NOW, Maker

        maker = Maker()
        # Without hashes a changed file gets as far as its signature.
        maker.with_hashes = False
        maker.publish("targets", "snapshot", "timestamp")
        names = {role: maker.files[maker.name(role)] for role in ("root", "timestamp", "snapshot", "targets")}
        _made["files"] = names
        _made["maker"] = maker
        _made["now"] = NOW
        _made["set"] = TrustedSet
    return _made


def tuf_files():
    """(role, file) of a small repository, in the order in which they are taken."""
    return list(_repository()["files"].items())


def _trusted(count):
    """A trusted set that took the first `count` files. Verified once, then copied."""
    made = _repository()
    if "taken" not in made:
        full = made["set"](None, made["now"])
        full.load_root(made["files"]["root"])
        full.update_timestamp(made["files"]["timestamp"])
        full.update_snapshot(made["files"]["snapshot"])
        full.update_targets(made["files"]["targets"])
        made["taken"] = full
    full = made["taken"]
    out = made["set"](None, made["now"])
    if count > 0:
        out.root = full.root
    if count > 1:
        out.timestamp = full.timestamp
    if count > 2:
        out.snapshot = full.snapshot
    return out


def tuf_metadata(data):
    """First byte: the role, or a next root (4); then a file for a set that took those before it."""
    kind = data[0] % 5 if data else 0
    file = data[1:]
    trusted = _trusted(1 if kind == 4 else kind)
    before = (trusted.root, trusted.timestamp, trusted.snapshot, dict(trusted.targets))
    try:
        if kind == 0:
            trusted.load_root(file)
        elif kind == 1:
            trusted.update_timestamp(file)
        elif kind == 2:
            trusted.update_snapshot(file, stored=True)
        elif kind == 3:
            trusted.update_targets(file)
        else:
            trusted.update_root(file)
    except TidemarkError:
        assert before == (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        raise
    if kind in (0, 4):
        trusted.scope()
    if kind == 3:
        from tidemark import target

        target.choose([trusted.targets["targets"].signed["targets"]], "VIRTUAL", "0" * 16)
    return "taken %d" % kind


def target_entry(data):
    """A TARGETS object as `targets_shape` takes it; what the board would choose of it."""
    from tidemark import target
    from tidemark.tuf import _check_targets

    document = canonjson.loads(data, 4096)
    if not isinstance(document, dict):
        return "empty"
    signed = {"targets": document.get("targets"), "delegations": document.get("delegations")}
    _check_targets(signed)
    chosen = target.choose([signed["targets"]], "VIRTUAL", "0" * 16, 0, "canary")
    if signed["delegations"] is not None:
        from tidemark.tuf_delegations import roles_for

        roles = roles_for(signed["delegations"], "VIRTUAL/app-7.romfs")
    else:
        roles = []
    return "taken " + mark(chosen[0] if chosen else "", len(roles))


# -- flash


class CountingFlash(NorFlash):
    """Counts the bytes that are looked at: what recovery costs."""

    def __init__(self, data, size, sector):
        content = bytearray(b"\xff" * size)
        content[: min(size, len(data))] = data[:size]
        NorFlash.__init__(self, content, sector, PAGE if sector % PAGE == 0 else sector)
        self.seen = 0

    def view(self, start, size):
        self.seen += size
        return NorFlash.view(self, start, size)

    def read_into(self, addr, buf):
        self.seen += len(buf)
        NorFlash.read_into(self, addr, buf)

    def content(self):
        return bytes(NorFlash.view(self, 0, self.size))


def _region(flash):
    return Region(flash, 0, flash.size)


def counter_sectors(data):
    """Recovers twice alike; an epoch above whatever was found, which the next boot finds."""
    flash = CountingFlash(data, COUNTER_SIZE, 256)
    counter = Counter(_region(flash))
    found = counter.recover()
    assert flash.seen <= 12 * flash.size, flash.seen
    assert Counter(_region(flash)).recover() == found
    epoch = counter.open_epoch()
    assert epoch > found and flash.erases <= 5 and flash.programs <= 20
    assert Counter(_region(flash)).recover() >= epoch
    return "taken %d %d" % (found, epoch)


def _journal(flash):
    journal = Journal(_region(flash))
    journal.recover()
    return journal


def _values(journal):
    return [(key, journal.get(key), journal.mark(key)) for key in journal.keys()]


def journal_sectors(data):
    """Recovers twice alike; what is affirmed is what was found; a new value joins it."""
    flash = CountingFlash(data, JOURNAL_SIZE, SECTOR)
    journal = _journal(flash)
    assert flash.seen <= 12 * flash.size, flash.seen
    found = _values(journal)
    blank = journal.is_blank()
    assert not blank or not found
    assert _values(_journal(flash)) == found and flash.operations == 0
    for key, value, _ in found:
        assert journal.affirm(key) == value
    try:
        journal.put("fuzz", b"new")
    except StateError:
        assert blank or journal.keys() == [key for key, _, _ in found]
        raise
    again = _journal(flash)
    wanted = [one for one in found if one[0] != "fuzz"]
    # A unit that nothing settles counts as blank; what it holds is seen when it is born anew.
    assert blank or [one for one in _values(again) if one[0] != "fuzz"] == wanted
    assert again.get("fuzz") == b"new"
    return "taken " + mark(found)


def evidence_sectors(data):
    """Recovers twice alike; goes on with a number above all that can be read."""
    flash = CountingFlash(data, EVIDENCE_SIZE, 512)
    ring = Evidence(_region(flash))
    head = ring.recover()
    # Eight strays at most, each found by a pass over the region.
    assert flash.seen <= 26 * flash.size, flash.seen
    again = Evidence(_region(flash))
    assert again.recover() == head and flash.operations == 0
    oldest = ring.oldest()
    assert oldest <= head
    found = ring.read(oldest, 64)
    for start in range(0, len(found), SIZE):
        parse(found[start : start + SIZE])
    number = ring.add("fuzz", b"x", SYSTEM)
    assert number > head or (number == 0 and ring.gaps == 1)
    if number:
        assert Evidence(_region(flash)).recover() == number
    return "taken %d %d %s" % (head, number, _mark_bytes(found))


def evidence_record(data):
    """One record of 64 bytes."""
    fields = parse(data)
    assert is_valid(data, fields[0]) and len(fields[3]) <= 16
    return "taken " + mark(fields[0], fields[1], fields[2])


def outbox_sectors(data):
    """Recovers twice alike; a reading joins what waits; each can be acknowledged once."""
    flash = CountingFlash(data, OUTBOX_SIZE, 1024)
    box = Outbox(_region(flash))
    count = box.recover()
    assert flash.seen <= 16 * flash.size, flash.seen
    found = box.pending(limit=999)
    assert len(found) == count == len(box)
    again = Outbox(_region(flash))
    assert again.recover() == count and again.pending(limit=999) == found and flash.operations == 0
    handle = box.add(7, 1, b"fuzz")
    waiting = box.pending(limit=999)
    assert waiting[-1] == (handle, 7, 1, b"fuzz") and len(waiting) + box.dropped == count + 1
    for one in waiting:
        assert box.ack(one[0]) and not box.ack(one[0])
    assert len(box) == 0 and Outbox(_region(flash)).recover() == 0
    return "taken %d %s" % (count, mark([one[1:3] for one in found]))


def provisioning_sector(data):
    """What was written once is what is read, and takes nothing else."""
    flash = CountingFlash(data, PROVISIONING_SIZE, 4096)
    region = _region(flash)
    found = identity.read_provisioning(region)
    if found is None:
        return "blank"
    assert cbor.encode(found.fields()) in bytes(flash.content())
    identity.write_provisioning(region, found)
    assert flash.erases == 0
    other = identity.Provisioning(found.public, found.root, found.gateway_id + "x", found.gateway_key)
    try:
        identity.write_provisioning(region, other)
    except StateError as error:
        assert error.code == "provisioned"
    else:
        raise AssertionError("written twice")
    return "taken " + mark(found.gateway_id)


def config_record(data):
    """The settings of the link, as the base reads them."""
    values = config.check(cbor.decode(data))
    assert cbor.encode(values) == data
    config.cohort(values)
    return "taken"


def slot_header(data):
    """The header of an image, then the check of what lies behind it."""
    board, release = image.decode_header(bytes(data[:256]) + b"\xff" * (256 - min(256, len(data))))
    again = image.encode_header(release, board)
    size = 18 + (again[16] << 8 | again[17])
    assert again[:size] == data[:size]
    flash = CountingFlash(data[256:], 2 * 4096, 4096)
    fed = []
    image.check(_region(flash), release, lambda: fed.append(1))
    return "taken %d" % release.index


def boot_record(data):
    """The slots' record in the journal: whatever it says, no slot in use is ever a target."""
    journal = _journal(NorFlash(2 * 4096))
    journal.put("boot", data)
    machine = slots.Slots(journal)
    machine.recover()
    machine.table()
    machine.resolve("power-on", "")
    slot, why = machine.choose()
    assert slot in (0, 1, slots.NONE)
    target = machine.target_slot()
    assert target not in (machine.confirmed, machine.running)
    assert machine.floor >= 0
    return "taken %d %s" % (slot, why)


def rejected_record(data):
    """The list of rejected releases in the journal."""
    journal = _journal(NorFlash(2 * 4096))
    machine = slots.Slots(journal)
    machine.recover()
    machine.provision(slots.Release(b"\2" * 32, 10, 1, 0, "0.9"))
    journal.put("rejected", data)
    machine = slots.Slots(journal)
    machine.recover()
    release = slots.Release(bytes(32), 10, 5, 0, "1.0")
    machine.check_candidate(release)
    return "taken"


# -- the network


class _HttpSocket:
    """Says all that it has to say in small pieces, then closes."""

    def __init__(self, data):
        self._data = data
        self.calls = 0
        self.closed = 0

    def setblocking(self, on):
        pass

    def send(self, data):
        return len(data)

    def recv(self, size):
        self.calls += 1
        part = self._data[: min(size, 64)]
        self._data = self._data[64:] if size >= 64 else self._data[size:]
        return part

    def close(self):
        self.closed += 1


def http_response(data):
    """First byte: asks from the start (even) or from byte 100 on; then all that a server says."""
    offset = 100 if data and data[0] & 1 else 0
    sock = _HttpSocket(data[1:])
    client = Client(lambda host, port, timeout_s: sock, "http://h/b", lambda: 0)
    run = client.get("f", offset, 160 if offset else None)
    body = b""
    try:
        response = None
        try:
            while True:
                next(run)
        except StopIteration as stop:
            response = stop.value
        if response is None:
            return "none"
        if response.length > 4096:
            raise LinkError("too-large")
        buf = bytearray(100)
        while response.left:
            body += bytes(buf[: response.readinto(buf)])
    finally:
        assert sock.calls <= 2 + len(data) // 32
        if not sock.closed and response:
            response.close()
        assert sock.closed == 1
    assert response.start in (0, offset) and len(body) == response.length
    return "taken %d %d %d %s" % (response.status, response.start, response.length, _mark_bytes(body))


class _MqttSocket:
    """A broker that says what it is told, then hangs up. Takes everything."""

    def __init__(self, data):
        self._data = data
        self.sent = b""
        self.reads = 0

    def setblocking(self, on):
        pass

    def readinto(self, buf):
        self.reads += 1
        size = min(len(buf), len(self._data))
        buf[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def write(self, data):
        self.sent += bytes(data)
        return len(data)

    def close(self):
        pass


class _Poller:
    def register(self, sock, events):
        pass

    def modify(self, sock, events):
        pass

    def poll(self, ms):
        return ()


class _Select:
    """In the place of `select`: what comes is there at once."""

    POLLIN = 1
    POLLOUT = 4
    poll = _Poller


def mqtt_broker(data):
    """First byte odd: a PUBLISH waits for its answer, too. Then all that a broker sends."""
    import mqtt_peer  # noqa: F401  it names the modules that umqtt asks for

    from tidemark import wire

    real = wire.select
    wire.select = _Select
    try:
        return _mqtt_broker(data)
    finally:
        wire.select = real


def _mqtt_broker(data):
    from tidemark.link import Link

    sock = _MqttSocket(data[1:])
    link = Link(lambda host, port, timeout_s: sock, "h", 1883, "fuzz", bytes)
    link.delay(0)
    link.subscribe("d/+")
    link.step()
    published = ""
    if data and data[0] & 1 and link.state == "up":
        try:
            link.publish("u", b"x")
            published = "acknowledged"
        except LinkError as error:
            published = error.code
    steps = 0
    while link.state == "up":
        link.step()
        steps += 1
        assert steps <= 4 + len(data)
    assert sock.reads <= 32 + 2 * len(data)
    got = []
    while True:
        message = link.receive()
        if message is None:
            break
        got.append(message)
    topics = [(topic, _mark_bytes(payload)) for topic, payload in got]
    return "%s %s %d %d %s" % (link.error, published, len(got), link.dropped, mark(topics, sock.sent))


# -- the serial line


class _Line:
    """A line that brings what it is told, a frame for each write or after a while, and takes all."""

    def __init__(self, data, patience):
        self.left = data
        self._patience = patience
        self._idle = 0
        self._due = 0
        self.sent = 0

    def readinto(self, buf):
        self._idle += 1
        if not self._due and self._idle < self._patience:
            return 0
        self._idle = 0
        self._due = max(0, self._due - 1)
        end = self.left.find(b"\0", 1)
        size = min(len(buf), len(self.left) if end < 0 else end + 1, 300)
        buf[:size] = self.left[:size]
        self.left = self.left[size:]
        return size

    def write(self, buf):
        self._due = min(self._due + 1, 4)
        self.sent += len(buf)
        return len(buf)


def frames(data):
    """Line bytes of frames. First byte even: the rest as it is; odd: contents behind a length each,
    which become frames with a right sum.
    """
    from tidemark.mux_frame import HEADER_SIZE, PAYLOAD_MAX, Writer

    if not data or not data[0] & 1:
        return data[1:]
    out = _Collect()
    at = 1
    while at + 1 + HEADER_SIZE <= len(data):
        end = min(at + 1 + max(data[at], HEADER_SIZE), len(data), at + 1 + HEADER_SIZE + PAYLOAD_MAX)
        first, channel, turn, tag, seq, ack = struct.unpack("<BBHIII", data[at + 1 : at + 1 + HEADER_SIZE])
        payload = memoryview(data[at + 1 + HEADER_SIZE : end])
        writer = Writer()
        writer.build(first, channel, turn, tag, seq, ack, payload, len(payload))
        writer.flush(out)
        at = end
    return out.data


class _Collect:
    def __init__(self):
        self.data = b""

    def write(self, buf):
        self.data += bytes(buf)
        return len(buf)


def _check_end(end):
    """What no frame may break: credit, windows and queues keep within their bounds."""
    from tidemark.mux_end import DEAD, WINDOW

    assert 0 <= end.free() <= 4
    for channel in end.channels:
        if channel.state == DEAD:
            continue  # its session broke the rules and was ended
        assert channel.have >= 0 and channel.room >= 0 and channel.owed >= 0
        assert channel.have + channel.room + channel.owed <= WINDOW
        assert 0 <= channel.credit <= WINDOW and channel.at < WINDOW


def mux_board(data):
    """The board's end of the line, which opens a connection and uses it."""
    from mux_world import Counting
    from tidemark.mux import Mux

    line = _Line(frames(data), 20)
    now = [0]

    def pause(ms):
        now[0] = ticks_add(now[0], ms)

    mux = Mux(line, Counting(), lambda: now[0], pause)
    word = "opened"
    sock = None
    try:
        sock = mux.open("echo", 1883, 1)
        sock.setblocking(False)
        sock.write(b"x" * 300)
    except LinkError as error:
        word = error.code
    except OSError as error:
        word = "errno %d" % error.errno
    got = b""
    for _ in range(400):
        if not line.left:
            break
        mux.step(True)
        pause(1)
        _check_end(mux)
        if sock:
            try:
                got += sock.read(200) or b""
            except OSError as error:
                word = "errno %d" % error.errno
    if sock:
        sock.close()
    return "%s %d %d %d %d %s" % (
        word, mux.bad, mux.sessions, mux.violations, len(got), _mark_bytes(got)
    )


class _Network:
    """What a bridge's end asks for: opens everything, and reads what comes."""

    def __init__(self):
        self.end = None
        self.asked = []
        self.got = 0
        self.open = set()

    def opened(self, index, host, port, timeout_s):
        assert 0 < port < 65536 and timeout_s >= 0
        self.asked.append(len(host))
        self.open.add(index)
        self.end.answer(index, 0)

    def ended(self, index):
        self.open.discard(index)
        self.end.shut(index)

    def dropped(self):
        self.open.clear()

    def fill(self):
        for index in self.open:
            self.got += len(self.end.receive(index, 4096))
            self.end.send(index, b"y" * 50)


def mux_bridge(data):
    """The bridge's end of the line."""
    from mux_world import Counting

    try:
        from tidemark_host.boards.mux_host import HostEnd
    except ImportError:
        from mux_host import HostEnd

    network = _Network()
    line = _Line(frames(data), 2)
    end = HostEnd(line, Counting(1), network)
    network.end = end
    for _ in range(1000):
        if not line.left:
            break
        end.step()
        _check_end(end)
    end.step()
    assert line.sent <= 1100 * (end.turns + 1)
    return "%d %d %d %d %s" % (
        end.bad, end.turns, end.violations, end.strangers, mark(network.asked, network.got)
    )


# -- messages to the device

_KINDS = ("beacon", "challenge", "welcome", "time", "ack", "command", "x")


def _session_state(session):
    return {name: session.__dict__[name] for name in session.__dict__ if name != "_window"}


def device_messages(data):
    """First byte: low bits the kind, 0x80 for a payload that the gateway seals, 0x40 for a device
    that waits for its welcome. Then the message, or its payload.
    """
    from agent_board import Board

    first = data[0] if data else 0
    kind = _KINDS[first & 7] if first & 7 < len(_KINDS) else "x/y"
    board = Board(NorFlash(_flash_size()))
    if first & 0x40:
        board.deaf = True
        board.beacon()
        board.steps(60, send=False)
    else:
        board.ready()
    session = board.session
    nonce = session.want_time(board.now) if kind == "time" else b""
    payload = data[1:]
    if first & 0x80 and kind in ("welcome", "time"):
        # A marker in the payload stands for what only this run knows.
        known = nonce if kind == "time" else hashlib.sha256(board.link.sent[0][1]).digest()
        payload = payload.replace(b"KNOWN", known)
        external = cose.aad("down", board.identity.id, kind, b"")
        payload = cose.sign1_seal(b"\x02" * 32, payload, external)
    elif first & 0x80 and kind == "ack" and session.ready:
        gateway = board.gateway
        external = cose.aad("down", board.identity.id, kind, gateway.boot_nonce)
        payload = cose.mac0_seal(gateway.down, payload, external, gateway.kid, cose.HMAC_256)
    before = _session_state(session)
    sent = len(board.link.sent)
    noted = len(board.records)
    if kind == "beacon":
        board.link.inbox.append(("tm/1/gw/" + board.gateway.id + "/beacon", payload))
    else:
        board.down(kind, payload)
    board.connection.step()
    refused = board.records[noted:]
    if refused:
        assert len(refused) == 1
        assert before == _session_state(session)
        assert len(board.link.sent) == sent
        return refused[0]
    return "taken %d %d" % (len(board.link.sent) - sent, session.ready)


def _flash_size():
    import tidemark_board

    return tidemark_board.FLASH_SIZE


PARSERS = {
    "cbor": cbor_item,
    "cose": envelope,
    "json": json_text,
    "signed-json": signed_json,
    "pem-key": pem_key,
    "ecdsa-signature": ecdsa_signature,
    "tuf-metadata": tuf_metadata,
    "tuf-targets": target_entry,
    "counter": counter_sectors,
    "journal": journal_sectors,
    "evidence": evidence_sectors,
    "evidence-record": evidence_record,
    "outbox": outbox_sectors,
    "provisioning": provisioning_sector,
    "config": config_record,
    "slot-header": slot_header,
    "boot-record": boot_record,
    "rejected-record": rejected_record,
    "http": http_response,
    "mqtt": mqtt_broker,
    "mux-board": mux_board,
    "mux-bridge": mux_bridge,
    "device": device_messages,
}


def outcome(name, data):
    """The word for `data`: what the parser said, or the code of its refusal."""
    try:
        return PARSERS[name](data)
    except TidemarkError as error:
        assert error.code and len(error.code) <= 24
        return error.code
