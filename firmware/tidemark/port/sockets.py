# Stream sockets of a port with a network of its own: name lookup and connect, each bounded.

import errno
import select
import socket

from tidemark import dns
from tidemark.compat import const, ticks_add, ticks_diff, ticks_ms
from tidemark.errors import LinkError

_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)
_DNS_PORT = const(53)
_ASK_AGAIN_MS = const(1000)


def _nobody():
    pass


def open_socket(host, port, timeout_s, server, random, heard=_nobody):
    """Return a connected stream socket to `host` (str: IPv4 address or name), `port` (int).

    `server`: address (str) of the name server; `random(n)`: n random bytes; `heard()` is called
    when name server or peer answered, be it to refuse. Raises LinkError `resolve`, `refused`,
    `timeout` after at most `timeout_s`, whatever server and peer do.

    Wait with `setblocking(False)` and `select.poll`, not `settimeout`.
    """
    until = ticks_add(ticks_ms(), int(timeout_s * 1000))
    found = [host]
    if not dns.is_address(host):
        found = resolve(host, server, _DNS_PORT, until, random, heard)
    return connect([socket.getaddrinfo(address, port)[0][-1] for address in found], until, heard)


def connect(addresses, until, heard=_nobody):
    """Return a stream socket that is connected to the first of `addresses` (getaddrinfo's) which
    takes it by `until` (ticks); `heard` as in `open_socket`. Raises LinkError `refused`,
    `timeout`."""
    error = LinkError("resolve", "no address")
    for address in addresses:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            _connect(sock, address, until, heard)
            # Else a PUBLISH behind a PUBACK waits for the peer's delayed acknowledgement.
            sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            sock.setblocking(True)
            return sock
        except (LinkError, OSError) as e:
            sock.close()
            error = e if isinstance(e, LinkError) else LinkError("refused", "no socket")
    raise error


def _connect(sock, address, until, heard):
    sock.setblocking(False)
    try:
        sock.connect(address)
    except OSError as e:
        if e.errno != errno.EINPROGRESS:
            # Any other is this side's own, as without a route: nobody has answered.
            if e.errno == errno.ECONNREFUSED:
                heard()
            raise LinkError("refused", "errno %s" % e.errno)
    poller = select.poll()
    # An ESP32's lwIP tells a refusal by POLLHUP, and only who asks for it.
    poller.register(sock, select.POLLOUT | select.POLLHUP)
    while True:
        left = ticks_diff(until, ticks_ms())
        if left <= 0:
            raise LinkError("timeout", "no answer to connect")
        for _, events in poller.poll(left):
            heard()
            if events & (select.POLLHUP | select.POLLERR):
                raise LinkError("refused", "the host refuses or is not there")
            return


def resolve(name, server, port, until, random, heard=_nobody):
    """Return the IPv4 addresses (list of str) of `name`.

    `server` (address, str) is asked at `port` once a second until `until` (ticks); `heard` as in
    `open_socket`. Raises LinkError `resolve`.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        # Connected: the stack drops what comes from anywhere else.
        sock.connect(socket.getaddrinfo(server, port)[0][-1])
        sock.setblocking(False)
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        while ticks_diff(until, ticks_ms()) > 0:
            asked = dns.question(int.from_bytes(random(2), "big"), name)
            sock.send(asked)
            try:
                found = _await(sock, poller, asked, until)
            except LinkError:
                heard()  # by a server that knows no such name
                raise
            if found:
                heard()
                return found
    except OSError as e:
        raise LinkError("resolve", "errno %s" % e.errno)
    finally:
        sock.close()
    raise LinkError("resolve", "no answer from the name server")


def _await(sock, poller, asked, until):
    """Return the addresses that come within a second, None if none do."""
    again = ticks_add(ticks_ms(), _ASK_AGAIN_MS)
    if ticks_diff(until, again) < 0:
        again = until
    while True:
        left = ticks_diff(again, ticks_ms())
        if left <= 0 or not poller.poll(left):
            return None
        found = dns.answer(asked, sock.recv(dns.ANSWER_MAX))
        if found:
            return found
