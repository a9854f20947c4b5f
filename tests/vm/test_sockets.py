# Sockets over a network of the board's own, against servers on loopback that answer as they are
# told: nothing waits longer than it was allowed.

import socket

from test_dns import record, refused, reply

from tidemark.compat import sleep_ms, ticks_add, ticks_diff, ticks_ms
from tidemark.port import sockets

HOST = "127.0.0.1"


def address(port, host=HOST):
    return socket.getaddrinfo(host, port)[0][-1]


def bind(kind):
    """Return a socket on a free port of loopback, and the port."""
    for port in range(20000, 60000, 7):
        sock = socket.socket(socket.AF_INET, kind)
        try:
            sock.bind(address(port))
            return sock, port
        except OSError:
            sock.close()
    raise AssertionError("no free port")


def listener():
    sock, port = bind(socket.SOCK_STREAM)
    sock.listen(1)
    return sock, port


class NameServer:
    """Answers within the random function: the one thing of ours that runs before each question."""

    def __init__(self, *answers):
        self.sock, self.port = bind(socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.answers = list(answers)  # of functions from a question to a reply
        self.asked = []
        self.waits = []
        self.heard = []  # what was told of it: each answer

    def random(self, n):
        return bytes((7 + len(self.asked),)) * n

    def serve(self):
        """Answer what was asked since."""
        while True:
            try:
                question, peer = self.sock.recvfrom(512)
            except OSError:
                return
            self.asked.append(question)
            if self.answers:
                answer = self.answers.pop(0)
                for data in answer(question):
                    self.sock.sendto(data, peer)


class Poller:
    """select.poll that lets the name server work before it waits."""

    def __init__(self, server):
        import select

        self.server = server
        self.poller = select.poll()

    def register(self, *args):
        self.poller.register(*args)

    def poll(self, ms):
        self.server.serve()
        self.server.waits.append(ms)
        return self.poller.poll(ms)


class Select:
    def __init__(self, server):
        import select

        self.POLLIN = select.POLLIN
        self.server = server

    def poll(self):
        return Poller(self.server)


def resolve(server, ms=600, name="barn.example"):
    """Ask `server`; return what came, and how long it took."""
    real = sockets.select
    sockets.select = Select(server)
    began = ticks_ms()
    try:
        until = ticks_add(began, ms)
        heard = server.heard.append
        found = sockets.resolve(
            name, HOST, server.port, until, server.random, lambda: heard("answer")
        )
    finally:
        sockets.select = real
        server.took = ticks_diff(ticks_ms(), began)
        server.serve()
        server.sock.close()
    return found


def yes(question):
    return (reply(question, [record((192, 0, 2, 7))]),)


def test_name_is_asked_for_and_found():
    server = NameServer(yes)
    assert resolve(server) == ["192.0.2.7"] and server.heard == ["answer"]
    assert [question[:2] for question in server.asked] == [b"\x07\x07"]


def test_forged_and_garbled_answers_are_passed_over():
    def noise(question):
        forged = b"\x00\x00" + question[2:]
        return (reply(forged, [record((6, 6, 6, 6))]), b"", b"junk", question) + yes(question)

    assert resolve(NameServer(noise)) == ["192.0.2.7"]


def test_lost_answer_is_asked_for_once_more_with_another_number():
    server = NameServer(lambda question: (), yes)
    assert resolve(server, 3000) == ["192.0.2.7"]
    assert [question[:2] for question in server.asked] == [b"\x07\x07", b"\x08\x08"]


def test_silent_name_server_holds_nothing_up():
    server = NameServer()
    assert refused(resolve, server, 300) == "resolve" and not server.heard
    assert 250 <= server.took < 1500
    # No wait goes beyond what is left, and nothing is asked behind it.
    assert 0 < min(server.waits) and max(server.waits) <= 300
    assert 1 <= len(server.asked) <= 3


def test_unknown_name_ends_the_look_up_at_once():
    server = NameServer(lambda question: (reply(question, [], flags=b"\x81\x83"),))
    assert refused(resolve, server, 5000) == "resolve"
    assert server.took < 2500 and server.heard == ["answer"]


def test_connects_to_an_address_without_asking_anybody():
    sock, port = listener()
    mine = sockets.open_socket(HOST, port, 2, "192.0.2.53", None)
    theirs, _ = sock.accept()
    mine.send(b"hi")
    assert theirs.recv(2) == b"hi"
    for one in (mine, theirs, sock):
        one.close()


def test_takes_the_next_address_when_the_first_refuses():
    sock, port = listener()
    closed, dead = listener()
    closed.close()
    mine = sockets.connect([address(dead), address(port)], ticks_add(ticks_ms(), 2000))
    for one in (mine, sock):
        one.close()


def test_refusal_and_nothing_to_try_have_their_codes():
    closed, dead = listener()
    closed.close()
    assert refused(sockets.open_socket, HOST, dead, 2, HOST, None) == "refused"
    assert refused(sockets.connect, [], ticks_ms()) == "resolve"


def test_who_answers_is_heard_also_when_it_refuses():
    heard = []
    sock, port = listener()
    closed, dead = listener()
    closed.close()
    mine = sockets.open_socket(HOST, port, 2, HOST, None, lambda: heard.append("taken"))
    assert heard == ["taken"]
    call = (HOST, dead, 2, HOST, None, lambda: heard.append("refused"))
    assert refused(sockets.open_socket, *call) == "refused" and heard[1:] == ["refused"]
    for one in (mine, sock):
        one.close()


class Unanswered:
    """Stands in for `socket`: a connect that is under way for ever, as on no loopback."""

    AF_INET = SOCK_STREAM = 1

    def __init__(self):
        self.waits = []
        self.closed = 0

    def socket(self, *_):
        return self

    def setblocking(self, _):
        pass

    errno = sockets.errno.EINPROGRESS

    def connect(self, _):
        raise OSError(self.errno, "")

    def close(self):
        self.closed += 1


class NeverReady:
    def __init__(self, net):
        self.net = net

    def register(self, *_):
        pass

    def poll(self, ms):
        self.net.waits.append(ms)
        sleep_ms(100 if ms < 0 else min(ms, 100))
        return []


class NeverSelect:
    POLLOUT = POLLHUP = POLLERR = 1

    def __init__(self, net):
        self.net = net

    def poll(self):
        return NeverReady(self.net)


def test_peer_that_never_answers_is_given_up_in_time():
    net = Unanswered()
    heard = []
    real = sockets.select, sockets.socket
    sockets.select, sockets.socket = NeverSelect(net), net
    try:
        until = ticks_add(ticks_ms(), 700)
        code = refused(sockets.connect, [None], until, lambda: heard.append(1))
    finally:
        sockets.select, sockets.socket = real
    assert code == "timeout" and net.closed == 1 and not heard
    assert 0 < min(net.waits) and net.waits[0] <= 700
    assert net.waits == sorted(net.waits, reverse=True)


def test_board_without_a_route_has_heard_nobody():
    net = Unanswered()
    heard = []
    real, sockets.socket = sockets.socket, net
    try:
        for number, answers in (
            (sockets.errno.EHOSTUNREACH, 0),
            (sockets.errno.ENOMEM, 0),
            (sockets.errno.ECONNREFUSED, 1),
        ):
            net.errno = number
            code = refused(sockets.connect, [None], ticks_ms(), lambda: heard.append(1))
            assert code == "refused" and len(heard) == answers, number
    finally:
        sockets.socket = real
    assert net.closed == 3
