# MQTT packets over a stream socket, whole or not at all: what umqtt takes for its socket.
# umqtt reads by the peer's word and waits without end. This sits below it and hands up only whole
# packets of a known type and a bounded size; every wait has a deadline and calls the feed hook.

import select
from errno import EAGAIN

from .compat import const, ticks_add, ticks_diff, ticks_ms
from .errors import LinkError

# A message of the protocol (1,024), its topic (at most 112) and the headers.
_RX_SIZE = const(1152)
_RX_HALF = const(576)
# One packet is mostly one segment: umqtt writes in pieces, and Nagle would hold back the second.
_TX_SIZE = const(1280)
# A longer packet than this is not skipped: the peer is not one of ours.
_SKIP_MAX = const(65536)
_SLICE_MS = const(100)

_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBACK = const(0x90)
_PINGRESP = const(0xD0)


class Wire:
    """One connection at a time; the buffers are allocated once and live as long as the link."""

    def __init__(self, feed=None):
        """`feed`: called without argument at least every 100 ms of a wait, or None."""
        self._feed = feed
        self._rx = bytearray(_RX_SIZE)
        self._rx_view = memoryview(self._rx)
        self._tx = bytearray(_TX_SIZE)
        self._tx_view = memoryview(self._tx)
        self._sock = None
        self.dropped = 0  # packets too large for the buffer, skipped
        self._clear()

    def _clear(self):
        self._have = 0  # bytes of the current packet that have come
        self._need = 2  # bytes to read before looking again
        self._head = 0  # length of the fixed header, 0 while unknown
        self._at = 0  # what umqtt has read of a whole packet
        self._whole = False
        self._skip = 0

    def attach(self, sock):
        """Take over a connected stream socket; the first packet must be a CONNACK."""
        self._sock = sock
        sock.setblocking(False)
        # Names of MicroPython's streams, or those of CPython's sockets.
        self._readinto = getattr(sock, "readinto", None) or sock.recv_into
        self._send = getattr(sock, "write", None) or sock.send
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._queued = 0
        self._greeted = False
        self.pongs = 0  # PINGRESP packets of this connection
        self.last_write = ticks_ms()
        self._clear()

    def begin(self, wait_ms):
        """Start the deadline of the operation that follows, `wait_ms` from now."""
        self._deadline = ticks_add(ticks_ms(), wait_ms)

    def close(self):
        """Close the socket, if there is one. Never raises."""
        sock = self._sock
        self._sock = None
        self._poller = self._readinto = self._send = None
        if sock is not None:
            try:
                sock.close()
            except OSError:
                pass  # gone already: closing was all we wanted

    # What umqtt calls on its socket.

    def socket(self):
        """Stand in for `socket.socket`: the connection is already open."""
        return self

    def getaddrinfo(self, host, port):
        """Stand in for `socket.getaddrinfo`: names were resolved by the port's open_socket."""
        return ((None,),)

    def connect(self, address):
        """Do nothing: the connection is already open."""

    def setblocking(self, flag):
        """Do nothing: how long to wait is the deadline's matter, never the caller's."""

    def read(self, n):
        """Return `n` bytes (bytes) of the current packet; wait for one if there is none.

        Raises LinkError: "malformed" when the packet has fewer, and those of `next`.
        """
        if not self._whole:
            self.next()
        end = self._at + n
        if end > self._have:
            raise LinkError("malformed", "packet shorter than its fields")
        data = bytes(self._rx_view[self._at : end])
        self._at = end
        return data

    def write(self, data, n=None):
        """Queue the first `n` bytes (all when None) of `data`; a full queue is sent first."""
        n = len(data) if n is None else n
        view = memoryview(data)
        start = 0
        while start < n:
            room = _TX_SIZE - self._queued
            if not room:
                self.flush()
                continue
            part = min(room, n - start)
            end = self._queued + part
            self._tx[self._queued : end] = view[start : start + part]
            self._queued = end
            start += part

    # What the link calls.

    def flush(self):
        """Send all that is queued. Raises LinkError: "timeout", "io"."""
        start = 0
        while start < self._queued:
            try:
                sent = self._send(self._tx_view[start : self._queued])
            except OSError as e:
                if e.errno != EAGAIN:
                    raise LinkError("io", "send failed")
                sent = None
            if sent:
                start += sent
            else:
                self._poller.modify(self._sock, select.POLLOUT)
                try:
                    self._wait()
                finally:
                    self._poller.modify(self._sock, select.POLLIN)
        if start:
            self._queued = 0
            self.last_write = ticks_ms()

    def arrived(self):
        """Return whether a whole packet is there that nobody has read yet; never waits.

        Raises LinkError: "closed", "io", "malformed", "packet-size".
        """
        if self._whole and not self._at:
            return True
        if self._whole:
            self._clear()
        while not self._whole:
            if self._skip and self._have == _RX_SIZE:
                got = self._receive(_RX_SIZE - min(self._skip, _RX_HALF), _RX_SIZE)
                self._skip -= got
                if not self._skip:
                    self._drop()
                    return False  # one a call, or a flood of such packets would hold us here
            else:
                got = self._receive(self._have, self._need)
                self._have += got
                if got and self._have == self._need:
                    self._advance()
            if not got:
                return False
        return True

    def next(self):
        """Go to the next packet; what is left of the current one is dropped.

        Sends what is queued first. Raises LinkError: "timeout", and those of `arrived`.
        """
        self.flush()
        # Tested also when packets keep coming: a chatty peer must not hold an operation for ever.
        if ticks_diff(self._deadline, ticks_ms()) <= 0:
            raise LinkError("timeout", "no answer in time")
        while not self.arrived():
            self._wait()

    def _wait(self):
        left = ticks_diff(self._deadline, ticks_ms())
        if left <= 0:
            raise LinkError("timeout", "no answer in time")
        if self._feed:
            self._feed()
        self._poller.poll(min(left, _SLICE_MS))

    def _receive(self, start, end):
        """Read into the buffer from `start` up to `end`; return the bytes that came, maybe 0."""
        try:
            got = self._readinto(self._rx_view[start:end])
        except OSError as e:
            if e.errno != EAGAIN:
                raise LinkError("io", "receive failed")
            return 0
        if got is None:
            return 0
        if got == 0:
            raise LinkError("closed", "the peer closed the connection")
        return got

    def _advance(self):
        """Look at what has come and decide how much more the packet needs."""
        rx = self._rx
        if not self._head:
            if rx[self._have - 1] & 0x80:
                if self._have == 5:
                    raise LinkError("malformed", "remaining length of five bytes")
                self._need = self._have + 1
                return
            self._head = self._have
            size = 0
            for i in range(self._head - 1, 0, -1):
                size = size << 7 | rx[i] & 0x7F
            self._admit(rx[0], size)
            total = self._head + size
            if total > _RX_SIZE:
                self._skip = total - _RX_SIZE
                total = _RX_SIZE
            self._need = total
            if self._have < total:
                return
        if rx[0] & 0xF0 == _PUBLISH:
            if self._variable() > (_RX_HALF if self._skip else self._have):
                raise LinkError("malformed", "topic longer than its packet or our buffer")
            if self._skip:
                return
        elif rx[0] == _PINGRESP:
            self.pongs += 1
        self._whole = True

    def _admit(self, first, size):
        """Refuse a packet by its first byte and remaining length (MQTT 3.1.1, 2.2)."""
        if not self._greeted:
            if first != _CONNACK or size != 2 or self._head != 2:
                raise LinkError("malformed", "no CONNACK")
            self._greeted = True
            return
        if first & 0xF0 == _PUBLISH:
            if first & 0x06 > 0x02:
                raise LinkError("malformed", "PUBLISH above QoS 1")
            if size > _SKIP_MAX:
                raise LinkError("packet-size", "packet of more than 64 KiB")
        elif self._head != 2 or (first, size) not in (
            (_PUBACK, 2),
            (_SUBACK, 3),
            (_PINGRESP, 0),
        ):
            raise LinkError("malformed", "not a packet that we asked for")

    def _variable(self):
        """Return the offset behind the variable header of a PUBLISH."""
        rx = self._rx
        at = self._head
        if self._have < at + 2:
            raise LinkError("malformed", "PUBLISH without a topic")
        at += 2 + (rx[at] << 8 | rx[at + 1])
        return at + 2 if rx[0] & 0x06 else at

    def _drop(self):
        """Count a packet that the buffer can't hold, and acknowledge it.

        Not to acknowledge would fill the broker's window for us and end all delivery.
        """
        if self._rx[0] & 0x06:
            end = self._variable()
            self.write(b"\x40\x02")
            self.write(self._rx_view[end - 2 : end])
        self.dropped += 1
        self._clear()
