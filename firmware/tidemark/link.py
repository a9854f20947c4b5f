# The link to the broker: umqtt.simple behind an adapter that mends it from outside.
# umqtt by itself waits for ever on a dead peer, never wraps its packet id, forgets subscriptions,
# sends no ping and comes back without pause; none of that is left here (docs/agent.md).

from umqtt import simple

from .backoff import pause
from .compat import const, ticks_add, ticks_diff, ticks_ms
from .errors import LinkError, StateError
from .wire import Wire

_PAYLOAD_MAX = const(4096)
_TOPIC_MAX = const(112)  # umqtt writes a SUBSCRIBE's remaining length in one byte
_TOPICS_MAX = const(8)
_PACKET_ID_MAX = const(65535)
_QUEUE_MESSAGES = const(32)
_QUEUE_BYTES = const(8192)
_PACKETS_PER_STEP = const(8)
_BACKOFF_FIRST_MS = const(500)
_BACKOFF_LAST_MS = const(60000)


class _Client(simple.MQTTClient):
    """umqtt's client, which goes to the next packet only through the wire."""

    def wait_msg(self):
        """Handle one packet and return its first byte, or None after a PUBLISH or PINGRESP."""
        # An answer that nobody waits for leaves its body unread: not to be taken for a packet.
        self.sock.next()
        return simple.MQTTClient.wait_msg(self)

    def take_packet_id(self):
        """Keep the id that umqtt is about to count up within 1 to 65,535 (MQTT 3.1.1, 2.3.1)."""
        if self.pid >= _PACKET_ID_MAX:
            self.pid = 0


def _check_topic(topic):
    """Return the topic (str) as bytes: umqtt takes its length for the number of bytes."""
    topic = topic.encode()
    if not 0 < len(topic) <= _TOPIC_MAX:
        raise LinkError("topic", "topic empty or longer than 112 bytes")
    return topic


class Link:
    """One connection to a broker, made again for as long as `step` is called.

    Nothing here waits longer than `wait_s` (`open_socket` may take as long again); `feed` is
    called at least every 100 ms of a wait. Incoming messages are queued, never acted upon.
    `state`: "down" or "up"; `connects`: connections made; `lost`: those that ended; `error`: code
    of the last failure, "" before one.
    """

    def __init__(
        self,
        open_socket,
        host,
        port,
        client_id,
        random,
        feed=None,
        keepalive_s=30,
        wait_s=5,
        network=None,
    ):
        """`open_socket(host, port, timeout_s)`: a connected stream socket, or raises LinkError.

        `host`, `client_id`: str; `random(n)`: gives n random bytes; `feed`: called in waits;
        `network`: has `up` (bool), False while there is nothing to connect over; or None.
        """
        self._open_socket = open_socket
        self._network = network
        self._host = host
        self._port = port
        self._random = random
        self._wait_s = wait_s
        self._wait_ms = int(wait_s * 1000)
        self._ping_ms = keepalive_s * 500
        self._wire = Wire(feed)
        self._client = _Client(client_id.encode(), host, port, keepalive=keepalive_s)
        self._client.set_callback(self._take)
        self._topics = []
        self._queue = []
        self._queue_bytes = 0
        self._queue_dropped = 0
        self._failures = 0
        self._retry_at = ticks_ms()
        self._pinged = None  # when the ping was sent that has no answer yet
        self._pongs = 0
        self._heard = self._retry_at
        self.state = "down"
        self.error = ""
        self.connects = 0
        self.lost = 0

    @property
    def dropped(self):
        """Incoming messages that were dropped (int)."""
        return self._queue_dropped + self._wire.dropped

    def step(self):
        """Do one bounded slice: connect when it is time to, or read what is there and ping.

        Never raises for the network's sake: a failure takes the link down.
        """
        if self.state == "down":
            now = ticks_ms()
            if ticks_diff(now, self._retry_at) < 0:
                return
            if self._network and not self._network.up:
                # No attempt, so no failure: the first one comes as soon as there is a network.
                self._retry_at = now
                return
            self._connect()
            return
        try:
            self._begin()
            for _ in range(_PACKETS_PER_STEP):
                if not self._wire.arrived():
                    break
                self._heard = ticks_ms()
                self._client.wait_msg()
            self._ping()
            self._wire.flush()
        except (LinkError, OSError, AssertionError) as e:
            self._fall(e)

    def publish(self, topic, payload):
        """Publish at QoS 1; return once the broker has acknowledged.

        `topic`: str; `payload`: bytes, at most 4,096. Raises LinkError: "down", "topic" and "size"
        without effect on the link; any other code took the link down, and whether the message was
        delivered is unknown.
        """
        topic = _check_topic(topic)
        if len(payload) > _PAYLOAD_MAX:
            raise LinkError("size", "payload of more than 4,096 bytes")
        self.check_up()
        try:
            self._begin()
            self._client.take_packet_id()
            self._client.publish(topic, payload, qos=1)
            self._wire.flush()
        except (LinkError, OSError, AssertionError) as e:
            raise self._fall(e)
        self._heard = ticks_ms()
        self._failures = 0

    def subscribe(self, topic):
        """Subscribe at QoS 1, now if the link is up and again at each connect.

        Raises LinkError: "topic", "full" after 8 topics; any other code took the link down, and
        the topic is remembered nevertheless.
        """
        topic = _check_topic(topic)
        if topic in self._topics:
            return
        if len(self._topics) == _TOPICS_MAX:
            raise LinkError("full", "more than 8 subscriptions")
        self._topics.append(topic)
        if self.state == "up":
            try:
                self._begin()
                self._subscribe(topic)
            except (LinkError, OSError, AssertionError, simple.MQTTException) as e:
                raise self._fall(e)

    def receive(self):
        """Return the oldest message that came, (topic str, payload bytes), or None."""
        if not self._queue:
            return None
        message = self._queue.pop(0)
        self._queue_bytes -= len(message[0]) + len(message[1])
        return message

    def check_up(self):
        """Raise LinkError("down") unless the link is up."""
        if self.state != "up":
            raise LinkError("down", "no connection to the broker")

    def delay(self, ms):
        """Put off the next attempt to connect by `ms` (int, below 2^29) from now."""
        self._retry_at = ticks_add(ticks_ms(), ms)

    def disconnect(self):
        """Say goodbye and close. The next `step` connects again after the shortest pause."""
        if self.state == "up":
            try:
                self._begin()
                self._wire.write(b"\xe0\0")
                self._wire.flush()
            except LinkError:
                pass  # a courtesy: the broker notices the closed socket too
        self._wire.close()
        self.state = "down"
        self._failures = 0
        self._back_off()

    def _begin(self):
        self._wire.begin(self._wait_ms)

    def _connect(self):
        client = self._client
        try:
            # umqtt makes its socket from this name of its module.
            simple.socket = self._wire
            self._wire.attach(self._open_socket(self._host, self._port, self._wait_s))
            self._begin()
            client.connect()
            for topic in self._topics:
                self._subscribe(topic)
        except (LinkError, StateError, OSError, AssertionError, simple.MQTTException) as e:
            # StateError: no random number, as for the question to a name server.
            self._fall(e)
            return
        self._pinged = None
        self._pongs = 0
        self._heard = ticks_ms()
        self.connects += 1
        self.state = "up"

    def _subscribe(self, topic):
        self._client.take_packet_id()
        self._client.subscribe(topic, qos=1)
        self._wire.flush()

    def _ping(self):
        """Ping when half the keepalive passed without a word; the answer must come in time."""
        wire = self._wire
        now = ticks_ms()
        if wire.pongs != self._pongs:
            self._pongs = wire.pongs
            self._pinged = None
            # Only an answer shows a broker that works, not that it accepts before it hangs up.
            self._failures = 0
        if self._pinged is not None:
            # Packets may be queued before the answer: then the peer is slow, or we are, not dead.
            silent = ticks_diff(now, self._heard) > self._wait_ms
            if silent and ticks_diff(now, self._pinged) > self._wait_ms:
                raise LinkError("timeout", "ping without an answer")
        elif (
            ticks_diff(now, wire.last_write) >= self._ping_ms
            or ticks_diff(now, self._heard) >= self._ping_ms
        ):
            self._client.ping()
            self._pinged = now

    def _take(self, topic, payload):
        """umqtt's callback: queue, within the bounds."""
        try:
            topic = topic.decode()
        except ValueError:
            self._queue_dropped += 1
            return
        size = len(topic) + len(payload)
        if len(self._queue) == _QUEUE_MESSAGES or self._queue_bytes + size > _QUEUE_BYTES:
            self._queue_dropped += 1
            return
        self._queue.append((topic, payload))
        self._queue_bytes += size

    def _fall(self, error):
        """Take the link down for `error`; return it as a LinkError."""
        if isinstance(error, simple.MQTTException):
            error = LinkError("refused", "the broker refused")
        elif isinstance(error, AssertionError):
            error = LinkError("malformed", "not the answer that was asked for")
        elif not isinstance(error, LinkError):
            error = LinkError("io", "socket failed")
        self._wire.close()
        if self.state == "up":
            self.lost += 1
        self.state = "down"
        self.error = error.code
        self._back_off()
        return error

    def _back_off(self):
        """Set the next attempt: doubling up to a minute, half of it fixed, half at random."""
        now = ticks_ms()
        wait = pause(self._failures, _BACKOFF_FIRST_MS, _BACKOFF_LAST_MS, self._random, now)
        self._failures += 1
        self._retry_at = ticks_add(now, wait)
