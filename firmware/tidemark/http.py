# HTTP/1.1 GET with Range (RFC 9110, 9112) over a handed-in socket: the least that serves update
# files, bounded.

from tidemark.compat import const, ticks_diff, ticks_ms
from tidemark.errors import LinkError

_HEADER_MAX = const(2048)  # bytes of status line and fields
_LINES_MAX = const(40)
_SLICE = const(512)
_LENGTH_DIGITS = const(10)
_CONNECT_S = const(5)
_STALL_MS = const(15_000)  # without a single byte
_GRACE_MS = const(30_000)  # before the least rate counts
_RATE_MIN = const(128)  # bytes a second on average, from then on

_ONCE = ("content-length", "content-range", "content-encoding")

_OPAQUE = const(0x3F)  # a question mark: one of the delimiters
_DELIMITERS = '\t "(),/:;<=>?@[\\]{}'

_HEX = "0123456789ABCDEF"

# "Not yet" of a non-blocking socket: EAGAIN, EINPROGRESS and ETIMEDOUT of the platforms that we
# know.
_AGAIN = (11, 35, 110, 115, 116, 119)


def quote(text):
    """Percent-encodes all but RFC 3986's unreserved characters: a role name becomes one path
    segment.
    """
    out = []
    for byte in text.encode():
        c = chr(byte)
        if byte < 128 and (c.isalpha() or c.isdigit() or c in "-._~"):
            out.append(c)
        else:
            out.append("%" + _HEX[byte >> 4] + _HEX[byte & 15])
    return "".join(out)


def parse_url(url):
    """(host, port, path) of "http://host[:port]/path"; path starts and ends with "/". Raises
    LinkError("url").
    """
    if not url.startswith("http://") or len(url) > 200:
        raise LinkError("url", "not a http:// address")
    host, _, path = url[7:].partition("/")
    host, colon, digits = host.partition(":")
    port = 80
    if colon:
        # Not isdigit(): CPython's takes digits of other scripts, and some that int() does not.
        if not 0 < len(digits) <= 5 or digits.strip("0123456789") or not 0 < int(digits) < 65536:
            raise LinkError("url", "port")
        port = int(digits)
    if not host:
        raise LinkError("url", "host")
    path = "/" + path
    return host, port, path if path.endswith("/") else path + "/"


def quote_path(path):
    """Percent-encodes the segments of a target path."""
    return "/".join([quote(part) for part in path.split("/")])


class Response:
    """The body of one answer. `status` 200 or 206; `start`: offset of its first byte in the whole
    file; `length`: bytes that come; `left`: bytes still to come.
    """

    def __init__(self, sock, ticks):
        self.status = self.start = self.length = self.left = 0
        self._sock = sock
        self._ticks = ticks
        self._began = self._last = ticks()
        self._elapsed = 0
        self._idle = 0
        self._received = 0
        self._spare = b""  # body bytes that came with the header

    def receive(self, size):
        """At most `size` bytes, or b"" when none are there yet. Raises LinkError: "closed",
        "stalled", "slow", "reset".

        Never waits: the caller gives others their turn and asks again.
        """
        try:
            data = self._sock.recv(size)
        except OSError as error:
            # CPython's BlockingIOError and MicroPython's OSError carry the same numbers.
            if error.errno not in _AGAIN:
                raise LinkError("reset", "errno %d" % (error.errno or 0))
            self._pace(0)
            return b""
        if not data:
            raise LinkError("closed", "by the server, too early")
        self._pace(len(data))
        return data

    def _pace(self, size):
        # Differences are added up: tick values wrap, and a slow server may stretch one answer over
        # days.
        now = self._ticks()
        passed = ticks_diff(now, self._last)
        self._last = now
        self._elapsed += passed
        self._idle = 0 if size else self._idle + passed
        self._received += size
        if self._idle > _STALL_MS:
            raise LinkError("stalled", "no bytes from the server")
        counted = self._elapsed - _GRACE_MS
        if counted > 0 and self._received * 1000 < counted * _RATE_MIN:
            raise LinkError("slow", "less than 128 bytes a second")

    def readinto(self, buf):
        """Fills the start of `buf` with body bytes that are there; returns how many (0: none yet,
        or the end).
        """
        size = min(len(buf), self.left, _SLICE)
        if not size:
            return 0
        if self._spare:
            data = self._spare[:size]
            self._spare = self._spare[size:]
        else:
            data = self.receive(size)
        size = len(data)
        buf[:size] = data
        self.left -= size
        return size

    def close(self):
        try:
            self._sock.close()
        except OSError:
            pass


class Client:
    """Fetches files below one base address, a connection each.

    open_socket(host, port, timeout_s): the port's; its socket needs `setblocking`, `send`, `recv`,
    `close`. ticks: ms, wrapping as `compat.ticks_ms`.
    """

    def __init__(self, open_socket, url, ticks=ticks_ms):
        self._open = open_socket
        self.host, self.port, self.path = parse_url(url)
        self._ticks = ticks

    def get(self, path, offset=0, length=None):
        """Generator: asks for a file from byte `offset` on, yields while it waits, returns a
        `Response` or None for 404 (and 403, which some object stores answer instead).

        path: percent-encoded already, since only the caller knows which "/" separates segments.
        length: size of the whole file, where it is known: any other one is refused. A server that
        ignores Range answers with `start` 0. Raises LinkError; the connection is closed then.
        """
        sock = self._open(self.host, self.port, _CONNECT_S)
        response = Response(sock, self._ticks)
        try:
            sock.setblocking(False)
            yield from self._send(response, sock, self._request(path, offset))
            head = yield from self._head(response)
            status, fields = parse_head(head)
            if status in (403, 404):
                response.close()
                return None
            _accept(response, status, fields, offset, length)
        except (LinkError, OSError) as error:
            response.close()
            if isinstance(error, LinkError):
                raise
            raise LinkError("reset", "errno %d" % (error.errno or 0))
        except GeneratorExit:
            response.close()
            raise
        return response

    def fetch(self, path, max_size):
        """Generator: returns a whole file of at most `max_size` bytes as bytes, or None when there
        is none.

        Raises LinkError, "too-large" among others.
        """
        response = yield from self.get(path)
        if response is None:
            return None
        try:
            if response.length > max_size:
                raise LinkError("too-large", "%d bytes" % response.length)
            buf = bytearray(response.length)
            view = memoryview(buf)
            at = 0
            while response.left:
                at += response.readinto(view[at:])
                yield
            return bytes(buf)
        finally:
            response.close()

    def _request(self, path, offset):
        lines = [
            "GET %s%s HTTP/1.1" % (self.path, path),
            "Host: %s:%d" % (self.host, self.port),
            "Connection: close",
            "Accept-Encoding: identity",
        ]
        if offset:
            lines.append("Range: bytes=%d-" % offset)
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _send(self, response, sock, data):
        view = memoryview(data)
        while len(view):
            try:
                sent = sock.send(view)
            except OSError as error:
                if error.errno not in _AGAIN:
                    raise LinkError("reset", "errno %d" % (error.errno or 0))
                sent = 0
            if sent:
                view = view[sent:]
            else:
                response._pace(0)
                yield

    def _head(self, response):
        """Bytes of status line and fields, without the empty line; body bytes behind it stay with
        the response.
        """
        head = b""
        while True:
            data = response.receive(_SLICE)
            if data:
                head += data
                end = head.find(b"\r\n\r\n")
                if end >= 0 and end <= _HEADER_MAX:
                    response._spare = head[end + 4 :]
                    return head[:end]
                if len(head) > _HEADER_MAX:
                    raise LinkError("http-header", "too long")
            yield


def parse_head(head):
    """(status, {lower-case field name: value}) of an answer's head (bytes). Raises
    LinkError("http-header").
    """
    # Opaque bytes (RFC 9110, 5.5) become a character that no name may have: what interpreters make
    # of them differs, and nothing that counts here has any.
    text = bytearray(head)
    for i in range(len(text)):
        if text[i] >= 0x80:
            text[i] = _OPAQUE
        elif text[i] == 0x7F or (text[i] < 0x20 and text[i] not in b"\t\r\n"):
            raise LinkError("http-header", "control character")
    lines = str(text, "ascii").split("\r\n")
    for line in lines:
        # Others end a line at either (RFC 9112, 2.2) and would read another field (RFC 9110, 5.5).
        if "\r" in line or "\n" in line:
            raise LinkError("http-header", "half a line's end")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or words[0] not in ("HTTP/1.1", "HTTP/1.0"):
        raise LinkError("http-header", "status line")
    if len(words[1]) != 3 or not words[1].isdigit():
        raise LinkError("http-header", "status line")
    if len(lines) > _LINES_MAX:
        raise LinkError("http-header", "too many fields")
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or not _is_token(name):
            raise LinkError("http-header", "field")
        name = name.lower()
        value = value.strip()
        if name in _ONCE and fields.get(name, value) != value:
            raise LinkError("http-header", "two lengths or codings")
        fields[name] = value
    return int(words[1]), fields


def _is_token(name):
    """True for a name of RFC 9110, 5.6.2, of printable ASCII: others stop reading at any other."""
    for c in name:
        if c in _DELIMITERS:
            return False
    return True


def _number(text):
    if not 0 < len(text) <= _LENGTH_DIGITS:
        raise LinkError("http-length", "length")
    for c in text:
        if not "0" <= c <= "9":
            raise LinkError("http-length", "length")
    return int(text)


def _accept(response, status, fields, offset, whole):
    """Checks what a 200 or 206 promises and notes it in `response`."""
    if status == 416:
        raise LinkError("http-range", "the file ends before the range")
    if status not in (200, 206):
        raise LinkError("http-status", "%d" % status)
    if "transfer-encoding" in fields or fields.get("content-encoding", "identity") != "identity":
        raise LinkError("http-encoding", "only identity")
    if "content-length" not in fields:
        raise LinkError("http-length", "none given")
    length = _number(fields["content-length"])
    start = 0
    if status == 206:
        start, total = _content_range(fields.get("content-range", ""), length)
        if start != offset or start + length != total:
            raise LinkError("http-range", "not the range asked for")
    total = start + length
    if whole is not None and total != whole:
        raise LinkError("http-length", "the file has another length")
    if len(response._spare) > length:
        raise LinkError("http-length", "more than promised")
    response.status = status
    response.start = start
    response.length = response.left = length


def _content_range(text, length):
    """(start, total) of "bytes start-end/total"."""
    unit, space, rest = text.partition(" ")
    span, slash, total = rest.partition("/")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not space or not slash or not dash:
        raise LinkError("http-range", "malformed")
    start = _number(first)
    if _number(last) != start + length - 1:
        raise LinkError("http-range", "another length")
    return start, _number(total)
