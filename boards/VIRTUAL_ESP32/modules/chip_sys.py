# `sys` as MicroPython's esp32 port has it: its name of the platform, and a stdin that shows what
# came over the console.

import io
import sys

import unix_chip

_POLL = 3  # py/stream.h, MP_STREAM_POLL
_POLL_RD = 1
_EINVAL = 22

platform = "esp32"


class _Input(io.IOBase):
    def __init__(self):
        self.buffer = self

    def readinto(self, buf):
        return unix_chip.take(buf)

    def read(self, n):
        buf = bytearray(n)
        return bytes(buf[: unix_chip.take(buf)])

    def ioctl(self, request, arg):
        if request != _POLL:
            return -_EINVAL
        return arg & _POLL_RD if unix_chip.held() else 0


stdin = _Input()
stdout = sys.stdout
stderr = sys.stderr
path = sys.path
modules = sys.modules
print_exception = sys.print_exception
exit = sys.exit
implementation = sys.implementation
version = sys.version
version_info = sys.version_info
byteorder = sys.byteorder
maxsize = sys.maxsize
