# Link and session as one task of the supervisor: says hello, hands out what comes, keeps track of
# what was sent and not yet acknowledged, and reports.

from . import cbor, claims
from .backoff import share
from .compat import const
from .errors import SessionError, StateError, TidemarkError
from .evidence import REMOTE

_ACK_WAIT_MS = const(10000)
_IN_FLIGHT = const(32)
# Hellos: at least this far apart, doubling while no welcome comes, and up to the jitter later.
_HELLO_PAUSE_MS = const(10000)
_HELLO_PAUSE_LAST_MS = const(60000)
_HELLO_JITTER_MS = const(1000)
_BEACON_MAX = const(64)
_EXPIRE_MS = const(250)
_REPORT_AGAIN_MS = const(1000)


class Connection:
    """The board's conversation with its gateway, for as long as `step` is called.

    `last_ack_ms`, `first_ack_ms`: uptime of an acknowledgement, None before one;
    `first_ack_ms` and `reports_acked` count reports only.
    """

    def __init__(self, base):
        """`base`: has link, session, identity, provisioning, port, uptime_ms, record, config."""
        self._base = base
        self._link = base.link
        self._session = base.session
        self._gateway_id = base.provisioning.gateway_id
        self._beacon = "tm/1/gw/" + self._gateway_id + "/beacon"
        self._up = "tm/1/" + base.identity.id + "/up/"
        self._down = "tm/1/" + base.identity.id + "/down/"
        self._connects = 0
        self._nonce = None
        self._challenged = False
        self._hello_due = None
        self._hello_said = None  # uptime of the last one
        self._hello_pause = 0
        self._in_flight = {}  # (epoch, seq): (on_ack, token, uptime at which it counts as lost)
        self._expire_due = 0
        self._report_due = 0
        self._report_in_flight = False
        self._time_wanted = False  # the next report asks
        self._time_open = False  # no answer yet
        self._time = None
        self.reports_acked = 0
        self.first_ack_ms = None
        self.last_ack_ms = None
        self._link.subscribe(self._beacon)
        self._link.subscribe(self._down + "+")

    @property
    def ready(self):
        """True while messages can be sent: link up, session keys there."""
        return self._link.state == "up" and self._session.ready

    @property
    def room(self):
        """How many more messages may be under way (int)."""
        return _IN_FLIGHT - len(self._in_flight)

    @property
    def idle(self):
        """True when nothing that was sent waits for its acknowledgement."""
        return not self._in_flight

    def step(self):
        """Do one slice: link, incoming messages, hello. Never raises for a peer's sake."""
        self._link.step()
        if self._link.connects != self._connects:
            # Acknowledgements sent while the link was down went nowhere.
            self._connects = self._link.connects
            self._hand_back()
        # What comes in while this handles messages waits for the next step.
        for _ in range(_IN_FLIGHT):
            message = self._link.receive()
            if message is None:
                break
            self._dispatch(*message)
        now = self._base.uptime_ms()
        if now >= self._expire_due:
            self._expire_due = now + _EXPIRE_MS
            self._expire(now)
        self._greet(now)

    def send(self, kind, body, on_ack=None, token=None):
        """Seal and publish a message of `kind` with `body` (list); return once the broker has it.

        `on_ack(token, acked)` is called later, once: with True when the gateway acknowledged, with
        False when that is not known (no answer in 10 s, a new session or link). Then the owner
        sends again if it wants, which seals under a new counter.
        Raises SessionError: "no-session", "in-flight-full"; LinkError, StateError, CodecError:
        on_ack is then not called, and a message that failed on the link may have arrived.
        """
        if not self._session.ready:
            raise SessionError("no-session", "no welcome yet")
        if on_ack and not self.room:
            raise SessionError("in-flight-full", "32 messages wait for their acknowledgement")
        # Before sealing: no number is spent on what can't be sent.
        self._link.check_up()
        message, epoch, seq = self._session.seal(kind, body)
        self._link.publish(self._up + kind, message)
        if on_ack:
            due = self._base.uptime_ms() + _ACK_WAIT_MS
            self._in_flight[(epoch, seq)] = (on_ack, token, due)

    # -- reports and time

    def report_when_due(self, interval_ms):
        """Send a report when the last one is `interval_ms` old, at once after a lost one."""
        if self._report_in_flight or not self.ready or not self.room:
            return
        now = self._base.uptime_ms()
        if now >= self._report_due:
            self._report_due = now + interval_ms
            self.report({})

    @property
    def reporting(self):
        """True while a report waits for its acknowledgement."""
        return self._report_in_flight

    def report_soon(self):
        """Have the next `report_when_due` send."""
        self._report_due = 0

    def report(self, extra):
        """Send a report now: the base's claims with those of `extra` (dict). Returns whether the
        broker took it; an acknowledgement shows in `reports_acked`."""
        now = self._base.uptime_ms()
        asks = self._time_wanted
        body = claims.build(self._base)
        body.update(extra)
        if asks:
            body[claims.TIME_NONCE] = self._session.want_time(now)
        try:
            self.send("report", [body], self._report_answered, asks)
        except TidemarkError as e:
            # Not at once: a report costs a signature.
            self._report_due = now + _REPORT_AGAIN_MS
            self._note(e, "report")
            return False
        self._time_wanted = False
        self._report_in_flight = True
        return True

    def ask_time(self):
        """Have the next report ask the gateway for the time; `take_time_token` has the answer."""
        self._time = None
        self._time_wanted = self._time_open = True
        self._report_due = 0

    def take_time_token(self):
        """Return the Unix seconds (int) that the gateway signed for the last question, once; None
        before. It is the time at which the token came, a message's way old."""
        seconds = self._time
        self._time = None
        return seconds

    def _report_answered(self, asked, acked):
        self._report_in_flight = False
        if not acked:
            self._time_wanted = self._time_wanted or (asked and self._time_open)
            self._report_due = 0
            return
        self.reports_acked += 1
        if self.first_ack_ms is None:
            self.first_ack_ms = self._base.uptime_ms()

    # -- incoming

    def _dispatch(self, topic, payload):
        """Handle one message; whatever is wrong with it changes nothing and is noted."""
        kind = topic.rsplit("/", 1)[-1]
        try:
            if topic == self._beacon or topic == self._down + "challenge":
                self._take_nonce(payload, topic != self._beacon)
            elif topic == self._down + "welcome":
                self._session.take_welcome(payload)
                self._hello_pause = 0
                self._hello_due = None
                self._challenged = False
                # Sealed under keys that the gateway is about to drop.
                self._hand_back()
                self._report_due = 0
            elif topic == self._down + "time":
                self._time = self._session.take_time(payload, self._base.uptime_ms())
                self._time_open = False
            elif topic == self._down + kind:
                epoch, seq = self._session.open(kind, payload)
                self._acknowledge(epoch, seq)
        except TidemarkError as e:
            self._note(e, kind)

    def _acknowledge(self, epoch, seq):
        entry = self._in_flight.pop((epoch, seq), None)
        if entry is None:
            return  # late: handed back already
        self.last_ack_ms = self._base.uptime_ms()
        entry[0](entry[1], True)

    def _take_nonce(self, payload, challenge):
        fields = cbor.decode(payload, 2, _BEACON_MAX)
        if not isinstance(fields, list) or len(fields) != 2:
            raise SessionError("beacon-shape", "not [gateway id, nonce]")
        gateway, nonce = fields
        if not isinstance(nonce, bytes) or len(nonce) != 8:
            raise SessionError("beacon-shape", "nonce is not 8 bytes")
        if gateway != self._gateway_id:
            raise SessionError("beacon-gateway", "from another gateway")
        if nonce != self._nonce:
            # A gateway that has just come back is not kept waiting for a pause that grew before.
            self._nonce = nonce
            self._hello_pause = 0
            if self._hello_due is not None:
                self._hello_due = min(self._hello_due, self._next_hello(self._base.uptime_ms()))
        if challenge:
            self._challenged = True

    def _note(self, error, detail):
        """Keep evidence: our own state's troubles as such, the network's and peers' as counts."""
        if isinstance(error, StateError):
            self._base.refuse(error, detail)
        else:
            self._base.record(error.code, detail, REMOTE)

    # -- in flight

    def _hand_back(self):
        lost = self._in_flight
        self._in_flight = {}
        for entry in lost.values():
            entry[0](entry[1], False)

    def _expire(self, now):
        late = [key for key, entry in self._in_flight.items() if now >= entry[2]]
        for key in late:
            entry = self._in_flight.pop(key)
            entry[0](entry[1], False)

    # -- hello

    def _greet(self, now):
        """Say hello when there is a nonce and either no session or a challenge."""
        if self._nonce is None or self._link.state != "up":
            return
        if self._session.ready and not self._challenged:
            return
        if self._hello_due is None:
            self._hello_due = self._next_hello(now)
        if now < self._hello_due:
            return
        self._hello_due = None
        self._challenged = False
        # Set before the work: whatever comes of it, the next one is not sooner.
        self._hello_pause = min(
            max(self._hello_pause * 2, _HELLO_PAUSE_MS), _HELLO_PAUSE_LAST_MS
        )
        self._hello_said = now
        try:
            hello = self._session.hello(self._nonce, claims.build(self._base))
            self._link.publish(self._up + "hello", hello)
        except TidemarkError as e:
            self._note(e, "hello")

    def _next_hello(self, now):
        """Return the uptime (ms) at which the next hello is due."""
        jitter = share(self._base.port.random, now) * _HELLO_JITTER_MS >> 16
        if self._hello_said is not None:
            now = max(now, self._hello_said + max(self._hello_pause, _HELLO_PAUSE_MS))
        return now + jitter
