# The link against a broker that misbehaves on purpose. Invariant I10: every wait has a bound.

import mqtt_peer
from mqtt_peer import Peer, open_socket, packet, publish, steady_random

from tidemark.compat import sleep_ms, ticks_add, ticks_diff, ticks_ms
from tidemark.errors import LinkError, StateError
from tidemark.link import Link

WAIT_MS = 300


class Rig:
    """A link and its peer; the peer works whenever the link waits."""

    def __init__(self, **options):
        self.peer = Peer()
        self.fed = 0
        self.opened = 0
        options.setdefault("wait_s", WAIT_MS / 1000)
        options.setdefault("random", steady_random)
        self.link = Link(
            self._open, mqtt_peer.HOST, self.peer.port, "tidemark-test", feed=self._feed, **options
        )

    def _open(self, host, port, timeout_s):
        self.opened += 1
        return open_socket(host, port, timeout_s)

    def _feed(self):
        self.fed += 1
        self.peer.pump()

    def up(self):
        """Connect and return the link."""
        self.link.delay(0)
        self.link.step()
        assert self.link.state == "up", self.link.error
        return self.link

    def steps(self, until, limit_ms=3000):
        """Step link and peer until `until()` holds."""
        began = ticks_ms()
        while not until():
            assert ticks_diff(ticks_ms(), began) < limit_ms, "not in time: " + self.link.error
            self.peer.pump()
            self.link.step()
            sleep_ms(2)

    def close(self):
        self.link.disconnect()
        self.peer.close()


def refused(code, call, *args):
    """`call` raises LinkError with this code."""
    try:
        call(*args)
    except LinkError as e:
        assert e.code == code, e.code
        return
    raise AssertionError("not refused")


def drain(link):
    """All messages that came."""
    out = []
    while True:
        message = link.receive()
        if message is None:
            return out
        out.append(message)


def test_publishes_and_receives():
    rig = Rig()
    rig.link.subscribe("down/+")
    link = rig.up()
    link.publish("up/a", b"hello")
    assert (0x32, b"\x00\x04up/a\x00\x02hello") in rig.peer.packets
    rig.peer.send(publish("down/x", b"one") + publish("down/y", b"two", qos=0))
    rig.steps(lambda: rig.peer.count(4) == 1 and len(link._queue) == 2)
    assert drain(link) == [("down/x", b"one"), ("down/y", b"two")]
    assert (0x40, b"\x00\x07") in rig.peer.packets
    assert link.receive() is None
    rig.close()


def test_packet_id_wraps_within_its_16_bits():
    rig = Rig()
    link = rig.up()
    link._client.pid = 65534
    for _ in range(3):
        link.publish("t", b"x")
    ids = [body[3:5] for first, body in rig.peer.packets if first == 0x32]
    assert ids == [b"\xff\xff", b"\x00\x01", b"\x00\x02"]
    rig.close()


def test_lost_puback_takes_the_link_down_in_time():
    rig = Rig()
    link = rig.up()
    rig.peer.silent = {3}
    began = ticks_ms()
    refused("timeout", link.publish, "t", b"x")
    assert ticks_diff(ticks_ms(), began) < WAIT_MS + 250
    assert link.state == "down" and link.lost == 1
    rig.peer.silent = set()
    rig.up().publish("t", b"x")
    rig.close()


def test_peer_that_accepts_and_never_answers_is_given_up():
    rig = Rig()
    rig.peer.silent = {1}
    began = ticks_ms()
    rig.link.step()
    assert WAIT_MS - 20 <= ticks_diff(ticks_ms(), began) < WAIT_MS + 250
    assert rig.link.state == "down" and rig.link.error == "timeout"
    # Fed in the wait, and not counted as a lost link: there was none.
    assert rig.fed >= 2 and rig.link.lost == 0
    rig.close()


def test_subscribes_again_at_each_connect():
    rig = Rig()
    rig.link.subscribe("a/#")
    link = rig.up()
    link.subscribe("b")
    link.subscribe("b")
    rig.peer.drop()
    rig.steps(lambda: link.lost == 1)
    before = len(rig.peer.packets)
    rig.up()
    again = [body[2:] for first, body in rig.peer.packets[before:] if first == 0x82]
    assert again == [b"\x00\x03a/#\x01", b"\x00\x01b\x01"]
    rig.close()


def test_pings_by_itself_and_notices_a_dead_broker():
    rig = Rig(keepalive_s=1, wait_s=0.2)
    link = rig.up()
    rig.steps(lambda: rig.peer.count(12) == 2)
    assert link.state == "up" and link.lost == 0
    rig.peer.silent = {12}
    rig.steps(lambda: link.state == "down")
    assert link.error == "timeout" and link.lost == 1
    rig.close()


def test_malformed_packets_take_the_link_down():
    bad = (
        b"\x30\x01\x00",  # PUBLISH without room for a topic
        b"\x32\x04\x00\x02ab",  # no room for the packet id
        b"\x30\x04\xff\xffab",  # topic beyond the packet
        b"\x34\x05\x00\x01a\x00\x01",  # QoS 2
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x40\x03\x00\x01\x00",
        b"\x40\x00",
        b"\x40\x82\x00\x00\x01",  # length in more bytes than it needs
        b"\x90\x02\x00\x01",
        b"\xd0\x01\x00",
        b"\x20\x02\x00\x00",  # a second CONNACK
        b"\x10\x00",
        b"\x62\x02\x00\x01",
        b"\x00\x00",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x30\xff\xff\xff\xff\x7f",  # remaining length of five bytes
        packet(0x30, b"\x03\x00" + bytes(3000)),  # too large, and a topic that fills the buffer
    )
    rig = Rig()
    for index in range(len(bad)):
        link = rig.up()
        rig.peer.send(bad[index])
        rig.steps(lambda: link.state == "down")
        assert link.error == "malformed", (index, link.error)
        assert link.receive() is None
    rig.close()


def test_malformed_greeting_is_refused():
    rig = Rig()
    for greeting in (b"\x20\x03\x00\x00\x00", b"\x30\x03\x00\x01a", b"\x90\x03\x00\x01\x01"):
        rig.peer.connack = greeting
        rig.link.delay(0)
        rig.link.step()
        assert rig.link.state == "down" and rig.link.error == "malformed"
    rig.peer.connack = b"\x20\x02\x00\x05"
    rig.link.delay(0)
    rig.link.step()
    assert rig.link.error == "refused"
    rig.close()


def test_refused_subscription_takes_the_link_down():
    rig = Rig()
    link = rig.up()
    rig.peer.suback_code = 0x80
    refused("refused", link.subscribe, "x")
    assert link.state == "down"
    rig.close()


def test_oversized_message_is_dropped_acknowledged_and_counted():
    rig = Rig()
    link = rig.up()
    rig.peer.send(publish("big", bytes(5000), 9) + publish("big", bytes(1100), 10, qos=0))
    rig.peer.send(publish("edge", bytes(1300), 11) + publish("ok", b"x", 12))
    rig.steps(lambda: rig.peer.count(4) == 3)
    assert [body for first, body in rig.peer.packets if first == 0x40] == [
        b"\x00\x09",
        b"\x00\x0b",
        b"\x00\x0c",
    ]
    assert [topic for topic, _ in drain(link)] == ["big", "ok"]
    assert link.dropped == 2 and link.state == "up"
    rig.close()


def test_packet_of_more_than_64_kib_is_not_read():
    rig = Rig()
    link = rig.up()
    rig.peer.send(b"\x30\xff\xff\xff\x7f")
    rig.steps(lambda: link.state == "down")
    assert link.error == "packet-size"
    rig.close()


def test_queue_of_incoming_messages_is_bounded():
    rig = Rig()
    link = rig.up()
    for _ in range(40):
        rig.peer.send(publish("t", b"x"))
    rig.steps(lambda: rig.peer.count(4) == 40)
    assert len(drain(link)) == 32 and link.dropped == 8
    for _ in range(12):
        rig.peer.send(publish("t", bytes(1000)))
    rig.steps(lambda: rig.peer.count(4) == 52)
    assert len(drain(link)) == 8 and link.dropped == 12
    # The bound is on what waits, not on what ever came.
    rig.peer.send(publish("t", bytes(1000)))
    rig.steps(lambda: rig.peer.count(4) == 53)
    assert len(drain(link)) == 1
    rig.close()


def test_half_a_packet_holds_up_no_step():
    rig = Rig()
    link = rig.up()
    whole = publish("topic", b"payload")
    for at in range(len(whole)):
        rig.peer.send(whole[at : at + 1])
        began = ticks_ms()
        link.step()
        assert ticks_diff(ticks_ms(), began) < 100
        assert link.receive() is None or at == len(whole) - 1
    rig.steps(lambda: rig.peer.count(4) == 1)
    rig.close()


def test_chatty_peer_does_not_hold_a_publish_for_ever():
    rig = Rig()
    link = rig.up()
    rig.peer.silent = {3}
    noise = publish("n", b"x", qos=0) * 20

    def feed():
        rig.peer.pump()
        rig.peer.send(noise)

    link._wire._feed = feed
    feed()
    began = ticks_ms()
    refused("timeout", link.publish, "t", b"x")
    assert ticks_diff(ticks_ms(), began) < 2 * WAIT_MS + 250
    assert len(drain(link)) <= 32
    rig.close()


def test_answers_to_nobody_are_passed_over():
    rig = Rig()
    link = rig.up()
    rig.peer.puback_extra = b"\x40\x02\x12\x34\xd0\x00\x90\x03\x00\x01\x01"
    link.publish("t", b"x")
    link.subscribe("s")
    rig.peer.send(b"\x40\x02\x12\x34\x90\x03\x43\x21\x01" + publish("t", b"y"))
    rig.steps(lambda: rig.peer.count(4) == 1)
    assert drain(link) == [("t", b"y")]
    assert link.state == "up"
    rig.close()


def test_duplicate_and_undecodable_messages_do_no_harm():
    rig = Rig()
    link = rig.up()
    rig.peer.send(publish("t", b"x", 3) + publish("t", b"x", 3, first=0x38))
    rig.peer.send(publish(b"\xff\xfe", b"x", 4))
    rig.steps(lambda: rig.peer.count(4) == 3)
    assert drain(link) == [("t", b"x"), ("t", b"x")]
    assert link.dropped == 1 and link.state == "up"
    rig.close()


def test_back_off_doubles_to_a_minute_and_resets_on_an_answer():
    rig = Rig()
    link = rig.link
    rig.peer.silent = {1}
    link._wait_ms = 1
    pauses = []
    for _ in range(9):
        link.delay(0)
        link.step()
        pauses.append(ticks_diff(link._retry_at, ticks_ms()))
    wanted = (250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000)
    for got, want in zip(pauses, wanted):
        assert want - 50 <= got <= want, (got, want)
    rig.peer.silent = set()
    link._wait_ms = WAIT_MS
    rig.peer.drop()
    rig.up().publish("t", b"x")
    rig.peer.drop()
    rig.steps(lambda: link.state == "down")
    assert ticks_diff(link._retry_at, ticks_ms()) <= 250
    rig.close()


def test_broker_that_only_accepts_is_backed_off():
    rig = Rig()
    pauses = []
    for _ in range(3):
        rig.up()
        rig.peer.drop()
        rig.steps(lambda: rig.link.state == "down")
        pauses.append(ticks_diff(rig.link._retry_at, ticks_ms()))
    assert pauses[0] <= 250 < pauses[1] <= 500 < pauses[2]
    rig.close()


def test_jitter_spreads_the_second_half_of_a_pause():
    rig = Rig(random=lambda n: b"\xff" * n)
    rig.peer.silent = {1}
    rig.link._wait_ms = 1
    rig.link.step()
    assert 400 < ticks_diff(rig.link._retry_at, ticks_ms()) <= 500
    rig.close()


def test_link_tries_again_while_the_radio_refuses_randomness():
    def silent(n):
        raise StateError("random-radio", "no random numbers while the radio is off")

    rig = Rig(random=silent)
    rig.peer.silent = {1}
    rig.link._wait_ms = 1
    for pause in (250, 500, 1000):
        rig.link.delay(0)
        rig.link.step()
        assert rig.link.state == "down"
        assert pause - 50 <= ticks_diff(rig.link._retry_at, ticks_ms()) <= 2 * pause
    rig.peer.silent = set()
    rig.link._wait_ms = WAIT_MS
    rig.peer.drop()
    rig.up()
    rig.close()


def test_socket_that_needs_randomness_and_gets_none_is_a_failed_attempt():
    rig = Rig()

    def unasked(host, port, timeout_s):
        raise StateError("random-radio", "no random numbers while the radio is off")

    rig.link._open_socket = unasked
    rig.link.step()
    assert rig.link.state == "down" and rig.link.error == "io"
    rig.close()


def test_waits_for_its_pause_before_it_connects():
    rig = Rig()
    rig.link.delay(60000)
    for _ in range(3):
        rig.link.step()
    assert rig.opened == 0
    rig.close()


def test_refused_socket_is_a_pause_not_a_crash():
    rig = Rig()
    rig.peer.close()
    rig.link.step()
    assert rig.link.state == "down" and rig.link.error in ("io", "connect")


def test_bad_arguments_leave_the_link_up():
    rig = Rig()
    link = rig.up()
    refused("size", link.publish, "t", bytes(4097))
    refused("topic", link.publish, "", b"")
    refused("topic", link.publish, "t" * 113, b"")
    refused("topic", link.subscribe, "t" * 113)
    for index in range(8):
        link.subscribe("s%d" % index)
    refused("full", link.subscribe, "one more")
    assert link.state == "up"
    link.publish("t" * 112, bytes(4096))
    assert len(rig.peer.packets[-1][1]) == 2 + 112 + 2 + 4096
    rig.close()


def test_publish_while_down_is_refused_at_once():
    rig = Rig()
    refused("down", rig.link.publish, "t", b"x")
    assert rig.opened == 0
    rig.close()


def test_peer_that_reads_nothing_stalls_no_publish():
    rig = Rig()
    link = rig.up()
    link._wire._feed = None
    error = None
    began = ticks_ms()
    while error is None and ticks_diff(ticks_ms(), began) < 5000:
        # Not waiting for a PUBACK: the socket's buffers fill, and then the send must be bounded.
        try:
            link._begin()
            link._wire.write(publish("t", bytes(4000), qos=0))
            link._wire.flush()
        except LinkError as e:
            error = e.code
    assert error == "timeout"
    rig.close()


def test_disconnect_says_goodbye():
    rig = Rig()
    link = rig.up()
    link.disconnect()
    rig.peer.pump()
    assert rig.peer.packets[-1] == (0xE0, b"")
    assert link.state == "down" and link.lost == 0
    rig.peer.close()


class Network:
    up = False


def test_no_attempt_is_made_without_a_network_and_one_at_once_with_it():
    network = Network()
    rig = Rig(network=network)
    rig.link.delay(0)
    for _ in range(20):
        rig.link.step()
    assert rig.opened == 0 and rig.link.error == ""
    network.up = True
    rig.link.step()
    assert rig.opened == 1 and rig.link.state == "up"
    rig.close()


def test_network_that_is_away_for_weeks_delays_no_attempt():
    from tidemark import link as module

    network = Network()
    rig = Rig(network=network)
    real = module.ticks_ms
    now = [ticks_ms()]
    module.ticks_ms = lambda: now[0]
    try:
        rig.link.delay(0)
        for _ in range(20):
            rig.link.step()
            now[0] = ticks_add(now[0], 1 << 27)  # a day and a half
        network.up = True
        rig.link.step()
    finally:
        module.ticks_ms = real
    assert rig.opened == 1 and rig.link.state == "up"
    rig.close()
