# Readings from sensor to gateway over real flash state: none lost, none sealed twice (I1, I2).

from agent_board import Board, refused

import nor
import tidemark_board
from agent.health import Checks
from agent.telemetry import Telemetry
from tidemark.errors import ConfigError


def test_readings_arrive_once_each_in_order_and_leave_the_outbox():
    board = Board().ready()
    for _ in range(50):
        board.telemetry.sample()
        board.steps()
    board.steps(50)
    assert board.readings() == [("telemetry", 1, n, n) for n in range(1, 51)]
    assert len(board.outbox) == 0 and board.connection.idle
    assert board.connection.last_ack_ms is not None


def test_readings_of_former_boots_go_as_backlog_after_live_ones():
    first = Board()
    for _ in range(20):
        first.telemetry.sample()
    board = Board(first.flash).ready()
    for _ in range(5):
        board.telemetry.sample()
    board.steps(100)
    live = [found for found in board.readings() if found[0] == "telemetry"]
    backlog = [found for found in board.readings() if found[0] == "backlog"]
    assert live == [("telemetry", 2, n, n) for n in range(1, 6)]
    assert backlog == [("backlog", 1, n, n) for n in range(1, 21)]
    assert board.readings()[0][0] == "telemetry"
    assert len(board.outbox) == 0


def test_unacknowledged_readings_are_sealed_again_under_new_counters():
    board = Board().ready()
    board.deaf = True
    for _ in range(10):
        board.telemetry.sample()
    board.steps(100)
    assert len(board.readings()) == 10
    board.steps(600)
    # A gateway that does not answer gets one at a time.
    assert 11 <= len(board.readings()) <= 12
    board.deaf = False
    board.steps(1200)
    counters = [tuple(fields[:2]) for kind, fields in board.seen]
    assert len(set(counters)) == len(counters)
    assert sorted(set(found[2] for found in board.readings())) == list(range(1, 11))
    assert len(board.outbox) == 0


def test_lane_runs_no_further_ahead_than_the_gateway_can_tell_copies_apart():
    board = Board().ready()
    answer = board.link.answer

    def lose_the_first_ack(kind, message):
        board.deaf = not board.seen
        answer(kind, message)
        board.deaf = False

    board.link.answer = lose_the_first_ack
    for _ in range(600):
        board.telemetry.sample()
        board.steps(1, 5)
    # The gateway's window of 1,024 readings still holds the first one, whose ack was lost.
    assert [found[2] for found in board.readings()] == list(range(1, 513))
    board.steps(600)
    assert sorted(found[2] for found in board.readings()) == [1] + list(range(1, 601))
    assert len(board.outbox) == 0


def test_failed_publish_is_sent_again():
    board = Board().ready()
    board.link.fails = 1
    for _ in range(3):
        board.telemetry.sample()
    board.steps(10)
    assert [found[2] for found in board.readings()] == [1, 2, 3]
    seqs = [fields[1] for _, fields in board.seen]
    assert seqs == sorted(set(seqs)) and seqs[0] == 2 << 2


def test_sampling_stops_at_the_set_number():
    board = Board()
    board.telemetry = Telemetry(board, [board.sensor], 3)
    for _ in range(5):
        board.telemetry.sample()
    assert len(board.outbox) == 3


def test_broken_sensor_is_a_complaint_not_a_crash():
    board = Board()
    board.sensor.broken = True
    board.telemetry.sample()
    assert board.telemetry.complaint() == "sensors" and len(board.outbox) == 0
    board.sensor.broken = False
    board.telemetry.sample()
    assert board.telemetry.complaint() is None and len(board.outbox) == 1


def test_worn_flash_is_no_complaint_about_the_image():
    board = Board()
    board.sensor.broken = True
    board.telemetry.sample()
    board.sensor.broken = False
    start, size = tidemark_board.REGIONS["outbox"]
    for at in range(start, start + size, board.flash.sector):
        board.flash.fail(at // board.flash.sector, nor.NO_PROGRAM)
    for _ in range(3):
        board.telemetry.sample()
    assert board.records.count("outbox-worn") == 1 and len(board.outbox) == 0
    assert board.outbox.dropped >= 3
    # The sensors gave what they should: the trial of an image is decided by all else.
    assert board.telemetry.complaint() is None


def test_reading_too_large_to_be_stored_is_a_complaint():
    board = Board()
    board.sensor.read = lambda: bytes(300)
    board.telemetry.sample()
    assert board.telemetry.complaint() == "sensors"


def test_stored_reading_that_cannot_be_sent_does_not_hold_up_the_rest():
    board = Board().ready()
    board.outbox.add(1, 100, b"\xff")
    board.telemetry.sample()
    board.steps(10)
    assert len(board.readings()) == 1 and len(board.outbox) == 0


def test_health_names_the_first_complaint():
    checks = Checks()
    assert checks.reason() is None
    checks.add(lambda: None)
    checks.add(lambda: "second")
    checks.add(lambda: "third")
    assert checks.reason() == "second"
    for _ in range(13):
        checks.add(lambda: None)
    refused(ConfigError, "checks", checks.add, lambda: None)


def test_app_gives_tasks_that_store_and_send():
    from agent import app

    board = Board().ready()
    board.settings = {"period_ms": 5, "readings_max": 0}
    tasks = app.tasks(board)
    assert [task.name for task in tasks] == ["sample", "send"]
    for task in tasks:
        task.step()
    board.steps(3, send=False)
    assert app.health(board) is None
    kind, fields = board.seen[-1]
    assert kind == "telemetry" and fields[2:] == [1, 1, {1: 1, 2: 20.0}]
