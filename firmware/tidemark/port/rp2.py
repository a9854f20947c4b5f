# Port of the RP2040 and the RP2350: XIP flash in place, watchdog and its scratch registers, ring
# oscillator. Registers are named as in the chips' datasheets, whose sections are given; which of
# the two chips it is says board.toml. docs/rp2350.md: what no RP2350 has shown yet.

import hashlib

import machine
import rp2
import uctypes

import tidemark_board
from tidemark.compat import const, sleep_ms, ticks_ms
from tidemark.errors import FlashError, StateError, TidemarkError
from tidemark.port.interrupt import guarded, interrupted, kbd_intr, listen  # noqa: F401

_XIP_BASE = const(0x10000000)

if tidemark_board.CHIP == "rp2350":
    # RP2350 datasheet: TIMER0 12.8.5, WATCHDOG 12.9.7, ROSC 8.3.11, POWMAN 6.4.
    _TIMERAWH = 0x400B0024
    _WATCHDOG_CTRL = 0x400D8000
    _WATCHDOG_REASON = 0x400D8008
    _SCRATCH0 = 0x400D800C  # 12.9.5: survives what the watchdog resets, but no chip-level reset
    _SCRATCH4 = 0x400D801C
    _ROSC_RANDOMBIT = 0x400E8020
    _CHIP_RESET = 0x4010002C
    # HAD_POR, HAD_BOR, HAD_RUN_LOW, HAD_DP_RESET_REQ, HAD_RESCUE, HAD_GLITCH_DETECT
    _HAD = 0x042F0000
    _RAW_BYTES = 192  # a faster processor looks more often: more of it for the same jitter
else:
    # RP2040 datasheet: TIMER 4.6.5, WATCHDOG 4.7.6, ROSC 2.17.8, VREG_AND_CHIP_RESET 2.10.6.
    _TIMERAWH = 0x40054024
    _WATCHDOG_CTRL = 0x40058000
    _WATCHDOG_REASON = 0x40058008
    _SCRATCH0 = 0x4005800C  # 4.7.4: survives resets, but for those of pin RUN and of power
    _SCRATCH4 = 0x4005801C
    _ROSC_RANDOMBIT = 0x4006001C
    _CHIP_RESET = 0x40064008
    _HAD = 0x110100  # HAD_POR, HAD_RUN, HAD_PSM_RESTART
    _RAW_BYTES = 64  # of the ring oscillator, for 32 bytes of output

# The same in both chips.
_CTRL_ENABLE = const(0x40000000)
_REASON_TIMER = const(1)
_REASON_FORCE = const(2)
_ARMED_BY_SDK = 0x6AB73121  # pico-sdk's watchdog_enable leaves it in SCRATCH4, the boot ROM not

_BLOCK_COUNT = const(4)  # operations of rp2.Flash.ioctl
_BLOCK_ERASE = const(6)

_TIMERS_MAX = const(8)
_BAUD = const(921600)  # of uart1
_RUN_MAX = const(64)  # equal bits in a row that a source which works never gives

_timers = []  # a timer that is collected stops
_state = {}
_pool = bytearray(32)


# -- flash ----------------------------------------------------------------------------------------


class _Flash:
    def __init__(self, size, sector, page):
        self.size = size
        self.sector = sector
        self.page = page
        self._content = memoryview(uctypes.bytearray_at(_XIP_BASE, size))
        self._chip = rp2.Flash()
        # What lies below belongs to the runtime, and changes over USB only.
        self._floor = size - self._chip.ioctl(_BLOCK_COUNT, 0) * sector
        # The chip can't read the flash while it is being written: the source must lie in RAM.
        self._buffer = bytearray(page)

    def view(self, start, size):
        """Return a memoryview of `size` bytes from `start`, in place; writing to it is lost."""
        if start < 0 or size < 0 or start + size > self.size:
            raise FlashError("bounds", "outside the flash")
        return self._content[start : start + size]

    def read_into(self, addr, buf):
        """Fill `buf` from `addr` on."""
        buf[:] = self.view(addr, len(buf))

    def program(self, addr, data):
        """Program whole aligned pages. Raises FlashError: `bounds`, `align`."""
        self._change(addr, self.page, memoryview(data))

    def erase(self, addr):
        """Erase the sector at `addr`. Raises FlashError: `bounds`, `align`."""
        self._change(addr, self.sector, None)

    def _change(self, addr, unit, data):
        """All that ever changes the flash: one sector erased (`data` None) or pages programmed.

        rp2.Flash checks no bounds, and rounds a short write up to a page with the heap beside it.
        """
        size = unit if data is None else len(data)
        if addr < self._floor or addr + size > self.size:
            raise FlashError("bounds", "outside the flash that may be written")
        if addr % unit or size % unit or not size:
            raise FlashError("align", "whole aligned pages or one sector")
        kbd_intr(False)
        try:
            link = _state.get("link")
            if link:
                link.quiet()
            try:
                if data is None:
                    self._chip.ioctl(_BLOCK_ERASE, (addr - self._floor) // unit)
                    return
                block, offset = divmod(addr - self._floor, self.sector)
                for start in range(0, size, unit):
                    self._buffer[:] = data[start : start + unit]
                    self._chip.writeblocks(block, self._buffer, offset + start)
            finally:
                if link:
                    link.resume()
        finally:
            kbd_intr(True)


def flash():
    """Return the flash: the whole chip, one object."""
    if "flash" not in _state:
        board = tidemark_board
        _state["flash"] = _Flash(board.FLASH_SIZE, board.SECTOR, board.PAGE)
    return _state["flash"]


def runtimes():
    """Return None: this runtime has no second slot."""
    return None


# -- chip -----------------------------------------------------------------------------------------


def random(n):
    """Return `n` bytes, hashed from the jitter of the ring oscillator.

    os.urandom is that oscillator too, but takes 8 bits a byte, 1 us apart, and mixes them so that
    an oscillator that stands still looks random (ports/rp2/main.c). Here two bits go into
    one, 20 us apart, and they are looked at first. Raises StateError `random-health`.
    """
    out = b""
    raw = bytearray(_RAW_BYTES)
    while len(out) < n:
        _sample(raw)
        _pool[:] = hashlib.sha256(_pool + raw).digest()
        # Not the pool itself: what went out says nothing about what comes next.
        out += hashlib.sha256(b"out" + _pool).digest()
    return out[:n]


def _sample(raw):
    """Fill `raw` with bits of the oscillator, some 20 us apart."""
    memory = machine.mem32
    place = _ROSC_RANDOMBIT
    last = ones = run = longest = 0
    for i in range(len(raw)):
        byte = 0
        for _ in range(8):
            bit = memory[place] & 1
            byte = byte << 1 | bit
            ones += bit
            run = run + 1 if bit == last else 1
            last = bit
            longest = max(longest, run)
        raw[i] = byte
    total = len(raw) * 8
    if longest > _RUN_MAX or ones * 8 < total or ones * 8 > total * 7:
        raise StateError("random-health", "the ring oscillator repeats itself")


def uptime_ms():
    """Return ms since power-on or hard reset; a soft reset goes on counting."""
    # ticks_ms wraps at 2^30 ms, which is when the upper half of the timer has counted 250.
    while True:
        high = machine.mem32[_TIMERAWH]
        low = ticks_ms()
        if machine.mem32[_TIMERAWH] == high:
            return (high // 250 << 30) + low


def _read_cause():
    # Any reset of the hardware stops the watchdog, and stage 0 starts it in every boot.
    if machine.mem32[_WATCHDOG_CTRL] & _CTRL_ENABLE:
        return "soft"
    reason = machine.mem32[_WATCHDOG_REASON]
    if reason & _REASON_TIMER:
        # The boot ROM starts what came over USB by the watchdog's timer, and has cleared the
        # marker before: a board that was flashed is not an image that hung.
        return "watchdog" if machine.mem32[_SCRATCH4] == _ARMED_BY_SDK else "unknown"
    if reason & _REASON_FORCE:
        return "reset"
    # Pin RUN clears what a loss of power clears, and it is no deed of the image either.
    return "power-on" if machine.mem32[_CHIP_RESET] & _HAD else "unknown"


def reset_cause():
    """Return why this boot began: `watchdog`, `reset` (by the chip itself), `soft`, `power-on`
    (a brownout and the RUN pin look the same), or `unknown` (by the boot ROM, after flashing)."""
    if "cause" not in _state:
        _state["cause"] = _read_cause()
    return _state["cause"]


def marker():
    """Return the register that survives resets but not a power loss; 0 when never set."""
    return machine.mem32[_SCRATCH0]


def set_marker(n):
    """Set the register to `n`, 0..0xFFFFFFFF."""
    machine.mem32[_SCRATCH0] = n


def arm_watchdog(ms):
    """Start the watchdog or change its time-out; it never stops before the next hard reset."""
    reset_cause()  # known by the watchdog's state, which changes here
    _state["watchdog"] = machine.WDT(timeout=ms)


def feed():
    """Feed the watchdog."""
    _state["watchdog"].feed()


def reset():
    """Reset the board. Does not return."""
    sleep_ms(5)  # what the console still holds takes 3 ms
    machine.reset()


def unique_id():
    """Return the flash chip's 8 bytes."""
    return machine.unique_id()


# -- timers and console ---------------------------------------------------------------------------


def start_timer(ms, callback):
    """Call `callback(0)` every `ms` in the main thread, between bytecodes, until the next boot.

    A late one does not catch up with more than 8 calls. Raises TidemarkError: `timers` when 8 run.
    """
    if len(_timers) >= _TIMERS_MAX:
        raise TidemarkError("timers", "too many timers")
    _timers.append(machine.Timer(-1, period=ms, callback=guarded(callback)))


# -- network --------------------------------------------------------------------------------------


class _Line:
    """A UART that never waits: machine.UART does, busily, for a ms even at time-out 0."""

    def __init__(self, uart):
        self._uart = uart
        self.write = uart.write

    def readinto(self, buf):
        size = min(self._uart.any(), len(buf))
        return self._uart.readinto(buf, size) if size else None


def prepare_radio(allowed):
    """Nothing: the driver of a CYW43 has its memory from the start, and a WLAN takes none."""


def radio(ssid, password, country, hostname):
    """Return the station of a board with a CYW43, and None of one that has its UART."""
    if not tidemark_board.WIFI:
        return None
    from tidemark.port import wlan
    from tidemark.wifi import Cyw43

    return wlan.radio(Cyw43(), random, ssid, password, country, hostname)


def open_socket(host, port, timeout_s):
    """Return a connected stream socket: by radio where the board has one, else over uart1 (GP4,
    GP5) and `tidemark bridge`.

    Raises LinkError: `resolve`, `refused`, `timeout`, `full`, and by radio the station's.
    """
    if tidemark_board.WIFI:
        from tidemark.port import wlan

        return wlan.open_socket(host, port, timeout_s)
    if "link" not in _state:
        from tidemark import mux

        line = machine.UART(1, _BAUD, rxbuf=mux.RX_BUFFER, txbuf=mux.TX_BUFFER, timeout=0)
        _state["link"] = mux.Mux(_Line(line), random)
    return _state["link"].open(host, port, timeout_s)
