# Which target is this board's next release, and what a target must say of itself.

import hashlib

from tidemark.errors import TrustError
from tidemark.target import app_path, choose, in_cohort, index_of, is_aborted, parse_app

ID = "0123456789abcdef"


def entry(index, board="VIRTUAL", **change):
    custom = {"board": board, "kind": "app", "index": index, "version": "1.0.%d" % index}
    custom.update({"attempt": 0, "min_runtime": 1, "cohort": 100, "abort": False})
    custom.update(change)
    digest = hashlib.sha256(b"%d" % index).digest()
    return {"length": 5000, "hashes": {"sha256": digest.hex()}, "custom": custom}


def targets(*entries):
    return {app_path(e["custom"]["board"], e["custom"]["index"]): e for e in entries}


def code_of(path, bad, runtime=1):
    try:
        parse_app(path, bad, "VIRTUAL", runtime)
    except TrustError as error:
        return error.code
    return "taken"


def test_highest_index_of_the_own_board_is_chosen():
    offered = targets(entry(9), entry(10), entry(2), entry(77, "PICO"))
    found = choose([offered], "VIRTUAL", ID, 1)
    assert found[0] == "VIRTUAL/app-10.romfs"
    release = found[1]
    assert release.index == 10 and release.version == "1.0.10" and release.length == 5000
    assert release.digest == hashlib.sha256(b"10").digest()


def test_nothing_for_this_board_is_none():
    assert choose([{}], "VIRTUAL", ID, 1) is None
    assert choose([targets(entry(1, "PICO"))], "VIRTUAL", ID, 1) is None
    assert choose([{"VIRTUAL/app-x.romfs": {}, "other": {}}], "VIRTUAL", ID, 1) is None


def test_aborted_release_gives_way_to_the_one_before():
    offered = targets(entry(1), entry(2, abort=True))
    assert choose([offered], "VIRTUAL", ID, 1)[1].index == 1
    assert is_aborted(offered[app_path("VIRTUAL", 2)])
    assert not is_aborted(offered[app_path("VIRTUAL", 1)])


def test_device_outside_the_cohort_stays_with_the_release_before():
    offered = targets(entry(1), entry(2, cohort=0))
    assert choose([offered], "VIRTUAL", ID, 1)[1].index == 1


def test_cohort_is_drawn_anew_by_each_release_and_counts_in_percent():
    digest = bytes(32)
    drawn = hashlib.sha256(digest + ID.encode()).digest()
    number = (drawn[0] << 24 | drawn[1] << 16 | drawn[2] << 8 | drawn[3]) % 100
    assert not in_cohort(digest, ID, number)
    assert in_cohort(digest, ID, number + 1)
    assert in_cohort(digest, ID, 100)
    fleet = ["%016x" % i for i in range(1000)]
    for seed in (b"a", b"b"):
        members = len([one for one in fleet if in_cohort(hashlib.sha256(seed).digest(), one, 20)])
        assert 150 < members < 250


def test_target_for_another_board_or_kind_is_refused():
    path = app_path("VIRTUAL", 3)
    assert code_of(path, entry(3, "PICO")) == "wrong-board"
    assert code_of(path, entry(3, kind="runtime")) == "wrong-kind"
    assert code_of(path, entry(4)) == "wrong-index"
    assert code_of(path, entry(3), 0) == "runtime-too-old"
    assert code_of(path, entry(3)) == "taken"


def test_refused_target_is_not_passed_over_for_an_older_one():
    offered = targets(entry(1))
    offered[app_path("VIRTUAL", 2)] = entry(2, "PICO")
    try:
        choose([offered], "VIRTUAL", ID, 1)
        assert False, "an owner's mistake went unseen"
    except TrustError as error:
        assert error.code == "wrong-board"


def test_malformed_custom_is_refused():
    path = app_path("VIRTUAL", 3)
    changes = (
        {"index": 0}, {"index": True}, {"index": "3"}, {"index": 1 << 32}, {"attempt": -1},
        {"attempt": 65536}, {"attempt": None}, {"version": ""}, {"version": 3},
        {"version": "x" * 25}, {"version": "a b"}, {"version": "\u00e9"}, {"cohort": 101},
        {"cohort": -1}, {"cohort": 50.5}, {"abort": 1}, {"min_runtime": "1"},
    )  # fmt: skip
    for change in changes:
        bad = entry(3)
        bad["custom"].update(change)
        assert code_of(path, bad) == "target-shape", change
    for custom in (None, [], "x"):
        bad = entry(3)
        bad["custom"] = custom
        assert code_of(path, bad) == "target-shape"
    bad = entry(3)
    bad["hashes"] = {"sha512": "00" * 64}
    assert code_of(path, bad) == "target-shape"
    bad = entry(3)
    bad["length"] = 0
    assert code_of(path, bad) == "target-shape"


def test_index_has_one_spelling():
    assert index_of("VIRTUAL", "VIRTUAL/app-12.romfs") == 12
    for number in ("012", "0", "", "-1", "1 ", "12345678901", "1a"):
        assert index_of("VIRTUAL", "VIRTUAL/app-%s.romfs" % number) is None
    for name in ("x-1", "APP-1", "app"):
        assert index_of("VIRTUAL", "VIRTUAL/%s.romfs" % name) is None
    assert index_of("VIRTUAL", "VIRTUALLY/app-1.romfs") is None


def test_board_of_a_cohort_takes_the_newest_of_both_lists():
    fleet = targets(entry(4), entry(6))
    canary = {app_path("VIRTUAL", i, "canary"): entry(i) for i in (5, 7)}
    path, release = choose([fleet, canary], "VIRTUAL", ID, 1, "canary")
    assert path == "canary/VIRTUAL/app-7.romfs" and release.index == 7
    assert choose([fleet, {}], "VIRTUAL", ID, 1, "canary")[1].index == 6
    # Of one index the fleet's entry stands.
    fleet.update(targets(entry(7)))
    assert choose([fleet, canary], "VIRTUAL", ID, 1, "canary")[0] == "VIRTUAL/app-7.romfs"


def test_releases_of_another_cohort_are_not_seen():
    offered = targets(entry(4))
    offered["canary/VIRTUAL/app-9.romfs"] = entry(9)
    offered["beta/VIRTUAL/app-8.romfs"] = entry(8)
    assert choose([offered], "VIRTUAL", ID, 1)[1].index == 4
    assert choose([offered], "VIRTUAL", ID, 1, "beta")[1].index == 8
    assert code_of("canary/VIRTUAL/app-9.romfs", entry(9)) == "wrong-index"
