# Port of the virtual board: MicroPython's unix port. Flash is mapped read-only from the host's
# file; what changes hardware (program, erase, watchdog, reset, marker) is asked of the host.
# docs/virtual-board.md has the protocol.

import os
import socket
import sys
import time

import vfs

from tidemark.compat import const
from tidemark.errors import FlashError, LinkError, TidemarkError
from tidemark.port import sockets, unix_chip
from tidemark.port.unix_chip import (  # noqa: F401
    ask,
    feed,
    interrupted,
    kbd_intr,
    reset,
)

# Operations of the hardware channel.
_PROGRAM = const(2)
_ERASE = const(3)
_ARM = const(4)
_MARKER = const(7)

_PAYLOAD_MAX = const(4096)
_ADDRESSES_MAX = const(4)
_UINT32_MAX = const(0xFFFFFFFF)

_state = {"marker": 0}


# -- start-up -------------------------------------------------------------------------------------


def start(control, flash_fd, paths=()):
    """Bring the board up and run it; does not return.

    `control`, `flash_fd`: inherited descriptors of the hardware channel and of the flash file.
    `paths`: tuple of host folders searched before the frozen modules, mounted read-only in their
    own place; empty on a board that runs what it has frozen.
    """
    _state.update(unix_chip.start(control, flash_fd))
    _state["flash"] = _Flash(_state["flash"], _state["sector"], _state["page"])
    _mount(paths)
    from tidemark.port import unix_repl

    unix_repl.run(unix_chip, _state["raw"], "Tidemark virtual board")


def _mount(paths):
    # A board has no host filesystem: the root is free for whatever _boot.py mounts.
    vfs.umount("/")
    sys.path[:] = [".frozen"]
    for i in range(len(paths)):
        vfs.mount(vfs.VfsPosix(paths[i]), paths[i], readonly=True)
        sys.path.insert(i, paths[i])


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
            _change(_PROGRAM, addr + start, view[start : start + _PAYLOAD_MAX])

    def erase(self, addr):
        """Erase the sector at `addr`. Raises FlashError: `bounds`, `align`."""
        if addr < 0 or addr > _UINT32_MAX:
            raise FlashError("bounds", "outside the flash")
        _change(_ERASE, addr)


def _change(op, addr, data=None):
    try:
        ask(op, addr, data)
    except unix_chip.Refused as refused:
        raise FlashError(refused.code, "refused by the flash")


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
    ask(_MARKER, n)
    _state["marker"] = n


def arm_watchdog(ms):
    """Start the watchdog or change its time-out; it never stops before the next hard reset."""
    ask(_ARM, ms)


def unique_id():
    """Return the chip's 8 bytes."""
    return _state["uid"]


# -- timers and console ---------------------------------------------------------------------------


def start_timer(ms, callback):
    """Call `callback(0)` every `ms` in the main thread, between bytecodes, until the reset.

    Resolution 20 ms; a late one does not catch up. Raises TidemarkError: `timers` when 8 run.
    """
    if not unix_chip.start_timer(ms, callback):
        raise TidemarkError("timers", "too many timers")


def listen():
    """The last act of _boot.py: here unix_repl lets no Ctrl-C in before that."""


# -- network --------------------------------------------------------------------------------------


def open_socket(host, port, timeout_s):
    """Return a connected stream socket. Raises LinkError: `resolve`, `refused`, `timeout`.

    Wait with `setblocking(False)` and `select.poll`, not `settimeout`: MicroPython begins that
    time-out anew after each signal, and the ticker sends one every 40 ms.
    """
    until = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        raise LinkError("resolve", "name not found")
    return sockets.connect([entry[-1] for entry in found[:_ADDRESSES_MAX]], until)


def prepare_radio(allowed):
    """Nothing: there is none."""


def radio(ssid, password, country, hostname):
    """Return None: the host's network needs no joining."""
