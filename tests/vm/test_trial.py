# When an unconfirmed image is confirmed, rejected or neither.

from tidemark.trial import Trial


def judge():
    return Trial(3000, 9000, 16384)


def test_confirms_only_after_all_checks_held_without_a_gap():
    trial = judge()
    assert trial.step(1000, True, True, 50000, None) is None
    assert trial.step(3999, True, True, 50000, None) is None
    assert trial.step(4000, False, True, 50000, None) is None
    assert trial.step(4100, True, True, 50000, None) is None
    assert trial.step(7099, True, True, 50000, None) is None
    assert trial.step(7100, True, True, 50000, None) == ("confirm", "ok")


def test_no_acknowledgement_is_inconclusive_not_the_images_fault():
    trial = judge()
    assert trial.step(8999, True, False, 50000, None) is None
    assert trial.reason == "no-ack"
    assert trial.step(9000, True, False, 50000, None) == ("inconclusive", "no-ack")
    assert judge().step(9000, False, True, 50000, None) == ("inconclusive", "no-ack")


def test_low_heap_rejects_at_once():
    assert judge().step(10, False, False, 16383, None) == ("reject", "heap")


def test_applications_own_check_rejects_at_the_limit():
    trial = judge()
    assert trial.step(8999, True, True, 50000, "sensor") is None
    assert trial.step(9000, True, True, 50000, "sensor") == ("reject", "health")
