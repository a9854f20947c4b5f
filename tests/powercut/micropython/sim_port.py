# Port of the simulated board: MicroPython's unix port in which time is a number, and flash,
# network and chip are the host's (tests/powercut/life.py). One process is one boot; the same
# inputs give the same boot, bit for bit. It stands in for tidemark.port.unix, `time` and `select`
# before the base is imported; the base itself is the frozen one, unaltered.

import hashlib
import struct
import sys

import ffi
import micropython
import uctypes

from tidemark.errors import FlashError, LinkError, StateError

# A frame, either way: op or status, socket, size of what follows, argument, time (ms) or, in an
# answer, the sockets that have something to read (a bit each).
_FRAME = "<BBxxIII"
_HEADER = micropython.const(16)
_HELLO = micropython.const(1)
_PROGRAM = micropython.const(2)
_ERASE = micropython.const(3)
_MARKER = micropython.const(4)
_RESET = micropython.const(5)
_CONNECT = micropython.const(6)
_SEND = micropython.const(7)
_RECV = micropython.const(8)
_CLOSE = micropython.const(9)
_TICK = micropython.const(10)
_PROMPT = micropython.const(11)
_SET_BOOT = micropython.const(12)
_MARK_VALID = micropython.const(13)

# What things take. The rest is free: a board is as fast as its waits.
_CALL_US = micropython.const(20)
_PROGRAM_MS = micropython.const(1)
_ERASE_MS = micropython.const(45)
_NETWORK_MS = micropython.const(2)
_TICK_MS = micropython.const(250)  # the host hears of the time at least this often
# A wait in which nothing can arrive is as long as this: fewer turns of loops that only look.
_NAP_MS = micropython.const(100)

_CAUSES = ("unknown", "power-on", "watchdog", "reset", "brownout", "soft")
_PERIOD = micropython.const(0x3FFFFFFF)

_us = [0]  # now
_state = {"runtimes": None, "due": None, "ready": 0, "told": 0, "timing": False, "count": 0}
_timers = []
_pipe = None
_tx = bytearray(_HEADER)
_rx = bytearray(_HEADER)


def start(control, flash_fd):
    """Run one boot; the process ends with it. `control`, `flash_fd`: inherited descriptors."""
    global _pipe
    _pipe = open(control, "r+b", buffering=0)
    info, cause, raw = _ask(_HELLO)
    seed, size, sector, page, marker, slot, index = struct.unpack("<16sIIIIII", info)
    lib = ffi.open(None)
    mmap = lib.func("p", "mmap", "pLiiil")
    content = uctypes.bytearray_at(mmap(None, size, 1, 1, flash_fd, 0), size)
    _state["flash"] = _Flash(content, sector, page)
    _state["seed"] = seed
    _state["marker"] = marker
    _state["cause"] = _CAUSES[cause]
    # Frozen into a real runtime: here one program stands for all of them.
    board = sys.modules["tidemark_board"]
    board.RUNTIME_INDEX = index
    if hasattr(board, "PARTITIONS"):
        _state["runtimes"] = _Runtimes(_state["flash"], board.PARTITIONS, slot)
    _run("_boot")
    if not raw:
        _run("main")
    _prompt()


def install():
    """Stand in for the platform's port, clock and poll. Call before the base is imported."""
    sys.modules["time"] = _Time()
    sys.modules["select"] = _Select()
    __import__("tidemark_board")  # this board's, before _boot.py pins the path
    from tidemark import port

    port.unix = sys.modules[__name__]


def _run(name):
    try:
        __import__(name)
    except ImportError as e:
        sys.print_exception(e)
    except Exception as e:  # boards show it and go on to the REPL
        sys.print_exception(e)


def _prompt():
    """The REPL: what the host sends is run, until the lease ends in a reset."""
    names = {"__name__": "__main__"}
    failed = 0
    while True:
        source, _, _ = _ask(_PROMPT, failed)
        failed = 0
        if not source:
            _advance(_NAP_MS)  # nobody types
            continue
        try:
            exec(str(source, "utf-8"), names)
        except Exception as e:
            failed = 1
            sys.print_exception(e)


# -- host -----------------------------------------------------------------------------------------


def _ask(op, arg=0, data=b"", sock=0):
    """(payload, argument, socket) of the answer. Raises FlashError with the host's code."""
    now = _us[0] // 1000
    struct.pack_into(_FRAME, _tx, 0, op, sock, len(data), arg, now)
    _pipe.write(_tx)
    if len(data):
        _pipe.write(data)
    _fill(_rx)
    status, sock, size, arg, ready = struct.unpack(_FRAME, _rx)
    payload = b""
    if size:
        payload = bytearray(size)
        _fill(payload)
    _state["ready"] = ready
    _state["told"] = now
    if status:
        raise FlashError(str(payload, "ascii"), "refused by the flash")
    return payload, arg, sock


def _fill(buf):
    view = memoryview(buf)
    at = 0
    while at < len(buf):
        got = _pipe.readinto(view[at:])
        if not got:
            sys.exit(1)  # the host is gone
        at += got


# -- time -----------------------------------------------------------------------------------------


def _advance(ms, timers=True):
    """Let `ms` pass: due timers are called, unless interrupts are off; then the watchdog looks."""
    end = _us[0] + ms * 1000
    while timers and not _state["timing"]:
        due = None
        for timer in _timers:
            if timer[1] <= end and (due is None or timer[1] < due[1]):
                due = timer
        if due is None:
            break
        _us[0] = max(_us[0], due[1])
        due[1] += due[0]
        _state["timing"] = True
        due[2](0)
        _state["timing"] = False
        _bite()
    _us[0] = max(_us[0], end)
    _bite()
    if timers and _us[0] // 1000 - _state["told"] >= _TICK_MS and not _state["timing"]:
        _ask(_TICK)


def _bite():
    if _state["due"] is not None and _us[0] > _state["due"]:
        _ask(_RESET, 2)


class _Time:
    """In place of the module `time`."""

    __name__ = "time"

    def ticks_ms(self):
        _us[0] += _CALL_US
        return (_us[0] // 1000) & _PERIOD

    def ticks_us(self):
        _us[0] += _CALL_US
        return _us[0] & _PERIOD

    def ticks_add(self, ticks, delta):
        return (ticks + delta) & _PERIOD

    def ticks_diff(self, end, start):
        return ((end - start + 0x20000000) & _PERIOD) - 0x20000000

    def sleep_ms(self, ms):
        _advance(ms if _state["ready"] else max(ms, _NAP_MS))

    def sleep(self, seconds):
        _advance(int(seconds * 1000))


class _Select:
    """In place of the module `select`."""

    __name__ = "select"
    POLLIN = 1
    POLLOUT = 4
    POLLERR = 8
    POLLHUP = 16

    def poll(self):
        return _Poll()


class _Poll:
    def __init__(self):
        self._wanted = {}

    def register(self, sock, events=5):
        self._wanted[sock] = events

    modify = register

    def unregister(self, sock):
        self._wanted.pop(sock, None)

    def poll(self, ms=-1):
        found = self._look()
        if not found and ms:
            _advance(ms)
            found = self._look()
        return found

    def ipoll(self, ms=-1):
        return self.poll(ms)

    def _look(self):
        found = []
        for sock, events in self._wanted.items():
            got = events & 4
            if events & 1 and _state["ready"] >> sock.number & 1:
                got |= 1
            if got:
                found.append((sock, got))
        return found


# -- flash ----------------------------------------------------------------------------------------


class _Flash:
    def __init__(self, content, sector, page):
        self._content = memoryview(content)
        self.size = len(content)
        self.sector = sector
        self.page = page

    def view(self, start, size):
        if start < 0 or size < 0 or start + size > self.size:
            raise FlashError("bounds", "outside the flash")
        return self._content[start : start + size]

    def read_into(self, addr, buf):
        buf[:] = self.view(addr, len(buf))

    def program(self, addr, data):
        _ask(_PROGRAM, addr, data)
        _advance(_PROGRAM_MS, False)

    def erase(self, addr):
        _ask(_ERASE, addr)
        _advance(_ERASE_MS, False)


def flash():
    return _state["flash"]


# -- runtimes -------------------------------------------------------------------------------------


class _Runtimes:
    """ESP-IDF's two application slots; its calls are done by the host's model of them."""

    def __init__(self, flash, partitions, running):
        # Here, as each board of one chip or the other, or none, has it.
        from tidemark.flash import Region

        self.running = running
        self.otadata, *slots = [
            Region(flash, *partitions[name][2:4]) for name in ("otadata", "ota_0", "ota_1")
        ]
        self.regions = tuple(slots)

    def set_boot(self, slot):
        self._call(_SET_BOOT, slot)

    def mark_valid(self):
        self._call(_MARK_VALID)

    def _call(self, op, slot=0):
        refusal, _, _ = _ask(op, slot)
        _advance(_PROGRAM_MS + _ERASE_MS, False)
        if refusal:
            raise StateError("ota-refused", str(refusal, "ascii"))


def runtimes():
    return _state["runtimes"]


# -- chip -----------------------------------------------------------------------------------------


def random(n):
    # From the host's seed: the same in every run of the same cut.
    out = b""
    while len(out) < n:
        _state["count"] += 1
        out += hashlib.sha256(_state["seed"] + struct.pack("<I", _state["count"])).digest()
    return out[:n]


def uptime_ms():
    _us[0] += _CALL_US
    return _us[0] // 1000


def reset_cause():
    return _state["cause"]


def marker():
    return _state["marker"]


def set_marker(n):
    _ask(_MARKER, n)
    _state["marker"] = n


def arm_watchdog(ms):
    _state["limit"] = ms * 1000
    feed()


def feed():
    _state["due"] = _us[0] + _state["limit"]


def reset():
    _ask(_RESET, 3)


def soft_reset(raw):
    _ask(_RESET, 5)


def unique_id():
    return _state["seed"][:8]


def start_timer(ms, callback):
    _timers.append([ms * 1000, _us[0] + ms * 1000, callback])


def listen():
    pass


def kbd_intr(on):
    pass


def interrupted():
    return False


# -- network --------------------------------------------------------------------------------------


class _Socket:
    def __init__(self, number):
        self.number = number

    def setblocking(self, flag):
        pass

    def settimeout(self, seconds):
        pass

    def readinto(self, buf):
        if not _state["ready"] >> self.number & 1:
            return None
        data, _, _ = _ask(_RECV, len(buf), b"", self.number)
        buf[: len(data)] = data
        return len(data)

    def recv(self, n):
        if not _state["ready"] >> self.number & 1:
            _advance(_NETWORK_MS)
            raise OSError(11)
        return bytes(_ask(_RECV, n, b"", self.number)[0])

    def write(self, data):
        _ask(_SEND, 0, data, self.number)
        _advance(_NETWORK_MS)
        return len(data)

    send = write

    def close(self):
        if self.number is not None:
            number = self.number
            self.number = None
            _ask(_CLOSE, 0, b"", number)


def prepare_radio(allowed):
    """Nothing: there is none."""


def radio(ssid, password, country, hostname):
    """Return None: the world's network needs no joining."""


def open_socket(host, port, timeout_s):
    _advance(_NETWORK_MS)
    _, number, _ = _ask(_CONNECT, port, host.encode())
    if number == 255:
        raise LinkError("refused", "nobody listens")
    return _Socket(number)
