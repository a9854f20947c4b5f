# A broker that does as it is told, also wrongly: one thread, pumped by the link's own feed hook.
# It speaks MQTT 3.1.1 over a real loopback socket, on CPython and MicroPython.

import os
import select
import socket
import sys

if sys.implementation.name == "cpython":
    # umqtt.simple asks for MicroPython's names of these modules.
    import binascii
    import struct

    sys.modules.setdefault("usocket", socket)
    sys.modules.setdefault("ustruct", struct)
    sys.modules.setdefault("ubinascii", binascii)

HOST = "127.0.0.1"


def _address(port):
    return socket.getaddrinfo(HOST, port)[0][-1]


def open_socket(host, port, timeout_s):
    """What a port offers, for loopback."""
    sock = socket.socket()
    sock.connect(socket.getaddrinfo(host, port)[0][-1])
    return sock


def steady_random(n):
    """No jitter, and no surprise."""
    return bytes(n)


def packet(first, body):
    """An MQTT packet: first byte, remaining length, `body`."""
    out = bytearray((first,))
    size = len(body)
    while True:
        digit = size & 0x7F
        size >>= 7
        out.append(digit | 0x80 if size else digit)
        if not size:
            return bytes(out) + body


def publish(topic, payload, packet_id=7, qos=1, first=0x30):
    """A PUBLISH packet from the broker."""
    topic = topic.encode() if isinstance(topic, str) else topic
    body = bytes((len(topic) >> 8, len(topic) & 0xFF)) + topic
    if qos:
        body += bytes((packet_id >> 8, packet_id & 0xFF))
    return packet(first | qos << 1, body + payload)


class Peer:
    """Listens on a free port. `silent`: packet types (high nibble) that it leaves unanswered."""

    def __init__(self):
        self.silent = set()
        self.connack = b"\x20\x02\x00\x00"
        self.suback_code = 1
        self.packets = []  # (first byte, body) of all connections
        self.accepted = 0
        self.puback_extra = b""
        self._conn = None
        self._rest = b""
        self._listen()

    def _listen(self):
        # MicroPython's sockets do not tell which free port they were given: try some.
        for _ in range(100):
            port = 20000 + int.from_bytes(os.urandom(2), "big") % 40000
            server = socket.socket()
            try:
                server.bind(_address(port))
            except OSError:
                server.close()
                continue
            server.listen(4)
            self.port = port
            self._server = server
            self._poller = select.poll()
            self._poller.register(server, select.POLLIN)
            return
        raise OSError("no free port")

    def pump(self):
        """Accept, read and answer what is there now."""
        if self._poller.poll(0):
            for ready, _ in self._poller.poll(0):
                if ready is self._server or ready == self._server.fileno():
                    self.drop()
                    self._conn = self._server.accept()[0]
                    self._rest = b""
                    self._poller.register(self._conn, select.POLLIN)
                    self.accepted += 1
                elif self._conn:
                    self._read()

    def send(self, data):
        """Send raw bytes to the connected link."""
        view = memoryview(data)
        while len(view):
            view = view[self._conn.send(view) :]

    def drop(self):
        """Close the connection."""
        if self._conn:
            self._poller.unregister(self._conn)
            self._conn.close()
            self._conn = None

    def close(self):
        """Close everything."""
        self.drop()
        self._server.close()

    def count(self, kind):
        """How many packets of a type (high nibble) came."""
        return sum(1 for first, _ in self.packets if first >> 4 == kind)

    def _read(self):
        try:
            data = self._conn.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        self._rest += data
        while self._conn:
            size = at = 0
            shift = 0
            done = False
            for at in range(1, min(5, len(self._rest))):
                size |= (self._rest[at] & 0x7F) << shift
                shift += 7
                if not self._rest[at] & 0x80:
                    done = True
                    break
            if not done or len(self._rest) < at + 1 + size:
                return
            first = self._rest[0]
            body = self._rest[at + 1 : at + 1 + size]
            self._rest = self._rest[at + 1 + size :]
            self.packets.append((first, body))
            if first >> 4 not in self.silent:
                self._answer(first, body)

    def _answer(self, first, body):
        kind = first >> 4
        if kind == 1:
            self.send(self.connack)
        elif kind == 3 and first & 0x06:
            at = 2 + (body[0] << 8 | body[1])
            self.send(self.puback_extra + b"\x40\x02" + body[at : at + 2])
        elif kind == 8:
            self.send(b"\x90\x03" + body[:2] + bytes((self.suback_code,)))
        elif kind == 12:
            self.send(b"\xd0\x00")
