# The device's half of a session. Invariants I1 (counters), I2 (replay), I10 (bounds).

import gateway_side

from tidemark import cbor, cose
from tidemark.errors import CodecError, CryptoError, SessionError, StateError
from tidemark.session import Session
from tidemark.window import Window


class Rig:
    def __init__(self, integrity="mac", confidential=False):
        self.identity = gateway_side.Identity()
        self.counter = gateway_side.Counter()
        self.gateway = gateway_side.Gateway()
        self.session = Session(
            self.identity,
            self.counter,
            self.gateway.id,
            self.gateway.public,
            gateway_side.fixed_random(),
            integrity,
            confidential=confidential,
        )

    def hello(self):
        return self.session.hello(self.gateway.nonce, {256: b"x"})

    def ready(self):
        self.session.take_welcome(self.gateway.welcome(self.hello()))
        return self


def refused(family, code, call, *args):
    try:
        call(*args)
    except family as e:
        assert e.code == code, e.code
        return
    raise AssertionError("not refused: " + code)


def test_hello_says_what_the_protocol_lists():
    rig = Rig()
    hello = rig.hello()
    fields = rig.gateway.read_hello(hello)
    assert fields[:3] == [1, 1, rig.identity.id]
    assert fields[3] == rig.identity.public
    assert fields[4:6] == [rig.gateway.id, b"gw-nonce"]
    assert fields[6] == rig.session.boot_nonce and len(fields[6]) == 8
    assert fields[7] == 7 and len(fields[8]) == 32
    assert fields[9] == {256: b"x"}


def test_each_hello_has_a_fresh_share_and_the_boots_one_nonce():
    rig = Rig()
    one = rig.gateway.read_hello(rig.hello())
    two = rig.gateway.read_hello(rig.hello())
    assert one[8] != two[8] and one[6] == two[6]


def test_no_random_number_is_drawn_before_the_first_hello():
    def too_early(n):
        raise AssertionError("the radio of an ESP32 is off")

    rig = Rig()
    Session(rig.identity, None, rig.gateway.id, rig.gateway.public, too_early)


def test_both_sides_have_the_same_keys_after_a_welcome():
    rig = Rig()
    assert not rig.session.ready
    rig.ready()
    assert rig.session.ready
    message, epoch, seq = rig.session.seal("telemetry", [7, 1, {1: 2}])
    assert (epoch, seq) == (7, 4)
    assert rig.gateway.open("telemetry", message) == [7, 4, 7, 1, {1: 2}]
    assert rig.session.open("ack", rig.gateway.ack(7, 4)) == [7, 4]


def test_every_kind_is_sealed_as_the_table_says():
    rig = Rig().ready()
    wanted = (
        ("telemetry", cose.HMAC_64, 0),
        ("backlog", cose.HMAC_64, 1),
        ("report", cose.EDDSA, 2),
        ("alarm", cose.EDDSA, 2),
        ("evidence", cose.EDDSA, 2),
        ("result", cose.HMAC_256, 2),
    )
    for kind, alg, space in wanted:
        message, _, seq = rig.session.seal(kind, [1])
        assert cose.peek(message)[1] == alg and seq & 3 == space, kind
        assert rig.gateway.open(kind, message)[2:] == [1]
    refused(SessionError, "kind", rig.session.seal, "hello", [])
    refused(SessionError, "kind", rig.session.seal, "ack", [])


def test_integrity_sign_signs_telemetry_in_the_same_space():
    rig = Rig("sign").ready()
    for kind, space in (("telemetry", 0), ("backlog", 1)):
        message, _, seq = rig.session.seal(kind, [7, 1, 2])
        assert cose.peek(message)[1] == cose.EDDSA and seq & 3 == space
        assert rig.gateway.open(kind, message)[2:] == [7, 1, 2]
    refused(SessionError, "integrity", Rig, "none")


def test_confidential_encrypts_telemetry_under_its_counter():
    rig = Rig(confidential=True).ready()
    for kind, space in (("telemetry", 0), ("backlog", 1)):
        message, epoch, seq = rig.session.seal(kind, [7, 1, b"secret"])
        assert b"secret" not in message and seq & 3 == space
        kid, nonce, _, _ = cose.encrypt0_peek(message)
        assert kid == rig.gateway.kid and nonce == cose.iv(cose.UP, epoch, seq)
        assert rig.gateway.open(kind, message) == [epoch, seq, 7, 1, b"secret"]
        refused(CryptoError, "ccm-tag", rig.gateway.open, "report", message)
    for kind in ("report", "alarm", "evidence"):
        assert cose.peek(rig.session.seal(kind, [1])[0])[1] == cose.EDDSA
    assert cose.peek(rig.session.seal("result", [1])[0])[1] == cose.HMAC_256
    refused(SessionError, "integrity", Rig, "sign", True)


def test_takes_only_the_welcome_to_its_outstanding_hello():
    rig = Rig()
    first = rig.hello()
    second = rig.hello()
    refused(
        SessionError, "welcome-hello", rig.session.take_welcome, rig.gateway.welcome(first)
    )
    assert not rig.session.ready
    rig.session.take_welcome(rig.gateway.welcome(second))
    assert rig.session.ready


def test_welcome_is_taken_once():
    rig = Rig()
    hello = rig.hello()
    welcome = rig.gateway.welcome(hello)
    rig.session.take_welcome(welcome)
    message = rig.gateway.ack(7, 4)
    rig.session.open("ack", message)
    refused(SessionError, "welcome-unasked", rig.session.take_welcome, welcome)
    # A second taking would have begun the window anew.
    refused(SessionError, "replay", rig.session.open, "ack", message)


def test_altered_or_foreign_welcome_is_refused_and_the_right_one_still_taken():
    rig = Rig()
    refused(SessionError, "welcome-unasked", rig.session.take_welcome, b"")
    hello = rig.hello()
    gateway = rig.gateway
    refused(
        CryptoError,
        "cose-sig",
        rig.session.take_welcome,
        gateway.welcome(hello, seed=b"\x09" * 32),
    )
    good = gateway.welcome(hello)
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 1
        try:
            rig.session.take_welcome(bytes(bad))
        except (CodecError, CryptoError, SessionError):
            continue
        raise AssertionError("altered welcome taken")

    def swap(index, value):
        def change(fields):
            fields[index] = value

        return gateway.welcome(hello, change)

    refused(SessionError, "welcome-id", rig.session.take_welcome, swap(1, "0" * 16))
    for index, value in ((0, 1), (1, b"x"), (2, b"short"), (3, b""), (3, b"ab"), (4, -1)):
        refused(SessionError, "welcome-shape", rig.session.take_welcome, swap(index, value))
    refused(
        SessionError,
        "welcome-shape",
        rig.session.take_welcome,
        gateway.welcome(hello, lambda fields: fields.append(1)),
    )
    refused(CodecError, "cbor-size", rig.session.take_welcome, bytes(1025))
    assert not rig.session.ready
    rig.session.take_welcome(gateway.welcome(hello))
    assert rig.session.ready


def test_share_that_gives_an_all_zero_secret_is_refused():
    rig = Rig()
    hello = rig.hello()
    for share in (bytes(32), b"\x01" + bytes(31)):

        def change(fields):
            fields[2] = share

        refused(
            CryptoError,
            "x25519-zero",
            rig.session.take_welcome,
            rig.gateway.welcome(hello, change),
        )
    assert not rig.session.ready


def test_telemetry_is_refused_without_session_or_epoch():
    rig = Rig()
    refused(SessionError, "no-session", rig.session.seal, "telemetry", [1])
    rig.counter.fault = StateError("counter-worn")
    refused(StateError, "counter-worn", rig.hello)
    rig.counter.fault = None
    rig.ready()
    rig.counter.fault = StateError("counter-worn")
    refused(StateError, "counter-worn", rig.session.seal, "telemetry", [1])
    rig.counter.fault = None
    rig.counter.epoch = 8
    refused(SessionError, "epoch-changed", rig.session.seal, "telemetry", [1])


def test_no_counter_value_is_sealed_twice():
    rig = Rig().ready()
    seen = set()
    for n in range(30):
        for kind in ("telemetry", "backlog", "report"):
            _, epoch, seq = rig.session.seal(kind, [n])
            seen.add((epoch, seq))
        # A body that does not fit spends its number.
        refused(SessionError, "message-size", rig.session.seal, "telemetry", [bytes(1000)])
        refused(CodecError, "cbor-type", rig.session.seal, "telemetry", [object()])
        if n == 15:
            rig.ready()
    assert len(seen) == 90


def test_hello_of_more_than_4_kib_is_refused():
    rig = Rig()
    refused(SessionError, "hello-size", rig.session.hello, b"12345678", {1: bytes(4000)})
    refused(SessionError, "gateway-nonce", rig.session.hello, b"1234567", {})
    refused(SessionError, "welcome-unasked", rig.session.take_welcome, b"")


def test_ack_has_effect_once():
    rig = Rig().ready()
    message = rig.gateway.ack(7, 4)
    assert rig.session.open("ack", message) == [7, 4]
    for _ in range(3):
        refused(SessionError, "replay", rig.session.open, "ack", message)
    # The same counter under another authentic body is no better.
    again = rig.gateway.ack(7, 8, seq=1 << 2 | 2)
    refused(SessionError, "replay", rig.session.open, "ack", again)


def test_reordered_acks_are_taken_within_the_window():
    rig = Rig().ready()
    messages = [rig.gateway.ack(7, n << 2) for n in range(300)]
    assert rig.session.open("ack", messages[299]) == [7, 299 << 2]
    assert rig.session.open("ack", messages[100]) == [7, 100 << 2]
    refused(SessionError, "replay", rig.session.open, "ack", messages[51])
    assert rig.session.open("ack", messages[52]) == [7, 52 << 2]
    refused(SessionError, "replay", rig.session.open, "ack", messages[100])


def test_forged_ack_moves_no_window():
    rig = Rig().ready()
    gateway = rig.gateway
    forged = gateway.ack(7, 4, seq=1000 << 2 | 2, key=b"k" * 32)
    refused(CryptoError, "cose-mac", rig.session.open, "ack", forged)
    first = gateway.ack(7, 4, seq=1 << 2 | 2)
    assert rig.session.open("ack", first) == [7, 4]


def test_ack_outside_the_protocol_is_refused():
    rig = Rig().ready()
    gateway = rig.gateway
    cases = (
        (SessionError, "epoch", gateway.ack(7, 4, epoch=6)),
        (SessionError, "space", gateway.ack(7, 4, seq=1 << 2)),
        (SessionError, "replay", gateway.ack(7, 4, seq=2)),
        (SessionError, "replay", gateway.ack(7, 4, seq=1 << 40 | 2)),
        (SessionError, "message-shape", gateway.ack(0, 0, fields=[7])),
        (SessionError, "message-shape", gateway.ack(0, 0, fields={1: 2})),
        (SessionError, "message-shape", gateway.ack(0, 0, fields=[7, True, 1, 1])),
        (SessionError, "message-shape", gateway.ack(0, 0, fields=[7, 402, 1])),
        (SessionError, "message-shape", gateway.ack(0, 0, fields=[7, 402, 1, -1])),
        (CryptoError, "cose-kid", gateway.ack(7, 4, kid=b"\x06")),
        (CryptoError, "cose-mac", gateway.ack(7, 4, kind="command")),
        (CodecError, "cose-alg", gateway.ack(7, 4, alg=cose.HMAC_64)),
        (CodecError, "cbor-size", bytes(1025)),
        (CodecError, "cbor-short", b""),
    )
    for family, code, message in cases:
        refused(family, code, rig.session.open, "ack", message)
    good = gateway.ack(7, 4, seq=1 << 2 | 2)
    assert rig.session.open("ack", good) == [7, 4]


def test_commands_are_refused_typed():
    rig = Rig().ready()
    refused(SessionError, "kind-unsupported", rig.session.open, "command", b"")
    refused(SessionError, "kind", rig.session.open, "telemetry", b"")
    refused(SessionError, "no-session", Rig().session.open, "ack", b"")


def test_new_welcome_ends_the_old_session():
    rig = Rig().ready()
    old = rig.gateway.ack(7, 4)
    rig.gateway.next_kid = b"\x06"
    rig.ready()
    refused(CryptoError, "cose-kid", rig.session.open, "ack", old)
    # Downward counters start anew, upward ones do not.
    assert rig.session.open("ack", rig.gateway.ack(7, 4, seq=1 << 2 | 2)) == [7, 4]
    rig.session.seal("telemetry", [1])
    rig.ready()
    assert rig.session.seal("telemetry", [1])[2] == 2 << 2


def test_unanswered_hello_leaves_the_session():
    rig = Rig().ready()
    rig.hello()
    assert rig.session.ready
    rig.session.open("ack", rig.gateway.ack(7, 4))


def time_token(rig, nonce, seconds=1_700_000_000, gateway=None, seed=None):
    fields = [nonce, seconds, gateway or rig.gateway.id]
    return rig.gateway.sign("time", rig.identity.id, fields, seed)


def test_time_token_is_taken_once():
    rig = Rig()
    nonce = rig.session.want_time(1000)
    token = time_token(rig, nonce)
    assert rig.session.take_time(token, 61000) == 1_700_000_000
    refused(SessionError, "time-unasked", rig.session.take_time, token, 61000)


def test_time_token_for_another_nonce_or_too_late_is_refused():
    rig = Rig()
    refused(SessionError, "time-unasked", rig.session.take_time, time_token(rig, bytes(8)), 0)
    former = rig.session.want_time(0)
    nonce = rig.session.want_time(1000)
    assert former != nonce
    refused(SessionError, "time-nonce", rig.session.take_time, time_token(rig, former), 2000)
    token = time_token(rig, nonce)
    refused(SessionError, "time-late", rig.session.take_time, token, 61001)
    refused(
        CryptoError,
        "cose-sig",
        rig.session.take_time,
        time_token(rig, nonce, seed=b"\x09" * 32),
        2000,
    )
    wrong = time_token(rig, nonce, gateway="0" * 16)
    refused(SessionError, "time-gateway", rig.session.take_time, wrong, 2000)
    for fields in ([nonce, -1, rig.gateway.id], [nonce, 1, 1], [1, 1, rig.gateway.id], [], 1):
        bad = rig.gateway.sign("time", rig.identity.id, fields)
        refused(SessionError, "time-shape", rig.session.take_time, bad, 2000)
    assert rig.session.take_time(token, 2000) == 1_700_000_000


def test_welcome_is_no_time_token_nor_the_other_way_round():
    rig = Rig()
    hello = rig.hello()
    rig.session.want_time(0)
    welcome = rig.gateway.welcome(hello)
    refused(SessionError, "time-shape", rig.session.take_time, welcome, 0)
    token = time_token(rig, b"12345678")
    refused(SessionError, "welcome-shape", rig.session.take_welcome, token)


def test_window_agrees_with_a_set_of_all_numbers_taken():
    random = gateway_side.fixed_random(b"window")
    window = Window()
    taken = set()
    newest = 0
    for _ in range(3000):
        draw = random(3)
        number = max(0, newest - 280 + (draw[0] << 8 | draw[1]) % 300)
        if draw[2] < 3:
            number += 1000
        want = number > newest or (number > 0 and number > newest - 248 and number not in taken)
        assert window.fresh(number) == want, number
        if want:
            window.take(number)
            taken.add(number)
            newest = max(newest, number)
    assert window.newest == newest and len(taken) > 500


def test_payload_is_the_counter_then_the_body():
    rig = Rig().ready()
    message, epoch, seq = rig.session.seal("report", [{261: 5}])
    assert cbor.decode(cose.peek(message)[3]) == [epoch, seq, {261: 5}]
