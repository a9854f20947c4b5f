# The base: holds the parts of one boot and hands them to the application. Glue only; what decides
# lives in the parts.

import gc

from tidemark import cbor, identity, reasons
from tidemark.compat import const, sleep_ms
from tidemark.counter import Counter
from tidemark.errors import TidemarkError
from tidemark.evidence import SECURITY, SLOT, Evidence
from tidemark.flash import open_regions
from tidemark.journal import Journal
from tidemark.outbox import Outbox
from tidemark.slots import NONE, Slots
from tidemark.supervisor import Task
from tidemark.trial import Trial

# Keys of the journalled link settings (CBOR map under "config").
CONFIG_BROKER_HOST = const(1)
CONFIG_BROKER_PORT = const(2)
CONFIG_METADATA_URL = const(3)
CONFIG_TARGETS_URL = const(4)
CONFIG_UPDATE_S = const(5)
CONFIG_REPORT_S = const(6)
CONFIG_KEEPALIVE_S = const(7)

_TASK_DEADLINE_MS = const(30_000)
_RADIO_DELAY_MAX_MS = const(600_000)


class Base:
    """Everything of the trusted base that one boot holds.

    The application gets it as the argument of `agent.app.tasks(base)` and uses: `.connection .link
    .outbox .counter .journal .evidence .identity .settings .supervisor .port .board .uptime_ms()
    .record(code, detail)`.
    """

    def __init__(self, port, board, supervisor):
        self.port = port
        self.board = board
        self.supervisor = supervisor
        self.regions = open_regions(port.flash(), board.REGIONS)
        guard = port.kbd_intr
        self.journal = Journal(self.regions["journal"], guard)
        self.counter = Counter(self.regions["counter"], guard)
        self.evidence = Evidence(self.regions["evidence"], guard)
        self.outbox = Outbox(self.regions["outbox"], guard)
        self.slots = Slots(self.journal)
        self.cause = port.reset_cause()
        self.reason = reasons.decode(port.marker())
        port.set_marker(0)
        self.fault = None  # the TidemarkError that stopped the recovery
        self.safe = False  # state was lost: nothing is promised, so nothing is sent
        self.mode = "rescue"
        self.why = ""
        self.identity = None
        self.provisioning = None
        self.config = {}
        self.settings = {}
        self.link = self.session = self.connection = self.updates = None
        self._trial = None
        self._app = None
        self._retry_at = None

    def uptime_ms(self):
        return self.port.uptime_ms()

    # -- state

    def recover(self):
        """Recovers every part of the flash state, in an order in which evidence of a failure can
        be kept."""
        self.evidence.recover()
        self.record("boot", self.reason or self.cause)
        self.journal.recover()
        self.counter.recover()
        self.outbox.recover()
        self.identity = identity.load(self.journal)
        self.provisioning = identity.read_provisioning(self.regions["provisioning"])
        public = self.identity.public if self.identity else b""
        if self.provisioning and public != self.provisioning.public:
            self.safe = True
            self.record("state-lost", "")
            return
        self.slots.recover()
        raw = self.journal.get("config")
        self.config = cbor.decode(raw) if raw else {}

    @property
    def unprovisioned(self):
        """True until provisioning has verified slot A and confirmed it. A damaged or lost state is
        not a new board."""
        if self.fault or self.safe:
            return False
        return self.provisioning is None or self.slots.confirmed == NONE

    def record(self, code, detail="", kind=SECURITY):
        """Adds to the evidence ring; a ring that cannot be written never stops the board, the gap
        is counted."""
        try:
            now, epoch = self.uptime_ms(), self.counter.epoch
            self.evidence.add(code, detail.encode()[:16], kind, epoch, 0, now, self.cause)
        except TidemarkError as error:
            print("tidemark: evidence", error.code)

    def record_all(self, events):
        for code, detail in events:
            self.record(code, detail, SLOT)
            print("tidemark: %s %s" % (code, detail))

    # -- running

    def start(self, app):
        """Builds link, session and updates, and gives the supervisor its tasks. `app` is None in
        rescue."""
        if not self.identity or not self.provisioning:
            # Nothing to say hello with: a person must come, so the lease is a person's.
            self.supervisor.lease(self.board.LEASE_REPL_MS, "lease")
            return
        from tidemark import settings
        from tidemark.connection import Connection
        from tidemark.link import Link
        from tidemark.session import Session
        from tidemark.updates import Updates

        self.settings = settings.load(app)
        self._app = app
        config = self.config
        self.session = Session(
            self.identity,
            self.counter,
            self.provisioning.gateway_id,
            self.provisioning.gateway_key,
            self.port.random,
            self.settings["integrity"],
            confidential=self.settings["confidential"],
        )
        self.link = Link(
            self.port.open_socket,
            config[CONFIG_BROKER_HOST],
            config[CONFIG_BROKER_PORT],
            "tidemark-" + self.identity.id,
            self.port.random,
            keepalive_s=config.get(CONFIG_KEEPALIVE_S, 30),
        )
        self.connection = Connection(self)
        self.updates = Updates(
            self,
            config[CONFIG_METADATA_URL],
            config[CONFIG_TARGETS_URL],
            config.get(CONFIG_UPDATE_S, 3600) * 1000,
        )
        self._trial = None
        if self.mode == "trial":
            board = self.board
            self._trial = Trial(board.TRIAL_HOLD_MS, board.TRIAL_LIMIT_MS, board.HEAP_FLOOR)
        self._delay_radio()
        supervisor = self.supervisor
        if app:
            for task in app.tasks(self):
                supervisor.add(task)
        supervisor.add(Task("link", self.connection.step, 5, _TASK_DEADLINE_MS))
        supervisor.add(Task("report", self._report_step, 100, _TASK_DEADLINE_MS))
        supervisor.add(Task("update", self.updates.step, 10, _TASK_DEADLINE_MS))
        supervisor.add(Task("evidence", self._evidence_step, 1000, _TASK_DEADLINE_MS))

    def _delay_radio(self):
        """Repeated short boots delay the radio exponentially: a board that browns out when it
        sends must not spin."""
        short = max(self.slots.crashes, self.slots.power_boots)
        if short > 1:
            self.link.delay(min(1000 << min(short, 10), _RADIO_DELAY_MAX_MS))

    def crashed(self, error):
        """The image raised: the supervisor's broad catch. Records what is known, then resets; does
        not return."""
        reason = "heap" if isinstance(error, MemoryError) else "crash"
        self.record(reason, type(error).__name__)
        if self.slots.in_trial:
            self.record_all(self.slots.fault(reason))
            reason = "rollback"
        self.reset(reason)

    def reset(self, reason):
        """A deliberate reset that leaves its reason in the register that survives it. Does not
        return."""
        self.record("reset", reason)
        self.port.set_marker(reasons.encode(reason))
        print("tidemark: reset, reason %s" % reason)
        self.port.reset()
        while True:
            sleep_ms(1000)  # a port whose reset takes a moment

    # -- the base's own tasks

    @property
    def acknowledged(self):
        """True when the gateway acknowledged a report of this boot."""
        return self.connection is not None and self.connection.reports_acked > 0

    def _report_step(self):
        """Reports when due, and lets the trial and the waiting image draw their conclusions."""
        self.connection.report_when_due(self.config.get(CONFIG_REPORT_S, 60) * 1000)
        now = self.uptime_ms()
        if self._trial:
            self._judge(now)
            return
        if self.acknowledged:
            self._former_acknowledged(now)
        if self.supervisor.marked and now >= self.board.TRIAL_HOLD_MS:
            # One round of all tasks is not yet health: crashes are forgotten after a while of it.
            self.slots.healthy()

    def _judge(self, now):
        app_reason = self._app.health(self) if hasattr(self._app, "health") else None
        gc_free = gc.mem_free() if hasattr(gc, "mem_free") else 1 << 30
        if gc_free < self.board.HEAP_FLOOR:
            gc.collect()
            gc_free = gc.mem_free()
        link_up = self.link.state == "up"
        verdict = self._trial.step(now, link_up, self.acknowledged, gc_free, app_reason)
        if verdict is None:
            return
        outcome, reason = verdict
        if outcome == "confirm":
            self.record_all(self.slots.confirm())
            self._trial = None
            self.mode = "normal"
            self.connection.report_soon()
            return
        end = self.slots.fault if outcome == "reject" else self.slots.inconclusive
        self.record_all(end(reason))
        self.reset("rollback")

    def _former_acknowledged(self, now):
        events = self.slots.acknowledged(self.connection.first_ack_ms)
        if events:
            self.record_all(events)
            self.connection.report_soon()
        if not self.slots.retry_due:
            self._retry_at = None
        elif self._retry_at is None:
            self._retry_at = now + (self.board.TRIAL_BACKOFF_MS << min(self.slots.retries, 10))
        elif now >= self._retry_at and self.connection.idle:
            # A freshly staged image has no retries behind it and goes through `Updates`; this is a
            # repeated trial.
            self.reset("trial" if self.slots.retries else "update")

    @property
    def trial_reason(self):
        """Why the trial is not decided yet, for claim 1015; "ok" outside a trial."""
        return self._trial.reason if self._trial else "ok"

    def _evidence_step(self):
        self.evidence.poll(self.uptime_ms())
