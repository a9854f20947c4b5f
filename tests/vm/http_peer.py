# A server inside one process: sockets that answer by the second call, for tests of HTTP and update
# runs on both interpreters. It breaks off, stalls and lies where a test says so.

from tidemark.errors import LinkError

_AGAIN = 11


class Peer:
    """`files`: path: bytes. `open` has the port's signature. What was asked is in `asked`.

    Wishes: `cut_after` body bytes, then the connection closes; `stall_after` body bytes, then
    nothing comes; `ranges` False ignores Range; `answer(path, start)` -> bytes replaces the whole
    answer, None for the usual one; `slice` bytes at most come at once.
    """

    def __init__(self, files=None):
        self.files = files if files is not None else {}
        self.asked = []
        self.cut_after = None
        self.stall_after = None
        self.ranges = True
        self.answer = None
        self.slice = 700
        self.refuse = False
        self.open_sockets = 0

    def open(self, host, port, timeout_s):
        if self.refuse:
            raise LinkError("refused", "nobody listens")
        self.open_sockets += 1
        return _Socket(self)

    def reply(self, request):
        lines = str(request, "ascii").split("\r\n")
        path = lines[0].split(" ")[1]
        start = 0
        for line in lines:
            if line.startswith("Range: bytes="):
                start = int(line[13:].rstrip("-"))
        self.asked.append((path, start))
        if self.answer:
            given = self.answer(path, start)
            if given is not None:
                return given
        data = self.files.get(path)
        if data is None:
            return head("404 Not Found", 0)
        if start and self.ranges:
            if start >= len(data):
                return head("416 Range Not Satisfiable", 0)
            spans = "bytes %d-%d/%d" % (start, len(data) - 1, len(data))
            part = data[start:]
            return head("206 Partial Content", len(part), "Content-Range: " + spans) + part
        return head("200 OK", len(data)) + data


def head(status, length, *fields):
    lines = ["HTTP/1.1 " + status, "Content-Length: %d" % length]
    return ("\r\n".join(lines + list(fields)) + "\r\n\r\n").encode()


class _Socket:
    def __init__(self, peer):
        self.peer = peer
        self.request = b""
        self.data = None
        self.at = 0
        self.turn = 0
        self.closed = False

    def setblocking(self, on):
        assert not on

    def send(self, data):
        self.turn += 1
        if self.turn % 2:
            raise OSError(_AGAIN, "not yet")
        part = bytes(data[:50])
        self.request += part
        if self.request.endswith(b"\r\n\r\n"):
            self.data = self.peer.reply(self.request)
            self.body = self.data.find(b"\r\n\r\n") + 4
        return len(part)

    def recv(self, size):
        self.turn += 1
        peer = self.peer
        if self.turn % 2:
            raise OSError(_AGAIN, "not yet")
        end = len(self.data)
        for limit in (peer.cut_after, peer.stall_after):
            if limit is not None:
                end = min(end, self.body + limit)
        part = self.data[self.at : min(end, self.at + min(size, peer.slice))]
        self.at += len(part)
        if not part and peer.stall_after is not None and self.at < len(self.data):
            raise OSError(_AGAIN, "not yet")
        return part

    def close(self):
        assert not self.closed
        self.closed = True
        self.peer.open_sockets -= 1
