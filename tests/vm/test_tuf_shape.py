# What TUF metadata may look like: shapes, sizes, times, fields nobody knows.

from tuf_maker import NOW, Board, Maker, refused

from tidemark import canonjson
from tidemark.errors import TrustError
from tidemark.tuf import Limits, TrustedSet, parse_time


def test_unknown_fields_are_kept_under_the_signature():
    maker = Maker()
    maker.extra["root"] = {"x-note": {"a": [1, None, True, "\u00e9"]}}
    maker.extra["targets"] = {"x-note": "\"\\"}
    maker.publish("root", "targets", "snapshot", "timestamp")
    assert Board(maker).refresh() == "ok"


def test_oversized_metadata_is_refused_by_the_core_as_well():
    board = TrustedSet(Limits(), NOW)
    try:
        board.load_root(b" " * 8193)
        assert False, "taken"
    except TrustError as error:
        assert error.code == "metadata-size"


def test_malformed_metadata_has_a_code_and_changes_nothing():
    maker = Maker()
    board = Board(maker)
    board.refresh()
    good = canonjson.loads(maker.files["timestamp.json"], 9999)

    def broken(change):
        maker.versions["timestamp"] = 2
        signed = maker.make("timestamp")
        change(signed)
        maker.sign("timestamp", signed)
        before = board.state()
        code = board.refresh()
        assert board.state() == before
        return code

    assert broken(lambda s: s.pop("version")) == "metadata-shape"
    for version in (0, -1, True, "2", None, 1 << 54):
        try:
            assert broken(lambda s: s.update({"version": version})) in (
                "metadata-shape",
                "metadata-json",
            )
        except AssertionError:
            raise AssertionError("version %r" % (version,))
    assert broken(lambda s: s.pop("meta")) == "metadata-shape"
    assert broken(lambda s: s.update({"meta": {}})) == "metadata-shape"
    assert broken(lambda s: s.update({"meta": {"snapshot.json": {}}})) == "metadata-shape"
    assert broken(lambda s: s.update({"_type": "snapshot"})) == "metadata-type"
    assert broken(lambda s: s.update({"spec_version": "2.0.0"})) == "spec-version"
    assert broken(lambda s: s.update({"expires": "tomorrow"})) == "metadata-time"
    # Before any signature is checked: whoever serves the file can write this.
    twenty = {"%d" % i: 1 for i in range(20)}
    assert broken(lambda s: s.update({"expires": twenty})) == "metadata-time"
    assert broken(lambda s: s.update({"issued": twenty})) == "metadata-time"
    bad_hash = {"snapshot.json": {"version": 1, "hashes": {"sha256": "00"}}}
    assert broken(lambda s: s.update({"meta": bad_hash})) == "metadata-shape"
    for data in (b"", b"{}", b"[]", b"null", b"{", b"\xff", b'{"signed":1,"signatures":[]}'):
        maker.files["timestamp.json"] = data
        before = board.state()
        assert board.refresh() in ("metadata-shape", "metadata-json")
        assert board.state() == before
    for signatures in (None, 1, [1], [{}], [{"keyid": 1, "sig": ""}], [{}] * 40):
        good["signatures"] = signatures
        maker.put("timestamp.json", good)
        refused(board, "metadata-shape")


def test_issued_that_no_expiry_covers_is_refused():
    for issued in ("2030-01-01T00:00:00Z", 17, "now"):
        maker = Maker()
        board = Board(maker)
        maker.extra["root"] = {"issued": issued}
        maker.publish("root")
        refused(board, "metadata-time")


def test_times_are_read_strictly():
    assert parse_time("1970-01-01T00:00:00Z") == 0
    assert parse_time("2000-02-29T12:34:56Z") == 951827696
    assert parse_time("2027-01-15T08:00:00Z") == NOW
    assert parse_time("2100-03-01T00:00:00Z") == 4107542400
    for text in (
        "2027-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-00-01T00:00:00Z",
        "2027-04-31T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:60:00Z",
        "2027-01-01T00:00:60Z",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00:00z",
        "2027-01-01 00:00:00Z",
        "+027-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "",
        None,
        5,
        ["2"] * 20,
        {"%d" % i: 1 for i in range(20)},
    ):
        try:
            parse_time(text)
            assert False, text
        except TrustError as error:
            assert error.code == "metadata-time"
