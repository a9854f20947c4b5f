# Tasks, their deadlines, leases, and the one place that feeds the watchdog (I7).

from tidemark import reasons


class Task:
    """One job of the cooperative loop.

    step: callable without arguments, short; period_ms: least time between two steps; deadline_ms:
    a step that has not come round for this long is a fault.
    """

    def __init__(self, name, step, period_ms, deadline_ms):
        self.name = name
        self.step = step
        self.period_ms = period_ms
        self.deadline_ms = deadline_ms
        self.due = 0
        self.seen = 0
        self.steps = 0


class Supervisor:
    """Feeds the watchdog while every deadline or a lease holds, and stops for good when one is
    missed.

    The timer callback `tick` runs between bytecodes of whatever hangs, so it finds out by itself.
    After a miss the watchdog bites: no code of the application is trusted to reset the board.
    """

    def __init__(self, port, say=print):
        self.port = port
        self.say = say
        self.tasks = []
        self.missed = ""
        self.marked = False  # the first health mark of this boot
        self._lease_until = None
        self._lease_reason = ""

    def start(self, watchdog_ms, lease_ms):
        """Arms the watchdog, then the boot lease, then the timer that feeds: in this order (design
        6)."""
        self.port.arm_watchdog(watchdog_ms)
        self.lease(lease_ms, "lease")
        self.port.start_timer(max(20, watchdog_ms // 16), self.tick)

    def lease(self, ms, reason):
        """For `ms` from now deadlines do not count; the lease's end resets the board with
        `reason`."""
        self._lease_reason = reason
        self._lease_until = self.port.uptime_ms() + ms

    @property
    def leased(self):
        return self._lease_until is not None

    def end_lease(self):
        now = self.port.uptime_ms()
        for task in self.tasks:
            task.seen = now
        self._lease_until = None

    def add(self, task):
        task.due = task.seen = self.port.uptime_ms()
        self.tasks.append(task)

    def tick(self, _=None):
        """The timer callback: feeds, or does not."""
        if self.missed:
            return
        now = self.port.uptime_ms()
        if self._lease_until is not None:
            if now < self._lease_until:
                self.port.feed()
                return
            self.missed = self._lease_reason
            self.port.set_marker(reasons.encode(self._lease_reason))
            self.say("tidemark: the lease ran out")
            # In a trial it is a missed deadline like any other: the watchdog bites.
            if self._lease_reason != "deadline":
                self.port.reset()
            return
        for task in self.tasks:
            if now - task.seen > task.deadline_ms:
                self.missed = task.name
                self.port.set_marker(reasons.encode("deadline"))
                self.say("tidemark: task %s missed its deadline" % task.name)
                return
        if self.tasks:
            self.port.feed()

    def run_once(self):
        """One round: each task that is due steps once. Returns ms until the next one is due (0 to
        50)."""
        if self.port.interrupted():
            raise KeyboardInterrupt
        wait = 50
        for task in self.tasks:
            now = self.port.uptime_ms()
            if now >= task.due:
                task.step()
                now = self.port.uptime_ms()
                task.steps += 1
                task.seen = now
                task.due = now + task.period_ms
            wait = min(wait, max(0, task.due - now))
        if not self.marked and self.tasks and min(task.steps for task in self.tasks) > 0:
            self.marked = True
            self.end_lease()
        return wait

    def run(self, sleep_ms):
        """The main loop. Ends only by an exception: a task's, or KeyboardInterrupt."""
        while True:
            wait = self.run_once()
            if wait:
                sleep_ms(wait)
