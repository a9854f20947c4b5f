# One end of the multiplexed serial line: sequence numbers, acknowledgement, channels and their
# credit. The same file runs on the board (mux.py) and in `tidemark bridge`. docs/uart-link.md.

from struct import pack_into, unpack_from

from .compat import const
from .mux_frame import HEADER_SIZE, PAYLOAD_MAX, Reader, Writer

CHANNELS = const(4)
WINDOW = const(1024)  # bytes that a channel's receiver holds
VERSION = const(1)
_SLOTS = const(4)  # frames of a burst: no more are ever on their way
_FRAMES_PER_STEP = const(8)
SEQ_MAX = const(0x3FFFFFFF)  # a session ends before its numbers come again
TAG_MASK = const(0x3FFFFFFF)  # a small integer on every board

# Kinds of frames. Those above IDLE are numbered and acknowledged.
HELLO = const(1)
WELCOME = const(2)
UNKNOWN = const(3)
IDLE = const(4)
OPEN = const(5)
ANSWER = const(6)
DATA = const(7)
GRANT = const(8)
CLOSE = const(9)
LAST = const(0x80)  # set in the last frame of a burst

# States of a channel.
FREE = const(0)
OPENING = const(1)
OPENED = const(2)
CLOSING = const(3)  # closed on this side; the other side's CLOSE has not come
DEAD = const(4)  # its session ended; not yet closed on this side


class Channel:
    """One direction's buffer and both directions' credit; lives as long as its end."""

    def __init__(self):
        self.buf = bytearray(WINDOW)
        self.view = memoryview(self.buf)
        self.reset()

    def reset(self):
        """Make it free."""
        self.state = FREE
        self.at = 0  # of the oldest byte that nobody has read
        self.have = 0  # bytes that nobody has read
        self.room = 0  # bytes that the peer may still send
        self.owed = 0  # bytes read that it was not told of
        self.credit = 0  # bytes that we may still send
        self.ended = False  # the peer has closed
        self.broken = False  # ... because its connection broke, or the session ended
        self.told = False  # our OPEN or CLOSE is queued
        self.request = None  # payload of an OPEN


class End:
    """What both ends share. A session is a pair of random tags, a new pair after every reset.

    The line is as hostile as a network: each field is bounded here, a frame outside of the
    protocol ends the session, and all that matters above is authenticated by itself.
    Counters (int): `bad` frames, `duplicates`, `gaps` (frames behind a lost one), `resent`,
    `sessions`, `violations`.
    """

    def __init__(self, stream):
        self._stream = stream
        self._reader = Reader()
        self._writer = Writer()
        self._slots = [memoryview(bytearray(HEADER_SIZE + PAYLOAD_MAX)) for _ in range(_SLOTS)]
        self._sizes = [0] * _SLOTS
        self._small = memoryview(bytearray(8))
        self.channels = [Channel() for _ in range(CHANNELS)]
        self._turn = 0
        self.duplicates = self.gaps = self.resent = self.sessions = self.violations = 0
        self._forged = 0
        self._begin_session(0, 0)

    @property
    def bad(self):
        """Frames that were dropped: damaged, or with numbers that can't be."""
        return self._reader.bad + self._forged

    def _begin_session(self, mine, peer):
        self._mine = mine  # the tag in frames to us
        self._peer = peer  # the tag in frames from us; 0: no session
        self._first = 0  # oldest frame that is not acknowledged
        self._next = 0  # number of the next new frame
        self._sent = 0  # end of what was sent once
        self._expected = 0  # number of the peer's next frame
        self._cursor = 0  # next frame of the burst
        self._done = True  # the burst is with the writer
        self._special = 0  # kind of the one frame that is the whole burst
        self.brought = False  # data came in since this was last cleared
        self.heard = False  # ... a good frame of this session

    def _lose_session(self):
        """End all channels with the session."""
        self.sessions += 1
        for channel in self.channels:
            if channel.state == CLOSING:
                channel.reset()
            elif channel.state != FREE:
                channel.state = DEAD
                channel.broken = True
        self._begin_session(0, 0)

    # -- receiving --

    def _take(self):
        """Handle the frames that are there, at most a step's share."""
        reader = self._reader
        for _ in range(_FRAMES_PER_STEP):
            start = reader.next(self._stream)
            if not start:
                return
            first, index, turn, tag, seq, ack = unpack_from("<BBHIII", reader.raw, start)
            kind = first & 0x7F
            start += HEADER_SIZE
            size = reader.end - start
            if kind <= UNKNOWN:
                self._greet(kind, turn, tag, start, size)
            elif not tag or (tag != self._mine and not self._adopt(tag, first, turn)):
                self._forged += 1
            elif ack > self._next:
                self._forged += 1
            else:
                self.heard = True
                self._first = max(self._first, ack)
                if kind > IDLE:
                    if seq < self._expected:
                        self.duplicates += 1
                    elif seq > self._expected:
                        self.gaps += 1
                    elif self._deliver(kind, index, start, size):
                        self._expected += 1
                    else:
                        self.violations += 1
                        self._lose_session()
                        return
                if first & LAST:
                    self._end_of_burst(turn)

    def _deliver(self, kind, index, start, size):
        """Take the next frame in order; return whether it keeps to the protocol."""
        if index >= CHANNELS:
            return False
        channel = self.channels[index]
        if kind == DATA:
            return self._fill(channel, start, size)
        if kind == GRANT:
            if size != 2 or channel.state == FREE:
                return False
            channel.credit += unpack_from("<H", self._reader.raw, start)[0]
            return channel.credit <= WINDOW
        if kind == CLOSE:
            return size == 1 and self._end_channel(channel, self._reader.raw[start])
        return self._open_or_answer(kind, index, start, size)

    def _fill(self, channel, start, size):
        if not size or size > channel.room or channel.ended:
            return False
        channel.room -= size
        if channel.state != OPENED:
            return channel.state == CLOSING  # sent before our CLOSE came there
        self.brought = True
        at = (channel.at + channel.have) % WINDOW
        part = min(size, WINDOW - at)
        view = self._reader.view
        channel.buf[at : at + part] = view[start : start + part]
        if part < size:
            channel.buf[: size - part] = view[start + part : start + size]
        channel.have += size
        return True

    def _end_channel(self, channel, broken):
        if channel.ended or broken > 1:
            return False
        if channel.state == CLOSING:
            if channel.told:
                channel.reset()
            else:
                channel.ended = True
            return True
        channel.ended = True
        channel.broken = bool(broken)
        self.brought = True
        return channel.state == OPENED

    # -- sending --

    def free(self):
        """Return how many more frames can be queued."""
        return _SLOTS - (self._next - self._first)

    def _put(self, kind, index, payload, size):
        """Queue a numbered frame; there must be a free slot."""
        place = self._next % _SLOTS
        slot = self._slots[place]
        slot[0] = kind
        slot[1] = index
        if size:
            slot[HEADER_SIZE : HEADER_SIZE + size] = payload[:size]
        self._sizes[place] = size
        self._next += 1

    def _prepare(self):
        """Queue what the channels have to say, while there are slots."""
        small = self._small
        for index in range(CHANNELS):
            if not self.free():
                return
            channel = self.channels[index]
            state = channel.state
            if state == OPENING and not channel.told and channel.request:
                self._put(OPEN, index, memoryview(channel.request), len(channel.request))
                channel.told = True
            elif state == CLOSING and not channel.told:
                small[0] = channel.broken
                self._put(CLOSE, index, small, 1)
                channel.told = True
                if channel.ended:
                    channel.reset()
            elif state == OPENED and channel.owed >= PAYLOAD_MAX and not channel.ended:
                pack_into("<H", small, 0, channel.owed)
                self._put(GRANT, index, small, 2)
                channel.room += channel.owed
                channel.owed = 0

    def _begin_burst(self):
        if self._peer and not self._special:
            self._prepare()
        self._cursor = self._first
        self._done = False

    def _send(self):
        """Send on with the burst; return whether the stream has all of it."""
        while self._writer.flush(self._stream):
            if self._done:
                return True
            self._build()
        return False

    def _build(self):
        build = self._writer.build
        if self._special:
            kind = self._special
            self._special = 0
            self._done = True
            tag, size = self._special_frame(kind)
            build(kind | LAST, 0, self._turn, tag, 0, 0, self._small, size)
            return
        seq = self._cursor = max(self._cursor, self._first)
        if seq >= self._next:
            self._done = True
            build(IDLE | LAST, 0, self._turn, self._peer, seq, self._expected, self._small, 0)
            return
        slot = self._slots[seq % _SLOTS]
        first = slot[0]
        self._cursor = seq + 1
        if self._cursor == self._next:
            first |= LAST
            self._done = True
        if seq < self._sent:
            self.resent += 1
        else:
            self._sent = seq + 1
        size = self._sizes[seq % _SLOTS]
        payload = slot[HEADER_SIZE:]
        build(first, slot[1], self._turn, self._peer, seq, self._expected, payload, size)

    # -- what the users of a channel call --

    def send(self, index, data):
        """Queue the start of `data` (bytes-like) for a channel; return how many bytes, maybe 0."""
        channel = self.channels[index]
        size = min(len(data), PAYLOAD_MAX, channel.credit)
        # The last slot stays for what grants and closes.
        if not size or channel.state != OPENED or self.free() < 2:
            return 0
        self._put(DATA, index, memoryview(data), size)
        channel.credit -= size
        return size

    def receive(self, index, size):
        """Return at most `size` bytes that came as a memoryview that holds until the next step."""
        channel = self.channels[index]
        at = channel.at
        size = min(size, channel.have, WINDOW - at)
        channel.at = (at + size) % WINDOW
        channel.have -= size
        channel.owed += size
        return channel.view[at : at + size]

    def shut(self, index, broken=False):
        """Close this side of a channel; what came and was not read is dropped."""
        channel = self.channels[index]
        if channel.state == DEAD or (channel.state == OPENING and not channel.told):
            channel.reset()
        elif channel.state in (OPENING, OPENED):
            channel.state = CLOSING
            channel.broken = broken
            channel.told = False
            channel.request = None
