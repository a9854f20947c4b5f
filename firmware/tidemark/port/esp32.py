# Port of the ESP32, S3 and C3 under MicroPython 1.25: flash by ESP-IDF's partitions, the slots of
# the application in the one partition that is mapped into memory, the runtime's two slots, causes
# of resets, RTC memory. docs/esp32.md says what MicroPython's and ESP-IDF's sources were read for.

import os
import struct

import machine
import vfs

import esp32
import tidemark_board
from tidemark.compat import const, sleep_ms, ticks_ms
from tidemark.errors import FlashError, StateError, TidemarkError
from tidemark.flash import Region
from tidemark.port import wlan
from tidemark.port.interrupt import guarded, interrupted, kbd_intr, listen  # noqa: F401
from tidemark.wifi import Esp32

# soc/<chip>/include/soc/rtc_cntl_reg.h, RTC_CNTL_..._REG. RESET_STATE: why the boot ROM started;
# WDTCONFIG0, WDTWPROTECT: the watchdog that the bootloader has started.
if tidemark_board.CHIP == "esp32":
    _RESET_STATE = 0x3FF48034
    _WDTCONFIG0 = 0x3FF4808C
    _WDTWPROTECT = 0x3FF480A4
elif tidemark_board.CHIP == "esp32s3":
    _RESET_STATE = 0x60008038
    _WDTCONFIG0 = 0x60008098
    _WDTWPROTECT = 0x600080B0
else:
    _RESET_STATE = 0x60008038
    _WDTCONFIG0 = 0x60008090
    _WDTWPROTECT = 0x600080A8
_WDT_WKEY = 0x50D83AA1
_WDT_EN = 0x80000000
_PROCPU = const(0x3F)  # RTC_CNTL_RESET_CAUSE_PROCPU
_CHIP_POWER_ON = const(1)  # soc/reset_reasons.h

_GET_SEGMENT = const(2)  # extmod/vfs.h, MP_VFS_ROM_IOCTL_GET_SEGMENT
_BLOCK_ERASE = const(6)  # of Partition.ioctl
_ANY = const(0xFF)  # ESP_PARTITION_SUBTYPE_ANY

_MAPPED = ("ota_0", "ota_1", "romfs")

# What we keep in RTC memory: magic, marker, half periods of ticks_ms, exclusive or of the three.
_MEMORY = "<IIII"
_MAGIC = const(0x544D524B)
_HALF_SHIFT = const(29)

_timers = []
_state = {}


# -- flash ----------------------------------------------------------------------------------------


class _Flash:
    """The chip as one piece. What lies in no partition (bootloader, table) can't be reached."""

    def __init__(self):
        board = tidemark_board
        self.size = board.FLASH_SIZE
        self.sector = board.SECTOR
        self.page = board.PAGE
        self._parts = _checked_table()
        self._mapped_at, size = board.PARTITIONS["romfs"][2:]
        try:
            self._mapped = memoryview(vfs.rom_ioctl(_GET_SEGMENT, 0))
        except (OSError, TypeError):
            raise FlashError("romfs-map", "the partition romfs can't be mapped")
        if len(self._mapped) != size:
            raise FlashError("romfs-map", "another size than board.toml has")
        self._buffer = bytearray(board.PAGE)

    def view(self, start, size):
        """Return a memoryview of `size` bytes from `start`: in place in romfs, which is mapped,
        elsewhere a copy of at most a sector."""
        at = start - self._mapped_at
        if 0 <= at and 0 <= size and at + size <= len(self._mapped):
            return self._mapped[at : at + size]
        if size > self.sector:
            raise FlashError("view-size", "more than a sector of flash that is not mapped")
        copy = bytearray(max(0, size))
        self._access(start, size, copy, None)
        return memoryview(copy)

    def read_into(self, addr, buf):
        """Fill `buf` from `addr` on. Raises FlashError: `bounds`, `flash-io`."""
        self._access(addr, len(buf), buf, None)

    def program(self, addr, data):
        """Program whole aligned pages. Raises FlashError: `bounds`, `align`, `flash-io`."""
        self._access(addr, len(data), None, memoryview(data))

    def erase(self, addr):
        """Erase the sector at `addr`. Raises FlashError: `bounds`, `align`, `flash-io`."""
        self._access(addr, self.sector, None, None)

    def _access(self, addr, size, into, data):
        """All that ever reads (`into`), programs (`data`) or erases (neither) a partition.

        An access is wholly in one partition. Whole pages are whole units of flash encryption too
        (16 bytes, esp_flash_write_encrypted). ESP-IDF would take any offset, and erase what it
        is told to.
        """
        for start, end, part in self._parts:
            if start <= addr and 0 <= size and addr + size <= end:
                break
        else:
            raise FlashError("bounds", "outside the partitions")
        unit = 1 if into is not None else self.page if data is not None else self.sector
        if addr % unit or size % unit or (not size and unit > 1):
            raise FlashError("align", "whole aligned pages or one sector")
        block, offset = divmod(addr - start, self.sector)
        kbd_intr(False)
        try:
            if into is not None:
                part.readblocks(block, into, offset)
            elif data is None:
                part.ioctl(_BLOCK_ERASE, block)
            else:
                for done in range(0, size, unit):
                    self._buffer[:] = data[done : done + unit]
                    part.writeblocks(block, self._buffer, offset + done)
        except OSError as error:
            raise FlashError("flash-io", _word(error))
        finally:
            kbd_intr(True)


def _checked_table():
    """Return [(start, end, Partition)] if the chip has just the partitions that this runtime was
    built for: to write by another table would destroy what it does not know of."""
    kinds = (esp32.Partition.TYPE_APP, esp32.Partition.TYPE_DATA)
    found = [part for kind in kinds for part in esp32.Partition.find(kind, _ANY)]
    table = {part.info()[4]: part.info()[:4] for part in found}
    if table != tidemark_board.PARTITIONS or len(found) != len(table):
        raise FlashError("partition-table", "the chip's partitions are not board.toml's")
    # With flash encryption on, runtimes always are encrypted, and all that is read through the
    # memory map is decrypted: plain slots would be written as they are and read as noise.
    if len({part.info()[5] for part in found if part.info()[4] in _MAPPED}) != 1:
        raise FlashError("romfs-plain", "the flash is encrypted, the partition romfs is not")
    return [(part.info()[2], part.info()[2] + part.info()[3], part) for part in found]


def _word(error):
    """ESP-IDF's name for what an OSError of check_esp_err means (ports/esp32/mphalport.c)."""
    return str(error.args[1]) if len(error.args) > 1 else "errno %d" % error.errno


def flash():
    """Return the flash, one object. Raises FlashError: `partition-table`, `romfs-plain`,
    `romfs-map`."""
    if "flash" not in _state:
        _state["flash"] = _Flash()
    return _state["flash"]


class _Runtimes:
    """The two slots of the runtime, and what the bootloader knows of them. No guards: a choice
    that leaves nothing to fall back to is taken like any other (docs/esp32-bootloader.md)."""

    def __init__(self):
        table = tidemark_board.PARTITIONS
        self.regions = tuple(Region(flash(), *table[name][2:]) for name in ("ota_0", "ota_1"))
        self.otadata = Region(flash(), *table["otadata"][2:])
        address = esp32.Partition(esp32.Partition.RUNNING).info()[2]
        self.running = 0 if address == table["ota_0"][2] else 1

    def set_boot(self, slot):
        """Have the bootloader try `slot` (0 or 1) at the next hard reset. Its image is verified
        first. Raises StateError `ota-refused`."""
        _ota(esp32.Partition("ota_%d" % slot).set_boot)

    def mark_valid(self):
        """Confirm the entry in charge. Raises StateError `ota-refused`."""
        _ota(esp32.Partition.mark_app_valid_cancel_rollback)


def _ota(call):
    kbd_intr(False)
    try:
        call()
    except OSError as error:
        raise StateError("ota-refused", _word(error))
    finally:
        kbd_intr(True)


def runtimes():
    """Return the runtime's slots: `.running`, `.regions`, `.otadata`, `.set_boot(slot)`,
    `.mark_valid()`."""
    if "runtimes" not in _state:
        _state["runtimes"] = _Runtimes()
    return _state["runtimes"]


# -- chip -----------------------------------------------------------------------------------------


def random(n):
    """Return `n` bytes of the hardware source.

    Its noise is the radio's (esp_random.h): with the radio off the same call returns what can be
    computed. So it is switched on, and looked at. Raises StateError `random-radio`.
    """
    if not wlan.on():
        raise StateError("random-radio", "no random numbers while the radio is off")
    return os.urandom(n)


def _memory():
    """[marker, half periods of ticks_ms since the hard reset], as RTC memory holds them."""
    if "memory" not in _state:
        _state["memory"] = [0, 0]
        cause = reset_cause()
        raw = machine.RTC().memory()
        # It may outlive a short loss of power, and be wrong after it.
        if len(raw) == struct.calcsize(_MEMORY) and cause not in ("power-on", "brownout"):
            magic, marked, halves, check = struct.unpack(_MEMORY, raw)
            # An application that keeps something there itself takes the marker away.
            if magic == _MAGIC and check == magic ^ marked ^ halves:
                _state["memory"] = [marked, halves if cause == "soft" else 0]
    return _state["memory"]


def _keep(memory):
    marked, halves = memory
    machine.RTC().memory(struct.pack(_MEMORY, _MAGIC, marked, halves, _MAGIC ^ marked ^ halves))


def uptime_ms():
    """Return ms since power-on or hard reset; a soft reset goes on counting."""
    # ticks_ms begins at 0 with the chip and wraps at 2^30 ms. Whoever asks in between, from a
    # timer's callback, counts the same half period and no other.
    memory = _memory()
    while True:
        halves = memory[1]
        now = ticks_ms()
        if (now >> _HALF_SHIFT ^ halves) & 1:
            halves += 1
            memory[1] = halves
            _keep(memory)
        if memory[1] == halves:
            return (halves >> 1 << _HALF_SHIFT + 1) + now


def _read_cause():
    # ports/esp32/modmachine.c, mp_machine_reset_cause. It has one number for power-on and
    # brownout; the boot ROM's own has another for each, also when ESP-IDF's interrupt made a
    # brownout into a reset by software (esp_system/port/brownout.c).
    cause = machine.reset_cause()
    if cause == machine.PWRON_RESET:
        rom = machine.mem32[_RESET_STATE] & _PROCPU
        return "power-on" if rom == _CHIP_POWER_ON else "brownout"
    if cause == machine.WDT_RESET:
        return "watchdog"
    if cause == machine.SOFT_RESET:
        return "soft"
    # By esp_restart, by a panic, or by waking from a sleep that only what runs can begin.
    if cause in (machine.HARD_RESET, machine.DEEPSLEEP_RESET):
        return "reset"
    return "unknown"  # by a debugger or by the USB port of the chip


def reset_cause():
    """Return why this boot began: `power-on` (pin EN too), `brownout`, `watchdog`, `reset`, `soft`
    or `unknown`."""
    if "cause" not in _state:
        _state["cause"] = _read_cause()
    return _state["cause"]


def marker():
    """Return the register that survives resets but not a power loss; 0 when never set."""
    return _memory()[0]


def set_marker(n):
    """Set the register to `n`, 0..0xFFFFFFFF."""
    memory = _memory()
    memory[0] = n
    _keep(memory)


def arm_watchdog(ms):
    """Start the watchdog or change its time-out; it never stops before the next hard reset.

    It takes over from the bootloader's, which runs until here (docs/esp32.md): a runtime that
    never gets as far is reset, and rolled back.
    """
    _state["watchdog"] = machine.WDT(timeout=ms)
    feed()
    memory = machine.mem32
    memory[_WDTWPROTECT] = _WDT_WKEY
    memory[_WDTCONFIG0] = memory[_WDTCONFIG0] & ~_WDT_EN
    memory[_WDTWPROTECT] = 0


def feed():
    """Feed the watchdog."""
    _state["watchdog"].feed()


def reset():
    """Reset the board. Does not return."""
    sleep_ms(5)  # what the console still holds
    machine.reset()


def unique_id():
    """Return the 6 bytes of the chip's MAC address."""
    return machine.unique_id()


# -- timers ---------------------------------------------------------------------------------------


def start_timer(ms, callback):
    """Call `callback(0)` every `ms` in the main thread, between bytecodes, until the next boot.

    A late one does not catch up with more than 8 calls. Raises TidemarkError: `timers` when all of
    the chip's are taken (four, two on a C3).
    """
    number = len(_timers)
    try:
        _timers.append(machine.Timer(number, period=ms, callback=guarded(callback)))
    except ValueError:
        raise TidemarkError("timers", "too many timers")


# -- network --------------------------------------------------------------------------------------


def prepare_radio(allowed):
    """Have the radio's driver take its memory now; with `allowed` False never in this boot."""
    wlan.prepare(allowed)


def radio(ssid, password, country, hostname):
    """Return the boot's wifi.Station; starts nothing."""
    return wlan.radio(Esp32(), random, ssid, password, country, hostname)


def open_socket(host, port, timeout_s):
    """Return a connected stream socket, to be waited for with `select.poll`, not `settimeout`.

    Raises LinkError: the station's while it is not joined, `resolve`, `refused`, `timeout`. Names
    are not looked up by lwIP, which asks each server for 7 s while no timer gets a turn.
    """
    return wlan.open_socket(host, port, timeout_s)
