# What servers, brokers, lines and gateways send, for fuzzing on both interpreters
# (fuzz_parsers.py).

import hashlib
import struct

from fuzz_mark import mark, mark_bytes

from nor import NorFlash
from tidemark import cose, dns
from tidemark.compat import ticks_add
from tidemark.errors import LinkError
from tidemark.http import Client

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
    told = (response.status, response.start, response.length, mark_bytes(body))
    return "taken %d %d %d %s" % told


DNS_QUESTION = dns.question(0x1234, "broker.barn.example")


def dns_answer(data):
    """What arrives at the socket from which a name was asked for."""
    found = dns.answer(DNS_QUESTION, data)
    if found is None:
        return "none"
    assert 0 < len(found) <= 4
    for address in found:
        assert dns.is_address(address)
    return "taken " + " ".join(found)


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
    topics = [(topic, mark_bytes(payload)) for topic, payload in got]
    told = (link.error, published, len(got), link.dropped, mark(topics, sock.sent))
    return "%s %s %d %d %s" % told


# -- the serial line


class _Line:
    """A line that brings a frame for each write, or after a while, and takes all."""

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
    """Line bytes of frames. First byte even: the rest as it is; odd: contents behind a length
    each, which become frames with a right sum.
    """
    from tidemark.mux_frame import HEADER_SIZE, PAYLOAD_MAX, Writer

    if not data or not data[0] & 1:
        return data[1:]
    out = _Collect()
    at = 1
    while at + 1 + HEADER_SIZE <= len(data):
        start = at + 1 + HEADER_SIZE
        end = min(max(at + 1 + data[at], start), len(data), start + PAYLOAD_MAX)
        fields = struct.unpack("<BBHIII", data[at + 1 : start])
        payload = memoryview(data[start:end])
        writer = Writer()
        writer.build(*fields, payload, len(payload))
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
        sock = mux.open("echo", 1883, 0.3)
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
        word, mux.bad, mux.sessions, mux.violations, len(got), mark_bytes(got)
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
