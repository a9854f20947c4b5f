# Ctrl-C on chips whose runtime raises it between bytecodes: brackets that it must not cut, and one
# that lands in a timer's callback. Shared by the ports of real chips.

import select
import sys

import micropython

from tidemark.compat import const

_CTRL_C = const(3)
_NO_CHAR = const(-1)

# Bytes of _flags.
_DEPTH = const(0)  # of kbd_intr(False)
_KEPT = const(1)  # a Ctrl-C landed in a callback
_LOOK = const(2)  # one may lie in the input: it came while it was no interrupt
_LISTENS = const(3)  # _boot.py is over

_flags = bytearray(4)
_state = {}


def guarded(callback):
    """Return the callback of a timer that calls `callback(0)` and lets nothing out."""

    def fire(_):
        try:
            callback(0)
        except KeyboardInterrupt:
            _flags[_KEPT] = 1  # meant for the code that was interrupted
        except Exception as e:  # the runtime, too, shows a callback's error and goes on
            sys.print_exception(e)

    return fire


def listen():
    """The last act of _boot.py, in which the runtime lets no Ctrl-C interrupt."""
    _flags[_LISTENS] = 1


def kbd_intr(on):
    """Bracket what Ctrl-C must not cut; may be nested. One that comes meanwhile is kept."""
    if on:
        _flags[_DEPTH] -= 1
        if not _flags[_DEPTH] and _flags[_LISTENS]:
            _flags[_LOOK] = 1
            micropython.kbd_intr(_CTRL_C)
        return
    micropython.kbd_intr(_NO_CHAR)
    try:
        # One that is on its way already is raised by this jump, before anything has begun.
        while _flags[_DEPTH] == 255:
            pass
    except KeyboardInterrupt:
        if not _flags[_DEPTH] and _flags[_LISTENS]:
            micropython.kbd_intr(_CTRL_C)
        raise
    _flags[_DEPTH] += 1


def interrupted():
    """Return whether a Ctrl-C is being kept, and forget it: the caller raises it when it can.

    What was typed before it is taken from the input with it.
    """
    kept = bool(_flags[_KEPT])
    if _flags[_LOOK]:
        _flags[_LOOK] = 0
        if "stdin" not in _state:
            poller = _state["stdin"] = select.poll()
            poller.register(sys.stdin, select.POLLIN)
        while not kept and _state["stdin"].poll(0):
            kept = sys.stdin.buffer.read(1)[0] == _CTRL_C
    _flags[_KEPT] = 0
    return kept
