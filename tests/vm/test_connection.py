# Hello, acknowledgements, reports and time against a gateway that may be slow, deaf or new (I2).

from agent_board import Board, refused

import tidemark_board
from tidemark import cbor, claims, config, cose
from tidemark.errors import LinkError, SessionError, StateError


def test_says_hello_on_a_beacon_and_once():
    board = Board()
    assert board.link.topics == [
        "tm/1/gw/" + board.gateway.id + "/beacon",
        "tm/1/" + board.identity.id + "/down/+",
    ]
    board.steps(60)
    assert board.link.sent == []
    board.ready()
    board.beacon()
    board.gateway.nonce = b"nonce-02"
    board.beacon()
    board.steps(1000)
    assert board.link.count("hello") == 1


class Runtimes:
    def table(self):
        return [3, 1, 2, 0]


def test_hello_carries_the_claims():
    board = Board().ready()
    said = board.gateway.read_hello(board.link.sent[0][1])[9]
    assert said[claims.UEID][0] == 1 and len(said[claims.UEID]) == 17
    assert said[claims.HWMODEL] == tidemark_board.NAME.encode()
    assert said[claims.BOOTSEED] == board.session.boot_nonce
    assert said[claims.SLOTS] == [[0, 0, 0], [0, 0, 0]]
    assert said[claims.TRUST_MARKS] == [0, 0, 0, 0] and said[claims.FLOOR] == 0
    assert said[claims.RESET_CAUSE] == "power-on" and said[claims.MODE] == "normal"
    assert said[claims.IMAGE_DIGEST] == b""
    board.journal.raise_mark("root", 3, b"hash")
    board.journal.raise_mark("timestamp", 9, b"", b"12345678")
    said = claims.build(board)
    assert said[claims.TRUST_MARKS] == [3, 9, 0, 0]
    assert claims.TRIAL_TIMES not in said


def test_a_board_with_runtime_slots_tells_which_one_runs():
    board = Board()
    board.runtimes = Runtimes()
    board.ready()
    said = board.gateway.read_hello(board.link.sent[0][1])[9]
    assert said[claims.RUNTIME] == [3, 1, 2, 0]
    assert claims.RUNTIME not in claims.build(Board().ready())


def test_trial_times_that_are_not_the_fields_are_told_in_every_hello():
    board = Board()
    board.config = {config.TRIAL: [2, 6, 1]}
    board.ready()
    said = board.gateway.read_hello(board.link.sent[0][1])[9]
    assert said[claims.TRIAL_TIMES] == [2, 6, 1]


def test_repeats_an_unanswered_hello_ever_more_seldom():
    board = Board()
    board.deaf = True
    board.beacon()
    at = []
    for _ in range(20000):
        before = board.link.count("hello")
        board.steps(send=False)
        if board.link.count("hello") > before:
            at.append(board.now)
    gaps = [at[i + 1] - at[i] for i in range(len(at) - 1)]
    for gap, least in zip(gaps, (10000, 20000, 40000, 60000, 60000)):
        assert least <= gap <= least + 1040, gaps


def test_hello_is_said_although_the_port_refuses_randomness_for_its_pause():
    def silent(n):
        raise StateError("random-radio", "no random numbers while the radio is off")

    board = Board()
    board.port.random = silent
    board.beacon()
    board.steps(60)
    assert board.link.count("hello") == 1


def test_new_beacon_shortens_a_pause_that_grew():
    board = Board()
    board.deaf = True
    board.beacon()
    while board.link.count("hello") < 4:
        board.steps(send=False)
    # 40 s to go, but the gateway is back.
    board.steps(600, send=False)
    board.deaf = False
    board.gateway.nonce = b"nonce-02"
    board.beacon()
    board.steps(52, send=False)
    assert board.session.ready and board.link.count("hello") == 5


def test_answers_challenges_at_most_once_in_10_s():
    board = Board().ready()
    for _ in range(1500):
        board.challenge()
        board.steps(send=False)
    assert 3 <= board.link.count("hello") <= 4
    assert board.session.ready


def test_beacons_and_challenges_that_are_not_ours_are_noted_and_ignored():
    board = Board()
    for bad in (
        b"",
        b"\xff",
        cbor.encode([board.gateway.id, b"short"]),
        cbor.encode(["0" * 16, b"12345678"]),
        cbor.encode([board.gateway.id]),
        bytes(65),
    ):
        board.down("challenge", bad)
        board.down("welcome", bad)
        board.down("time", bad)
        board.down("ack", bad)
        board.down("command", bad)
        board.link.inbox.append(("tm/1/gw/" + board.gateway.id + "/beacon", bad))
        board.link.inbox.append(("tm/1/other/down/ack", bad))
    board.steps(200)
    assert board.link.sent == []
    assert len(board.records) == 6 * 6
    assert "kind-unsupported" in board.records and "beacon-gateway" in board.records


def test_new_session_hands_back_what_was_under_way():
    board = Board().ready()
    board.now = 12000  # past the pause between hellos
    board.deaf = True
    for _ in range(4):
        board.telemetry.sample()
    board.steps(10)
    assert not board.connection.idle and len(board.readings()) == 4
    board.deaf = False
    board.gateway.next_kid = b"\x06"
    board.challenge()
    # Shorter than the 10 s after which an acknowledgement counts as lost.
    board.steps(60, send=False)
    assert board.link.count("hello") == 2 and board.connection.idle
    board.steps(20)
    assert len(board.outbox) == 0
    assert sorted(set(found[2] for found in board.readings())) == [1, 2, 3, 4]


def test_new_link_hands_back_what_was_under_way():
    board = Board().ready()
    board.deaf = True
    board.telemetry.sample()
    board.steps(5)
    assert not board.connection.idle
    board.deaf = False
    board.link.connects += 1
    board.steps(5)
    assert len(board.outbox) == 0 and len(board.readings()) == 2


def test_nothing_is_sealed_while_the_link_is_down():
    board = Board().ready()
    board.link.state = "down"
    board.telemetry.sample()
    board.steps(50)
    refused(LinkError, "down", board.connection.send, "telemetry", [1])
    board.link.state = "up"
    board.steps(5)
    assert [fields[1] for _, fields in board.seen] == [1 << 2]


def test_messages_under_way_are_bounded():
    board = Board().ready()
    board.deaf = True
    got = []
    for n in range(32):
        board.connection.send("telemetry", [1, n, {1: n}], lambda token, _: got.append(token), n)
    assert board.connection.room == 0
    refused(
        SessionError, "in-flight-full", board.connection.send, "telemetry", [1], got.append, 0
    )
    board.now += 10001
    board.steps(20, send=False)
    assert sorted(got) == list(range(32)) and board.connection.idle


def test_each_message_gets_one_answer():
    board = Board().ready()
    answers = []
    board.connection.send("telemetry", [1, 1, {1: 1}], lambda token, acked: answers.append(acked))
    board.down("ack", board.gateway.ack(1, 1 << 2))
    board.steps(5, send=False)
    board.now += 20000
    board.steps(20, send=False)
    assert answers == [True]


def test_report_comes_at_once_then_at_its_interval():
    board = Board().ready()
    for _ in range(100):
        board.connection.report_when_due(1000)
        board.steps(send=False)
    assert board.link.count("report") == 2
    assert board.connection.reports_acked == 2 and board.connection.first_ack_ms is not None
    board.connection.report_soon()
    board.connection.report_when_due(1000)
    assert board.link.count("report") == 3
    report = next(message for kind, message in board.link.sent if kind == "report")
    assert cose.peek(report)[1] == cose.EDDSA


def test_lost_report_is_sent_again_and_counts_as_unacknowledged():
    board = Board().ready()
    board.deaf = True
    board.connection.report_when_due(60000)
    board.steps(100, send=False)
    board.connection.report_when_due(60000)
    assert board.link.count("report") == 1 and board.connection.reports_acked == 0
    board.now += 10000
    board.steps(20, send=False)
    board.connection.report_when_due(60000)
    assert board.link.count("report") == 2


def test_time_is_asked_for_in_a_report_and_given_once():
    board = Board().ready()
    connection = board.connection
    assert connection.take_time_token() is None
    connection.ask_time()
    connection.report_when_due(60000)
    said = board.seen[-1][1][2]
    fields = [said[claims.TIME_NONCE], 1_700_000_000, board.gateway.id]
    token = board.gateway.sign("time", board.identity.id, fields)
    board.down("time", token)
    board.down("time", token)
    board.steps(3, send=False)
    assert connection.take_time_token() == 1_700_000_000
    assert connection.take_time_token() is None
    # Asked for once: the next report does not.
    connection.report_soon()
    connection.report_when_due(60000)
    assert claims.TIME_NONCE not in board.seen[-1][1][2]


def test_question_for_the_time_in_a_lost_report_is_asked_again():
    board = Board().ready()
    board.deaf = True
    board.connection.ask_time()
    nonces = set()
    for _ in range(2):
        board.connection.report_when_due(60000)
        nonces.add(board.seen[-1][1][2][claims.TIME_NONCE])
        board.now += 10001
        board.steps(20, send=False)
    assert len(nonces) == 2


def test_failed_report_is_not_signed_again_at_once():
    board = Board().ready()
    signed = []
    sign = board.identity.sign
    board.identity.sign = lambda message: signed.append(1) or sign(message)
    board.link.fails = 1000
    for _ in range(100):
        board.connection.report_when_due(60000)
        board.steps(send=False)
    assert 2 <= len(signed) <= 3 and "timeout" in board.records


def test_worn_journal_leaves_marks_out_of_the_claims():
    board = Board()

    def worn(key):
        raise StateError("journal-worn")

    board.journal.affirm = worn
    board.ready()
    said = board.gateway.read_hello(board.link.sent[0][1])[9]
    assert said[claims.HEALTH] == "journal" and claims.FLOOR not in said


def test_counter_that_promises_nothing_says_nothing():
    board = Board()

    def worn():
        raise StateError("counter-worn")

    board.counter.open_epoch = worn
    board.beacon()
    board.telemetry.sample()
    board.steps(200)
    assert board.link.sent == [] and board.records.count("counter-worn") == 1
    assert board.telemetry.complaint() == "outbox"
