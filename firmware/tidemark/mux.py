# The link without a network: sockets over a serial line, whose other end `tidemark bridge` is.
#
#     mux = Mux(uart, random)                 # uart: non-blocking readinto(buf), write(buf)
#     open_socket = mux.open                  # as the ports with a network have it
#     mux.quiet(); erase(); mux.resume()      # around each flash operation of the port
#
# The UART: 921,600 baud, 8N1, timeout=0, rxbuf of at least RX_BUFFER, txbuf of at least TX_BUFFER.
# The bridge never sends but in answer to a turn that the board gives it, a burst of at most 4
# frames: between turns the line to the board is mute. docs/uart-link.md has the protocol.
#
# Nothing here is secret or authenticated: who holds the line can end sessions, delay, and feed any
# bytes into the streams, as on a network. What rides on them (COSE messages, TUF metadata,
# digests) is authenticated by itself.

from errno import EAGAIN, ECONNRESET, EINVAL, ENOTCONN
from io import IOBase
from struct import pack_into

from . import mux_end as end
from .compat import const, sleep_ms, ticks_add, ticks_diff, ticks_ms
from .errors import LinkError

RX_BUFFER = const(2112)  # two bursts of the bridge: one, and one that came late
TX_BUFFER = const(1056)  # one of the board's

_HOST_MAX = const(200)
_PATIENCE_FIRST_MS = const(60)  # of silence, before a turn counts as not answered
_PATIENCE_LAST_MS = const(1000)
_NOISE_FACTOR = const(8)  # a turn ends after so many times its patience, silence or not
_DEAD_MS = const(5000)
_DEAD_TURNS = const(3)
_QUIET_MS = const(100)
_GAP_FIRST_MS = const(2)
_GAP_LAST_MS = const(32)
_KEEPALIVE_MS = const(1000)

_POLLIN = const(1)
_POLLOUT = const(4)
_POLLERR = const(8)
_IOCTL_POLL = const(3)
_IOCTL_CLOSE = const(4)

# The bridge's answers to OPEN.
_ANSWERS = (
    None,
    ("resolve", "name not found"),
    ("refused", "the host refused"),
    ("timeout", "no answer to connect"),
    ("refused", "the bridge does not allow it"),
)


class Mux(end.End):
    """The board's end: gives the turns, opens the channels.

    Works whenever one of its sockets is used or polled, and in `step`. Nothing comes unasked: a
    board that is busy hears nothing and loses nothing.
    """

    def __init__(self, stream, random, ticks=ticks_ms, pause=sleep_ms):
        """`stream`: `readinto(buf)` and `write(buf)`, both non-blocking, returning bytes moved,
        or 0 or None. `random(n)`: n random bytes. `ticks()`: ms, wrapping as `compat.ticks_ms`.
        `pause(ms)`: called with 1 between looks at the line while an operation waits.
        """
        end.End.__init__(self, stream)
        self._random = random
        self._ticks = ticks
        self.pause = pause
        self._busy = False
        self._held = False
        self._waiting = False  # a turn was given and its burst has not ended
        self._asked = self._heard = self._over = ticks()
        self._read = 0
        self._patience = _PATIENCE_FIRST_MS
        self._missed = 0  # turns without an answer since the last answer
        self._missed_at = 0
        self._hungry = False  # a reader found nothing
        self._gap = 0
        self._answers = [0] * end.CHANNELS
        self.unanswered = 0  # turns, ever

    # -- what the port calls --

    def open(self, host, port, timeout_s):
        """Return a connected socket, blocking. Waits at most `timeout_s`.

        `host`: str, a name or an address, which the bridge resolves; `port`: 1 to 65535. Raises
        LinkError: `resolve`, `refused` (also by the bridge's list), `timeout` (also without a
        bridge), `full` (4 sockets are open).
        """
        name = host.encode()
        if not 0 < len(name) <= _HOST_MAX or not 0 < port < 65536:
            raise LinkError("resolve", "not a host and port")
        until = ticks_add(self._ticks(), int(timeout_s * 1000))
        index = self._take_channel(until)
        request = bytearray(4 + len(name))
        pack_into("<HH", request, 0, min(int(timeout_s * 10) + 1, 65535), port)
        request[4:] = name
        channel = self.channels[index]
        self._ask(channel, request)
        self._answers[index] = 0
        while channel.state == end.OPENING and not channel.ended:
            self.step(True)
            if ticks_diff(until, self._ticks()) <= 0:
                break
            if channel.state == end.OPENING and not channel.ended:
                self.pause(1)
        if channel.state == end.OPENED:
            return Socket(self, index)
        answer = _ANSWERS[self._answers[index]]
        if not answer:
            # The session ended, or nobody answered in time: to the caller it is the same.
            answer = ("timeout", "no answer from the bridge")
        self.shut(index)
        raise LinkError(*answer)

    def quiet(self):
        """Have the line to the board mute until `resume`; waits at most 0.1 s for that.

        For the port, before it holds interrupts off. Returns whether the line is mute for certain;
        if it is not and bytes are lost, they are sent again.
        """
        self._held = True
        if self._busy:
            return not self._waiting
        until = ticks_add(self._ticks(), _QUIET_MS)
        self._busy = True
        try:
            while self._waiting:
                self._writer.flush(self._stream)
                self._take()
                if not self._waiting:
                    break
                if ticks_diff(until, self._ticks()) <= 0:
                    self._miss(self._ticks())
                    return False
                self.pause(1)
        finally:
            self._busy = False
        return True

    def resume(self):
        """End what `quiet` began."""
        self._held = False

    def step(self, hurry=False):
        """Do what is due, never waiting: read, and write or give a turn.

        `hurry`: somebody waits for it; without that turns that bring nothing get rarer, up to
        32 ms.
        """
        if self._busy:
            return  # from a callback within a step
        self._busy = True
        try:
            self._take()
            self._advance(hurry)
        finally:
            self._busy = False

    # -- turns --

    def _advance(self, hurry):
        now = self._ticks()
        if self.heard:
            self.heard = False
            self._missed_at = now
        if self._waiting or not (self._done or self._held):
            self._send()
        if self._waiting:
            if self._reader.read != self._read:
                self._read = self._reader.read
                self._heard = now
            patience = self._patience
            silent = ticks_diff(now, self._heard) >= patience
            if not silent and ticks_diff(now, self._asked) < patience * _NOISE_FACTOR:
                return
            self._miss(now)
        if self._done and not self._held and self._due(now, hurry):
            self._begin(now)

    def _miss(self, now):
        """Give up waiting for the answer to this turn."""
        self._waiting = False
        self._over = now
        self._patience = min(self._patience * 2, _PATIENCE_LAST_MS)
        self.unanswered += 1
        if not self._missed:
            self._missed_at = self._asked
        self._missed += 1
        if (
            self._peer
            and self._missed >= _DEAD_TURNS
            and ticks_diff(now, self._missed_at) >= _DEAD_MS
        ):
            self._lose_session()

    def _due(self, now, hurry):
        """Return whether to give a turn now."""
        used = opening = False
        for channel in self.channels:
            if channel.state not in (end.FREE, end.DEAD):
                used = True
                if not channel.told and channel.state != end.OPENED:
                    opening = True
        if not self._peer:
            return used
        if opening or self._first < self._next:
            return True
        if not used:
            return False
        passed = ticks_diff(now, self._over)
        if self._hungry and (hurry or passed >= self._gap):
            return True
        return passed >= _KEEPALIVE_MS

    def _begin(self, now):
        if self._next >= end.SEQ_MAX:
            self._lose_session()
        if not self._peer:
            if not self._mine:
                self._mine = self._tag()
            self._special = end.HELLO
        if self._first < self._next:
            self._gap = 0  # what we send mostly has an answer
        self._hungry = False
        self._turn = (self._turn + 1) & 0xFFFF
        self._read = self._reader.read
        self._begin_burst()
        if self._missed & 1:
            self._cursor = self._next  # a short frame gets through more easily: only ask
        self._send()

    def _build(self):
        end.End._build(self)
        if self._done:
            self._asked = self._heard = self._ticks()
            self._waiting = True

    def _special_frame(self, kind):
        pack_into("<BI", self._small, 0, end.VERSION, self._mine)
        return 0, 5

    def _end_of_burst(self, turn):
        if turn != self._turn or not self._waiting:
            return
        self._waiting = False
        self._missed = 0
        self._patience = _PATIENCE_FIRST_MS
        self._over = self._ticks()
        if self.brought:
            self.brought = False
            self._gap = 0
        else:
            self._gap = min(max(self._gap * 2, _GAP_FIRST_MS), _GAP_LAST_MS)

    # -- sessions --

    def _tag(self):
        return int.from_bytes(self._random(4), "little") & end.TAG_MASK or 1

    def _adopt(self, tag, first, turn):
        return False

    def _greet(self, kind, turn, tag, start, size):
        """WELCOME: the bridge's tag. UNKNOWN: it has no such session (any more)."""
        raw = self._reader.raw
        if kind == end.WELCOME:
            if self._peer or not tag or tag != self._mine:
                return
            if size != 5 or raw[start] != end.VERSION:
                return
            peer = int.from_bytes(self._reader.view[start + 1 : start + 5], "little")
            if not 0 < peer <= end.TAG_MASK:
                return
            self._begin_session(tag, peer)
            self._waiting_over(turn)
        elif kind == end.UNKNOWN and tag and tag == self._peer:
            self._lose_session()
            self._waiting_over(turn)

    def _waiting_over(self, turn):
        self.brought = True
        self._end_of_burst(turn)

    def _lose_session(self):
        opening = [c for c in self.channels if c.state == end.OPENING and not c.ended]
        end.End._lose_session(self)
        self._missed = 0
        for channel in opening:
            # Nobody has used it: it is asked for again in the next session.
            request = channel.request
            channel.reset()
            self._ask(channel, request)

    def _ask(self, channel, request):
        channel.state = end.OPENING
        channel.room = end.WINDOW
        channel.request = request

    # -- channels --

    def _take_channel(self, until):
        """Return the index of a free channel; one that is being closed may become free."""
        while True:
            closing = False
            for index in range(end.CHANNELS):
                state = self.channels[index].state
                if state == end.FREE:
                    return index
                closing = closing or state == end.CLOSING
            if not closing or ticks_diff(until, self._ticks()) <= 0:
                raise LinkError("full", "4 sockets are open")
            self.step(True)
            self.pause(1)

    def _open_or_answer(self, kind, index, start, size):
        channel = self.channels[index]
        if kind != end.ANSWER or size != 1 or channel.state == end.FREE:
            return False
        code = self._reader.raw[start]
        if code >= len(_ANSWERS):
            return False
        if code:
            if channel.state == end.OPENING:
                self._answers[index] = code
                channel.ended = True
                return True
            return self._end_channel(channel, 0)
        if channel.state == end.OPENING:
            channel.state = end.OPENED
            channel.credit = end.WINDOW
        return True

    def want(self):
        """Note that a reader found nothing, so that the bridge is asked soon."""
        self._hungry = True


class Socket(IOBase):
    """A stream as MicroPython's sockets are: blocking at first; `select.poll` takes it too.

    A non-blocking `read`, `readinto` or `write` returns None, `recv` or `send` raises
    OSError(EAGAIN), when it can do nothing. b"" or 0 read: the peer closed. OSError(ECONNRESET):
    the peer's connection broke, or the bridge or the line is gone.
    """

    def __init__(self, mux, index):
        self._mux = mux
        self._index = index
        self._channel = mux.channels[index]
        self._blocking = True

    def setblocking(self, flag):
        """Wait in each operation (True) or never (False)."""
        self._blocking = bool(flag)

    def recv(self, size):
        """Return at most `size` bytes that came."""
        if not self._readable():
            raise OSError(EAGAIN, "not yet")
        return bytes(self._mux.receive(self._index, size))

    def read(self, size):
        """Return `size` bytes, fewer only at the end; non-blocking: what is there, or None."""
        data = b""
        while len(data) < size and self._readable():
            part = bytes(self._mux.receive(self._index, size - len(data)))
            if not part:
                return data
            data += part
        return data or None

    def readinto(self, buf):
        """Fill the start of `buf` with what came; return how many bytes."""
        if not self._readable():
            return None
        part = self._mux.receive(self._index, len(buf))
        size = len(part)
        buf[:size] = part
        return size

    def send(self, data):
        """Send the start of `data`; return how many bytes were taken."""
        sent = self._push(memoryview(data))
        if not sent and len(data):
            raise OSError(EAGAIN, "not yet")
        return sent

    def write(self, data, size=None):
        """Send the first `size` bytes (all when None) of `data`; non-blocking: as `send`."""
        view = memoryview(data)
        if size is not None:
            view = view[:size]
        done = 0
        while done < len(view):
            sent = self._push(view[done:])
            if not sent:
                return done or None
            done += sent
        return done

    def close(self):
        """Close it; what was sent still goes out. Does nothing the second time."""
        mux = self._mux
        if mux:
            self._mux = self._channel = None
            mux.shut(self._index)
            mux.step()

    def ioctl(self, request, argument):
        """What `select.poll` asks (MicroPython's stream protocol)."""
        if request == _IOCTL_CLOSE:
            self.close()
            return 0
        if request != _IOCTL_POLL:
            return -EINVAL
        mux = self._mux
        if not mux:
            return _POLLERR
        ready = self._look(argument)
        if not ready:
            mux.want()
            mux.step(True)
            ready = self._look(argument)
        return ready

    def _look(self, wanted):
        channel = self._channel
        ready = 0
        if channel.have or channel.ended or channel.broken:
            ready |= _POLLIN
        if channel.broken or (channel.credit and self._mux.free() > 1):
            ready |= _POLLOUT
        ready &= wanted
        return ready | _POLLERR if channel.broken else ready

    def _readable(self):
        """Return whether there is something to read or an end; wait for it when blocking."""
        mux = self._mux
        if not mux:
            raise OSError(ENOTCONN, "closed")
        channel = self._channel
        while not channel.have:
            if channel.broken:
                raise OSError(ECONNRESET, "connection lost")
            if channel.ended:
                return True
            mux.want()
            mux.step(self._blocking)
            if not self._blocking:
                break
            mux.pause(1)
        return bool(channel.have)

    def _push(self, view):
        """Queue what there is room for, then step; return the bytes taken."""
        mux = self._mux
        if not mux:
            raise OSError(ENOTCONN, "closed")
        channel = self._channel
        done = 0
        while True:
            if channel.ended or channel.broken:
                raise OSError(ECONNRESET, "connection lost")
            sent = mux.send(self._index, view[done:])
            done += sent
            if sent and done < len(view):
                continue
            if not sent:
                mux.want()
            mux.step(True)
            if done or not self._blocking or not len(view):
                return done
            mux.pause(1)
