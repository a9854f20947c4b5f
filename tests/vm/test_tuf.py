# The TUF client against a repository in memory: what it takes, what it refuses, what it keeps.

import hashlib

from tuf_maker import EXPIRES, LONG_AGO, NOW, Board, Maker, key, refused

from tidemark import canonjson
from tidemark.errors import TrustError
from tidemark.tuf import Limits, parse_time


def test_fresh_board_takes_a_repository_and_keeps_its_files_byte_for_byte():
    maker = Maker()
    board = Board(maker)
    assert board.refresh() == "ok"
    assert maker.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert board.store.files == {
        "timestamp": maker.files["timestamp.json"],
        "snapshot": maker.files["1.snapshot.json"],
        "targets": maker.files["1.targets.json"],
    }


def test_unchanged_repository_costs_two_requests_and_no_write():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.asked.clear()
    operations = board.flash.operations
    assert board.refresh() == "ok"
    assert maker.asked == ["2.root.json", "timestamp.json"]
    assert board.flash.operations == operations


def test_repository_without_consistent_snapshots_has_plain_names():
    maker = Maker(consistent=False)
    board = Board(maker)
    assert board.refresh() == "ok"
    assert maker.asked[2:] == ["snapshot.json", "targets.json"]


def test_root_chain_is_walked_and_the_newest_root_kept():
    maker = Maker()
    board = Board(maker)
    maker.rotate("root", "root-a")
    maker.rotate("root", "root-b", "root-c")
    assert board.refresh() == "ok"
    assert board.versions()[0] == 3
    assert board.store.files["root"] == maker.files["3.root.json"]
    digest = hashlib.sha256(maker.files["3.root.json"]).digest()
    assert board.journal.mark("root") == (3, digest)


def test_root_that_the_former_keys_did_not_sign_is_refused():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.keys["root"] = [key("thief")]
    maker.publish("root")
    refused(board, "root-threshold")


def test_root_that_its_own_keys_did_not_sign_is_refused():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    old = maker.keys["root"]
    maker.keys["root"] = [key("root-a")]
    maker.versions["root"] = 2
    maker.sign("root", maker.make("root"), old)
    refused(board, "root-threshold")


def test_root_that_skips_a_version_is_refused():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.versions["root"] = 3
    maker.sign("root", maker.make("root"), None, "2.root.json")
    refused(board, "root-version")


def test_two_root_keys_must_both_sign_when_the_threshold_is_two():
    maker = Maker()
    maker.keys["root"] = [key("root"), key("root-2"), key("root-3")]
    maker.thresholds["root"] = 2
    maker.publish("root")
    board = Board(maker)
    assert board.refresh() == "ok"
    maker.versions["root"] += 1
    maker.sign("root", maker.make("root"), [key("root-2")])
    refused(board, "root-threshold")
    maker.sign("root", maker.make("root"), [key("root-2"), key("root-3")])
    assert board.refresh() == "ok"


def test_number_of_roots_in_one_run_is_bounded_and_the_next_run_goes_on():
    maker = Maker()
    board = Board(maker)
    board.client.limits = limits = Limits()
    limits.root_files = 2
    for _ in range(3):
        maker.publish("root")
    assert board.refresh() == "ok"
    assert board.versions()[0] == 3
    assert board.refresh() == "ok"
    assert board.versions()[0] == 4


def test_expired_root_ends_the_run_but_not_the_walk():
    maker = Maker()
    board = Board(maker)
    maker.expires["root"] = LONG_AGO
    maker.publish("root")
    assert board.refresh() == "root-expired"
    maker.expires["root"] = "2028-01-01T00:00:00Z"
    maker.publish("root")
    assert board.refresh() == "ok"
    assert board.versions()[0] == 3


def test_lost_root_file_is_walked_again_from_the_provisioned_one():
    maker = Maker()
    board = Board(maker)
    maker.publish("root")
    maker.publish("root")
    board.refresh()
    del board.store.files["root"]
    board.restart()
    assert board.refresh() == "ok"
    assert board.store.files["root"] == maker.files["3.root.json"]


def test_chain_that_ends_below_the_mark_is_refused():
    maker = Maker()
    board = Board(maker)
    maker.publish("root")
    maker.publish("root")
    board.refresh()
    del board.store.files["root"]
    del maker.files["3.root.json"]
    refused(board, "root-rollback")


def test_root_file_that_does_not_match_its_mark_is_not_trusted():
    maker = Maker()
    board = Board(maker)
    thief = Maker()
    thief.keys = {role: [key("thief")] for role in thief.keys}
    thief.publish("root", "targets", "snapshot", "timestamp")
    maker.publish("root")
    board.refresh()
    board.store.files["root"] = thief.files["2.root.json"]
    board.restart()
    assert board.refresh() == "ok"
    assert board.store.files["root"] == maker.files["2.root.json"]


def test_provisioned_root_must_verify_by_itself():
    maker = Maker()
    document = canonjson.loads(maker.files["1.root.json"], 9999)
    document["signatures"][0]["sig"] = "00" * 64
    board = Board(maker, canonjson.encode(document))
    assert board.refresh() == "root-threshold"
    assert maker.asked == []


def test_role_signed_by_a_wrong_key_is_refused():
    for role in ("timestamp", "snapshot", "targets"):
        maker = Maker()
        board = Board(maker)
        board.refresh()
        maker.with_hashes = False
        order = ("targets", "snapshot", "timestamp")
        for one in order[order.index(role) :]:
            maker.versions[one] += 1
            maker.sign(one, maker.make(one), [key("thief")] if one == role else None)
        assert board.refresh() == role + "-threshold"
        assert board.store.files[role] == FIRST[role]


def test_duplicated_signature_is_refused():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.publish("timestamp")
    document = canonjson.loads(maker.files["timestamp.json"], 9999)
    document["signatures"].append(document["signatures"][0])
    maker.put("timestamp.json", document)
    refused(board, "signature-twice")


def test_one_key_under_two_ids_counts_once():
    maker = Maker()
    maker.thresholds["timestamp"] = 2
    twin = key("timestamp")
    alias = type(twin)("timestamp")
    alias.id = "f" * 64
    maker.keys["timestamp"] = [twin, alias]
    maker.publish("root", "timestamp")
    assert Board(maker).refresh() == "timestamp-threshold"


def test_keys_of_unknown_scheme_are_passed_over():
    maker = Maker()
    strange = type(key("x"))("strange", "sphincs-9")
    maker.keys["timestamp"] = [strange, key("timestamp")]
    maker.publish("root", "timestamp")
    assert Board(maker).refresh() == "ok"
    maker.thresholds["timestamp"] = 2
    maker.publish("root", "timestamp")
    assert Board(maker).refresh() == "timestamp-threshold"


def test_older_timestamp_is_refused():
    maker = Maker()
    board = Board(maker)
    old = maker.files["timestamp.json"]
    maker.publish("timestamp")
    board.refresh()
    maker.files["timestamp.json"] = old
    refused(board, "timestamp-rollback")


def test_marks_hold_when_the_files_are_lost():
    maker = Maker()
    board = Board(maker)
    old = dict(maker.files)
    maker.publish("targets", "snapshot", "timestamp")
    board.refresh()
    board.store.files.clear()
    board.restart()
    maker.files["timestamp.json"] = old["timestamp.json"]
    refused(board, "timestamp-rollback")
    maker.versions["timestamp"] = 9
    maker.versions["snapshot"] = 1
    maker.sign("timestamp", maker.make("timestamp"))
    refused(board, "snapshot-rollback")
    maker.versions["snapshot"] = 9
    maker.versions["targets"] = 1
    maker.publish("snapshot", "timestamp")
    assert board.refresh() == "targets-rollback"


def test_timestamp_of_the_same_version_changes_nothing():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    kept = board.state()
    maker.versions["snapshot"] = 50
    maker.with_hashes = False
    maker.publish("timestamp", bump=False)
    assert board.refresh() == "ok"
    assert board.state() == kept


def test_timestamp_that_promises_an_older_snapshot_is_refused():
    maker = Maker()
    board = Board(maker)
    maker.publish("snapshot", "timestamp")
    board.refresh()
    maker.versions["snapshot"] = 1
    maker.publish("timestamp")
    refused(board, "snapshot-rollback")


def test_expired_roles_are_refused():
    for role in ("timestamp", "snapshot", "targets"):
        maker = Maker()
        board = Board(maker)
        board.refresh()
        maker.expires[role] = LONG_AGO
        maker.publish("targets", "snapshot", "timestamp")
        assert board.refresh() == role + "-expired"
        assert board.store.files[role] == FIRST[role]


def test_frozen_repository_is_noticed_when_the_timestamp_expires():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    refused(board, "root-expired", parse_time("2027-07-01T00:00:00Z"))
    maker.expires["root"] = "2029-01-01T00:00:00Z"
    maker.publish("root")
    assert board.refresh(parse_time("2027-07-01T00:00:00Z")) == "timestamp-expired"


def test_snapshot_of_another_moment_is_refused():
    # Mix and match: each file is genuine, together they never were a repository.
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.publish("targets", "snapshot", "timestamp")
    maker.files["2.snapshot.json"] = maker.files["1.snapshot.json"]
    assert board.refresh() == "snapshot-hash"
    maker.with_hashes = False
    maker.publish("timestamp")
    assert board.refresh() == "snapshot-version"
    assert board.store.files["snapshot"] == FIRST["snapshot"]


def test_targets_of_another_moment_are_refused():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.publish("targets", "snapshot", "timestamp")
    maker.files["2.targets.json"] = maker.files["1.targets.json"]
    assert board.refresh() == "targets-hash"
    maker.with_hashes = False
    maker.publish("snapshot", "timestamp")
    assert board.refresh() == "targets-version"
    assert board.store.files["targets"] == FIRST["targets"]


def test_snapshot_that_drops_or_rolls_back_a_role_is_refused():
    maker = Maker()
    board = Board(maker)
    maker.publish("targets")
    maker.versions["snapshot"] = 2
    signed = maker.make("snapshot")
    signed["meta"]["extra.json"] = {"version": 3}
    maker.sign("snapshot", signed)
    maker.publish("timestamp")
    assert board.refresh() == "ok"
    maker.publish("snapshot", "timestamp")
    assert board.refresh() == "snapshot-removed"
    maker.versions["snapshot"] = 4
    signed["version"] = 4
    signed["meta"]["extra.json"] = {"version": 2}
    maker.sign("snapshot", signed)
    maker.publish("timestamp")
    assert board.refresh() == "targets-rollback"


def test_stored_snapshot_with_another_hash_is_fetched_again():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    document = canonjson.loads(maker.files["1.snapshot.json"], 9999)
    board.store.files["snapshot"] = canonjson.encode(document) + b"\n"
    assert board.refresh() == "ok"
    assert board.store.files["snapshot"] == maker.files["1.snapshot.json"]


def test_fast_forwarded_versions_recover_when_keys_are_rotated():
    for role in ("timestamp", "snapshot"):
        maker = Maker()
        board = Board(maker)
        for one in ("targets", "snapshot", "timestamp"):
            maker.versions[one] = 1000000
        maker.publish("targets", "snapshot", "timestamp")
        assert board.refresh() == "ok"
        for one in ("targets", "snapshot", "timestamp"):
            maker.versions[one] = 1
        maker.publish("targets", "snapshot", "timestamp")
        assert board.refresh() == "timestamp-rollback"
        maker.rotate(role, role + "-new")
        maker.publish("targets", "snapshot", "timestamp")
        assert board.refresh() == "ok"
        assert board.versions()[1:] == [3, 3, 3]
        board.restart()
        assert board.refresh() == "ok"


def test_other_rotations_do_not_lower_the_marks():
    maker = Maker()
    board = Board(maker)
    old = maker.files["timestamp.json"]
    maker.publish("timestamp")
    board.refresh()
    maker.rotate("targets", "targets-new")
    maker.rotate("root", "root-new")
    maker.files["timestamp.json"] = old
    assert board.refresh() == "timestamp-rollback"


def test_endless_data_is_cut_off():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    maker.files["timestamp.json"] = b" " * 1000000
    refused(board, "too-large")
    maker.files["2.root.json"] = b"[" * 1000000
    refused(board, "too-large")


def test_missing_roles_are_refused():
    for name, code in (
        ("timestamp.json", "timestamp-missing"),
        ("1.snapshot.json", "snapshot-missing"),
        ("1.targets.json", "targets-missing"),
    ):
        maker = Maker()
        del maker.files[name]
        assert Board(maker).refresh() == code


def test_without_time_only_the_root_chain_is_walked():
    maker = Maker()
    board = Board(maker)
    maker.publish("root")
    assert board.refresh(None) == "no-time"
    assert maker.asked == ["2.root.json", "3.root.json"]
    assert list(board.store.files) == ["root"]
    assert board.journal.mark("root")[0] == 2


def test_floor_of_time_rises_from_offline_roles_only():
    maker = Maker()
    maker.extra["root"] = {"issued": "2027-01-02T00:00:00Z"}
    maker.extra["targets"] = {"issued": "2027-01-03T00:00:00Z"}
    maker.extra["timestamp"] = {"issued": "2027-05-03T00:00:00Z"}
    maker.publish("root", "targets", "snapshot", "timestamp")
    board = Board(maker)
    assert board.refresh() == "ok"
    assert board.journal.mark("time")[0] == parse_time("2027-01-03T00:00:00Z")


def test_clock_that_is_turned_back_meets_the_floor_of_time():
    maker = Maker()
    maker.extra["targets"] = {"issued": "2027-05-01T00:00:00Z"}
    maker.publish("targets", "snapshot", "timestamp")
    board = Board(maker)
    assert board.refresh(parse_time("2027-05-02T00:00:00Z")) == "ok"
    assert board.journal.mark("time")[0] == parse_time("2027-05-01T00:00:00Z")
    maker.expires["timestamp"] = "2027-04-30T00:00:00Z"
    maker.publish("timestamp")
    assert board.refresh(NOW) == "timestamp-expired"


def test_stolen_targets_key_can_not_move_the_floor_of_time_ahead():
    maker = Maker()
    board = Board(maker)
    maker.extra["targets"] = {"issued": "9999-01-01T00:00:00Z"}
    maker.expires["targets"] = "9999-12-31T00:00:00Z"
    maker.publish("targets", "snapshot", "timestamp")
    assert board.refresh() == "ok"
    assert board.journal.mark("time")[0] == NOW
    maker.rotate("targets", "fresh")
    maker.extra["targets"] = {}
    maker.expires["targets"] = EXPIRES
    maker.publish("targets", "snapshot", "timestamp")
    assert board.refresh() == "ok"


def test_factory_metadata_verifies_without_network_and_time():
    maker = Maker()
    board = Board(maker)
    for role in ("timestamp", "snapshot", "targets"):
        board.store.files[role] = maker.files[maker.name(role)]
    board.client.load_stored()
    assert board.versions() == [1, 1, 1, 1]
    assert maker.asked == []
    board.store.files["targets"] += b" "
    try:
        board.client.load_stored()
        assert False, "taken"
    except TrustError as error:
        assert error.code == "targets-length"


FIRST = {role: Maker().files[name] for role, name in (
    ("timestamp", "timestamp.json"),
    ("snapshot", "1.snapshot.json"),
    ("targets", "1.targets.json"),
)}  # fmt: skip
