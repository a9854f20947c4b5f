# Steps of the specification's section 5 one by one, where a later check would hide their absence;
# and power cuts between any two writes of a run.

from tuf_maker import LONG_AGO, NOW, Board, Maker, MemoryStore

from nor import AFTER, BEFORE, TORN, PowerCut
from tidemark.errors import TrustError
from tidemark.tuf import TrustedSet
from tidemark.tuf_client import Client


def code_of(step, *arguments):
    try:
        step(*arguments)
    except TrustError as error:
        return error.code
    return "ok"


def trusting(maker, now=NOW):
    """A set without marks that has the first root."""
    trusted = TrustedSet(now=now)
    trusted.load_root(maker.files["1.root.json"])
    return trusted


def test_trusted_timestamp_is_a_floor_without_any_mark():
    maker = Maker()
    first = maker.files["timestamp.json"]
    maker.publish("snapshot", "timestamp")
    trusted = trusting(maker)
    trusted.update_timestamp(maker.files["timestamp.json"])
    assert code_of(trusted.update_timestamp, first) == "timestamp-rollback"
    maker.versions["snapshot"] = 1
    maker.publish("timestamp")
    assert code_of(trusted.update_timestamp, maker.files["timestamp.json"]) == "snapshot-rollback"
    assert trusted.timestamp.version == 2


def test_intermediate_root_may_be_expired():
    maker = Maker()
    board = Board(maker)
    maker.expires["root"] = LONG_AGO
    maker.publish("root")
    maker.expires["root"] = "2028-01-01T00:00:00Z"
    maker.publish("root")
    assert board.refresh() == "ok"
    assert board.client.trusted.root.version == 3


def test_stored_role_counts_only_as_far_as_it_still_verifies():
    maker = Maker()
    for role in ("timestamp", "snapshot", "targets"):
        board = Board(maker)
        board.refresh()
        board.store.files[role] = board.store.files[role].replace(b'"sig":"', b'"sig":"00')
        assert board.refresh() == "ok"
        assert board.store.files[role] == maker.files[maker.name(role)]


def test_stored_timestamp_that_has_expired_vouches_for_nothing():
    maker = Maker()
    trusted = trusting(maker)
    assert trusted.update_timestamp(maker.files["timestamp.json"], True)
    trusted.now = trusted.timestamp.expires
    snapshot = maker.files["1.snapshot.json"]
    assert code_of(trusted.update_snapshot, snapshot) == "timestamp-expired"
    assert trusted.snapshot is None


def test_no_more_is_asked_for_than_was_promised():
    maker = Maker()
    sizes = {}

    def fetch(name, max_size):
        sizes[name] = max_size
        yield
        return maker.files.get(name)

    board = Board(maker)
    client = Client(MemoryStore(), board.journal, fetch, board.provisioned)
    for _ in client.refresh(NOW):
        pass
    limits = client.limits
    assert sizes == {
        "2.root.json": limits.root_size,
        "timestamp.json": limits.timestamp_size,
        "1.snapshot.json": len(maker.files["1.snapshot.json"]),
        "1.targets.json": len(maker.files["1.targets.json"]),
    }


def test_wrong_length_is_refused_though_the_hash_is_not_there():
    maker = Maker()
    maker.with_hashes = False
    maker.publish("targets")
    size = len(maker.files["2.targets.json"])
    for length, code in ((size, "ok"), (size + 1, "targets-length")):
        snapshot = maker.make("snapshot")
        snapshot["meta"]["targets.json"]["length"] = length
        maker.versions["snapshot"] += 1
        snapshot["version"] = maker.versions["snapshot"]
        maker.sign("snapshot", snapshot)
        maker.publish("timestamp")
        assert Board(maker).refresh() == code


def test_length_and_hashes_of_null_are_none_at_all():
    maker = Maker()
    timestamp = maker.make("timestamp")
    timestamp["meta"]["snapshot.json"].update({"length": None, "hashes": None})
    timestamp["version"] = 2
    maker.sign("timestamp", timestamp)
    assert Board(maker).refresh() == "ok"


def test_stored_snapshot_that_has_expired_is_still_a_floor():
    maker = Maker()
    maker.with_hashes = False
    maker.versions["canary"] = 2
    maker.delegated.append("canary")
    maker.expires["snapshot"] = "2027-01-16T00:00:00Z"
    maker.publish("snapshot", "timestamp")
    trusted = trusting(maker)
    trusted.update_timestamp(maker.files["timestamp.json"])
    stored = maker.files["2.snapshot.json"]
    trusted.now = NOW + 86400
    assert not trusted.update_snapshot(stored, True)
    assert code_of(trusted.update_snapshot, stored) == "snapshot-expired"
    # Whoever has the snapshot key signs an older role under the same version.
    maker.expires["snapshot"] = "2027-06-01T00:00:00Z"
    maker.versions["canary"] = 1
    maker.publish("snapshot", bump=False)
    assert code_of(trusted.update_snapshot, maker.files["2.snapshot.json"]) == "targets-rollback"


class CutStore(MemoryStore):
    """Files that a cut meets before or after a change, or that it loses."""

    changes = 0
    cut_at = None
    variant = None

    def _change(self, apply, name):
        at = self.changes
        self.changes += 1
        if at == self.cut_at and self.variant == BEFORE:
            raise PowerCut
        apply()
        if at == self.cut_at:
            if self.variant == TORN:
                self.files.pop(name, None)
            raise PowerCut

    def save(self, name, data):
        self._change(lambda: MemoryStore.save(self, name, data), name)

    def remove(self, name):
        self._change(lambda: MemoryStore.remove(self, name), name)


def rotated():
    """A maker whose repository a board has taken, and then one with rotated keys, all new."""
    maker = Maker()
    maker.publish("targets", "snapshot", "timestamp")
    old = dict(maker.files)
    maker.rotate("timestamp", "timestamp-new")
    maker.versions["timestamp"] = 0
    maker.publish("targets", "snapshot", "timestamp")
    return maker, old


def board_of(maker, old):
    board = Board(maker, old["1.root.json"])
    board.store = CutStore()
    board.restart()
    new, maker.files = maker.files, old
    assert board.refresh() == "ok"
    maker.files = new
    board.store.changes = 0
    return board


def check_after_cut(board, old, place):
    """The board comes up, goes no way back, and gets to what the repository has."""
    maker = board.maker
    board.store.cut_at = None
    board.flash.no_cut()
    board.restart()
    root = board.journal.mark("root")[0]
    new, maker.files = maker.files, old
    outcome = board.refresh()
    maker.files = new
    # The former repository is as good as ever before anything newer was taken, and never after.
    if root > 1:
        assert outcome != "ok", place
    assert board.refresh() == "ok", place
    assert board.versions() == [2, 1, 3, 3], place


def test_power_cut_between_any_two_writes_of_files():
    maker, old = rotated()
    board = board_of(maker, old)
    assert board.refresh() == "ok"
    changes = board.store.changes
    assert changes == 6, changes  # root, two removed, three roles
    for variant in (BEFORE, TORN, AFTER):
        for at in range(changes):
            board = board_of(maker, old)
            board.store.cut_at, board.store.variant = at, variant
            try:
                board.refresh()
                raise AssertionError("no cut")
            except PowerCut:
                pass
            check_after_cut(board, old, (at, variant))


def test_power_cut_between_any_two_writes_of_marks():
    maker, old = rotated()
    board = board_of(maker, old)
    before = board.flash.operations
    assert board.refresh() == "ok"
    operations = board.flash.operations - before
    assert operations >= 5, operations
    for variant in (BEFORE, TORN, AFTER):
        for at in range(operations):
            board = board_of(maker, old)
            board.flash.plan_cut(at, variant)
            try:
                board.refresh()
                raise AssertionError("no cut")
            except PowerCut:
                pass
            check_after_cut(board, old, (at, variant))
