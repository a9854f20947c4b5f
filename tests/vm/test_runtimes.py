# The two runtime slots and the journal: what is refused, what is journalled before what. Whole
# lives with power cuts, over the host's model of bootloader and esp_ota_ops, are in
# tests/esp32/test_runtime_lives.py; this port only keeps ESP-IDF's rules where nothing fails.

import hashlib

from test_otadata import entry

from nor import NorFlash
from tidemark import otadata
from tidemark.errors import ImageError, SlotError, StateError
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.otadata import ABORTED, NEW, PENDING, UNDEFINED, VALID
from tidemark.runtimes import STAGED, WRITING, Runtimes
from tidemark.slots import Release

SECTOR = 4096
OLD = Release(b"\x0a" * 32, 5000, 1, 0, "1.0.0")
APP = Release(b"\x0b" * 32, 5000, 2, 0, "1.1.0")
CONTENT = b"a runtime " * 500
RUNTIME = Release(hashlib.sha256(CONTENT).digest(), len(CONTENT), 2, 0, "r2")


class Port:
    """esp32.Partition over a flash in our hands; `calls` are those that were not refused."""

    def __init__(self, flash, running):
        self.running = running
        self.otadata = Region(flash, 8 * SECTOR, 2 * SECTOR)
        start = 10 * SECTOR
        self.regions = [Region(flash, start + i * 3 * SECTOR, 3 * SECTOR) for i in (0, 1)]
        self.refuses = False
        self.calls = []

    def _entries(self):
        return [self.otadata.read(i * SECTOR, 32) for i in (0, 1)]

    def _write(self, number, raw):
        self.otadata.erase(number)
        self.otadata.write(number * SECTOR, raw)

    def set_boot(self, slot):
        if self.refuses:
            raise StateError("ota-refused", "ESP_ERR_OTA_VALIDATE_FAILED")
        self.calls.append(("set_boot", slot))
        charge = otadata.in_charge(self._entries())
        if charge is None:
            self._write(0, entry(slot + 1, NEW))
            return
        sequence = otadata.parse(self._entries()[charge[0]])[0]
        self._write(1 - charge[0], entry(sequence + (slot + 1 - sequence) % 2, NEW))

    def mark_valid(self):
        charge = otadata.in_charge(self._entries())
        if self.refuses or charge is None:
            raise StateError("ota-refused", "ESP_FAIL")
        self.calls.append(("mark_valid",))
        sequence, state = otadata.parse(self._entries()[charge[0]])
        if state != VALID:
            self._write(charge[0], entry(sequence, VALID))


class Board:
    """A board with runtime 1 in slot 0; `entries` (bytes) are its otadata."""

    def __init__(self, *entries):
        self.flash = NorFlash(16 * SECTOR)
        region = Region(self.flash, 8 * SECTOR, 2 * SECTOR)
        for number, raw in enumerate(entries or (entry(1, VALID),)):
            region.write(number * SECTOR, raw)
        self.boot(0, 1)

    def boot(self, slot, index):
        self.port = Port(self.flash, slot)
        self.journal = Journal(Region(self.flash, 0, 8 * SECTOR))
        self.journal.recover()
        self.runtimes = Runtimes(self.port, self.journal, index)
        self.runtimes.recover()
        return self.runtimes

    def stage(self, release=RUNTIME, content=CONTENT, app=APP):
        """Journals, writes and stages a runtime; returns the `Runtimes`."""
        slot = self.runtimes.begin_write(release, app, OLD)
        region = self.port.regions[slot]
        for sector in range(region.sectors):
            region.erase(sector)
        region.write(0, content)
        self.runtimes.finish_write()
        return self.runtimes

    def chosen(self, state=PENDING):
        """The candidate's first boot."""
        self.stage()
        assert self.runtimes.enter(APP, "") == "runtime"
        self.port._write(1, entry(2, state))
        return self.boot(1, 2)


def refused(call, *args):
    try:
        call(*args)
    except (SlotError, StateError, ImageError) as error:
        return error.code
    raise AssertionError("not refused")


def test_without_a_record_the_runtime_that_runs_is_the_confirmed_one():
    board = Board()
    assert (board.runtimes.confirmed, board.runtimes.candidate) == (0, None)
    assert board.runtimes.table() == [1, 0, VALID, 0]
    assert board.runtimes.enter(OLD, "") == ""
    assert board.runtimes.settle(OLD) == []
    assert board.port.calls == []


def test_nothing_is_written_or_restored_before_the_journal_was_read():
    board = Board()
    runtimes = Runtimes(board.port, board.journal, 1)
    # All that it could say is a guess: the candidate of a trial thinks itself confirmed.
    assert not runtimes.is_confirmed
    before = board.flash.view(0, board.flash.size)[:]
    assert refused(runtimes.check) == "runtime-unknown"
    assert refused(runtimes.begin_write, RUNTIME, APP, OLD) == "runtime-unknown"
    assert refused(runtimes.restore, "") == "runtime-unknown"
    board.journal.put("runtime", b"\x80")
    assert refused(runtimes.recover) == "runtime-format"
    assert refused(runtimes.check) == "runtime-unknown"
    assert board.port.calls == []
    assert bytes(board.flash.view(8 * SECTOR, 8 * SECTOR)) == bytes(before[8 * SECTOR :])


def test_what_runs_is_pending_by_otadata_alone():
    board = Board()
    assert (board.runtimes.is_confirmed, board.runtimes.is_pending) == (True, False)
    board.chosen()
    for runtimes in (board.runtimes, Runtimes(board.port, board.journal, 2)):
        assert (runtimes.is_confirmed, runtimes.is_pending) == (False, True)
    assert not Runtimes(Port(board.flash, 0), board.journal, 1).is_pending
    board.port._write(1, entry(2, VALID))
    assert not board.runtimes.is_pending


def test_writing_is_journalled_before_an_entry_or_the_slot_is_touched():
    board = Board(entry(1, VALID), entry(2, VALID, 5))
    seen = []
    erase = board.flash.erase

    def watched(addr):
        journal = Journal(Region(board.flash, 0, 8 * SECTOR))
        journal.recover()
        seen.append((addr // SECTOR, journal.get("runtime") is not None))
        erase(addr)

    board.flash.erase = watched
    board.runtimes.begin_write(RUNTIME, APP, OLD)
    assert [known for sector, known in seen if sector >= 8] == [True]
    assert seen[-1] == (9, True)
    assert board.runtimes.candidate.state == WRITING
    board.flash.erase = erase


def test_begin_leaves_one_entry_and_does_so_once_a_boot():
    board = Board(entry(1, VALID), entry(2, VALID, 5))
    assert board.runtimes.begin_write(RUNTIME, APP, OLD) == 1
    assert board.port.otadata.is_blank(SECTOR, SECTOR)
    count = board.flash.operations
    assert board.runtimes.begin_write(RUNTIME, APP, OLD) == 1
    assert board.flash.operations == count
    board.boot(0, 1).begin_write(RUNTIME, APP, OLD)
    assert board.flash.erase_counts[9] == 2


def test_a_candidate_outlives_a_boot_and_is_staged():
    board = Board()
    board.stage()
    candidate = board.boot(0, 1).candidate
    assert candidate == (STAGED, 1, RUNTIME.digest, RUNTIME.length, 2, "r2", APP.digest)
    assert board.runtimes.table() == [1, 0, VALID, 2]
    assert refused(board.runtimes.finish_write) == "not-writing"


def test_what_may_not_be_written_is_refused_and_nothing_changes():
    board = Board()
    count = board.flash.operations
    for release, app, code in (
        (Release(bytes(32), 100, 1, 0, "r1"), APP, "runtime-downgrade"),
        (Release(bytes(32), 3 * SECTOR + 1, 2, 0, "r2"), APP, "runtime-too-large"),
        (RUNTIME, OLD, "runtime-paired"),
    ):
        assert refused(board.runtimes.begin_write, release, app, OLD) == code
    assert board.flash.operations == count


def test_nothing_is_written_while_the_running_entry_is_not_valid():
    for entries in (
        (entry(1, PENDING),),
        (entry(1, UNDEFINED),),
        (entry(1, 0x17),),
        (entry(1, VALID, 5),),
        (entry(1, VALID), entry(2, VALID)),
    ):
        board = Board(*entries)
        assert refused(board.runtimes.begin_write, RUNTIME, APP, OLD) == "rt-unsettled"


def test_a_torn_first_record_is_made_up_for():
    board = Board(entry(1, VALID, 5))
    assert board.runtimes.settle(OLD) == [("ota-settled", "slot 0")]
    assert board.port.calls == [("set_boot", 0), ("mark_valid",)]
    assert board.runtimes.table() == [1, 0, VALID, 0]
    assert board.runtimes.settle(OLD) == []


def test_a_bootloader_that_refuses_costs_the_update_not_the_boot():
    board = Board(entry(1, PENDING))
    board.port.refuses = True
    assert board.runtimes.settle(OLD) == [("ota-refused", "ESP_FAIL")]
    assert board.runtimes.enter(OLD, "") == ""


def test_a_fallback_is_left_to_the_next_reset():
    board = Board(entry(1, VALID))
    board.stage()
    board.port._write(1, entry(2, PENDING))
    board.boot(0, 1)
    assert board.runtimes.settle(OLD) == [("ota-fallback", "slot 0")]
    assert board.runtimes.enter(APP, "") == "trial"
    assert board.port.calls == []


def test_the_candidate_is_chosen_only_as_it_was_authorised():
    board = Board()
    board.stage(content=CONTENT[:-1] + b"!")
    assert refused(board.runtimes.enter, APP, "") == "runtime-digest"
    assert board.port.calls == []
    board.stage()
    board.port.refuses = True
    assert refused(board.runtimes.enter, APP, "") == "ota-refused"
    board.port.refuses = False
    assert board.runtimes.enter(APP, "") == "runtime"
    assert board.port.calls == [("set_boot", 1)]


def test_a_candidate_that_is_still_written_is_never_chosen():
    board = Board()
    board.runtimes.begin_write(Release(hashlib.sha256(b"").digest(), 0, 2, 0, "r2"), APP, OLD)
    assert refused(board.runtimes.enter, APP, "") == "runtime-digest"


def test_another_application_stays_on_the_confirmed_runtime():
    board = Board()
    board.stage()
    assert board.runtimes.enter(Release(bytes(32), 1, 3, 0, "x"), "") == ""
    assert board.port.calls == []
    board.runtimes.drop()
    assert board.runtimes.enter(APP, "") == ""
    assert board.boot(0, 1).candidate is None


def test_a_candidate_arrives_whatever_its_marker_says():
    board = Board()
    runtimes = board.chosen()
    for reason in ("", "runtime", "restore", "deadline", "crash"):
        assert runtimes.told(True, "reset", reason) == "runtime"
        # The same boot after a soft reset: what it marked itself counts.
        assert runtimes.told(False, "soft", reason) == reason
    assert runtimes.told(True, "power-on", "") == "runtime"
    assert runtimes.has_arrived("runtime")
    assert not runtimes.has_arrived("") and not runtimes.has_arrived("lease")
    assert not board.boot(0, 1).has_arrived("runtime")


def test_before_the_journal_was_read_a_first_boot_is_a_candidates():
    board = Board()
    board.chosen()
    runtimes = Runtimes(board.port, board.journal, 2)
    assert runtimes.told(True, "reset", "deadline") == "runtime"
    assert runtimes.has_arrived("runtime")
    # Unless the marker says that it was brought back, by memory that both share.
    assert runtimes.told(True, "reset", "restore") == "restore"


def test_what_was_restored_knows_it_whatever_its_marker_says():
    board = Board()
    board.chosen().confirm()
    back = board.boot(0, 1)
    for reason in ("", "runtime", "restore", "crash"):
        assert back.told(True, "reset", reason) == "restore"
    assert back.told(True, "power-on", "") == ""


def test_how_a_candidates_boot_ended_is_told_once():
    # (what it told, cause, marker of the former one, what that concludes)
    for told, cause, marker, word in (
        (None, "watchdog", "runtime", "runtime"),
        (None, "reset", "", "runtime"),
        (None, "power-on", "", ""),
        (None, "brownout", "", ""),
        ("", "watchdog", "runtime", ""),
        ("", "reset", "deadline", "deadline"),
        ("lease", "reset", "runtime", "lease"),
        ("lease", "reset", "", "lease"),
        ("lease", "power-on", "", ""),
    ):
        board = Board()
        runtimes = board.chosen()
        if told is not None:
            runtimes.tell(told)
            count = board.flash.operations
            runtimes.tell(told)
            assert board.flash.operations == count
        assert runtimes.came_back(cause, marker) is None
        board.port._write(1, entry(2, ABORTED))
        assert board.boot(0, 1).came_back(cause, marker) == word, (told, cause, marker)
        assert board.boot(0, 1).came_back("reset", "") is None


def test_a_boot_of_its_own_is_not_another_ones():
    board = Board()
    assert board.runtimes.came_back("reset", "") is None
    board.runtimes.tell("crash")
    assert board.boot(0, 1).came_back("reset", "crash") is None
    board.chosen()
    board.runtimes.tell("")
    board.runtimes.confirm()
    board.runtimes.promote(APP)
    assert board.boot(1, 2).came_back("reset", "") is None
    # The fallback of another day.
    assert board.boot(0, 1).came_back("watchdog", "crash") == "restore"


def test_a_candidate_that_left_and_is_back_knows_it():
    board = Board()
    board.chosen().confirm()
    board.runtimes.tell("restore")
    back = board.boot(1, 2)
    assert back.told(False, "reset", "") == "restore"
    assert back.told(False, "power-on", "") == ""


def test_a_word_of_another_base_is_none():
    board = Board()
    board.journal.put("runtime-end", b"nonsense")
    assert board.boot(0, 1).came_back("reset", "runtime") == ""


def test_a_pair_is_confirmed_in_order():
    board = Board()
    runtimes = board.chosen()
    assert runtimes.has_arrived("runtime") and not runtimes.has_arrived("")
    assert runtimes.settle(OLD) == []
    assert runtimes.enter(APP, "runtime") == ""
    runtimes.confirm()
    assert board.port.calls == [("mark_valid",)]
    assert runtimes.table() == [2, 1, VALID, 2]
    # Not before the application is.
    assert board.boot(1, 2).promote(OLD) == []
    assert board.runtimes.confirmed == 0
    assert board.runtimes.promote(APP) == [("runtime", "r2")]
    assert board.runtimes.promote(APP) == []
    assert board.boot(1, 2).confirmed == 1
    assert board.runtimes.enter(APP, "") == ""
    assert refused(board.runtimes.begin_write, RUNTIME, OLD, APP) == "runtime-downgrade"


def test_a_confirmation_that_was_cut_off_is_completed_at_the_next_boot():
    board = Board()
    board.chosen().confirm()
    assert board.boot(1, 2).settle(APP) == [("runtime", "r2")]
    assert board.boot(1, 2).confirmed == 1


def test_confirm_never_confirms_another_entry():
    board = Board()
    runtimes = board.chosen()
    board.port._write(0, entry(3, PENDING))
    assert refused(runtimes.confirm) == "rt-fallback"
    assert board.port.calls == []


def test_a_runtime_that_is_not_what_it_was_published_as_is_refused():
    board = Board()
    board.chosen()
    assert refused(board.boot(1, 1).enter, APP, "runtime") == "rt-index"


def test_a_pending_runtime_is_left_to_the_bootloader():
    board = Board()
    runtimes = board.chosen()
    assert runtimes.enter(OLD, "crash") == "restore"
    assert board.port.calls == []
    # Back after the reset: once more would be for ever.
    assert refused(runtimes.enter, OLD, "restore") == "runtime-lost"


def test_a_runtime_that_was_confirmed_alone_is_undone():
    board = Board()
    board.chosen().confirm()
    runtimes = board.boot(1, 2)
    assert runtimes.settle(OLD) == []
    assert refused(runtimes.check) == "runtime-lost"
    assert runtimes.enter(OLD, "") == "restore"
    assert board.port.calls == [("set_boot", 0)]
    board.port._write(0, entry(3, PENDING))
    back = board.boot(0, 1)
    assert back.settle(OLD) == [("ota-settled", "slot 0")]
    assert back.enter(OLD, "restore") == ""
    assert back.table() == [1, 0, VALID, 2]


def test_after_a_fallback_the_confirmed_runtime_is_not_chosen_either():
    board = Board()
    board.chosen().confirm()
    board.port._write(0, entry(3, VALID))
    assert board.boot(1, 2).enter(OLD, "") == "restore"
    assert board.port.calls == []


def test_a_confirmed_runtime_that_does_not_come_back_is_told():
    board = Board()
    board.chosen().confirm()
    runtimes = board.boot(1, 2)
    board.port.refuses = True
    assert refused(runtimes.enter, OLD, "") == "runtime-lost"


def test_a_record_of_another_format_is_refused():
    board = Board()
    for raw in (b"\x80", b"\x81\x02", b"\x85\x01\x02\x01\x40\xf6", b"\x85\x01\x00\x01\x40\x80"):
        board.journal.put("runtime", raw)
        try:
            board.boot(0, 1)
        except SlotError as error:
            assert error.code == "runtime-format"
        else:
            raise AssertionError(raw)
