# Which application slot may boot, be written, be confirmed: a pure state machine over a handed-in
# journal. Invariants I3, I4 and I5 are decided here and nowhere else.

from tidemark import cbor
from tidemark.compat import const
from tidemark.errors import SlotError
from tidemark.slot_records import (
    CONFIRMED,
    EMPTY,
    FORMAT,
    NONE,
    REJECTED,
    REJECTED_MAX,
    STAGED,
    TRIAL,
    WRITING,
    is_rejections,
    is_state,
)

try:
    from collections import namedtuple
except ImportError:
    from ucollections import namedtuple

# Events that end a trial.
ENDS = ("confirmed", "rejected", "inconclusive")

_DIGEST_KEY = const(16)  # bytes of a rejected digest that are kept: 16 entries fit one value
_POWER_BOOTS = const(16)
_INCONCLUSIVE_MAX = const(3)
_ACK_WITHIN_MS = const(600_000)
_CRASHES = const(5)
_VERSION_MAX = const(24)
_DETAIL = const(15)  # bytes that a record's detail has beside the "*"

# What the former image still waits for before an inconclusive trial is repeated.
_READY = const(0)
_WAIT_COUNTED = const(1)
_WAIT_UNCOUNTED = const(2)

# The last: still there when another runtime than the one it announced starts.
_FAULT_REASONS = ("crash", "deadline", "heap", "health", "runtime")
# Neither the image's fault nor a lost supply.
_NOBODYS_REASONS = ("lease", "radio", "radio-start")
# Resets that only what runs can have caused, when no marker of ours explains them.
_OWN_CAUSES = {"watchdog": "watchdog", "soft": "reset", "reset": "reset"}

Release = namedtuple("Release", ("digest", "length", "index", "attempt", "version"))


class Slots:
    """The two application slots.

    Slots are 0 and 1. Each change is one journal record, written before its effect, so that a
    power cut between any two lines leaves the old state or the new one. Methods that change state
    raise `StateError` when the journal cannot promise it: what it holds then counts, from the next
    boot on, and until then no slot is written. They raise `SlotError` when the change is not
    allowed; then nothing has changed.
    """

    def __init__(self, journal):
        self.journal = journal
        self.running = NONE
        self.mounted = NONE  # the slot whose image is mapped: some of it may be in use
        self.confirmed = NONE
        self._decayed = False  # the confirmed slot no longer holds its image
        self._known = False  # whether this is what the journal says: else no slot is written
        self._states = [EMPTY, EMPTY]
        self._releases = [None, None]
        self.trial_open = False
        self.power_boots = 0
        self.counted = 0
        self.retries = 0
        self._waiting = _READY
        self.crashes = 0
        self.last_trial = None  # [release index, attempt, outcome, reason, number of the trial]
        # Whether the evidence ring may lack that end; `_found` if an earlier boot has left it so.
        self._untold = self._found = False

    # -- persistence

    def recover(self):
        """Loads and affirms the state; the floor catches up with a confirmation that a power cut
        separated from it."""
        raw = self.journal.affirm("boot")
        if raw is None:
            self._known = True
            return
        state = cbor.decode(raw)
        if not is_state(state):
            raise SlotError("slots-format", "boot record of another format")
        self.confirmed = state[1]
        for slot in (0, 1):
            entry = state[2][slot]
            self._states[slot] = entry[0]
            self._releases[slot] = Release(*entry[1:]) if len(entry) > 1 else None
        self.trial_open, self.power_boots, self.counted, self._waiting, self.retries = state[3]
        self.crashes = state[4]
        if state[5]:
            self.last_trial = state[5][:5]
            self._untold = self._found = len(state[5]) > 5
        # What is not tried again must not come back with a torn record, either.
        raw = self.journal.affirm("rejected")
        if raw and not is_rejections(cbor.decode(raw)):
            raise SlotError("slots-format", "list of rejections of another format")
        self._known = True
        self._raise_floor()

    def _save(self):
        entries = []
        for slot in (0, 1):
            release = self._releases[slot]
            entries.append([self._states[slot]] + (list(release) if release else []))
        trial = [self.trial_open, self.power_boots, self.counted, self._waiting, self.retries]
        last = self.last_trial
        if self._untold:
            last = last + [True]
        state = [FORMAT, self.confirmed, entries, trial, self.crashes, last]
        known, self._known = self._known, False
        self.journal.put("boot", cbor.encode(state))
        self._known = known

    def _raise_floor(self):
        if self.confirmed != NONE:
            index = self._releases[self.confirmed].index
            if index > self.journal.mark("floor")[0]:
                self.journal.raise_mark("floor", index)

    # -- what is known

    @property
    def floor(self):
        """Release index (int) below which nothing is installed, tried or confirmed."""
        floor = self.journal.mark("floor")[0]
        if self.confirmed != NONE:
            floor = max(floor, self._releases[self.confirmed].index)
        return floor

    @property
    def in_trial(self):
        return self.running != NONE and self._states[self.running] == TRIAL

    @property
    def confirmed_release(self):
        """The confirmed `Release`, or None."""
        return self.release(self.confirmed)

    def release(self, slot):
        """The `Release` a slot holds, or None."""
        return self._releases[slot] if slot != NONE else None

    def state(self, slot):
        return self._states[slot]

    def table(self):
        """[state, release index, attempt] of both slots, for claim 1002."""
        rows = []
        for slot in (0, 1):
            release = self._releases[slot]
            known = [release.index, release.attempt] if release else [0, 0]
            rows.append([self._states[slot]] + known)
        return rows

    def rejected(self):
        """List of [first 16 bytes of the digest, attempt, index, reason] that are not tried
        again."""
        raw = self.journal.get("rejected")
        return cbor.decode(raw) if raw else []

    def _rejection(self, release):
        """The reason why this digest at this attempt is not tried, or None. A higher attempt lifts
        it."""
        for digest, attempt, _, reason in self.rejected():
            if digest == release.digest[:_DIGEST_KEY] and release.attempt <= attempt:
                return reason
        return None

    def _is_below_floor(self, release):
        """At the floor only the confirmed image itself may come again: its copy may have
        decayed."""
        held = self.release(self.confirmed)
        if held and release.index == self.floor and release.digest == held.digest:
            return False
        return release.index <= self.floor

    def _rejected_is_full(self, release):
        """Whether a rejection of `release` would find no room: its own entry would be replaced."""
        floor, key = self.floor, release.digest[:_DIGEST_KEY]
        others = [entry for entry in self.rejected() if entry[2] > floor and entry[0] != key]
        return len(others) >= REJECTED_MAX

    # -- writing a slot

    def check_candidate(self, release):
        """Raises SlotError unless this authorised release may be written and tried.

        Codes: "slots-unknown" (the state can't be read), "current" (it is the confirmed one),
        "below-floor", "rejected", "rejected-full", "in-trial", "staged" (it is already there).
        """
        if not self._known:
            raise SlotError("slots-unknown", "which slot is confirmed cannot be read")
        held = self.release(self.confirmed)
        if held and held.digest == release.digest and not self._decayed:
            raise SlotError("current", "release %d is confirmed" % held.index)
        if self._is_below_floor(release):
            raise SlotError("below-floor", "index %d, floor %d" % (release.index, self.floor))
        if self._rejection(release):
            raise SlotError("rejected", "index %d attempt %d" % (release.index, release.attempt))
        if self._rejected_is_full(release):
            raise SlotError("rejected-full", "16 releases are rejected already")
        if self.in_trial:
            raise SlotError("in-trial", "no update during a trial")
        for slot in (0, 1):
            if slot != self.confirmed and self._states[slot] in (STAGED, TRIAL):
                held = self._releases[slot]
                if held.digest == release.digest and held.attempt >= release.attempt:
                    raise SlotError("staged", "release %d waits for its trial" % held.index)

    def target_slot(self):
        """The slot (0 or 1) that may be overwritten: never the running one, never the last
        confirmed one (I3), never one whose code is in use though a rescue runs."""
        if not self._known:
            raise SlotError("slots-unknown", "which slot is confirmed cannot be read")
        for slot in (1, 0):
            if slot not in (self.confirmed, self.running, self.mounted):
                return slot
        raise SlotError("no-target", "no slot may be overwritten")

    def begin_write(self, slot, release):
        """Journals WRITING before the first erase. A repeated call for the same release resumes
        and writes nothing."""
        if slot in (self.confirmed, self.running, self.mounted):
            raise SlotError("protected", "slot %d is in use" % slot)
        self.check_candidate(release)
        if self._states[slot] == WRITING and self._releases[slot] == release:
            return
        if len(release.digest) != 32 or len(release.version) > _VERSION_MAX:
            raise SlotError("release-shape", "digest or version of wrong length")
        self._states[slot] = WRITING
        self._releases[slot] = release
        self._reset_trial()
        self._save()

    def finish_write(self, slot):
        """WRITING to STAGED: the image is whole, its digest is right, its header is written."""
        if self._states[slot] != WRITING:
            raise SlotError("not-writing", "slot %d" % slot)
        self._states[slot] = STAGED
        self._reset_trial()
        self._save()

    def _reset_trial(self):
        self.trial_open = False
        self.power_boots = self.counted = self.retries = 0
        self._waiting = _READY

    def abort(self, digest):
        """The owner's abort: a staged image of this digest is dropped. A running trial ends at its
        next boot."""
        for slot in (0, 1):
            if self._states[slot] == STAGED and self._releases[slot].digest == digest:
                self._end_trial(slot, EMPTY, "inconclusive", "aborted")

    def provision(self, release):
        """The factory image in slot 0, verified against the root, becomes the first confirmed
        one."""
        self.check_provision(release)
        if self.confirmed != NONE:
            return
        self._states[0] = CONFIRMED
        self._releases[0] = release
        self.confirmed = 0
        self._save()
        self._raise_floor()

    def check_provision(self, release):
        """Raises SlotError `provisioned` if another image is confirmed already."""
        if self.confirmed != NONE and self._releases[self.confirmed] != release:
            raise SlotError("provisioned", "an image is confirmed already")

    # -- booting

    def resolve(self, cause, reason):
        """Draws the consequence of how the last boot ended.

        cause: reset cause of the port (str). reason: our own marker's word, "" if none. Returns a
        list of (event, detail) for the evidence ring. Call once a boot, before `choose`.
        """
        slot = self._trial_slot()
        if slot == NONE or not self.trial_open:
            return self._resolve_confirmed(cause, reason)
        if reason in _FAULT_REASONS:
            return self._reject(slot, reason)
        if cause in _OWN_CAUSES and not reason:
            return self._reject(slot, _OWN_CAUSES[cause])
        # A lost supply, a REPL lease, a reset by hand: not shown to be the image's fault, and
        # bounded all the same.
        self.power_boots += 1
        if self.power_boots > _POWER_BOOTS:
            why = reason.split("-")[0] if reason in _NOBODYS_REASONS else "power"
            return self._inconclusive(slot, why, _WAIT_UNCOUNTED)
        self._save()
        return [("trial-open", reason or cause)]

    def _resolve_confirmed(self, cause, reason):
        if reason in _FAULT_REASONS or (cause in _OWN_CAUSES and not reason):
            self.crashes = min(self.crashes + 1, 255)
            self._save()
            return [("app-fault", reason or cause)]
        return []

    def choose(self):
        """Picks what runs. Returns (slot, why): slot 0, 1, or NONE for rescue with the reason in
        `why`.

        A trial boot is journalled here, before anything of the image is touched.
        """
        slot = self._trial_slot()
        if slot != NONE and self._may_try(slot):
            if not self.trial_open or self._states[slot] != TRIAL:
                self._states[slot] = TRIAL
                self.trial_open = True
                self._save()
            self.running = slot
            return slot, "trial"
        if self.confirmed == NONE:
            return NONE, "no-image"
        if self.crashes >= _CRASHES and (self.crashes - _CRASHES) % 2 == 0:
            # One rescue boot, then the application again, in turn: the count moves on so that the
            # next boot differs.
            self.crashes = min(self.crashes + 1, 254)
            self._save()
            return NONE, "crash-loop"
        self.running = self.confirmed
        return self.running, "confirmed"

    def _trial_slot(self):
        for slot in (0, 1):
            if self._states[slot] in (STAGED, TRIAL) and slot != self.confirmed:
                return slot
        return NONE

    def _may_try(self, slot):
        if self._waiting != _READY:
            return False
        release = self._releases[slot]
        rejection = self._rejection(release)
        if rejection:
            # The list was written, then the power failed: draw the consequence now.
            self._end_trial(slot, REJECTED, "rejected", rejection)
            return False
        if self._is_below_floor(release):
            self._end_trial(slot, EMPTY, "rejected", "below-floor")
            return False
        return not self._rejected_is_full(release)

    def bad_image(self, slot):
        """The digest of a slot no longer holds: never run it. A staged one is fetched again, a
        confirmed one waits for rescue. Returns events."""
        self.running = NONE
        if slot != self.confirmed:
            return self._end_trial(slot, EMPTY, "inconclusive", "image-digest")
        self._decayed = True
        return [("image-digest", "confirmed")]

    # -- ends of a trial

    def confirm(self):
        """The running trial is healthy: CONFIRMED, then the floor rises (I4). Returns events."""
        slot = self.running
        if not self.in_trial:
            raise SlotError("no-trial", "nothing to confirm")
        self._states[slot] = CONFIRMED
        self.confirmed = slot
        self.crashes = 0
        self._note_trial(slot, "confirmed", "ok")
        self._reset_trial()
        self._save()
        self._raise_floor()
        self._prune_rejected()
        return [("confirmed", self._releases[slot].version)]

    def fault(self, reason):
        """The running image failed in a way that was caught (crash, heap, health). Returns
        events."""
        if self.in_trial:
            return self._reject(self.running, reason)
        return self._resolve_confirmed("", reason) if self.running != NONE else []

    def inconclusive(self, reason):
        """The running trial ran out of time without an acknowledgement. Returns events.

        reason: "radio" if the board itself had no radio to send by: that never adds up to a
        rejection.
        """
        if not self.in_trial:
            raise SlotError("no-trial", "nothing is on trial")
        waiting = _WAIT_UNCOUNTED if reason == "radio" else _WAIT_COUNTED
        return self._inconclusive(self.running, reason, waiting)

    def acknowledged(self, uptime_ms):
        """The former image was acknowledged `uptime_ms` after its boot. Returns events; then
        `retry_due` may be True."""
        if self._waiting == _READY or self.in_trial:
            return []
        slot = self._trial_slot()
        if slot == NONE:
            return []
        if self._waiting == _WAIT_COUNTED and uptime_ms <= _ACK_WITHIN_MS:
            self.counted += 1
            if self.counted >= _INCONCLUSIVE_MAX:
                return self._reject(slot, "loses-link")
        self._waiting = _READY
        self.retries = min(self.retries + 1, 16)
        self._save()
        return [("trial-again", "%d" % self.counted)]

    @property
    def retry_due(self):
        """True when a staged image may be tried at the next boot."""
        return not self.in_trial and self._waiting == _READY and self._trial_slot() != NONE

    def healthy(self):
        """A health mark held: the crash count of the confirmed image starts anew."""
        if self.crashes and self.running != NONE and not self.in_trial:
            self.crashes = 0
            self._save()

    def _reject(self, slot, reason):
        release = self._releases[slot]
        key = release.digest[:_DIGEST_KEY]
        entries = [entry for entry in self.rejected() if entry[2] > self.floor and entry[0] != key]
        entries.append([key, release.attempt, release.index, reason])
        self.journal.put("rejected", cbor.encode(entries[-REJECTED_MAX:]))
        return self._end_trial(slot, REJECTED, "rejected", reason)

    def _inconclusive(self, slot, reason, waiting):
        self._waiting = waiting
        self.power_boots = 0
        return self._end_trial(slot, STAGED, "inconclusive", reason)

    def _end_trial(self, slot, state, outcome, reason):
        self._note_trial(slot, outcome, reason)
        self._states[slot] = state
        self.trial_open = False
        if state != STAGED:
            self._reset_trial()
        self._save()
        return [(outcome, reason)]

    def _note_trial(self, slot, outcome, reason):
        release = self._releases[slot]
        self.last_trial = [release.index, release.attempt, outcome, reason, self.retries + 1]

        self._untold = True
        self._found = False

    def untold(self):
        """[(event, detail)] of a trial's end that the evidence ring may lack, or []. Its record
        comes after the journal's, and power may fail between the two.

        A `*` ends the detail where an earlier boot may have recorded it: it is no second end.
        """
        if not self._untold:
            return []
        index, _, outcome, detail, _ = self.last_trial
        release = self.confirmed_release
        if outcome == "confirmed" and release and release.index == index:
            detail = release.version
        return [(outcome, detail[:_DETAIL] + "*" if self._found else detail)]

    def told(self):
        """The evidence ring has the end of the last trial. Raises StateError."""
        if self._untold:
            self._untold = False
            self._save()

    def _prune_rejected(self):
        entries = self.rejected()
        kept = [entry for entry in entries if entry[2] > self.floor]
        if len(kept) != len(entries):
            self.journal.put("rejected", cbor.encode(kept))
