# One update run: metadata, this board's release, download straight into the slot, STAGED.

import hashlib

from tidemark import cbor, image, target
from tidemark.compat import const
from tidemark.errors import (
    CodecError,
    FlashError,
    ImageError,
    LinkError,
    SlotError,
    StateError,
    TidemarkError,
    TrustError,
)
from tidemark.slots import STAGED, WRITING
from tidemark.tuf_client import target_file

_KEY = "download"
_RUNTIME_KEY = "download-rt"
_BUFFER = const(1024)  # bytes in RAM between socket and flash: whole pages
_MARK_SECTORS = const(4)  # sectors between two marks of the journal
_ERASURES_MAX = const(4)  # of a slot for one digest, within
_WINDOW_S = const(86_400)  # this uptime
_AGE_STEP_S = const(3600)
_HASH_SLICE = const(4096)
_ESP_MAGIC = const(0xE9)  # an ESP-IDF image's first byte: esp_app_format.h, ESP_IMAGE_HEADER_MAGIC


class Progress:
    """The journalled state of a download: [digest, slot, bytes known good, erasures, age].

    age: seconds of uptime since the first erasure counted. It goes on from where the last record
    left it: time that a reset swallowed does not count, so that resets can't shorten the window.
    """

    def __init__(self, journal, uptime_s, key=_KEY):
        self._journal = journal
        self._key = key
        self._uptime_s = uptime_s
        self._seen = uptime_s()
        self._saved = 0
        self._loaded = False
        self.digest = b""
        self.slot = 0
        self.good = 0
        self.erasures = 0
        self.age = 0

    def load(self):
        """Reads the record once a boot, affirmed: what is erased next depends on it."""
        if self._loaded:
            return
        self._loaded = True
        raw = self._journal.affirm(self._key)
        if raw is None:
            return
        try:
            fields = cbor.decode(raw)
            self.digest, self.slot, self.good, self.erasures, self.age = fields
        except (CodecError, ValueError, TypeError):
            self.digest = b""
        self._saved = self.age

    def save(self):
        self._tick()
        self._saved = self.age
        fields = [self.digest, self.slot, self.good, self.erasures, self.age]
        self._journal.put(self._key, cbor.encode(fields))

    def _tick(self):
        now = self._uptime_s()
        self.age += now - self._seen
        self._seen = now

    def open(self, digest, slot):
        """Turns to a digest and slot, in RAM."""
        self.load()
        self._tick()
        if self.digest != digest:
            self.digest, self.slot, self.good, self.erasures, self.age = digest, slot, 0, 0, 0
        if self.slot != slot:
            self.slot, self.good = slot, 0
        if self.age >= _WINDOW_S:
            self.erasures = self.age = 0

    def check(self, resumes=True):
        """Raises TrustError("erase-limit") when this digest has used up its erasures: 4 from the
        start of the slot, and as many again for runs that resume (they erase a few sectors).
        resumes: False for a run that erases nothing.
        """
        if self.erasures < (2 * _ERASURES_MAX if self.good and resumes else _ERASURES_MAX):
            return
        # Kept now and then, so that a board which restarts daily comes out of this, too.
        if self.age - self._saved >= _AGE_STEP_S:
            self.save()
        raise TrustError("erase-limit", "4 erasures of a slot for this digest in 24 h")


class Updater:
    """Runs updates of one board, one at a time.

    board: name (str). cohort: the name (str) of its cohort, or "": with one the board also takes
    what the delegated role of this name lists for the cohort's boards, where TUF's search finds
    the same (docs/decisions/0013). runtime: this runtime's index (int). client:
    `tuf_client.Client`. targets: `http.Client` of the targets base. slots: `slots.Slots`.
    regions: the two slots' `flash.Region`, by slot number. uptime_s: callable. feed: called with
    no argument during long computations, or None. runtimes: `runtimes.Runtimes`, or None on a
    board that keeps its runtime.

    `outcome` is claim 1012: "none", "current", "staged", "healed" (the board is to be reset with
    "restore"), or an error code. `error` is the
    TidemarkError behind that.
    """

    def __init__(
        self,
        board,
        device_id,
        runtime,
        client,
        targets,
        slots,
        journal,
        regions,
        uptime_s,
        feed=None,
        cohort="",
        runtimes=None,
    ):
        self.board = board
        self.cohort = cohort
        self.device_id = device_id
        self.runtime = runtime
        self.client = client
        self.targets = targets
        self.slots = slots
        self.regions = regions
        self.feed = feed
        self.progress = Progress(journal, uptime_s)
        self.runtimes = runtimes
        self._takes = target.ANY_RUNTIME if runtimes else runtime
        self._runtime_progress = Progress(journal, uptime_s, _RUNTIME_KEY) if runtimes else None
        self.outcome = "none"
        self.error = None

    def run(self, now):
        """Generator: one run, to its outcome. Yields after each wait and each slice of work, at
        most a sector erase or one signature check apart (during which `feed` is called). now: Unix
        seconds of a fresh time token, or None.
        """
        self.error = None
        try:
            self.outcome = yield from self._run(now)
        except FlashError as error:
            # An erase or a read that the driver reports as failed: the slot's, all else is mapped
            # where it lies.
            self._end(StateError("slot-worn", error.text) if error.code == "flash-io" else error)
        except TidemarkError as error:
            self._end(error)
        except MemoryError:
            # A mirror must not be able to reset the board by the size of what it serves.
            self.error = TrustError("memory", "not enough heap for this run")
            self.outcome = "memory"

    def _end(self, error):
        self.error = error
        self.outcome = error.code

    def _run(self, now):
        yield from self.client.refresh(now)
        trusted = self.client.trusted
        consistent = trusted.root.signed.get("consistent_snapshot", False)
        if self.runtimes and self.runtimes.is_lost:
            yield from self._heal(consistent)
            return "healed"
        listings = [trusted.targets["targets"].signed["targets"]]
        if self.cohort:
            delegated = yield from self.client.delegated(self.cohort)
            if delegated:
                listings.append(delegated.signed["targets"])
        yield from self._drop_aborted()
        if self.runtimes:
            self.runtimes.check()
        chosen = target.choose(listings, self.board, self.device_id, self._takes, self.cohort)
        if chosen is None:
            return "none"
        path, release = chosen
        try:
            self.slots.check_candidate(release)
        except SlotError as error:
            if error.code in ("current", "staged"):
                return error.code
            raise
        entry = yield from self.client.find(path)
        who = self.board, self.device_id, self._takes, self.cohort
        if entry is None or target.choose([{path: entry}], *who) != chosen:
            # Its role lists it and may not: the path is not delegated, or another role's word,
            # whose percentage, attempt and abort count as much as its digest.
            raise TrustError("not-delegated", path)
        slot = self.slots.target_slot()
        if release.length > self.regions[slot].size - image.HEADER_SIZE:
            raise TrustError("target-too-large", "%d bytes" % release.length)
        pair = None
        if target.min_runtime(entry) > self.runtime:
            pair = self._find_runtime(target.min_runtime(entry), release, consistent)
        yield from self._install(target_file(entry, path, consistent), release, slot, pair)
        return "staged"

    def _find_runtime(self, index, app, consistent):
        """(file, `Release`) of the runtime that the application's `Release` needs."""
        path, entry = self._runtime_entry(index)
        if entry is None:
            raise TrustError("runtime-missing", "runtime %d" % index)
        release = target.parse_runtime(path, entry, self.board)
        if target.is_aborted(entry):
            raise TrustError("runtime-aborted", "runtime %d" % index)
        if not target.in_cohort(release.digest, self.device_id, target.percentage(entry)):
            raise TrustError("runtime-not-offered", "runtime %d" % index)
        self.runtimes.check_candidate(release, app, self.slots.confirmed_release)
        return target_file(entry, path, consistent), release

    def _runtime_entry(self, index):
        """(path, TARGETS entry or None) of a runtime. The top-level role's own list alone counts:
        a runtime is what all else is checked by, so no delegated role speaks for one, whatever its
        paths are."""
        path = target.runtime_path(self.board, index)
        return path, self.client.trusted.targets["targets"].signed["targets"].get(path)

    def _drop_aborted(self):
        """Drops a staged release that whoever speaks for its path has taken back."""
        for slot in (0, 1):
            release = self.slots.release(slot)
            if self.slots.state(slot) != STAGED:
                continue
            for cohort in ("", self.cohort) if self.cohort else ("",):
                path = target.app_path(self.board, release.index, cohort)
                entry = yield from self.client.find(path)
                if entry:
                    # The fleet's entry of an index stands, whatever a cohort's says.
                    if target.is_aborted(entry):
                        self.slots.abort(release.digest)
                    break
            candidate = self.runtimes.candidate if self.runtimes else None
            if candidate and candidate.app == release.digest:
                _, entry = self._runtime_entry(candidate.index)
                if entry and target.is_aborted(entry):
                    self.slots.abort(release.digest)

    # -- the slots

    def _install(self, path, release, slot, pair):
        """Downloads application and, with `pair` (file, `Release`), its runtime. The runtime
        comes first: an application that is staged has the runtime that it needs."""
        region = self.regions[slot]
        progress = self.progress
        held = self.slots.release(slot)
        progress.open(release.digest, slot)
        if self.slots.state(slot) != WRITING or not held or held.digest != release.digest:
            progress.good = 0
        progress.check()
        self.slots.begin_write(slot, release)
        if pair:
            yield from self._install_runtime(pair[0], pair[1], release)
        elif self.runtimes:
            self.runtimes.drop()
        yield from self._fetch(path, release, region, image.HEADER_SIZE, progress)
        yield
        try:
            image.check(region, release, self.feed)
        except ImageError:
            progress.good = 0
            progress.save()
            raise
        yield
        region.erase(0)
        yield
        _program(region, 0, image.encode_header(release, self.board))
        self.slots.finish_write(slot)

    def _install_runtime(self, path, release, app):
        progress = self._runtime_progress
        held = self.runtimes.candidate
        progress.open(release.digest, 1 - self.runtimes.confirmed)
        if not held or held.digest != release.digest:
            progress.good = 0
        progress.check()
        slot = self.runtimes.begin_write(release, app, self.slots.confirmed_release)
        yield from self._fetch_runtime(path, release, slot)
        self.runtimes.finish_write()

    def _heal(self, consistent):
        """The confirmed runtime once more into its own slot, which does not start, byte for byte;
        then the bootloader is told. Percentage and abort are not asked: they are about what is
        taken, this is what the board has.
        """
        runtimes, progress = self.runtimes, self._runtime_progress
        path, entry = self._runtime_entry(runtimes.confirmed_index)
        release = target.parse_runtime(path, entry, self.board) if entry else None
        runtimes.check_heal(release)
        slot = runtimes.confirmed
        progress.open(release.digest, slot)
        whole = False
        if progress.good >= release.length:
            # Known from its installation, or from a run that was cut off before the choice.
            whole = yield from self._is_whole(release, slot)
            if not whole:
                progress.good = 0
        progress.check(not whole)
        runtimes.begin_heal(release)
        if not whole:
            yield from self._fetch_runtime(target_file(entry, path, consistent), release, slot)
        # Counts as an erasure: one that is whole and does not start is not chosen for ever.
        progress.erasures += 1
        progress.save()
        runtimes.restore("")

    def _fetch_runtime(self, path, release, slot):
        """A runtime's bytes into its slot, the first page last.

        What starts is not for us to say: the bootloader takes any image that holds its own
        checksum, which a mirror can make. Without its first page it is none, and that page comes
        once the digest holds of what the flash has.
        """
        progress = self._runtime_progress
        region = self.runtimes.regions[slot]
        head = bytearray(min(region.page, release.length))
        whole = False
        if progress.good >= release.length:
            # Its first page is there, too, unless the power failed ahead of it.
            region.read_into(0, head)
            whole = yield from self._is_whole(release, slot, head)
            if not whole and not region.is_blank(0, len(head)):
                progress.good = 0  # torn: no page is programmed twice with different bytes
        if not whole:
            yield from self._fetch(path, release, region, 0, progress, head)
            # Once more, as the flash holds it now: what was downloaded was hashed on its way.
            whole = yield from self._is_whole(release, slot, head)
        if not whole:
            progress.good = 0
            progress.save()
            raise ImageError("runtime-digest", "runtime %d" % release.index)
        # Programmed again if it was there: its write may have been cut off, and read well today.
        _program(region, 0, head)

    def _is_whole(self, release, slot, head=b""):
        """Whether `head` and what a runtime slot holds behind it are this `Release`."""
        hasher = hashlib.sha256(head)
        size = release.length - len(head)
        yield from self._rehash(self.runtimes.regions[slot], len(head), size, hasher)
        return hasher.digest() == release.digest

    def _fetch(self, path, release, region, base, progress, head=b""):
        """The target's bytes into `region` from `base` on, as far as they are missing.

        head: buffer for the first of them, a page at most, which are left to the caller.
        """
        hasher = hashlib.sha256()
        if head and region.view(base, 1)[0] == _ESP_MAGIC:
            progress.good = 0  # another image's: nothing may come behind it
        known = 0
        if head and progress.good:
            yield from self._first(path, release, head)
            hasher.update(head)
            known = len(head)
        yield from self._rehash(region, base + known, progress.good - known, hasher)
        if progress.good < release.length:
            yield from self._download(path, release, region, base, progress, hasher, head)
        if hasher.digest() != release.digest:
            progress.good = 0
            progress.save()
            raise TrustError("target-hash", "the mirror served something else")

    def _first(self, path, release, head):
        """The first bytes of a target whose later ones are in the slot already."""
        response = yield from self.targets.get(path, 0, release.length)
        if response is None:
            raise LinkError("target-missing", "not on this mirror")
        try:
            yield from self._fill(response, memoryview(head))
        finally:
            response.close()

    def _rehash(self, region, base, size, hasher):
        """What an earlier run left in the slot counts only as far as it is hashed now."""
        for start in range(0, size, _HASH_SLICE):
            hasher.update(region.view(base + start, min(_HASH_SLICE, size - start)))
            yield

    def _download(self, path, release, region, base, progress, hasher, head):
        """Bytes from `progress.good` on, each sector erased just before it is programmed; the
        first ones go into `head`.

        A run that erases something and gains no sector counts as an erasure of the slot, so that a
        mirror which always breaks off can't wear the flash out; a run that gains some only counts
        if it began at 0.
        """
        response = yield from self.targets.get(path, progress.good, release.length)
        if response is None:
            raise LinkError("target-missing", "not on this mirror")
        resumed = progress.good > 0
        start = at = progress.good
        sector = region.sector
        buf = memoryview(bytearray(max(_BUFFER, region.page)))
        try:
            yield from self._skip(response, start, buf)
            while at < release.length:
                size = min(len(buf), release.length - at)
                yield from self._fill(response, buf[:size])
                if at == start:
                    progress.erasures += 1
                    progress.save()
                    if base and not resumed:
                        region.erase(0)
                        yield
                if at % sector == 0:
                    region.erase((base + at) // sector)
                    yield
                held = 0 if at else len(head)
                if held:
                    head[:] = buf[:held]
                _program(region, base + at + held, buf[held:size])
                hasher.update(buf[:size])
                at += size
                if at % sector == 0 and at - progress.good >= _MARK_SECTORS * sector:
                    resumed = _gained(progress, at, resumed)
                yield
        except LinkError:
            at -= at % sector
            if at > progress.good:
                _gained(progress, at, resumed)
            raise
        finally:
            response.close()
        progress.good = at
        if resumed:
            progress.erasures -= 1
        progress.save()

    def _skip(self, response, offset, buf):
        """A server that ignores Range sends again what the slot holds already."""
        while response.start < offset:
            got = response.readinto(buf[: min(len(buf), offset - response.start)])
            response.start += got
            yield

    def _fill(self, response, view):
        at = 0
        while at < len(view):
            if not response.left:
                raise LinkError("closed", "by the server, too early")
            at += response.readinto(view[at:])
            yield


def _gained(progress, at, resumed):
    """Journals that the slot is good up to `at`. Returns whether the erasure of a resumed run is
    still counted.
    """
    if resumed:
        progress.erasures -= 1
    progress.good = at
    progress.save()
    return False


def _program(region, off, data):
    """Writes into a slot and reads back. Raises StateError("slot-worn")."""
    try:
        region.write_checked(off, data)
    except FlashError as error:
        if error.code != "readback":
            raise
        raise StateError("slot-worn", "the slot does not hold what was written")
