# Readings: stored first, sent from the outbox, taken out of it when the gateway has acknowledged.

from tidemark import cbor
from tidemark.compat import const
from tidemark.errors import CodecError, FlashError, LinkError, SessionError, StateError

_LIVE_WINDOW = const(16)
_BACKLOG_WINDOW = const(8)
# Each is a round trip to the broker, and the other tasks wait.
_SENDS_PER_STEP = const(4)
_SLOW_MS = const(200)  # a publish that took longer is the last one of its step
_DEPTH = const(5)
# Half of the readings of a boot that the gateway remembers: below those it can't tell a copy.
_AHEAD = const(512)


class Telemetry:
    """Two jobs: `sample` stores readings, `send` has those that wait under way to the gateway."""

    def __init__(self, base, sensors, readings_max=0):
        """`sensors`: list, see agent.sensors; `readings_max`: readings of one boot, 0 for any."""
        self._base = base
        self._sensors = sensors
        self._left = readings_max or -1
        self._live = Lane(base, "telemetry", False, _LIVE_WINDOW)
        self._backlog = Lane(base, "backlog", True, _BACKLOG_WINDOW)
        self._fault = None

    def sample(self):
        """Take one reading of all sensors, {number: value}, and make it durable."""
        if not self._left:
            return
        reading = {}
        for sensor in self._sensors:
            try:
                value = sensor.read()
            except OSError:
                value = None
            if value is not None:
                reading[sensor.number] = value
        if not reading:
            self._fault = "sensors"
            return
        base = self._base
        try:
            epoch = base.counter.open_epoch()
            # In the message the reading lies one level deeper than here.
            body = cbor.encode(reading, _DEPTH)
            base.outbox.add(epoch, base.outbox.next_index(), body)
        except CodecError as e:
            base.record(e.code, "sample")
            self._fault = "sensors"
            return
        except (FlashError, StateError) as e:
            # Flash that takes no more is told as such. It is no complaint about the image, or each
            # release would be rejected on this board, the one that might help included.
            base.refuse(e, "sample")
            self._fault = "sensors" if e.code == "outbox-value" else None
            return
        self._left -= 1
        self._fault = None

    def send(self):
        """Send some of what waits: this boot's first, so that old readings never hold it up."""
        if self._base.connection.ready:
            begin = self._base.uptime_ms()
            try:
                self._live.fill()
                if self._base.uptime_ms() - begin < _SLOW_MS:
                    self._backlog.fill()
            except FlashError as e:
                self._base.refuse(e, "send")  # what waits can't be read

    def complaint(self):
        """Health check: "sensors" when the last reading could not be had, or is too large."""
        return self._fault


class Lane:
    """Readings of one kind on their way, oldest first, in a window that follows what gets through.

    One loss narrows the window to a single reading; each acknowledgement doubles it again, so a
    gateway that is away costs little and one that is back is soon used in full. No reading is sent
    far ahead of one that is under way, which may have to go once more.
    """

    def __init__(self, base, kind, backlog, width):
        """`kind`: "telemetry" or "backlog"; `backlog`: send readings of former boots, else of this
        one; `width`: most readings under way."""
        self._base = base
        self._kind = kind
        self._backlog = backlog
        self._width = width
        self._window = width
        self._after = None  # handle of the last reading sent, None to look from the oldest
        self._under_way = {}  # handle: (creation epoch, index)

    def fill(self):
        """Send what the window has room for."""
        base = self._base
        room = min(self._window - len(self._under_way), base.connection.room, _SENDS_PER_STEP)
        if room <= 0:
            return
        limit = room + (len(self._under_way) if self._after is None else 0)
        epoch = base.counter.epoch
        begin = base.uptime_ms()
        for found in base.outbox.pending(self._after, limit, epoch, self._backlog):
            if not room or base.uptime_ms() - begin > _SLOW_MS:
                return
            handle, created, index, body = found
            if handle not in self._under_way:
                if self._is_ahead(created, index):
                    return
                if not self._send(handle, created, index, body):
                    return
                room -= 1
            self._after = handle

    def answered(self, handle, acked):
        """The connection's word on a reading: acknowledged, or not known to have arrived."""
        self._under_way.pop(handle, None)
        if acked:
            self._window = min(self._window * 2, self._width)
            self._base.outbox.ack(handle)
        else:
            self._window = 1
            self._after = None

    def _is_ahead(self, created, index):
        for epoch, other in self._under_way.values():
            if epoch == created and index - other >= _AHEAD:
                return True
        return False

    def _send(self, handle, created, index, body):
        base = self._base
        try:
            value = cbor.decode(body)
        except CodecError as e:
            # Whoever wrote it: what can't be sent must not hold up the rest.
            base.record(e.code, "outbox")
            base.outbox.ack(handle)
            return True
        try:
            base.connection.send(
                self._kind, [created, index, value], self.answered, handle
            )
        except CodecError as e:
            base.record(e.code, "outbox")
            base.outbox.ack(handle)
            return True
        except (LinkError, SessionError) as e:
            if e.code == "message-size":
                base.record(e.code, "outbox")
                base.outbox.ack(handle)
                return True
            # May have arrived: it is sent again, and told apart upstream by epoch and index.
            self._after = None
            return False
        self._under_way[handle] = (created, index)
        return True
