# Which runtime goes with which application, on boards with two slots for each: a state machine
# over the journal and the port's slots. Release = application + runtime, confirmed and undone
# together (docs/esp32-runtime.md). The application's own state is in slots.py.

import hashlib

from tidemark import cbor, reasons
from tidemark.compat import const
from tidemark.errors import FlashError, ImageError, SlotError, StateError
from tidemark.otadata import PENDING, UNDEFINED, VALID, Otadata

try:
    from collections import namedtuple
except ImportError:
    from ucollections import namedtuple

WRITING = const(1)
STAGED = const(2)

_KEY = "runtime"
_END_KEY = "runtime-end"
_FORMAT = const(1)
_CHUNK = const(1024)

# A runtime that is not confirmed. `app`: SHA-256 of the application it was published with.
Candidate = namedtuple(
    "Candidate", ("state", "slot", "digest", "length", "index", "version", "app")
)


def _is_uint(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_record(record):
    """True for a record as `_save` writes it: nothing of it is looked at again later."""
    if not isinstance(record, list) or len(record) != 5 or record[0] != _FORMAT:
        return False
    _, slot, index, digest, candidate = record
    if not (_is_uint(slot) and slot < 2 and _is_uint(index) and isinstance(digest, bytes)):
        return False
    if candidate is None:
        return True
    if not isinstance(candidate, list) or len(candidate) != 7:
        return False
    state, place, digest, length, index, version, app = candidate
    if state not in (WRITING, STAGED) or place != 1 - slot or isinstance(place, bool):
        return False
    if not isinstance(digest, bytes) or not isinstance(app, bytes):
        return False
    return _is_uint(length) and _is_uint(index) and isinstance(version, str)


def is_pending(port):
    """True if the bootloader undoes what runs at the next hard reset. port: `.running` and
    `.otadata` of the port's runtimes."""
    charge = Otadata(port.otadata).in_charge()
    return charge is not None and charge[1:] == (port.running, PENDING)


class Runtimes:
    """The two runtime slots.

    port: the port's object (docs/architecture.md, "Port"). index: of the runtime that runs (int).
    Each change is one journal record, written before its effect. What the journal holds decides:
    the bootloader's own entries only say what starts next. Raises as `slots.Slots` does.
    """

    def __init__(self, port, journal, index):
        self._port = port
        self._journal = journal
        self.otadata = port.otadata
        self._otadata = Otadata(port.otadata)
        self._is_clear = False  # in this boot: the other entry is blank, the one in charge firm
        self.regions = port.regions
        self.running = port.running
        self.index = index
        self._confirmed = [self.running, index, b""]  # slot, index, SHA-256 if it is known
        self.candidate = None
        self.is_lost = False  # in this boot: the confirmed one was called back and did not come
        self._known = False  # whether this is what the journal says: else nothing is written

    # -- persistence

    def recover(self):
        """Loads and affirms the state. Without a record the runtime that runs is the confirmed
        one."""
        raw = self._journal.affirm(_KEY)
        if raw is not None:
            record = cbor.decode(raw)
            if not _is_record(record):
                raise SlotError("runtime-format", "runtime record of another format")
            self._confirmed = record[1:4]
            self.candidate = Candidate(*record[4]) if record[4] else None
        self._known = True

    def _save(self, confirmed, candidate):
        record = [_FORMAT] + confirmed + [list(candidate) if candidate else None]
        self._journal.put(_KEY, cbor.encode(record))
        self._confirmed = confirmed
        self.candidate = candidate

    # -- what is known

    @property
    def confirmed(self):
        """Slot (0 or 1) of the confirmed runtime."""
        return self._confirmed[0]

    @property
    def is_confirmed(self):
        """True if what runs is known to be the confirmed runtime."""
        return self._known and self.running == self.confirmed

    @property
    def is_pending(self):
        """True if the bootloader undoes what runs at the next hard reset."""
        return is_pending(self)

    @property
    def on_candidate(self):
        """True while the candidate's slot runs."""
        return self.candidate is not None and self.running == self.candidate.slot

    def table(self):
        """[index, slot, state of the entry in charge, index of the candidate or 0] for claim
        1017."""
        charge = self._otadata.in_charge()
        state = charge[2] if charge and charge[1] == self.running else UNDEFINED
        return [self.index, self.running, state, self.candidate.index if self.candidate else 0]

    def _is_settled(self):
        charge = self._otadata.in_charge()
        return charge is not None and charge[1:] == (self.running, VALID)

    # -- an update

    def check(self):
        """Raises SlotError `runtime-lost` while another runtime than the confirmed one runs,
        `runtime-unknown` while the journal does not say which is: nothing is installed then, with
        or without a runtime."""
        if not self._known:
            raise SlotError("runtime-unknown", "which runtime is confirmed cannot be read")
        if self.running != self.confirmed:
            raise SlotError("runtime-lost", "slot %d is confirmed" % self.confirmed)

    def check_candidate(self, release, app, confirmed):
        """Raises SlotError or StateError unless this authorised runtime may be written.

        release: the runtime's `Release`; app: that of the application which needs it; confirmed:
        that of the confirmed application, or None. Codes: those of `check`, "runtime-paired" (a
        confirmed application keeps the runtime that it was confirmed with), "runtime-downgrade",
        "runtime-too-large", "rt-unsettled" (the bootloader does not hold the running one for
        confirmed).
        """
        self.check()
        if confirmed and confirmed.digest == app.digest:
            raise SlotError("runtime-paired", "release %d" % app.index)
        if release.index <= max(self._confirmed[1], self.index):
            raise SlotError("runtime-downgrade", "index %d" % release.index)
        if release.length > self.regions[1 - self.confirmed].size:
            raise SlotError("runtime-too-large", "%d bytes" % release.length)
        if not self._is_settled():
            raise StateError("rt-unsettled", "the entry in charge is not this runtime's")

    def begin_write(self, release, app, confirmed):
        """Journals WRITING, then leaves the bootloader no entry that names the slot. Returns the
        slot (0 or 1) to be erased. Arguments and errors: `check_candidate`. A repeated call
        resumes."""
        self.check_candidate(release, app, confirmed)
        slot = 1 - self.confirmed
        known = release.digest, release.length, release.index, release.version, app.digest
        wanted = Candidate(WRITING, slot, *known)
        if self.candidate != wanted:
            self._save(self._confirmed, wanted)
        self._clear()
        return slot

    def finish_write(self):
        """WRITING to STAGED: the image is whole and its digest is right."""
        candidate = self.candidate
        if candidate is None or candidate.state != WRITING:
            raise SlotError("not-writing", "no runtime")
        self._save(self._confirmed, Candidate(STAGED, *candidate[1:]))

    def drop(self):
        """Forgets the candidate: the next application comes without one."""
        if self.candidate:
            self._save(self._confirmed, None)

    def _clear(self):
        """The bootloader is left no entry but that of what runs. Once a boot, as it erases."""
        if not self._is_clear:
            self._firmly(self._otadata.keep, self.running)
            self._is_clear = True

    def _firmly(self, change, *args):
        try:
            change(*args)
        except FlashError as error:
            if error.code not in ("readback", "flash-io"):
                raise
            raise StateError("otadata-worn", "an entry does not hold what was written")

    # -- healing

    @property
    def confirmed_index(self):
        """Index (int) that the journal knows the confirmed runtime by."""
        return self._confirmed[1]

    def check_heal(self, release):
        """Raises SlotError unless this authorised runtime may be written over the confirmed one.

        release: the runtime's `Release`, or None if the metadata lists none. Codes: "not-lost",
        "rt-no-digest" (it came with the board or by cable: nobody signed what is confirmed),
        "rt-unlisted" (no other digest than the confirmed one heals), "runtime-too-large".
        """
        if not self.is_lost or self.running == self.confirmed:
            raise SlotError("not-lost", "slot %d runs" % self.running)
        if not self._confirmed[2]:
            raise SlotError("rt-no-digest", "runtime %d" % self._confirmed[1])
        if release is None or release.digest != self._confirmed[2]:
            raise SlotError("rt-unlisted", "runtime %d" % self._confirmed[1])
        if release.length > self.regions[self.confirmed].size:
            raise SlotError("runtime-too-large", "%d bytes" % release.length)

    def begin_heal(self, release):
        """Leaves the bootloader no entry that names the confirmed slot. Returns the slot (0 or 1)
        to be written; then `restore("")` brings it back. Argument and errors: `check_heal`.

        Nothing is journalled: what is confirmed stays so, and a power cut leaves the board where
        it was.
        """
        self.check_heal(release)
        self._clear()
        return self.confirmed

    # -- booting

    def settle(self, confirmed):
        """First of all in a boot: what a power cut separated from a confirmation is made up for.

        confirmed: the confirmed application's `Release`, or None. Returns a list of (event,
        detail). A bootloader that refuses costs the next runtime update, not this boot.
        """
        events = self.promote(confirmed)
        events += self._disown()
        charge = self._otadata.in_charge()
        if self.running != self.confirmed or self._is_settled():
            return events
        try:
            if charge is None:
                # The first record was torn, or both were given up: slot 0 boots without one.
                self._port.set_boot(self.running)
            elif charge[1] != self.running:
                # Another image did not pass and this is the fallback: the next reset decides.
                return events + [("ota-fallback", "slot %d" % self.running)]
            self._port.mark_valid()
        except StateError as error:
            return events + [("ota-refused", error.text)]
        return events + [("ota-settled", "slot %d" % self.running)]

    def _disown(self):
        """A runtime that came by cable is not the one whose digest is recorded: that must not heal
        it. Returns events."""
        slot, index, digest = self._confirmed
        if not digest or index == self.index or not self.is_confirmed:
            return []
        try:
            self._save([slot, index, b""], self.candidate)
        except StateError as error:
            return [(error.code, "runtime")]
        return [("runtime", "by cable")]

    # The marker is a hint in a boot that another runtime's came before: RTC memory lies where each
    # one's linker put it. It may be gone, or be this runtime's own of an earlier boot. What has to
    # be known beyond that is in otadata and in the journal.

    def told(self, first, cause, reason):
        """The word that this boot was begun with.

        first: whether it is the one that the bootloader grants what was chosen. cause: of its
        reset. reason: of the marker.
        """
        if not first:
            # It left for the confirmed one, which forgets this when it comes.
            left = self.on_candidate and self._end() == "restore"
            return "restore" if left and cause not in reasons.POWER else reason
        if not self._known:
            return reason if reason == "restore" else "runtime"
        if self.on_candidate:
            return "runtime"
        if self.running != self.confirmed or cause in reasons.POWER:
            return reason
        return "restore"

    def has_arrived(self, reason):
        """True in the first boot of a candidate: the boot of its trial goes on in it. reason: of
        `told`."""
        return reason == "runtime" and (self.on_candidate or not self._known)

    def tell(self, word):
        """In a candidate's boot: journals what the former runtime is to know of it, should that
        come next. Raises StateError."""
        if self.on_candidate and self._end() != word:
            self._journal.put(_END_KEY, word.encode())

    def came_back(self, cause, reason):
        """How the boot ended that came before this one, if it was another runtime's: its word, ""
        if it left none; None if it was this runtime's own.

        cause, reason: of this boot. Call once a boot: what was journalled is forgotten.
        """
        if self.running != self.confirmed:
            # A candidate judges its own boots. Of a fallback's marker nobody knows how old it is.
            return None if self.on_candidate else "restore"
        end = self._end()
        if end is None:
            return reason if reason == "runtime" else None
        self._forget_end()
        if reason in ("", "runtime") and cause not in reasons.POWER:
            return end
        return reason  # by memory that both share: it was "runtime" when this one left

    def _end(self):
        """What the journal holds of the candidate's last boot: a word of `reasons`, or None."""
        raw = self._journal.get(_END_KEY)
        if raw is None:
            return None
        for word in reasons.REASONS:
            if raw == word.encode():
                return word
        return ""

    def _forget_end(self):
        try:
            self._journal.delete(_END_KEY)
        except StateError:
            pass  # it costs the next fault its count; this journal takes no count either

    def enter(self, app, reason):
        """What the board is to be reset with before `app` may run: "" if it may run now.

        app: the `Release` that was chosen. reason: marker of this boot. If another runtime is to
        run, the bootloader has been told so. Raises ImageError `runtime-digest` (the candidate is
        not what was authorised), SlotError `rt-index` (it is not what it was published as),
        SlotError `runtime-lost` (the confirmed one does not come back), StateError (the bootloader
        refuses the candidate).
        """
        candidate = self.candidate
        if candidate and candidate.app == app.digest:
            return self._enter_candidate(candidate)
        if self.running == self.confirmed:
            return ""
        return self.restore(reason)

    def _enter_candidate(self, candidate):
        if self.running == candidate.slot:
            if self.index != candidate.index:
                raise SlotError("rt-index", "it says %d" % self.index)
            return ""
        charge = self._otadata.in_charge()
        if charge and charge[1] != self.running:
            # A choice now would overwrite the entry of what runs. After a reset it counts again.
            return "trial"
        if not self._is_settled():
            raise StateError("rt-unsettled", "the entry in charge is not confirmed")
        if candidate.state != STAGED or self._digest(candidate) != candidate.digest:
            raise ImageError("runtime-digest", "runtime %d" % candidate.index)
        self._firmly(self._otadata.affirm)
        self._port.set_boot(candidate.slot)
        try:
            # Until the candidate says otherwise: it did not get to its application.
            self._journal.put(_END_KEY, b"runtime")
        except StateError:
            pass  # the marker says so, too
        return "runtime"

    def restore(self, reason):
        """Back to the confirmed runtime: once, then it is lost. Returns what to reset with.

        reason: marker of this boot. Raises SlotError `runtime-lost`, `runtime-unknown`.
        """
        if not self._known:
            raise SlotError("runtime-unknown", "which runtime is confirmed cannot be read")
        charge = self._otadata.in_charge()
        if reason == "restore":
            self.is_lost = True
            raise SlotError("runtime-lost", "slot %d does not start" % self.confirmed)
        if charge and (charge[2] == PENDING or charge[1] != self.running):
            return "restore"  # the bootloader rolls back by itself; a choice would prevent it
        self._is_clear = False
        try:
            self._firmly(self._otadata.affirm)
            self._port.set_boot(self.confirmed)
        except StateError as error:
            self.is_lost = True
            raise SlotError("runtime-lost", error.text)
        return "restore"

    def _digest(self, candidate):
        region = self.regions[candidate.slot]
        hasher = hashlib.sha256()
        buf = memoryview(bytearray(_CHUNK))
        for start in range(0, candidate.length, _CHUNK):
            part = buf[: min(_CHUNK, candidate.length - start)]
            region.read_into(start, part)
            hasher.update(part)
        return hasher.digest()

    # -- the end of a trial

    def confirm(self):
        """Before the application is confirmed: the bootloader keeps the runtime from here on.

        Raises StateError unless its entry is firm and reads VALID.
        """
        if not self.on_candidate:
            return
        charge = self._otadata.in_charge()
        if charge is None or charge[1] != self.running:
            raise StateError("rt-fallback", "the entry in charge is not this runtime's")
        self._port.mark_valid()
        # One that read VALID already may be the torn write of an earlier boot.
        self._firmly(self._otadata.affirm)
        if not self._is_settled():
            raise StateError("otadata-worn", "the entry does not read VALID")

    def promote(self, confirmed):
        """After the application (`confirmed`, its Release or None) was confirmed, its runtime is.
        Returns events. A repeated call does nothing."""
        candidate = self.candidate
        if not candidate or not confirmed or candidate.app != confirmed.digest:
            return []
        self._save([candidate.slot, candidate.index, candidate.digest], None)
        self._forget_end()
        return [("runtime", candidate.version)]
