# A metadata file's `signed` part as the bytes that are signed, and what we need of it, read from
# those very bytes. A file that is canonical JSON as it stands is read in place; any other is read
# whole once and written anew.

from .canonjson import encode, loads
from .compat import const
from .errors import CodecError

_HEAD = b'{"signatures":'
_MIDDLE = b',"signed":'
_QUOTE = const(0x22)
_BACKSLASH = b"\\"
_MAX_INT = 1 << 53
_FEED_EVERY = const(8)  # arrays and objects; a collection of the heap may come among them


class NotCanonical(Exception):
    """The text is not canonical JSON, or no JSON at all: `canonjson.loads` has the last word."""


def open_signed(buf, max_size, max_depth, shape, feed=None):
    """Return (signatures, signed, message) of a metadata file, `buf` (bytes).

    message: bytes-like, the canonical form of `signed`, which is what signatures are made over.
    signed: its value, and of objects only the keys that `shape` names, by key: what to read of
    that key's value, or None for all; "*" stands for every other key. In a list it applies to each
    item. signatures: that value, whole. A part that is missing is None. `feed`: called with no
    argument now and then, or None.
    Raises CodecError as `canonjson.loads` does, and bounds the same.
    """
    if len(buf) > max_size:
        raise CodecError("json-size", "larger than allowed")
    try:
        return _in_place(buf, max_depth, shape, feed)
    except (NotCanonical, ValueError):
        pass  # ValueError: no UTF-8
    document = loads(buf, max_size, max_depth, feed)
    if not isinstance(document, dict) or not isinstance(document.get("signed"), dict):
        return None, None, b""
    signatures = document.get("signatures")
    message = encode(document["signed"], feed)
    document = None
    return signatures, Reader(message, 0, feed).value(max_depth, shape), message


def _in_place(buf, max_depth, shape, feed):
    # Control characters stand for themselves in the canonical form and must not in JSON. What is
    # not ASCII is left to the careful reader.
    if not buf.startswith(_HEAD) or min(buf) < 0x20 or len(buf.decode()) != len(buf):
        raise NotCanonical
    reader = Reader(buf, len(_HEAD), feed)
    # Empty arrays take more heap than text: as many as canonjson allows.
    reader.nodes = 16 + len(buf) // 8
    signatures = reader.value(max_depth - 1, None)
    start = reader.at + len(_MIDDLE)
    if buf[reader.at : start] != _MIDDLE or buf[start : start + 1] != b"{":
        raise NotCanonical
    reader.at = start
    signed = reader.value(max_depth - 1, shape)
    if buf[reader.at :] != b"}":
        raise NotCanonical
    return signatures, signed, memoryview(buf)[start : reader.at]


class Reader:
    """One pass over the canonical JSON in `buf` (bytes of UTF-8); `at` is the next unread byte.

    Raises NotCanonical for any other text. Bounded by the depth asked for, and by `nodes`, the
    arrays and objects that may be built.
    """

    def __init__(self, buf, at, feed=None):
        self.buf = buf
        self.at = at
        self.nodes = len(buf)
        self.feed = feed

    def value(self, depth, shape):
        """Return the value at hand. shape: as `open_signed` has it, or False to build nothing."""
        buf = self.buf
        at = self.at
        if at >= len(buf):
            raise NotCanonical
        byte = buf[at]
        if byte == _QUOTE:
            return self.string(shape is not False)
        if byte in b"{[":
            self.nodes -= 1
            if not depth or self.nodes < 0:
                raise NotCanonical
            if self.feed and not self.nodes % _FEED_EVERY:
                self.feed()
            if byte == 0x7B:
                return self.object(depth - 1, shape)
            return self.array(depth - 1, shape)
        if 0x30 <= byte <= 0x39 or byte == 0x2D:
            return self.number()
        for word, value in ((b"true", True), (b"false", False), (b"null", None)):
            if byte == word[0]:
                self.at += len(word)
                if buf[at : self.at] == word:
                    return value
        raise NotCanonical

    def array(self, depth, shape):
        out = None if shape is False else []
        buf = self.buf
        self.at += 1
        if buf[self.at : self.at + 1] == b"]":
            self.at += 1
            return out
        while True:
            item = self.value(depth, shape)
            if out is not None:
                out.append(item)
            if self.more(0x5D):
                return out

    def object(self, depth, shape):
        out = None if shape is False else {}
        buf = self.buf
        self.at += 1
        if buf[self.at : self.at + 1] == b"}":
            self.at += 1
            return out
        last = None
        while True:
            if buf[self.at : self.at + 1] != b'"':
                raise NotCanonical
            key = self.string(True)
            # Sorted, and so no key comes twice.
            if last is not None and key <= last:
                raise NotCanonical
            last = key
            if buf[self.at : self.at + 1] != b":":
                raise NotCanonical
            self.at += 1
            if not shape:
                item = self.value(depth, shape)
                if out is not None:
                    out[key] = item
            else:
                inner = shape.get(key, False)
                if inner is False:
                    inner = shape.get("*", False)
                item = self.value(depth, inner)
                if inner is not False:
                    out[key] = item
            if self.more(0x7D):
                return out

    def more(self, close):
        """Consume a comma (False) or the closing byte (True)."""
        at = self.at
        byte = self.buf[at] if at < len(self.buf) else 0
        self.at = at + 1
        if byte == 0x2C:
            return False
        if byte == close:
            return True
        raise NotCanonical

    def number(self):
        buf = self.buf
        start = at = self.at
        # 2^53 has 16 digits, and there may be a sign.
        while at < len(buf) and (0x30 <= buf[at] <= 0x39 or at == start) and at - start < 18:
            at += 1
        text = buf[start:at]
        try:
            value = int(text)
        except ValueError:
            raise NotCanonical
        if str(value).encode() != text or not -_MAX_INT <= value <= _MAX_INT:
            raise NotCanonical
        self.at = at
        return value

    def string(self, build):
        """Return the str whose opening quote is next, or None unless it is to be built."""
        buf = self.buf
        start = self.at + 1
        end = buf.find(b'"', start)
        if buf.find(_BACKSLASH, start, end) < 0:
            if end < 0:
                raise NotCanonical
            self.at = end + 1
            return buf[start:end].decode() if build else None
        parts = []
        while True:
            # `end` is a quote, escaped or not; the first backslash before it decides.
            slash = buf.find(_BACKSLASH, start, end)
            if slash < 0:
                break
            if buf[slash + 1 : slash + 2] not in (b'"', _BACKSLASH):
                raise NotCanonical
            if build:
                parts.append(buf[start:slash])
                parts.append(buf[slash + 1 : slash + 2])
            start = slash + 2
            if start > end:
                end = buf.find(b'"', start)
                if end < 0:
                    raise NotCanonical
        self.at = end + 1
        if not build:
            return None
        parts.append(buf[start:end])
        return b"".join(parts).decode()
