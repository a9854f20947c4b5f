# What stands in for chip and C runtime below a virtual board's port: the hardware channel to the
# host, the mapped flash, timers, the console. docs/virtual-board.md has the protocol. It imports
# nothing of the base, so that a board whose base lies in its flash can stand on it as well.

import _thread
import os
import socket
import struct
import sys
import time

import ffi
import micropython
import uctypes
from micropython import const

# The hardware channel's frames: op or status, id, payload length, argument or value, payload.
_FRAME = "<BBHI"
_FRAME_SIZE = const(8)
_PAYLOAD_MAX = const(4096)
_ANSWER_MAX = const(2048)
_HELLO = const(1)
_FEED = const(5)  # has no answer
_RESET = const(6)
_SOFT_RESET = const(8)

# Answer to _HELLO: flash size, sector, page, marker, ms since the hard reset, cause, raw REPL, id.
_INFO = "<IIIIIBB8s"
_CAUSES = ("unknown", "power-on", "watchdog", "reset", "brownout", "soft", "deep-sleep")

# Bytes of _flags, shared by the main thread and the ticker.
_PENDING = const(0)  # the dispatcher is scheduled and has not run
_BUSY = const(1)  # a hardware request is under way: no interrupts, as in a flash operation
_CATCH = const(2)  # Ctrl-C on the console interrupts
_HELD = const(3)  # kbd_intr(False)
_KEPT = const(4)  # a Ctrl-C came meanwhile
_PLAIN = const(6)  # plain(True)
_MISSED = const(5)  # the dispatcher came while busy: like a pending interrupt it runs right after

_TICK_S = 0.02
_TIMERS_MAX = const(8)
_INPUT_SIZE = const(4096)
_CHUNK = const(256)
_PROT_READ = const(1)
_MAP_SHARED = const(1)
_MSG_WAITALL = const(0x100)
_SIGINT = const(2)
_SIGURG = const(23)  # its default is to do nothing: it can't end a process that has no handler yet
_EINTR = const(4)

_flags = bytearray(8)
_tx = bytearray(_FRAME_SIZE + _PAYLOAD_MAX)
_rx = bytearray(_FRAME_SIZE + _ANSWER_MAX)
_chunk = bytearray(_CHUNK)
_input = bytearray(_INPUT_SIZE)
_span = [0, 0]  # of _input: read index, bytes held
_timers = []
_state = {"id": 0}
_libc = None  # the C functions, once `start` has run


class Refused(Exception):
    """The host refused a request: `code` is its word, `value` a number that goes with it."""

    def __init__(self, code, value):
        super().__init__(code)
        self.code = code
        self.value = value


class _Libc:
    """The C functions called here. None of them allocates on MicroPython's heap."""

    def __init__(self, control):
        lib = ffi.open(None)
        self.control = control
        self.mmap = lib.func("p", "mmap", "pLiiil")
        self.send = lib.func("l", "send", "ipLi")
        self.recv = lib.func("l", "recv", "ipLi")
        self.exit = lib.func("v", "_exit", "i")
        self.kill = lib.func("i", "pthread_kill", "Li")
        self.main = lib.func("L", "pthread_self", "")()
        self.parent = lib.func("i", "getppid", "")
        # A handler that does nothing and restarts nothing but waits that take no timers along.
        lib.func("p", "signal", "ip")(_SIGURG, lib.addr("getpid"))


# -- start-up -------------------------------------------------------------------------------------


def start(control, flash_fd):
    """Bring the hardware up. Returns a dict of what is known of this boot.

    `control`, `flash_fd`: inherited descriptors of the hardware channel and of the flash file.
    Keys: `flash` (bytearray in place, not to be written), `sector`, `page`, `marker`, `zero`
    (ticks of the hard reset), `cause` (str), `raw` (bool: into the raw REPL), `uid` (8 bytes).
    """
    global _libc
    _libc = _Libc(control)
    info = ask(_HELLO)
    size, sector, page, marker, elapsed, cause, raw, uid = struct.unpack(_INFO, info)
    address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, flash_fd, 0)
    # The ticker looks up no name and makes no object: no dict can change under it, and it never
    # starts a collection.
    c = _libc
    chip = (_flags, micropython.schedule, time.sleep, _dispatch, c.exit, c.kill, c.parent, c.main)
    _state["ticker"] = chip
    _thread.start_new_thread(_tick, chip)
    return {
        "flash": uctypes.bytearray_at(address, size),
        "sector": sector,
        "page": page,
        "marker": marker,
        "zero": time.ticks_add(time.ticks_ms(), -elapsed),
        "cause": _CAUSES[cause],
        "raw": bool(raw),
        "uid": uid,
    }


# -- hardware channel -----------------------------------------------------------------------------


def ask(op, arg=0, data=None):
    """Send one request and return the answer's payload (bytes), or its value (int) without one.

    Raises Refused with the host's code. Timers wait meanwhile, as during a flash operation.
    """
    before = _flags[_BUSY]
    _flags[_BUSY] = 1
    try:
        # A Ctrl-C on its way is raised by this jump, before anything has been sent.
        while not _flags[_BUSY]:
            pass
        return _exchange(op, arg, data)
    finally:
        _leave(before)


def _leave(before):
    _flags[_BUSY] = before
    if _flags[_MISSED] and not before:
        _flags[_MISSED] = 0
        try:
            micropython.schedule(_dispatch, 0)
        except RuntimeError:
            _flags[_PENDING] = 0  # the queue is full: the ticker asks again


def _exchange(op, arg, data):
    number = _state["id"] = (_state["id"] + 1) & 0xFF
    _send(op, number, arg, data)
    _receive(memoryview(_rx)[:_FRAME_SIZE])
    status, answered, size, value = struct.unpack_from(_FRAME, _rx, 0)
    payload = None
    if size:
        _receive(memoryview(_rx)[_FRAME_SIZE : _FRAME_SIZE + size])
        payload = bytes(memoryview(_rx)[_FRAME_SIZE : _FRAME_SIZE + size])
    if answered != number:
        raise RuntimeError("answer to another request")
    if status:
        raise Refused(str(payload, "ascii"), value)
    return value if payload is None else payload


def _send(op, number, arg, data):
    size = len(data) if data is not None else 0
    struct.pack_into(_FRAME, _tx, 0, op, number, size, arg)
    if size:
        _tx[_FRAME_SIZE : _FRAME_SIZE + size] = data
    view = memoryview(_tx)
    start, end = 0, _FRAME_SIZE + size
    while start < end:
        sent = _libc.send(_libc.control, view[start:end], end - start, 0)
        if sent > 0:
            start += sent
        elif os.errno() != _EINTR:
            _libc.exit(1)  # the host is gone


def _receive(view):
    start = 0
    while start < len(view):
        got = _libc.recv(_libc.control, view[start:], len(view) - start, _MSG_WAITALL)
        if got > 0:
            start += got
        elif got == 0 or os.errno() != _EINTR:
            _libc.exit(1)


# -- reset ----------------------------------------------------------------------------------------


def feed():
    """Feed the watchdog. Returns at once: the host has no answer to it."""
    before = _flags[_BUSY]
    _flags[_BUSY] = 1
    try:
        _send(_FEED, 0, 0, None)
    finally:
        _leave(before)


def leave(op, arg=0):
    """Ask for what ends this run. Does not return."""
    _flags[_BUSY] = 1
    _send(op, 0, arg, None)
    while True:
        time.sleep(1)


def reset():
    """Reset the board. Does not return."""
    leave(_RESET)


def soft_reset(raw):
    """Start again with a clean heap; watchdog, marker and console stay. Does not return.

    `raw`: into the raw REPL, without main.py.
    """
    leave(_SOFT_RESET, 1 if raw else 0)


# -- timers and console ---------------------------------------------------------------------------


def start_timer(ms, callback):
    """Call `callback(0)` every `ms` in the main thread, between bytecodes, until the reset.

    Resolution 20 ms; a late one does not catch up. Returns what `stop_timer` takes;
    None where 8 run.
    """
    if len(_timers) >= _TIMERS_MAX:
        return None
    timer = [ms, time.ticks_add(time.ticks_ms(), ms), callback]
    _timers.append(timer)
    return timer


def stop_timer(timer):
    """Stop a timer of `start_timer`."""
    if timer in _timers:
        _timers.remove(timer)


def _tick(flags, schedule, sleep, dispatch, leave, kill, parent, main):
    # This thread only asks for `dispatch`: all the work is done by the main thread.
    born_to = parent()
    while True:
        sleep(_TICK_S)
        if parent() != born_to:
            leave(1)  # the host process died: no orphan stays, whatever the main thread does
        if flags[_PENDING]:
            kill(main, _SIGURG)  # it waits in a system call
            continue
        flags[_PENDING] = 1
        try:
            schedule(dispatch, 0)
        except RuntimeError:
            flags[_PENDING] = 0  # the queue is full: next time


def _dispatch(_):
    if _flags[_BUSY]:
        _flags[_MISSED] = 1
        return
    now = time.ticks_ms()
    for timer in _timers:
        if time.ticks_diff(now, timer[1]) >= 0:
            timer[1] = time.ticks_add(now, timer[0])
            try:
                timer[2](0)
            except Exception as e:  # the C runtime, too, shows a callback's error and goes on
                sys.print_exception(e)
    interrupt = _flags[_CATCH] and pump()
    _flags[_PENDING] = 0
    if interrupt:
        # Last of all, with no jump behind it: so it is raised in the interrupted code, not here.
        _libc.kill(_libc.main, _SIGINT)


def pump():
    """Move what has arrived on the console into the input buffer; what does not fit is lost.

    Returns whether a Ctrl-C is to interrupt. Without `catch` Ctrl-C is a character like others.
    """
    got = _libc.recv(0, _chunk, _CHUNK, socket.MSG_DONTWAIT)
    if got == 0:
        _libc.exit(0)
    interrupt = False
    for i in range(got):
        c = _chunk[i]
        if c == 3 and _flags[_CATCH] and not _flags[_PLAIN]:
            if _flags[_HELD]:
                _flags[_KEPT] = 1
            else:
                interrupt = True
        elif _span[1] < _INPUT_SIZE:
            _input[(_span[0] + _span[1]) % _INPUT_SIZE] = c
            _span[1] += 1
    return interrupt


def read_char(poller):
    """Wait for a byte from the console and return it. Only while Ctrl-C is not caught."""
    while not _span[1]:
        poller.poll()
        pump()
    c = _input[_span[0]]
    _span[0] = (_span[0] + 1) % _INPUT_SIZE
    _span[1] -= 1
    return c


def catch(on):
    """Have Ctrl-C raise KeyboardInterrupt (True) or arrive as a character (False)."""
    _flags[_CATCH] = 1 if on else 0
    _flags[_HELD] = _flags[_KEPT] = _flags[_PLAIN] = 0


def plain(on):
    """Have Ctrl-C arrive as a character even while it is caught, as micropython.kbd_intr(-1)."""
    _flags[_PLAIN] = 1 if on else 0


def kbd_intr(on):
    """Bracket what Ctrl-C must not cut: `kbd_intr(False)` keeps it, `kbd_intr(True)` raises it."""
    if not on:
        _flags[_HELD] = 1
        return
    _flags[_HELD] = 0
    if _flags[_KEPT]:
        _flags[_KEPT] = 0
        _libc.kill(_libc.main, _SIGINT)


def interrupted():
    """Return whether a Ctrl-C is being kept, and forget it: the caller raises it when it can."""
    kept = _flags[_KEPT]
    _flags[_KEPT] = 0
    return bool(kept)


def held():
    """Return how many bytes wait to be read."""
    return _span[1]


def take(buf):
    """Move what waits into `buf`; return how many bytes."""
    count = min(len(buf), _span[1])
    for i in range(count):
        buf[i] = _input[(_span[0] + i) % _INPUT_SIZE]
    _span[0] = (_span[0] + count) % _INPUT_SIZE
    _span[1] -= count
    return count
