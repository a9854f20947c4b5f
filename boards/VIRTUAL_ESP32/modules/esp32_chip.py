# The virtual ESP32's chip and MicroPython's C runtime: what is there before a byte of Python is
# read from the flash. The runtime that runs is the one that the bootloader chose on the host: its
# image's ROMFS stands in for frozen modules, in place in the mapped flash.

import struct
import sys

import uctypes
import unix_chip
import unix_repl
import vfs
from micropython import const

# Operations of the hardware channel that only this board has.
BOOTED = const(9)
SET_BOOT = const(10)
MARK_VALID = const(11)
RTC_WRITE = const(12)
RTC_READ = const(13)
DEEP_SLEEP = const(14)
END_BOOT = const(15)

# Answer to BOOTED: partition of the runtime, ROMFS in its mapped segment, size of it, the boot
# ROM's reason of the reset.
_BOOT = "<IIIB"
_FROZEN = "/.frozen"

state = {}


def start(control, flash_fd):
    """Bring the board up and run it; does not return. Descriptors as in unix_chip.start."""
    state.update(unix_chip.start(control, flash_fd))
    running, base, size, reason = struct.unpack(_BOOT, unix_chip.ask(BOOTED))
    state["running"] = running
    state["reason"] = reason
    # What the chip's runtime has built in is found under its name, whatever sys.path says.
    names = ("esp32", "machine", "network", "micropython", "socket", "sys", "time", "vfs")
    for name in names:
        sys.modules[name] = __import__("chip_" + name)
    vfs.umount("/")
    # This build has nothing frozen, so `.frozen` is looked for like any other folder.
    sys.path[:] = [".frozen"]
    content = uctypes.bytearray_at(uctypes.addressof(state["flash"]) + base, size)
    vfs.mount(vfs.VfsRom(memoryview(content)), _FROZEN)
    unix_repl.run(unix_chip, state["raw"], "Tidemark virtual ESP32")
