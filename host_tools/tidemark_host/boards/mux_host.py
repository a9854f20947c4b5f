# The host's end of the multiplexed serial line: answers the board's turns. No I/O of its own:
# bytes come from a stream object, and what it wants of the network it says to `network`. It runs
# under CPython (bridge.py) and, for tests, under MicroPython. docs/uart-link.md: the protocol.

# Without types: it is written on the firmware's own classes, which have none.
# pyright: basic

from struct import pack_into, unpack_from

from tidemark import mux_end as end

# Codes of ANSWER (firmware/tidemark/mux.py).
OPEN = 0
RESOLVE = 1
REFUSED = 2
TIMEOUT = 3
DENIED = 4


class HostEnd(end.End):
    """Answers turns; a new board's session replaces the former one only once the board uses it.

    `network` is told, always from within `step`:
    `opened(index, host, port, timeout_s)`: the board asks for a connection; `answer` tells it;
    `ended(index)`: the board closed that channel: `shut` it once its bytes are gone;
    `dropped()`: the session ended, and each connection with it;
    `fill()`: a turn came: now is the time to `send`.
    Counters (int) besides those of End: `turns` answered, `strangers`: frames of no session.
    """

    def __init__(self, stream, random, network):
        """`stream`, `random`: as Mux (firmware/tidemark/mux.py) takes them."""
        end.End.__init__(self, stream)
        self._random = random
        self._network = network
        self._offer_mine = 0  # tags of a session that a HELLO asked for
        self._offer_peer = 0
        self._unknown = 0
        self._last_turn = 0
        self._asked = -1  # turn to answer
        self._reply = 0  # with which special frame
        self._answers = [-1] * end.CHANNELS
        self.turns = self.strangers = self.versions = 0

    @property
    def connected(self):
        """Whether a board's session is in effect (bool)."""
        return bool(self._peer)

    def step(self):
        """Read what came; answer a turn if one did. Returns whether the stream took all."""
        seen = -1
        while seen != self._reader.read:
            seen = self._reader.read
            self._take()
        if self._asked >= 0:
            self._turn = self._asked
            self._asked = -1
            self._special = self._reply
            self._reply = 0
            self.turns += 1
            if self._next >= end.SEQ_MAX:
                self.drop()
            if self._peer and not self._special:
                self._network.fill()
            if self._peer or self._special:
                self._begin_burst()
        return self._send()

    def drop(self):
        """End the session, if there is one: the board has gone silent."""
        if self._peer:
            self._lose_session()

    def answer(self, index, code):
        """Tell the board what became of its OPEN: 0 or one of the codes above."""
        if self.channels[index].state == end.OPENING:
            self._answers[index] = code

    # -- sessions --

    def _random_tag(self):
        return int.from_bytes(self._random(4), "little") & end.TAG_MASK or 1

    def _greet(self, kind, turn, tag, start, size):
        if kind != end.HELLO or tag or size != 5:
            self._forged += 1
            return
        version, peer = unpack_from("<BI", self._reader.raw, start)
        if version != end.VERSION:
            self.versions += 1
            return
        if not 0 < peer <= end.TAG_MASK or peer == self._peer:
            self._forged += 1
            return
        if peer != self._offer_peer:
            self._offer_peer = peer
            self._offer_mine = self._random_tag()
        self._ask(turn, end.WELCOME)

    def _ask(self, turn, reply):
        self._asked = turn
        self._reply = reply

    def _special_frame(self, kind):
        if kind == end.WELCOME:
            pack_into("<BI", self._small, 0, end.VERSION, self._offer_mine)
            return self._offer_peer, 5
        return self._unknown, 0

    def _adopt(self, tag, first, turn):
        """Begin the session that was offered; for any other tag say that it is not known."""
        if tag == self._offer_mine:
            mine = self._offer_mine
            peer = self._offer_peer
            self.drop()
            self._offer_mine = self._offer_peer = 0
            self._begin_session(mine, peer)
            self._last_turn = (turn - 1) & 0xFFFF
            return True
        self.strangers += 1
        if first & end.LAST:
            self._unknown = tag
            self._ask(turn, end.UNKNOWN)
        return False

    def _lose_session(self):
        end.End._lose_session(self)
        for channel in self.channels:
            channel.reset()
        self._answers = [-1] * end.CHANNELS
        self._network.dropped()

    def _end_of_burst(self, turn):
        if 0 < (turn - self._last_turn) & 0xFFFF < 0x8000:
            self._last_turn = turn
            self._ask(turn, 0)

    # -- channels --

    def _open_or_answer(self, kind, index, start, size):
        channel = self.channels[index]
        if kind != end.OPEN or size < 5 or channel.state != end.FREE:
            return False
        timeout, port = unpack_from("<HH", self._reader.raw, start)
        try:
            host = bytes(self._reader.view[start + 4 : start + size]).decode()
        except ValueError:
            return False
        if not port:
            return False
        channel.state = end.OPENING
        channel.told = True
        self._network.opened(index, host, port, timeout / 10)
        return True

    def _end_channel(self, channel, broken):
        index = self.channels.index(channel)
        if channel.state == end.OPENING:
            self._answers[index] = -1
            channel.state = end.CLOSING
            channel.ended = True
            channel.told = False
            self._network.ended(index)
            return True
        good = end.End._end_channel(self, channel, broken)
        if good and channel.state == end.OPENED:
            self._network.ended(index)
        return good

    def _prepare(self):
        for index in range(end.CHANNELS):
            code = self._answers[index]
            channel = self.channels[index]
            if code >= 0 and self.free():
                self._answers[index] = -1
                self._small[0] = code
                self._put(end.ANSWER, index, self._small, 1)
                if code:
                    channel.state = end.CLOSING  # the answer closes this side
                else:
                    channel.state = end.OPENED
                    channel.room = channel.credit = end.WINDOW
        end.End._prepare(self)
