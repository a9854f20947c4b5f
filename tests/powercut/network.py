"""What the simulated board's sockets lead to: a broker with the gateway behind it, and a mirror.

No network and no waiting: a request has its answer at once. The gateway is the real one's core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

BROKER, MIRROR = "broker", "mirror"
BROKER_PORT, MIRROR_PORT = 1883, 80
_SOCKETS = 16
_CONNECT, _CONNACK, _PUBLISH, _PUBACK = 1, 2, 3, 4
_SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP, _DISCONNECT = 8, 9, 12, 13, 14


class ProtocolError(Exception):
    """The board sent what MQTT 3.1.1 or HTTP/1.1 forbids: a defect of the firmware."""


@dataclass
class _Socket:
    port: int
    inbox: bytearray = field(default_factory=bytearray)  # from the board, not yet a whole packet
    outbox: bytearray = field(default_factory=bytearray)  # for the board
    closed: bool = False
    filters: list[str] = field(default_factory=list)
    packet_id: int = 0


class Network:
    """Implements `life.Network`. `publish(topic, payload)`: what the board published; it returns
    what to send back, (topic, payload) each. `retained(filter)`: for a new subscription.

    `mirror`: folder of the update repository. `reachable(host)`: whether somebody listens.
    """

    def __init__(
        self,
        publish: Callable[[str, bytes], list[tuple[str, bytes]]],
        retained: Callable[[], list[tuple[str, bytes]]],
        mirror: Path,
    ) -> None:
        self._publish = publish
        self._retained = retained
        self.mirror = mirror
        self.reachable: Callable[[str], bool] = lambda _host: True
        self.requests: list[str] = []  # paths asked of the mirror
        self._sockets: dict[int, _Socket] = {}

    # -- sockets

    def connect(self, host: str, port: int) -> int | None:
        """Return the number of a new socket, or None: refused."""
        if port not in (BROKER_PORT, MIRROR_PORT) or not self.reachable(host):
            return None
        for number in range(_SOCKETS):
            if number not in self._sockets:
                self._sockets[number] = _Socket(port)
                return number
        raise ProtocolError("more than 16 sockets open")

    def send(self, sock: int, data: bytes) -> None:
        """Take what the board wrote."""
        socket = self._sockets[sock]
        socket.inbox += data
        if socket.port == MIRROR_PORT:
            self._serve(socket)
        else:
            while packet := _packet(socket.inbox):
                self._packet(socket, *packet)

    def receive(self, sock: int, size: int) -> bytes:
        """Return up to `size` bytes; empty at the end of a closed connection."""
        outbox = self._sockets[sock].outbox
        data = bytes(outbox[:size])
        del outbox[:size]
        return data

    def close(self, sock: int) -> None:
        """The board closed."""
        self._sockets.pop(sock, None)

    def drop_all(self) -> None:
        """The board is without power, or has been reset."""
        self._sockets.clear()

    def ready(self) -> int:
        """Return a bit for each socket that has something to read, its end included."""
        bits = 0
        for number, socket in self._sockets.items():
            if socket.outbox or socket.closed:
                bits |= 1 << number
        return bits

    def deliver(self, topic: str, payload: bytes) -> None:
        """Publish to the board, if it has subscribed to the topic."""
        for socket in self._sockets.values():
            if any(_matches(topic, wanted) for wanted in socket.filters):
                socket.packet_id = socket.packet_id % 0xFFFF + 1
                name = topic.encode()
                body = len(name).to_bytes(2, "big") + name + socket.packet_id.to_bytes(2, "big")
                socket.outbox += _frame(0x32, body + payload)

    # -- broker

    def _packet(self, socket: _Socket, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == _CONNECT:
            socket.outbox += bytes([_CONNACK << 4, 2, 0, 0])
        elif kind == _SUBSCRIBE:
            size = int.from_bytes(body[2:4], "big")
            socket.filters.append(body[4 : 4 + size].decode())
            socket.outbox += bytes([_SUBACK << 4, 3, *body[:2], 1])
            for topic, payload in self._retained():
                self.deliver(topic, payload)
        elif kind == _PUBLISH:
            size = int.from_bytes(body[:2], "big")
            topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
            if first & 6 != 2:
                raise ProtocolError(f"PUBLISH with flags {first & 15}")
            socket.outbox += bytes([_PUBACK << 4, 2]) + rest[:2]
            for name, payload in self._publish(topic, rest[2:]):
                self.deliver(name, payload)
        elif kind == _PINGREQ:
            socket.outbox += bytes([_PINGRESP << 4, 0])
        elif kind == _DISCONNECT:
            socket.closed = True
        elif kind != _PUBACK:
            raise ProtocolError(f"packet of type {kind}")

    # -- mirror

    def _serve(self, socket: _Socket) -> None:
        head, end, _ = bytes(socket.inbox).partition(b"\r\n\r\n")
        if not end:
            return
        socket.inbox.clear()
        lines = head.decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        if method != "GET":
            raise ProtocolError(lines[0])
        self.requests.append(path)
        file = self.mirror / unquote(path).lstrip("/")
        if not file.is_file():
            socket.outbox += b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        else:
            content = file.read_bytes()
            size, start = len(content), 0
            status = "200 OK"
            extra = ""
            if "range" in fields:
                start = int(fields["range"].removeprefix("bytes=").removesuffix("-"))
                status = "206 Partial Content"
                extra = f"Content-Range: bytes {start}-{size - 1}/{size}\r\n"
            answer = f"HTTP/1.1 {status}\r\nContent-Length: {size - start}\r\n{extra}\r\n"
            socket.outbox += answer.encode() + content[start:]
        socket.closed = True


def _packet(inbox: bytearray) -> tuple[int, bytes] | None:
    """Take the next whole MQTT packet from `inbox`: its first byte and its body."""
    size = shift = 0
    for at in range(1, min(len(inbox), 5)):
        size |= (inbox[at] & 0x7F) << shift
        shift += 7
        if not inbox[at] & 0x80:
            if len(inbox) < at + 1 + size:
                return None
            first, body = inbox[0], bytes(inbox[at + 1 : at + 1 + size])
            del inbox[: at + 1 + size]
            return first, body
    return None


def _frame(first: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        length.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
        if not size:
            return bytes([first]) + length + body


def _matches(topic: str, wanted: str) -> bool:
    if wanted.endswith("/+"):
        return topic.rpartition("/")[0] == wanted[:-2]
    return topic == wanted
