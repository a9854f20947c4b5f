# GET with Range over a socket that answers in pieces, breaks off, stalls and lies.

from http_peer import Peer, head

from tidemark.errors import LinkError
from tidemark.http import Client, parse_head, parse_url, quote, quote_path

FILE = bytes(range(256)) * 20


class Clock:
    """Ticks that pass `step` ms with each look."""

    def __init__(self, step=1):
        self.now = 0
        self.step = step

    def __call__(self):
        self.now = (self.now + self.step) & ((1 << 30) - 1)
        return self.now


def finish(generator):
    """(result, yields) of a generator."""
    yields = 0
    try:
        while True:
            next(generator)
            yields += 1
            assert yields < 100000, "no end"
    except StopIteration as stop:
        return stop.value, yields


def client(peer, clock=None):
    return Client(peer.open, "http://host:8080/base/", clock or Clock())


def code_of(peer, clock=None, path="a", limit=10000):
    try:
        finish(client(peer, clock).fetch(path, limit))
    except LinkError as error:
        assert peer.open_sockets == 0, "a socket stays open"
        return error.code
    assert peer.open_sockets == 0, "a socket stays open"
    return "ok"


def answered(data, limit=10000):
    peer = Peer()
    peer.answer = lambda path, start: data
    return code_of(peer, None, "a", limit)


def test_file_comes_whole_and_others_get_their_turn_meanwhile():
    peer = Peer({"/base/a": FILE})
    data, yields = finish(client(peer).fetch("a", len(FILE)))
    assert data == FILE
    assert yields > len(FILE) // 512
    assert peer.asked == [("/base/a", 0)] and peer.open_sockets == 0


def test_missing_file_is_none():
    peer = Peer()
    assert finish(client(peer).fetch("a", 10))[0] is None
    assert peer.open_sockets == 0


def test_empty_file_is_empty():
    assert finish(client(Peer({"/base/a": b""})).fetch("a", 10))[0] == b""


def test_range_is_asked_for_and_checked():
    peer = Peer({"/base/a": FILE})
    response = finish(client(peer).get("a", 4096, len(FILE)))[0]
    assert (response.status, response.start, response.left) == (206, 4096, len(FILE) - 4096)
    buf = bytearray(response.left)
    view = memoryview(buf)
    while response.left:
        view = view[response.readinto(view) :]
    assert buf == FILE[4096:]
    response.close()
    assert peer.asked == [("/base/a", 4096)]


def test_server_without_ranges_says_so_by_starting_at_zero():
    peer = Peer({"/base/a": FILE})
    peer.ranges = False
    response = finish(client(peer).get("a", 4096, len(FILE)))[0]
    assert (response.status, response.start, response.left) == (200, 0, len(FILE))
    response.close()


def test_names_are_percent_encoded():
    assert quote("a b/\u00e9~") == "a%20b%2F%C3%A9~"
    assert quote_path("a b/c?") == "a%20b/c%3F"
    # Once only, by who knows what a name is: a role's name may hold a "/".
    peer = Peer({"/base/x/1.a%2Fb": b"1"})
    assert finish(client(peer).fetch("x/1." + quote("a/b"), 10))[0] == b"1"


def test_larger_file_than_allowed_is_refused_before_it_is_read():
    peer = Peer({"/base/a": FILE})
    assert code_of(peer, None, "a", len(FILE) - 1) == "too-large"
    assert answered(head("200 OK", 9999999999)) == "too-large"


def test_connection_that_closes_early_is_an_error():
    for after in (0, 1, 5000):
        peer = Peer({"/base/a": FILE})
        peer.cut_after = after
        assert code_of(peer) == "closed"


def test_connection_that_closes_within_the_head_is_an_error():
    assert answered(b"") == "closed"
    assert answered(b"HTTP/1.1 200 OK\r\nContent-") == "closed"


def test_server_that_stalls_is_left():
    peer = Peer({"/base/a": FILE})
    peer.stall_after = 1000
    assert code_of(peer, Clock(100)) == "stalled"
    peer.stall_after = 0
    assert code_of(peer, Clock(100)) == "stalled"


def test_server_that_trickles_is_left():
    peer = Peer({"/base/a": FILE})
    peer.slice = 1
    clock = Clock(1000)
    assert code_of(peer, clock) == "slow"
    assert clock.now < 120000


def test_refused_connection_passes_through():
    peer = Peer()
    peer.refuse = True
    assert code_of(peer) == "refused"


def test_hostile_heads_are_refused():
    good = b"Content-Length: 1\r\n"
    assert answered(b"HTTP/1.1 200 OK\r\n" + good + b"\r\nx") == "ok"
    assert answered(b"HTTP/1.1 200 OK\r\n\r\n") == "http-length"
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n") == "http-length"
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx") == "http-length"
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\n\r\n") == "http-length"
    two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"
    assert answered(two) == "http-header"
    assert answered(b"HTTP/1.1 200 OK\r\n" + good + b"\r\nxy") == "http-length"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + good + b"\r\nx"
    assert answered(chunked) == "http-encoding"
    zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + good + b"\r\nx"
    assert answered(zipped) == "http-encoding"
    for status in (b"301 Moved", b"500 Oops", b"100 Continue", b"204 No", b"304 Not"):
        assert answered(b"HTTP/1.1 " + status + b"\r\n" + good + b"\r\nx") == "http-status"
    lines = (b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1", b"", b"\xff 200 OK", b"ICY 200")
    for line in lines:
        assert answered(line + b"\r\n" + good + b"\r\nx") == "http-header"
    for field in (b"no colon", b" folded: x", b": empty", b"blank : x"):
        bad = b"HTTP/1.1 200 OK\r\n" + field + b"\r\n" + good + b"\r\nx"
        assert answered(bad) == "http-header"
    # A proxy may name itself in any letters (RFC 9110, 5.5): opaque, but never a field's name.
    proxied = b"HTTP/1.1 200 \xff\r\nVia: 1.1 Z\xc3\xbcrich \xff\r\n" + good + b"\r\nx"
    assert answered(proxied) == "ok"
    assert answered(b"HTTP/1.1 200 OK\r\nV\xc3\xbc: x\r\n" + good + b"\r\nx") == "http-header"
    assert answered(b"HTTP/1.1 200 OK\r\nX: \x7f\r\n" + good + b"\r\nx") == "http-header"


def test_head_is_bounded_in_bytes_and_lines():
    assert answered(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000 + b"\r\n\r\n") == "http-header"
    assert answered(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 41 + b"\r\n") == "http-header"
    assert answered(b"y" * 100000) == "http-header"


def test_lying_ranges_are_refused():
    def code(status, length, *fields):
        peer = Peer()
        peer.answer = lambda path, start: head(status, length, *fields) + b"x" * length
        try:
            finish(client(peer).get("a", 100, 200))
        except LinkError as error:
            assert peer.open_sockets == 0
            return error.code
        return "ok"

    part = "206 Partial Content"
    assert code(part, 100, "Content-Range: bytes 100-199/200") == "ok"
    assert code(part, 100) == "http-range"
    assert code(part, 100, "Content-Range: bytes 99-198/200") == "http-range"
    assert code(part, 50, "Content-Range: bytes 100-149/200") == "http-range"
    assert code(part, 100, "Content-Range: bytes 100-198/200") == "http-range"
    assert code(part, 101, "Content-Range: bytes 100-200/201") == "http-length"
    assert code(part, 100, "Content-Range: bytes */200") in ("http-range", "http-length")
    assert code(part, 100, "Content-Range: lines 100-199/200") == "http-range"
    assert code("200 OK", 199) == "http-length"
    assert code("416 Range Not Satisfiable", 0) == "http-range"


def test_abandoned_request_closes_its_socket():
    peer = Peer({"/base/a": FILE})
    for steps in (1, 5, 12):
        run = client(peer).fetch("a", 10000)
        for _ in range(steps):
            next(run)
        run.close()
        assert peer.open_sockets == 0


def test_addresses():
    assert parse_url("http://h") == ("h", 80, "/")
    assert parse_url("http://10.0.0.1:8080/a/b") == ("10.0.0.1", 8080, "/a/b/")
    for url in ("https://h/", "h", "http://", "http://:80/", "http://h:0/", "http://h:x/", "http://h:65536/"):
        try:
            parse_url(url)
            assert False, url
        except LinkError as error:
            assert error.code == "url"


def test_field_names_are_case_insensitive():
    status, fields = parse_head(b"HTTP/1.0 206 x y\r\nCONTENT-Length:  7 ")
    assert status == 206 and fields == {"content-length": "7"}
