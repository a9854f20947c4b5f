# The slot state machine over a plain journal: who boots, what ends a trial, what is never
# overwritten.

from tidemark import cbor
from tidemark.errors import SlotError, StateError
from tidemark.slots import CONFIRMED, EMPTY, NONE, REJECTED, STAGED, TRIAL, Release, Slots


class PlainJournal:
    # Only the promises that Slots relies on; the journal's own are tested in test_journal.py.
    def __init__(self):
        self.values = {}
        self.marks = {}

    def get(self, key):
        return self.values.get(key)

    affirm = get

    def put(self, key, value):
        assert len(value) <= 640
        self.values[key] = bytes(value)

    def mark(self, key, scope=b""):
        return self.marks.get(key, (0, b"", b""))

    def raise_mark(self, key, number, payload=b"", scope=b""):
        assert number >= self.mark(key)[0], "a mark falls"
        self.marks[key] = (number, payload, scope)


def release(index, attempt=1, seed=None):
    return Release(bytes([seed or index]) * 32, 5000, index, attempt, "1.0.%d" % index)


def provisioned():
    slots = Slots(PlainJournal())
    slots.recover()
    slots.provision(release(10))
    return reboot(slots)


def reboot(slots, cause="power-on", reason=""):
    fresh = Slots(slots.journal)
    fresh.recover()
    fresh.resolve(cause, reason)
    return fresh


def stage(slots, candidate):
    slot = slots.target_slot()
    slots.begin_write(slot, candidate)
    slots.finish_write(slot)
    return slot


def in_trial(index=11):
    slots = provisioned()
    slots.choose()
    stage(slots, release(index))
    slots = reboot(slots, "reset", "update")
    assert slots.choose() == (1, "trial")
    return slots


def refused(code, function, *args):
    before = None
    try:
        function(*args)
    except SlotError as error:
        assert error.code == code, error.code
        return before
    raise AssertionError("not refused: " + code)


def test_blank_board_has_no_image_to_run():
    slots = Slots(PlainJournal())
    slots.recover()
    assert slots.choose() == (NONE, "no-image")


def test_factory_image_is_confirmed_and_runs():
    slots = provisioned()
    assert slots.choose() == (0, "confirmed")
    assert slots.floor == 10


def test_neither_running_nor_confirmed_slot_is_ever_a_target():
    slots = provisioned()
    slots.choose()
    assert slots.target_slot() == 1
    refused("protected", slots.begin_write, 0, release(11))
    slots = in_trial()
    refused("no-target", slots.target_slot)
    refused("protected", slots.begin_write, 1, release(12))
    refused("protected", slots.begin_write, 0, release(12))


def test_slot_of_which_code_is_in_use_is_no_target_of_the_rescue_after_it():
    slots = in_trial()
    slots.mounted = slots.running
    slots.running = NONE
    refused("no-target", slots.target_slot)
    refused("protected", slots.begin_write, 1, release(12))
    slots.mounted = NONE
    assert slots.target_slot() == 1


def test_release_at_or_below_the_floor_is_refused():
    slots = provisioned()
    slots.choose()
    refused("below-floor", slots.check_candidate, release(9))
    refused("below-floor", slots.check_candidate, release(10, seed=99))
    refused("current", slots.check_candidate, release(10))


def test_floor_rises_only_with_confirmation():
    slots = in_trial()
    assert slots.floor == 10
    slots.confirm()
    assert slots.floor == 11
    slots = reboot(slots)
    assert slots.choose() == (1, "confirmed")
    refused("below-floor", slots.check_candidate, release(10))


def test_floor_catches_up_when_power_fails_behind_the_confirmation():
    slots = in_trial()
    slots.confirm()
    slots.journal.marks["floor"] = (10, b"", b"")
    slots = reboot(slots)
    assert slots.journal.mark("floor")[0] == 11


def test_trial_boot_is_journalled_before_the_image_runs():
    slots = in_trial()
    other = Slots(slots.journal)
    other.recover()
    assert other.state(1) == TRIAL and other.trial_open


def test_watchdog_in_a_trial_rejects_at_once():
    slots = reboot(in_trial(), "watchdog")
    assert slots.last_trial[:4] == [11, 1, "rejected", "watchdog"]
    assert slots.choose() == (0, "confirmed")
    refused("rejected", slots.check_candidate, release(11))


def test_missed_deadline_and_crash_reject_with_their_reason():
    for reason in ("deadline", "crash", "heap"):
        slots = reboot(in_trial(), "watchdog", reason)
        assert slots.last_trial[:4] == [11, 1, "rejected", reason]
        assert slots.choose() == (0, "confirmed")


def test_image_that_resets_the_board_is_at_fault():
    for cause in ("soft", "reset"):
        slots = reboot(in_trial(), cause)
        assert slots.last_trial[:4] == [11, 1, "rejected", "reset"]
        slots = reboot(provisioned(), cause)
        assert slots.crashes == 1
        slots = reboot(slots, cause, "lease")
        assert slots.crashes == 1, "a person at the console is no fault"


def test_higher_attempt_lifts_a_rejection():
    slots = reboot(in_trial(), "watchdog")
    slots.choose()
    slots.check_candidate(release(11, attempt=2))


def test_power_losses_leave_the_trial_open_and_are_bounded():
    slots = in_trial()
    for _ in range(16):
        slots = reboot(slots)
        assert slots.choose() == (1, "trial")
    slots = reboot(slots)
    assert slots.last_trial[:4] == [11, 1, "inconclusive", "power"]
    assert slots.choose() == (0, "confirmed")


def test_radio_without_a_driver_is_nobodys_fault_and_bounded():
    ends = (("reset", "radio"), ("reset", "radio-start"), ("watchdog", "radio-start"))
    slots = provisioned()
    for cause, reason in ends:
        assert slots.resolve(cause, reason) == [] and slots.crashes == 0
    slots = in_trial()
    for number in range(16):
        slots = reboot(slots, *ends[number % 3])
        assert slots.choose() == (1, "trial")
    slots = reboot(slots, *ends[number % 3])
    assert slots.last_trial[:4] == [11, 1, "inconclusive", "radio"]
    assert slots.choose() == (0, "confirmed")
    slots.acknowledged(60000)
    assert slots.counted == 0 and slots.retry_due


def test_trials_without_a_radio_never_add_up_to_a_rejection():
    slots = in_trial()
    for _ in range(5):
        slots.inconclusive("radio")
        slots = reboot(slots, "reset", "rollback")
        assert slots.choose() == (0, "confirmed") and not slots.retry_due
        slots.acknowledged(60000)
        slots = reboot(slots, "reset", "trial")
        assert slots.choose() == (1, "trial")
    assert slots.counted == 0


def test_three_acknowledged_inconclusive_trials_reject_as_loses_link():
    slots = in_trial()
    for number in (1, 2, 3):
        slots.inconclusive("no-ack")
        slots = reboot(slots, "reset", "rollback")
        assert slots.choose() == (0, "confirmed")
        assert not slots.retry_due
        slots.acknowledged(60000)
        if number < 3:
            assert slots.retry_due
            slots = reboot(slots, "reset", "trial")
            assert slots.choose() == (1, "trial")
    assert slots.last_trial == [11, 1, "rejected", "loses-link", 3]
    assert slots.state(1) == REJECTED


def test_outage_never_rejects():
    slots = in_trial()
    for _ in range(12):
        slots.inconclusive("no-ack")
        slots = reboot(slots, "reset", "rollback")
        slots.choose()
        slots.acknowledged(600001)  # the gateway came back later than ten minutes after the boot
        assert slots.state(1) == STAGED
        slots = reboot(slots, "reset", "trial")
        assert slots.choose() == (1, "trial")
    slots.confirm()
    assert slots.floor == 11


def test_no_trial_again_before_the_former_image_was_acknowledged():
    slots = in_trial()
    slots.inconclusive("no-ack")
    for _ in range(3):
        slots = reboot(slots)
        assert slots.choose() == (0, "confirmed")


def test_lease_ends_do_not_count_towards_loses_link():
    slots = in_trial()
    for _ in range(5):
        slots = reboot(slots, "reset", "lease")
        assert slots.choose() == (1, "trial")
    assert slots.counted == 0


def test_rejection_survives_a_cut_between_list_and_state():
    slots = in_trial()
    state = slots.journal.get("boot")
    slots.fault("crash")
    slots.journal.put("boot", state)
    slots = reboot(slots)
    assert slots.choose() == (0, "confirmed")
    assert slots.last_trial[:4] == [11, 1, "rejected", "crash"]


def test_end_of_a_trial_is_untold_until_the_ring_has_it():
    slots = in_trial()
    assert slots.fault("crash") == slots.untold() == [("rejected", "crash")]
    for _ in range(2):
        slots = reboot(slots)
        # Marked: the boot before may have recorded it, and found no time to say so.
        assert slots.untold() == [("rejected", "crash*")]
        assert slots.last_trial == [11, 1, "rejected", "crash", 1]
    slots.told()
    assert slots.untold() == [] == reboot(slots).untold()
    slots.journal.put = None  # an ordinary boot writes nothing for it
    slots.told()


def test_end_that_is_drawn_after_a_cut_is_untold_too():
    slots = in_trial()
    state = slots.journal.get("boot")
    slots.fault("crash")
    slots.journal.put("boot", state)
    slots = reboot(slots)
    assert slots.choose() == (0, "confirmed")
    assert slots.untold() == [("rejected", "crash")]
    slots = provisioned()
    slots.choose()
    stage(slots, release(11))
    slots.abort(release(11).digest)
    assert slots.untold() == [("inconclusive", "aborted")]


def test_untold_confirmation_names_its_version():
    slots = provisioned()
    slots.choose()
    stage(slots, Release(*(release(11)[:4] + ("11.0.0-candidate.7",))))
    slots = reboot(slots, "reset", "update")
    slots.choose()
    assert slots.confirm() == slots.untold() == [("confirmed", "11.0.0-candidate.7")]
    assert reboot(slots).untold() == [("confirmed", "11.0.0-candidat*")]


def test_boot_record_without_the_word_is_taken_as_told():
    slots = in_trial()
    slots.inconclusive("no-ack")
    slots.told()
    state = cbor.decode(slots.journal.get("boot"))
    assert len(state[5]) == 5  # as a base that knows no such word writes and reads it
    assert reboot(slots).untold() == []
    for last in ([11, 1, "rejected"], [11, 1, 3, "crash", 1], "rejected"):
        slots.journal.put("boot", cbor.encode(state[:5] + [last]))
        refused("slots-format", Slots(slots.journal).recover)


def test_full_list_of_rejected_releases_starts_no_new_trial():
    slots = provisioned()
    for index in range(11, 27):
        slots.choose()
        stage(slots, release(index))
        slots = reboot(slots, "reset", "update")
        assert slots.choose() == (1, "trial")
        slots = reboot(slots, "watchdog")
    slots.choose()
    refused("rejected-full", slots.check_candidate, release(40))
    # A higher attempt of a listed one would take its own entry's place: the owner gets out.
    slots.check_candidate(release(20, attempt=2))
    stage(slots, release(20, attempt=2))
    slots = reboot(slots, "reset", "update")
    assert slots.choose() == (1, "trial")
    slots.confirm()
    assert len(slots.rejected()) == 6


def test_confirmation_drops_rejections_below_the_floor():
    slots = reboot(in_trial(11), "watchdog")
    slots.choose()
    stage(slots, release(12))
    slots = reboot(slots, "reset", "update")
    slots.choose()
    slots.confirm()
    assert slots.rejected() == []


def test_five_crashes_of_a_confirmed_image_alternate_with_rescue():
    slots = provisioned()
    seen = []
    for _ in range(9):
        slot, why = slots.choose()
        seen.append(why)
        slots = reboot(slots, "watchdog") if slot != NONE else reboot(slots, "reset", "rescue")
    assert seen == ["confirmed"] * 5 + ["crash-loop", "confirmed", "crash-loop", "confirmed"]


def test_health_mark_forgets_crashes():
    slots = reboot(provisioned(), "watchdog")
    slots.choose()
    assert slots.crashes == 1
    slots.healthy()
    assert reboot(slots).crashes == 0


def test_altered_staged_image_is_fetched_again_and_never_run():
    slots = in_trial()
    slots.bad_image(1)
    assert slots.state(1) == EMPTY
    slots = reboot(slots)
    assert slots.choose() == (0, "confirmed")
    slots.check_candidate(release(11))


def test_decayed_confirmed_image_may_be_fetched_again_at_the_same_index():
    slots = provisioned()
    slots.choose()
    slots.bad_image(0)
    refused("below-floor", slots.check_candidate, release(10, seed=99))
    stage(slots, release(10))
    slots = reboot(slots, "reset", "update")
    assert slots.choose() == (1, "trial")
    slots.confirm()
    assert reboot(slots).choose() == (1, "confirmed")


def test_rescue_does_not_forget_crashes():
    slots = provisioned()
    for _ in range(5):
        slots.choose()
        slots = reboot(slots, "watchdog")
    assert slots.choose() == (NONE, "crash-loop")
    slots.healthy()
    assert slots.crashes == 6


def test_abort_drops_a_staged_image_and_never_a_confirmed_one():
    slots = provisioned()
    slots.choose()
    stage(slots, release(11))
    slots.abort(release(10).digest)
    slots.abort(release(11).digest)
    assert slots.state(0) == CONFIRMED and slots.state(1) == EMPTY


def test_newer_release_replaces_one_that_waits_for_its_trial():
    slots = provisioned()
    slots.choose()
    stage(slots, release(11))
    stage(slots, release(12))
    slots = reboot(slots, "reset", "update")
    assert slots.choose() == (1, "trial")
    assert slots.release(1).index == 12


def test_nothing_is_written_while_the_state_is_unknown():
    slots = Slots(provisioned().journal)  # recover has not run, or has failed
    refused("slots-unknown", slots.check_candidate, release(11))
    refused("slots-unknown", slots.target_slot)
    refused("slots-unknown", slots.begin_write, 1, release(11))


class WornJournal(PlainJournal):
    # Takes a number of changes, then none.
    left = 1000

    def put(self, key, value):
        if not self.left:
            raise StateError("journal-worn")
        self.left -= 1
        PlainJournal.put(self, key, value)


def worn_at(journal, call, *args):
    journal.left = 0
    try:
        call(*args)
        assert False, "not refused"
    except StateError as error:
        assert error.code == "journal-worn"
    journal.left = 1000


def test_no_slot_is_written_on_the_strength_of_what_the_journal_did_not_take():
    journal = WornJournal()
    slots = Slots(journal)
    slots.recover()
    slots.provision(release(10))
    slots = reboot(slots)
    slots.choose()
    slot = slots.target_slot()
    worn_at(journal, slots.begin_write, slot, release(11))
    # In RAM it is WRITING now; a second attempt must not take that for journalled.
    for attempt in range(2):
        try:
            slots.begin_write(slot, release(11))
            assert False, "written without a record"
        except SlotError as error:
            assert error.code == "slots-unknown"
    assert reboot(slots).state(slot) == EMPTY


def test_confirmation_that_the_journal_did_not_take_frees_no_slot():
    journal = WornJournal()
    slots = Slots(journal)
    slots.recover()
    slots.provision(release(10))
    slots = reboot(slots)
    slots.choose()
    stage(slots, release(11))
    slots = reboot(slots, "reset", "update")
    assert slots.choose() == (1, "trial")
    worn_at(journal, slots.confirm)
    try:
        slots.target_slot()
        assert False, "the confirmed slot may be overwritten"
    except SlotError as error:
        assert error.code == "slots-unknown"
    after = reboot(slots, "reset", "rollback")
    assert after.confirmed == 0 and after.state(1) == TRIAL
