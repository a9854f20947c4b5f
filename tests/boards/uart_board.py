# Runs under real MicroPython: a board whose only link is a line. An MQTT link that sends back what
# it gets, and HTTP downloads beside it. argv: fd of the line, broker port, port of the update
# server, length of its file, folders for sys.path. Prints what becomes of both.

import os
import sys

LINE = int(sys.argv[1])
BROKER = int(sys.argv[2])
UPDATES = int(sys.argv[3])
SIZE = int(sys.argv[4])
sys.path[:] = sys.argv[5:] + [".frozen"]  # noqa: RUF005 - no [*x] in MicroPython

import hashlib  # noqa: E402
from binascii import hexlify  # noqa: E402

import ffi  # noqa: E402

from tidemark.compat import sleep_ms  # noqa: E402
from tidemark.errors import LinkError  # noqa: E402
from tidemark.http import Client  # noqa: E402
from tidemark.link import Link  # noqa: E402
from tidemark.mux import Mux  # noqa: E402

DONTWAIT = 0x40


class Line:
    """A UART, as far as the multiplex can tell."""

    def __init__(self, fd):
        libc = ffi.open(None)
        self._fd = fd
        self._recv = libc.func("l", "recv", "ipLi")
        self._send = libc.func("l", "send", "ipLi")

    def readinto(self, buf):
        got = self._recv(self._fd, buf, len(buf), DONTWAIT)
        if not got:
            sys.exit(0)  # the test is over
        return got if got > 0 else None

    def write(self, buf):
        sent = self._send(self._fd, buf, len(buf), DONTWAIT)
        return sent if sent > 0 else None


def download(mux):
    """Fetch the file from wherever the last connection left off; yield in between."""
    client = Client(mux.open, f"http://127.0.0.1:{UPDATES}/")
    whole = hashlib.sha256()
    at = 0
    part = bytearray(256)
    while at < SIZE:
        try:
            response = yield from client.get("image", at, SIZE)
            if response.start != at:
                raise LinkError("range", "not from where it was asked")
            try:
                while response.left:
                    got = response.readinto(part)
                    whole.update(memoryview(part)[:got])
                    at += got
                    yield
            finally:
                response.close()
        except LinkError as error:
            print("interrupted", error.code, at)
            yield
    print("image", hexlify(whole.digest()).decode())


def main():
    mux = Mux(Line(LINE), os.urandom)
    # Patient: that a line is dead is the multiplex's to notice, and a machine may stand still.
    link = Link(mux.open, "127.0.0.1", BROKER, "echo", os.urandom, keepalive_s=30, wait_s=20)
    link.subscribe("in/+")
    fetch = download(mux)
    state = "down"
    waiting = None
    while True:
        link.step()
        if link.state != state:
            state = link.state
            print(state, link.connects, link.error)
        waiting = waiting or link.receive()
        if waiting and state == "up":
            try:
                link.publish("out/" + waiting[0][3:], waiting[1])
                waiting = None
            except LinkError:
                continue
        if fetch and state == "up":
            try:
                next(fetch)
            except StopIteration:
                fetch = None
        else:
            sleep_ms(1)


main()
