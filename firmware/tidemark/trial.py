# When an unconfirmed image is healthy, at fault, or cut off (I5): a pure judge over what it is
# shown.


class Trial:
    """Judges one boot of an unconfirmed image.

    hold_ms: how long all checks must hold without a gap; limit_ms: uptime at which the trial ends;
    heap_floor: bytes.
    """

    def __init__(self, hold_ms, limit_ms, heap_floor):
        self.hold_ms = hold_ms
        self.limit_ms = limit_ms
        self.heap_floor = heap_floor
        self.reason = "starting"
        self._since = None

    def step(self, now, link_up, acknowledged, heap_free, app_reason):
        """Returns None while undecided, else ("confirm", "ok"), ("reject", reason) or
        ("inconclusive", reason).

        now: uptime, ms. link_up: bool. acknowledged: the gateway acknowledged a report of this
        boot. heap_free: bytes. app_reason: what the application's own checks complain about (str),
        or None. Missed deadlines need no look here: they end the boot.
        """
        if heap_free < self.heap_floor:
            return "reject", "heap"
        if not link_up or not acknowledged:
            self.reason = "no-ack"
        elif app_reason:
            self.reason = "health"
        else:
            self.reason = "ok"
        if self.reason != "ok":
            self._since = None
            if now >= self.limit_ms:
                if self.reason == "health":
                    return "reject", "health"
                return "inconclusive", "no-ack"
            return None
        if self._since is None:
            self._since = now
        if now - self._since >= self.hold_ms:
            return "confirm", "ok"
        return None
