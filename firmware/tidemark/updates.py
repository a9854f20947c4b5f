# When updates run: asks for the time, drives one run of the updater, resets into the trial.

from tidemark import config, image
from tidemark.compat import const
from tidemark.errors import StateError, TrustError
from tidemark.evidence import REMOTE, SLOT
from tidemark.http import Client as HttpClient
from tidemark.store import Files
from tidemark.tuf_client import Client as TufClient
from tidemark.updater import Updater

_TIME_WAIT_MS = const(60_000)
_SLICE_MS = const(20)
_FIRST_MS = const(2_000)

_IDLE = const(0)
_ASKING = const(1)
_RUNNING = const(2)
_LEAVING = const(3)


class Updates:
    """The base's update task: one run at a time, never during a trial.

    Needs an acknowledged session for its time token; `outcome` is claim 1012. After a run that
    healed the confirmed runtime it resets the board into that.
    """

    def __init__(self, base, metadata_url, targets_url, period_ms):
        self._base = base
        self._period_ms = period_ms
        self._state = _IDLE
        self._due = base.uptime_ms() + _FIRST_MS
        self._asked = 0
        self._told = 0  # reports acknowledged before the last outcome was known
        self._run = None
        open_socket = base.port.open_socket
        client = tuf_client(base, base.provisioning.root, HttpClient(open_socket, metadata_url))
        self.updater = Updater(
            base.board.NAME,
            base.identity.id,
            base.board.RUNTIME_INDEX,
            client,
            HttpClient(open_socket, targets_url),
            base.slots,
            base.journal,
            (base.regions["slot_a"], base.regions["slot_b"]),
            self._uptime_s,
            cohort=config.cohort(base.config),
            runtimes=base.runtimes,
        )

    def _uptime_s(self):
        return self._base.uptime_ms() // 1000

    @property
    def outcome(self):
        """Outcome code (str) of the last run, as `Updater` names it."""
        return self.updater.outcome

    @property
    def healing(self):
        """True until the first run of a boot whose confirmed runtime is lost has come to its end:
        no other reset of ours shall cut it off."""
        runtimes = self._base.runtimes
        if runtimes is None or not runtimes.is_lost:
            return False
        return self.running or self.outcome == "none"

    @property
    def running(self):
        """True while an update run is under way."""
        return self._state in (_RUNNING, _LEAVING)

    def step(self):
        """One slice of the run under way, or the decision to begin one."""
        base = self._base
        now = base.uptime_ms()
        if self._state == _IDLE:
            if now < self._due or base.slots.in_trial:
                return
            if base.acknowledged:
                base.connection.ask_time()
                self._asked = now
                self._state = _ASKING
            elif now >= self._due + self._period_ms:
                self._begin(None)
        elif self._state == _ASKING:
            seconds = base.connection.take_time_token()
            if seconds is not None:
                self._begin(seconds)
            elif now - self._asked > _TIME_WAIT_MS:
                self._begin(None)
        elif self._state == _RUNNING:
            try:
                while base.uptime_ms() - now < _SLICE_MS:
                    next(self._run)
            except StopIteration:
                self._finish(now)
        elif base.connection.reports_acked > self._told or now >= self._due:
            base.reset("restore" if self.outcome == "healed" else "update")

    def _begin(self, seconds):
        """Starts a run; without the time (None) it only walks the root chain (design 7)."""
        self._run = self.updater.run(seconds)
        self._state = _RUNNING

    def _finish(self, now):
        base = self._base
        self._run = None
        outcome = self.outcome
        self._state, self._due = _IDLE, now + self._period_ms
        if outcome in ("staged", "healed"):
            base.record("update", outcome, SLOT)
        elif isinstance(self.updater.error, StateError):
            base.refuse(self.updater.error, "update")
        elif outcome not in ("none", "current"):
            # A mirror can cause these at will: counted, so that they push nothing out (I11).
            base.record(outcome, "update", REMOTE)
        print("tidemark: update %s" % outcome)
        base.connection.report_soon()
        # A trial that is repeated has its back-off to wait for: the base's report task does that.
        staged = outcome == "staged" and base.slots.retry_due and not base.slots.retries
        if staged or outcome == "healed":
            # The report of the outcome leaves first, but not for ever.
            self._state, self._due = _LEAVING, now + 5_000
            # A report that is under way was made before this outcome.
            self._told = base.connection.reports_acked + base.connection.reporting


def tuf_client(base, root, http=None):
    """The TUF client over this board's files and marks; without `http` it can only read stored
    metadata."""
    fetch = http.fetch if http else None
    return TufClient(Files(), base.journal, fetch, root)


def authorised_release(base, root, claimed):
    """(Release, version of the root) that the stored factory metadata authorises for the image a
    slot header claims, under `root`.

    For provisioning: no network, expiry only against the floor of time. Raises TrustError.
    """
    from tidemark import target

    client = tuf_client(base, root)
    client.load_stored()
    path = target.app_path(base.board.NAME, claimed.index)
    entry = client.trusted.targets["targets"].signed["targets"].get(path)
    if entry is None:
        raise TrustError("not-a-target", "the metadata does not name the image in slot A")
    release = target.parse_app(path, entry, base.board.NAME, base.board.RUNTIME_INDEX)
    if release != claimed:
        raise TrustError("not-a-target", "slot header and metadata disagree")
    if release.length > base.regions["slot_a"].size - image.HEADER_SIZE:
        raise TrustError("target-too-large", "%d bytes" % release.length)
    return release, client.trusted.root.version
