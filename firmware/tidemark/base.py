# The base: holds the parts of one boot and hands them to the application. Glue only; what decides
# lives in the parts.

import gc

from tidemark import cbor, config, identity, reasons
from tidemark.compat import const, sleep_ms
from tidemark.counter import Counter
from tidemark.errors import FlashError, StateError, TidemarkError
from tidemark.evidence import MAX_READ, REMOTE, SECURITY, SIZE, SLOT, Evidence, parse
from tidemark.flash import open_regions
from tidemark.journal import Journal
from tidemark.outbox import Outbox
from tidemark.slots import ENDS, NONE, Slots
from tidemark.supervisor import Task

# Above the sum of all bounded waits of one round (connect, CONNACK, three PUBACKs of 5 s each): a
# broker that is slow at every turn must not look like a task that hangs.
_TASK_DEADLINE_MS = const(60_000)
_LOOK_BACK = const(32)  # evidence records
_SHORT_BOOTS_FREE = const(3)
_RESCUE_FROM = const(5)  # crashes
_RESCUE_MS = const(60_000)
_RESCUE_MAX_MS = const(3_600_000)
_OUTBOX_LOOKS = const(2)
_RADIO_DELAY_MAX_MS = const(600_000)
_RADIO_RESET_MS = const(60_000)  # without a driver for the radio: until the first reset
_RADIO_RESET_MAX_MS = const(3_600_000)


class BaseFault(Exception):
    """The base itself can't start its link or updates: not the image's fault."""


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
        self.runtimes = None
        found = port.runtimes()
        if found:
            from tidemark.runtimes import Runtimes

            self.runtimes = Runtimes(found, self.journal, board.RUNTIME_INDEX)
        self.cause = port.reset_cause()
        self.reason = reasons.decode(port.marker())
        port.set_marker(0)
        self.arrived = False  # in a candidate's first boot: another runtime is to judge it
        self.fault = None  # the TidemarkError that stopped the recovery
        self.safe = False  # state was lost: nothing is promised, so nothing is sent
        self.mode = "rescue"
        self.why = ""
        self.identity = None
        self.provisioning = None
        self.config = None
        self.settings = {}
        self.link = self.session = self.connection = self.updates = None
        self.radio = None  # the wifi.Station of a board that has one, and credentials
        self._trial = None
        self._hold_ms = self._limit_ms = self._backoff_ms = 0  # of trials, once launched
        self._app = None
        self._retry_at = None
        self._was_healthy = False
        self._refused = set()  # codes that this boot has told
        self.radio_delay_ms = 0
        self._radio_reset_at = None

    def uptime_ms(self):
        return self.port.uptime_ms()

    # -- state

    def recover(self):
        """Recovers every part of the flash state but the outbox (`connect`), in an order in which
        evidence of a failure can be kept."""
        try:
            self.evidence.recover()
        except TidemarkError as error:
            print("tidemark: evidence", error.code)
        self.record("boot", self.reason or self.cause)
        self.journal.recover()
        epoch = self.counter.recover()
        self.identity = identity.load(self.journal)
        damage = None
        try:
            self.provisioning = identity.read_provisioning(self.regions["provisioning"])
        except StateError as error:
            damage = error
        public = self.identity.public if self.identity else b""
        # The counter was opened before the key was born: blank beside a key, it was lost (I1).
        if self.provisioning and (public != self.provisioning.public or not epoch):
            self.safe = True
            self.record("state-lost", "")
            return
        # Before the slots: a board that cannot make out its slots can still say so.
        raw = self.journal.get("config")
        if raw:
            self.config = config.check(cbor.decode(raw))
        if self.runtimes:
            # First: without it nothing is installed, whatever the slots say.
            self.runtimes.recover()
        self.slots.recover()
        if damage and self.slots.confirmed != NONE:
            raise damage
        # Without a confirmed slot it is a provisioning that was cut off: it is done again.

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
            now, epoch, gaps = self.uptime_ms(), self.counter.epoch, self.evidence.gaps
            self.evidence.add(code, detail.encode()[:16], kind, epoch, 0, now, self.cause)
            if not gaps and self.evidence.gaps:
                print("tidemark: evidence-worn, what the ring does not hold is counted")
        except TidemarkError as error:
            print("tidemark: evidence", error.code)

    def refuse(self, error, detail=""):
        """What a part of the state can't promise (`error`, a TidemarkError): told on the console
        and recorded, once a boot each, so that it pushes nothing else out of the ring."""
        if error.code not in self._refused:
            self._refused.add(error.code)
            self.record(error.code, detail)
            print("tidemark: %s (%s)" % (error, detail))

    def record_all(self, events):
        for code, detail in events:
            self.record(code, detail, SLOT)
            print("tidemark: %s %s" % (code, detail))
            if code in ENDS:
                try:
                    self.slots.told()
                except StateError as error:
                    self.refuse(error, "told")  # the next boot tells it again

    # -- running

    def prepare_radio(self):
        """Has the radio's driver take its memory: before an application takes what there is.

        Where there is too little it is an error, or ESP-IDF aborts. The marker, which stage 0
        takes back, says then that it was no image's doing; the boot after leaves the driver alone.
        A runtime's first boot keeps its own: the driver is a part of what is on trial.
        """
        if self.config and config.wifi(self.config)[0]:
            if not self.arrived:
                self.port.set_marker(reasons.encode("radio-start"))
            self.port.prepare_radio(self.reason != "radio-start")

    def connect(self):
        """Recovers the outbox, builds link, session and updates from known `settings`. Returns
        whether there is somebody to say hello as. Raises BaseFault."""
        if not self.identity or not self.provisioning or not self.config:
            return False
        try:
            self._recover_outbox()
            self._connect()
        except Exception as error:  # whatever it is, the image did not do it
            self.record("base-fault", type(error).__name__)
            raise BaseFault(str(error))
        return True

    def _recover_outbox(self):
        """Not before the hand-over: a full one takes longer than all that this waits for.

        One that can't be read takes nothing in this boot. All else goes on: it is neither the
        image's fault nor worth the application.
        """
        for look in range(1, _OUTBOX_LOOKS + 1):
            try:
                self.outbox.recover()
                return
            except FlashError as error:
                if look == _OUTBOX_LOOKS:
                    self.refuse(error, "outbox")

    def _connect(self):
        from tidemark.connection import Connection
        from tidemark.link import Link
        from tidemark.session import Session
        from tidemark.updates import Updates

        values = self.config
        ssid, password, country = config.wifi(values)
        if ssid:
            hostname = "tidemark-" + self.identity.id
            self.radio = self.port.radio(ssid, password, country, hostname)
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
            values[config.BROKER_HOST],
            values[config.BROKER_PORT],
            "tidemark-" + self.identity.id,
            self.port.random,
            keepalive_s=values[config.KEEPALIVE_S],
            network=self.radio,
        )
        self.connection = Connection(self)
        self.updates = Updates(
            self,
            values[config.METADATA_URL],
            values[config.TARGETS_URL],
            values[config.UPDATE_S] * 1000,
        )
        self._delay_radio()

    def launch(self, app):
        """Gives the supervisor the tasks of `app` (None in rescue) and of the base."""
        self._app = app
        self._hold_ms, self._limit_ms, self._backoff_ms = config.trial_times(
            self.config, self.board
        )
        if config.TRIAL in self.config:
            # Said at each boot, so that nobody takes a bench's board for one of the field.
            times = tuple(self.config[config.TRIAL])
            print("tidemark: provisioned with trial times of %d, %d, %d s" % times)
        if self.mode == "trial":
            from tidemark.trial import Trial

            # A radio that the base itself keeps silent is not the image's lost link.
            limit = self._limit_ms + self.radio_delay_ms
            self._trial = Trial(self._hold_ms, limit, self.board.HEAP_FLOOR)
        supervisor = self.supervisor
        if app:
            for task in app.tasks(self):
                supervisor.add(task)
        if self.radio:
            supervisor.add(Task("radio", self._radio_step, 100, _TASK_DEADLINE_MS))
        supervisor.add(Task("link", self.connection.step, 5, _TASK_DEADLINE_MS))
        supervisor.add(Task("report", self._report_step, 100, _TASK_DEADLINE_MS))
        supervisor.add(Task("update", self.updates.step, 10, _TASK_DEADLINE_MS))
        supervisor.add(Task("evidence", self._evidence_step, 1000, _TASK_DEADLINE_MS))

    def _short_boots(self):
        """How many boots in a row, this one included, ended before they were healthy.

        Read from the evidence ring, which records each boot anyway: a brownout loop costs no more.
        """
        number = self.evidence.head()[0]
        raw = self.evidence.read(max(1, number - _LOOK_BACK + 1), _LOOK_BACK)
        count = 0
        for start in range(len(raw) - SIZE, -1, -SIZE):
            code = parse(raw[start : start + SIZE])[2]
            if code in ("healthy", "reset"):
                break
            count += code == "boot"
        return count

    def _delay_radio(self):
        """Repeated short boots delay the radio exponentially: a board that browns out when it
        sends must not spin."""
        short = max(self._short_boots(), self.slots.crashes) - _SHORT_BOOTS_FREE
        if short > 0 and self.mode != "rescue":
            self.radio_delay_ms = min(1000 << min(short, 10), _RADIO_DELAY_MAX_MS)
            (self.radio or self.link).delay(self.radio_delay_ms)

    def crashed(self, error):
        """The image raised: the supervisor's broad catch. Records what is known, then resets; does
        not return."""
        if isinstance(error, FlashError) and error.code == "flash-io" and self.slots.in_trial:
            # The chip's doing, not the image's: the trial stays open, as after a lost supply.
            self.refuse(error, "trial")
            self.reset("rollback")
        reason = "heap" if isinstance(error, MemoryError) else "crash"
        self.record(reason, type(error).__name__)
        if self.slots.in_trial:
            try:
                self.record_all(self.slots.fault(reason))
                reason = "rollback"
            except StateError as worn:
                self.refuse(worn, "trial")  # the marker tells the next boot
        self.reset(reason)

    def tell(self, word):
        """In a pair's trial: journals how this boot ends, for the runtime that comes after it.
        What marker that one reads is not known (runtimes.py)."""
        if self.runtimes and (self.slots.trial_open or word == "restore"):
            try:
                self.runtimes.tell(word)
            except StateError as error:
                self.refuse(error, "runtime")

    def reset(self, reason):
        """A deliberate reset that leaves its reason in the register that survives it. Does not
        return."""
        self.record("reset", reason)
        self.tell(reason)
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

    def _radio_step(self):
        """Keeps the board on its network. What goes wrong is the air's doing: it is counted."""
        if self.link.state == "up":
            self.radio.heard()
        word = self.radio.step()
        if word:
            print("tidemark: wifi %s" % word)
            if word != "joined":
                self.record(word, "wifi", REMOTE)
        # A runtime on trial is not sent away by a reset: what has no radio runs out of its time.
        if self.radio.lost and not (self.runtimes and not self.runtimes.is_confirmed):
            if self._radio_reset_at is None:
                self._radio_reset_at = self._radio_reset_ms()
            if self.uptime_ms() >= self._radio_reset_at:
                self.reset("radio")

    def _radio_reset_ms(self):
        """Uptime at which a board without a driver for its radio is reset: a minute, twice as long
        as last time if that was for the same, at most an hour."""
        if not self.reason.startswith("radio"):
            return _RADIO_RESET_MS
        try:
            number = self.evidence.head()[0]
            raw = self.evidence.read(max(1, number - MAX_READ + 1), MAX_READ)
        except TidemarkError:
            raw = b""
        for start in range(len(raw) - SIZE, -1, -SIZE):
            record = parse(raw[start : start + SIZE])
            if record[2:4] == ("reset", b"radio"):
                return min(2 * record[6], _RADIO_RESET_MAX_MS)
        # The ring does not say how long it was: it was filled since, or takes nothing any more.
        return _RADIO_RESET_MAX_MS if self.reason == "radio" else _RADIO_RESET_MS

    def _report_step(self):
        """Reports when due, and lets the trial and the waiting image draw their conclusions."""
        self.connection.report_when_due(self.config[config.REPORT_S] * 1000)
        try:
            self._conclude(self.uptime_ms())
        except StateError as error:
            # A journal that takes no conclusion is not the image's fault. What it does not hold
            # has not happened: an open trial ends, and the next boot judges by what it reads.
            self.refuse(error, "report")
            if self._trial:
                self.reset("rollback")

    def _conclude(self, now):
        if self._trial:
            self._judge(now)
            return
        if self.acknowledged:
            self._former_acknowledged(now)
        if not self._was_healthy and self.supervisor.marked and now >= self._hold_ms:
            # One round of all tasks is not yet health: crashes are forgotten after a while of it.
            self._was_healthy = True
            self.record("healthy")
            self.slots.healthy()
        if self.why in ("crash-loop", "base-fault") and not self.updates.running:
            if now >= self._rescue_ms():
                self.reset("rescue")

    def _rescue_ms(self):
        """How long a rescue lasts before the image gets its next turn."""
        if self.why == "base-fault":
            return _RESCUE_MAX_MS  # nobody knows what it was, nor that it will be gone
        turns = max(0, self.slots.crashes - _RESCUE_FROM) // 2
        return min(_RESCUE_MS << min(turns, 10), _RESCUE_MAX_MS)

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
        if reason == "no-ack" and self.radio and self.radio.lost:
            # The driver started before the application. With the runtime it is on trial itself.
            if not (self.runtimes and self.runtimes.on_candidate):
                reason = "radio"
        if outcome == "confirm":
            # Otadata first: from VALID on the runtime stays, from this record on the pair does.
            if self.runtimes:
                self.runtimes.confirm()
            self.record_all(self.slots.confirm())
            self._trial = None
            self.mode = "normal"
            self.connection.report_soon()
            if self.runtimes:
                self.record_all(self.runtimes.promote(self.slots.confirmed_release))
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
            self._retry_at = now + (self._backoff_ms << min(self.slots.retries, 10))
        elif now >= self._retry_at and self.connection.idle and not self.updates.healing:
            # A freshly staged image has no retries behind it and goes through `Updates`; this is a
            # repeated trial.
            self.reset("trial" if self.slots.retries else "update")

    @property
    def trial_reason(self):
        """Why the trial is not decided yet, for claim 1015; "ok" outside a trial."""
        return self._trial.reason if self._trial else "ok"

    def _evidence_step(self):
        self.evidence.poll(self.uptime_ms())
