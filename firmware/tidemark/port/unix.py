# Port of the virtual board: MicroPython's unix port. Flash is mapped read-only from the host's
# file; what changes hardware (program, erase, watchdog, reset, marker) is asked of the host.
# docs/virtual-board.md has the protocol.

import _thread
import errno
import os
import select
import socket
import struct
import sys
import time

import ffi
import micropython
import uctypes
import vfs

from tidemark.compat import const
from tidemark.errors import FlashError, LinkError, TidemarkError

# The hardware channel's frames: op or status, id, payload length, argument or value, payload.
_FRAME = "<BBHI"
_FRAME_SIZE = const(8)
_PAYLOAD_MAX = const(4096)
_HELLO = const(1)
_PROGRAM = const(2)
_ERASE = const(3)
_ARM = const(4)
_FEED = const(5)  # has no answer
_RESET = const(6)
_MARKER = const(7)
_SOFT_RESET = const(8)

# Answer to _HELLO: flash size, sector, page, marker, ms since the hard reset, cause, raw REPL, id.
_INFO = "<IIIIIBB8s"
_CAUSES = ("unknown", "power-on", "watchdog", "reset", "brownout", "soft")

# Bytes of _flags, shared by the main thread and the ticker.
_PENDING = const(0)  # the dispatcher is scheduled and has not run
_BUSY = const(1)  # a hardware request is under way: no interrupts, as in a flash operation
_CATCH = const(2)  # Ctrl-C on the console interrupts
_HELD = const(3)  # kbd_intr(False)
_KEPT = const(4)  # a Ctrl-C came meanwhile
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
_EISCONN = const(106)
_ADDRESSES_MAX = const(4)
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)
_UINT32_MAX = const(0xFFFFFFFF)

_flags = bytearray(8)
_tx = bytearray(_FRAME_SIZE + _PAYLOAD_MAX)
_rx = bytearray(_FRAME_SIZE + 64)
_chunk = bytearray(_CHUNK)
_input = bytearray(_INPUT_SIZE)
_span = [0, 0]  # of _input: read index, bytes held
_timers = []
_state = {"id": 0, "marker": 0}
_libc = None  # the C functions, once `start` has run


class _Libc:
    """The C functions this port calls. None of them allocates on MicroPython's heap."""

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


def start(control, flash_fd, paths=()):
    """Bring the board up and run it; does not return.

    `control`, `flash_fd`: inherited descriptors of the hardware channel and of the flash file.
    `paths`: tuple of host folders searched before the frozen modules, mounted read-only in their
    own place; empty on a board that runs what it has frozen.
    """
    global _libc
    _libc = _Libc(control)
    info = _ask(_HELLO)
    size, sector, page, marker, elapsed, cause, raw, uid = struct.unpack(_INFO, info)
    address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, flash_fd, 0)
    _state["flash"] = _Flash(uctypes.bytearray_at(address, size), sector, page)
    _state["zero"] = time.ticks_add(time.ticks_ms(), -elapsed)
    _state["marker"] = marker
    _state["cause"] = _CAUSES[cause]
    _state["uid"] = uid
    _mount(paths)
    # The ticker looks up no name and makes no object: no dict can change under it, and it never
    # starts a collection.
    c = _libc
    chip = (_flags, micropython.schedule, time.sleep, _dispatch, c.exit, c.kill, c.parent, c.main)
    _state["ticker"] = chip
    _thread.start_new_thread(_tick, chip)
    from tidemark.port import unix_repl

    unix_repl.run(bool(raw))


def _mount(paths):
    # A board has no host filesystem: the root is free for whatever _boot.py mounts.
    vfs.umount("/")
    sys.path[:] = [".frozen"]
    for i in range(len(paths)):
        vfs.mount(vfs.VfsPosix(paths[i]), paths[i], readonly=True)
        sys.path.insert(i, paths[i])


# -- hardware channel -----------------------------------------------------------------------------


def _ask(op, arg=0, data=None):
    """Send one request and return the answer's payload (bytes), or its value (int) without one.

    Raises FlashError with the host's code. Timers wait meanwhile, as during a flash operation.
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
        raise TidemarkError("hardware-channel", "answer to another request")
    if status:
        raise FlashError(str(payload, "ascii"), "refused by the flash")
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


# -- flash ----------------------------------------------------------------------------------------


class _Flash:
    def __init__(self, content, sector, page):
        self._content = memoryview(content)
        self.size = len(content)
        self.sector = sector
        self.page = page

    def view(self, start, size):
        """Return a memoryview of `size` bytes from `start`, in place; writing to it crashes."""
        if start < 0 or size < 0 or start + size > self.size:
            raise FlashError("bounds", "outside the flash")
        return self._content[start : start + size]

    def read_into(self, addr, buf):
        """Fill `buf` from `addr` on."""
        buf[:] = self.view(addr, len(buf))

    def program(self, addr, data):
        """Program whole aligned pages. Raises FlashError: `bounds`, `align`, `overwrite`."""
        if addr < 0 or addr > _UINT32_MAX:
            raise FlashError("bounds", "outside the flash")
        view = memoryview(data)
        for start in range(0, max(1, len(view)), _PAYLOAD_MAX):
            _ask(_PROGRAM, addr + start, view[start : start + _PAYLOAD_MAX])

    def erase(self, addr):
        """Erase the sector at `addr`. Raises FlashError: `bounds`, `align`."""
        if addr < 0 or addr > _UINT32_MAX:
            raise FlashError("bounds", "outside the flash")
        _ask(_ERASE, addr)


def flash():
    """Return the flash: the whole chip, one object."""
    return _state["flash"]


def runtimes():
    """Return None: this runtime has no second slot."""
    return None


# -- chip -----------------------------------------------------------------------------------------


def random(n):
    """Return `n` bytes from the operating system's source."""
    return os.urandom(n)


def uptime_ms():
    """Return ms since power-on or hard reset; a soft reset goes on counting."""
    return time.ticks_diff(time.ticks_ms(), _state["zero"])


def reset_cause():
    """Return why this boot began: `power-on`, `watchdog`, `reset`, or `soft`."""
    return _state["cause"]


def marker():
    """Return the register that survives every reset but not a power loss; 0 when never set."""
    return _state["marker"]


def set_marker(n):
    """Set the register to `n`, 0..0xFFFFFFFF."""
    _ask(_MARKER, n)
    _state["marker"] = n


def arm_watchdog(ms):
    """Start the watchdog or change its time-out; it never stops before the next hard reset."""
    _ask(_ARM, ms)


def feed():
    """Feed the watchdog. Returns at once: the host has no answer to it."""
    before = _flags[_BUSY]
    _flags[_BUSY] = 1
    try:
        _send(_FEED, 0, 0, None)
    finally:
        _leave(before)


def reset():
    """Reset the board. Does not return."""
    _flags[_BUSY] = 1
    _send(_RESET, 0, 0, None)
    while True:
        time.sleep(1)


def soft_reset(raw):
    """Start again with a clean heap; watchdog, marker and console stay. Does not return.

    `raw`: into the raw REPL, without main.py.
    """
    _flags[_BUSY] = 1
    _send(_SOFT_RESET, 0, 1 if raw else 0, None)
    while True:
        time.sleep(1)


def unique_id():
    """Return the chip's 8 bytes."""
    return _state["uid"]


# -- timers and console ---------------------------------------------------------------------------


def start_timer(ms, callback):
    """Call `callback(0)` every `ms` in the main thread, between bytecodes, until the reset.

    Resolution 20 ms; a late one does not catch up. Raises TidemarkError: `timers` when 8 run.
    """
    if len(_timers) >= _TIMERS_MAX:
        raise TidemarkError("timers", "too many timers")
    _timers.append([ms, time.ticks_add(time.ticks_ms(), ms), callback])


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
        if c == 3 and _flags[_CATCH]:
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
    _flags[_HELD] = _flags[_KEPT] = 0


def listen():
    """The last act of _boot.py: here unix_repl lets no Ctrl-C in before that."""


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


# -- network --------------------------------------------------------------------------------------


def open_socket(host, port, timeout_s):
    """Return a connected stream socket. Raises LinkError: `resolve`, `refused`, `timeout`.

    Wait with `setblocking(False)` and `select.poll`, not `settimeout`: MicroPython begins that
    time-out anew after each signal, and the ticker sends one every 40 ms.
    """
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except OSError:
        raise LinkError("resolve", "name not found")
    until = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
    error = LinkError("resolve", "no address")
    for entry in found[:_ADDRESSES_MAX]:
        sock = socket.socket(entry[0], socket.SOCK_STREAM)
        try:
            _connect(sock, entry[-1], until)
            # Else a PUBLISH behind a PUBACK waits for the peer's delayed acknowledgement.
            sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            sock.setblocking(True)
            return sock
        except LinkError as e:
            sock.close()
            error = e
    raise error


def _connect(sock, address, until):
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while True:
        try:
            sock.connect(address)
            return
        except OSError as e:
            if e.errno == _EISCONN:
                return
            if e.errno not in (errno.EINPROGRESS, errno.EALREADY, _EINTR):
                raise LinkError("refused", "errno %d" % e.errno)
        left = time.ticks_diff(until, time.ticks_ms())
        if left <= 0 or not poller.poll(left):
            raise LinkError("timeout", "no answer to connect")
