# Runs under real MicroPython: a link that sends back what it gets, and says what becomes of it.
# argv: broker port, keepalive in s, packet id to start at, s that the link waits for an answer,
# folders for sys.path.

import os
import sys

PORT = int(sys.argv[1])
KEEPALIVE_S = int(sys.argv[2])
PACKET_ID = int(sys.argv[3])
WAIT_S = int(sys.argv[4])
sys.path[:] = sys.argv[5:] + [".frozen"]  # noqa: RUF005 - no [*x] in MicroPython

import socket  # noqa: E402

from tidemark.compat import sleep_ms, ticks_diff, ticks_ms  # noqa: E402
from tidemark.errors import LinkError  # noqa: E402
from tidemark.link import Link  # noqa: E402


def open_socket(host, port, timeout_s):
    sock = socket.socket()
    try:
        sock.connect(socket.getaddrinfo(host, port)[0][-1])
    except OSError:
        sock.close()
        raise LinkError("connect", "refused")  # noqa: B904 - MicroPython has no chaining
    return sock


def main():
    link = Link(
        open_socket, "127.0.0.1", PORT, "echo", os.urandom, keepalive_s=KEEPALIVE_S, wait_s=WAIT_S
    )
    link._client.pid = PACKET_ID
    link.subscribe("in/+")
    state = "down"
    waiting = None
    echoed = 0
    quiet = ticks_ms()
    while True:
        link.step()
        if link.state != state:
            state = link.state
            print(state, link.connects, link.error)
            quiet = ticks_ms()
        # A message is given up only when the broker has its echo.
        waiting = waiting or link.receive()
        if waiting and state == "up":
            try:
                link.publish("out/" + waiting[0][3:], waiting[1])
                waiting = None
                echoed += 1
            except LinkError:
                continue
            quiet = ticks_ms()
        elif ticks_diff(ticks_ms(), quiet) > 4000:
            print("quiet", state, "echoed", echoed, "dropped", link.dropped)
            quiet = ticks_ms()
        else:
            sleep_ms(1)


main()
