# A board's multiplex, a line, and a bridge's end with servers behind it, in time that a test
# moves. CPython and MicroPython.

try:
    from tidemark_host.boards.mux_host import REFUSED, RESOLVE, TIMEOUT, HostEnd
except ImportError:
    from mux_host import REFUSED, RESOLVE, TIMEOUT, HostEnd

from tidemark import mux_end
from tidemark.compat import ticks_add
from tidemark.errors import LinkError
from tidemark.mux import Mux

RATE = 92  # bytes a ms at 921,600 baud


def pattern(seed, size, start=0):
    """Bytes that tell their place and their stream; a third of them are zeros."""
    return bytes([(i * 7 + seed * 31 + (i >> 8)) & 0xFF if i % 3 else 0
                  for i in range(start, start + size)])


def code_of(call, *args):
    try:
        call(*args)
    except LinkError as error:
        return error.code
    return ""


def errno_of(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return 0


class Counting:
    """Random bytes that are never the same twice, and never a surprise."""

    def __init__(self, seed=0):
        self.seed = seed

    def __call__(self, size):
        self.seed += 1
        return (self.seed * 0x10001 + 0x01020000).to_bytes(4, "little")[:size]


class Way:
    """One direction: bytes under way; `damage`: called with what goes in, returns what comes."""

    def __init__(self):
        self.damage = None
        self.under_way = b""
        self.arrived = b""
        self.log = b""  # all that was sent, undamaged

    def write(self, buf):
        data = bytes(buf)
        self.log += data
        if self.damage:
            data = self.damage(data)
        self.under_way += data
        return len(buf)

    def move(self, count):
        self.arrived += self.under_way[:count]
        self.under_way = self.under_way[count:]

    def readinto(self, buf):
        size = min(len(buf), len(self.arrived))
        buf[:size] = self.arrived[:size]
        self.arrived = self.arrived[size:]
        return size or None


class Ends:
    """What one end sees of the line."""

    def __init__(self, reads, writes):
        self.readinto = reads.readinto
        self.write = writes.write


class Server:
    """A connection's other side. `pending`: still to go to the board; `got`: what it sent."""

    def __init__(self, number, host):
        self.number = number
        self.host = host
        self.pending = b""
        self.got = b""
        self.echo = host == "echo"
        self.closing = False
        self.broken = False
        self.reads = True
        self.ended = False


class Network:
    """Servers by the name the board asks for: "echo" sends back what it gets; "mute" never
    answers; "resolve", "refused", "timeout" fail so; others wait for the test.
    """

    def __init__(self):
        self.end = None
        self.servers = {}
        self.every = []
        self.asked = []
        self.drops = 0
        self.full = False

    def opened(self, index, host, port, timeout_s):
        self.asked.append((host, port))
        failures = {"resolve": RESOLVE, "refused": REFUSED, "timeout": TIMEOUT, "denied": 4}
        if host in failures:
            self.end.answer(index, failures[host])
        elif host != "mute":
            server = Server(len(self.every), host)
            self.every.append(server)
            self.servers[index] = server
            self.end.answer(index, 0)

    def ended(self, index):
        server = self.servers.pop(index, None)
        if server:
            server.ended = True
            self.read(index, server)
        self.end.shut(index)

    def dropped(self):
        self.drops += 1
        self.servers.clear()

    def read(self, index, server):
        while True:
            data = bytes(self.end.receive(index, 4096))
            if not data:
                return
            server.got += data
            if server.echo:
                server.pending += data

    def fill(self):
        for index in list(self.servers):
            server = self.servers[index]
            if server.reads:
                self.read(index, server)
            while server.pending:
                sent = self.end.send(index, server.pending)
                server.pending = server.pending[sent:]
                if not sent:
                    break
            if server.closing and not server.pending:
                self.end.shut(index, server.broken)
                self.servers.pop(index)


class World:
    """Both ends and the time. `pace`: bytes a ms on the line."""

    def __init__(self, pace=RATE):
        self.now = ticks_add(0, -500)  # the clock wraps soon
        self.passed = 0
        self.pace = pace
        self.up = Way()
        self.down = Way()
        self.there = True
        self.asleep = False  # the bridge's computer is busy elsewhere
        self.random = Counting()
        self.socks = []
        self.new_bridge()
        self.new_board()

    def new_bridge(self):
        """The bridge starts, without any memory."""
        self.network = Network()
        self.host = HostEnd(Ends(self.up, self.down), self.random, self.network)
        self.network.end = self.host

    def new_board(self):
        """The board starts, without any memory."""
        self.mux = Mux(Ends(self.down, self.up), self.random, lambda: self.now, self.wait)

    def wait(self, ms):
        """Let `ms` pass: bytes move, the bridge works, the board does not."""
        for _ in range(ms):
            self.now = ticks_add(self.now, 1)
            self.passed += 1
            if self.there:
                self.up.move(self.pace)
                self.down.move(self.pace)
            if not self.asleep:
                self.host.step()

    def run(self, ms):
        """Let `ms` pass with a board that steps."""
        for _ in range(ms):
            self.mux.step()
            self.wait(1)

    def until(self, holds, limit_ms=20000):
        """Run until `holds()`; AssertionError after `limit_ms`."""
        end = self.passed + limit_ms
        while not holds():
            assert self.passed < end, "not within the limit"
            self.run(1)

    def open(self, host="echo", port=1883, timeout_s=5):
        sock = self.mux.open(host, port, timeout_s)
        sock.setblocking(False)
        self.socks.append(sock)  # CPython closes what nobody holds
        return sock

    def server(self):
        """The server of the youngest connection."""
        return self.network.every[-1]

    def read(self, sock, size, limit_ms=20000):
        """Read `size` bytes, or up to the end."""
        got = b""
        end = self.passed + limit_ms
        while len(got) < size:
            assert self.passed < end, "only %d bytes" % len(got)
            data = sock.read(size - len(got))
            if data == b"":
                break
            got += data or b""
            if not data:
                self.wait(1)
        return got

    def write(self, sock, data, limit_ms=20000):
        end = self.passed + limit_ms
        while data:
            assert self.passed < end, "%d bytes left" % len(data)
            data = data[sock.write(data) or 0:]
            self.wait(1)

    def idle(self):
        """Return whether all channels are free on both sides."""
        return not any([c.state != mux_end.FREE for c in self.mux.channels + self.host.channels])
