# What the C runtime does around Python on a real board, for the virtual one: order of start-up,
# friendly and raw REPL, soft reset. Towards mpremote and a person it behaves as MicroPython's
# shared/runtime/pyexec does.

import select
import sys

from micropython import const

_CTRL_A = const(1)
_CTRL_B = const(2)
_CTRL_C = const(3)
_CTRL_D = const(4)
_CTRL_E = const(5)
_SOURCE_MAX = const(32768)  # bytes of one piece of source sent to the REPL

_RAW_BANNER = "raw REPL; CTRL-B to exit\r\n"

# What a REPL hands back.
_TO_RAW = const(1)
_TO_FRIENDLY = const(2)
_RESET = const(3)


_chip = None  # the chip: unix_chip, under the name that its board has for it
_name = [""]


def run(chip, raw, name):
    """Run _boot.py, boot.py, main.py, then the REPL; does not return.

    `chip`: the module unix_chip. `raw`: after a soft reset in the raw REPL. `name`: the board's.
    """
    global _chip
    _chip = chip
    _name[0] = name
    _start_up("_boot", False)
    _start_up("boot", True)
    poller = select.poll()
    poller.register(0, select.POLLIN)
    names = sys.modules.get("__main__")
    names = names.__dict__ if names else globals()
    if not raw and _start_up("main", True) == _RESET:
        _soft_reset(False)
    while True:
        try:
            if raw:
                then = _raw(poller, names)
                if then == _RESET:
                    _soft_reset(True)
                raw = False
            else:
                then = _friendly(poller, names)
                if then == _RESET:
                    _soft_reset(False)
                raw = True
        except KeyboardInterrupt:
            pass  # it came as the code it was meant for ended


def _write(text):
    sys.stdout.write(text)


def _soft_reset(raw):
    _write("MPY: soft reboot\r\n")
    _chip.soft_reset(raw)


def _start_up(name, interruptible):
    """Import the module `name`; silence when there is none, a traceback when it fails."""
    try:
        return _run_module(name, interruptible)
    except KeyboardInterrupt:  # it came as the module it was meant for ended
        _chip.catch(False)
        return 0


def _run_module(name, interruptible):
    try:
        _chip.catch(interruptible)
        __import__(name)
    except SystemExit:
        return _RESET
    except ImportError as e:
        _chip.catch(False)
        if e.args and e.args[0] == "no module named '%s'" % name:
            return 0
        sys.print_exception(e)
    except BaseException as e:  # boards show it and go on to the REPL
        _chip.catch(False)
        sys.print_exception(e)
    finally:
        _chip.catch(False)
    return 0


def _execute(source, mode, names, end):
    """Run `source` (bytes), Ctrl-C caught; write `end` after its output and its traceback."""
    then = 0
    error = None
    try:
        _chip.catch(True)
        code = compile(source, "<stdin>", mode)
        exec(code, names)
        _chip.catch(False)
    except SystemExit:
        then = _RESET
    except BaseException as e:
        error = e
    _chip.catch(False)
    _write(end)
    if error is not None:
        sys.print_exception(error, sys.stdout)
    _write(end)
    return then


# -- raw REPL -------------------------------------------------------------------------------------


def _raw(poller, names):
    line = bytearray()
    _write(_RAW_BANNER + ">")
    while True:
        c = _chip.read_char(poller)
        if c == _CTRL_A:
            if line == b"\x05A":
                # Raw paste is asked for: understood, not supported; the sender falls back.
                _write("R\x00")
            else:
                _write(_RAW_BANNER + ">")
            line = bytearray()
        elif c == _CTRL_B:
            _write("\r\n")
            return _TO_FRIENDLY
        elif c == _CTRL_C:
            line = bytearray()
        elif c == _CTRL_D:
            _write("OK")
            if not line:
                _write("\r\n")
                return _RESET
            if len(line) > _SOURCE_MAX:
                _write("\x04MemoryError: source\r\n\x04>")
            elif _execute(bytes(line), "exec", names, "\x04") == _RESET:
                return _RESET
            else:
                _write(">")
            line = bytearray()
        elif len(line) <= _SOURCE_MAX:
            line.append(c)


# -- friendly REPL --------------------------------------------------------------------------------


def _banner():
    info = sys.version.split("; ")[-1]
    _write(info + "; %s\r\n" % _name[0] + 'Type "help()" for more information.\r\n')


def _friendly(poller, names):
    _banner()
    while True:
        _write(">>> ")
        source = _statement(poller)
        if isinstance(source, int):
            return source
        if source and _execute(source[1:], "exec" if source[0] else "single", names, "") == _RESET:
            return _RESET


def _statement(poller):
    """Read one statement, over several lines if it needs them.

    Returns bytes, the first telling whether it is a paste (1) or one statement (0), or what to do
    instead (int).
    """
    source = b""
    while True:
        line = _line(poller, not source)
        if isinstance(line, int):
            if line:
                return line
            return b""  # Ctrl-C
        if line == b"\x05":
            return _paste(poller)
        source += line + b"\n"
        if len(source) > _SOURCE_MAX:
            _write("MemoryError: source\r\n")
            return b""
        if not source.strip():
            return b""
        if not _goes_on(source, line):
            return b"\x00" + source
        _write("... ")


def _goes_on(source, line):
    """Return whether more lines belong to `source`, whose last line is `line`."""
    if line.endswith(b"\\"):
        return True
    depth = 0
    for c in source:
        if c in b"([{":
            depth += 1
        elif c in b")]}":
            depth -= 1
    if depth > 0:
        return True
    first = source.split(b"\n", 1)[0].rstrip()
    return (first.endswith(b":") or first.startswith(b"@")) and bool(line.strip())


def _line(poller, first):
    """Read and echo one line.

    Returns bytes; 0 after Ctrl-C; _TO_RAW; _RESET; b"\\x05" for paste mode.
    """
    line = bytearray()
    escape = 0
    while True:
        c = _chip.read_char(poller)
        if escape:
            # Cursor keys and the like: no history here, so the whole sequence goes.
            escape = 2 if escape == 1 and c in b"[O" else 0 if escape == 1 or c >= 0x40 else 2
        elif c == 0x1B:
            escape = 1
        elif c in (10, 13):
            _write("\r\n")
            return bytes(line)
        elif c == _CTRL_C:
            _write("\r\n")
            return 0
        elif c in (8, 127):
            if line:
                line = line[:-1]
                _write("\x08 \x08")
        elif c == _CTRL_A and not line:
            _write("\r\n")
            return _TO_RAW
        elif c == _CTRL_B and not line:
            _write("\r\n")
            _banner()
            _write(">>> ")
        elif c == _CTRL_D and not line and first:
            _write("\r\n")
            return _RESET
        elif c == _CTRL_E and not line and first:
            return b"\x05"
        elif (c >= 32 or c == 9) and len(line) < _SOURCE_MAX:
            line.append(c)
            sys.stdout.buffer.write(bytes([c]))


def _paste(poller):
    _write("\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
    source = bytearray()
    while True:
        c = _chip.read_char(poller)
        if c == _CTRL_C:
            _write("\r\n")
            return b""
        if c == _CTRL_D:
            _write("\r\n")
            return b"\x01" + bytes(source)
        if len(source) < _SOURCE_MAX:
            source.append(10 if c == 13 else c)
            _write("\r\n=== " if c == 13 else chr(c))
