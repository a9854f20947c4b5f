# JSON for update metadata: a strict, bounded reader, and OLPC canonical JSON, the form that TUF
# signs. The platform's json module is not used: MicroPython's takes missing commas and brackets,
# trailing commas and unknown escapes, and neither module shows a key that comes twice.

from .compat import const, utf8
from .errors import CodecError

_MAX_INT = 1 << 53
_QUOTE = const(0x22)
_ESCAPES = {
    0x22: '"', 0x5C: "\\", 0x2F: "/", 0x62: "\b", 0x66: "\f", 0x6E: "\n", 0x72: "\r", 0x74: "\t",
}  # fmt: skip


def encode(obj, feed=None):
    """Return the OLPC canonical JSON of `obj` as bytes (UTF-8), as securesystemslib writes it.

    `obj`: dict with str keys, list or tuple, str, int, bool, None. Keys are sorted, only `"` and
    backslash are escaped. `feed`: called with no argument now and then, or None.
    Raises CodecError: "json-float", "json-key", "json-type", "json-utf8".
    """
    out = bytearray()
    _write(out, obj, feed)
    return bytes(out)


def _write(out, obj, feed):
    if isinstance(obj, str):
        _write_string(out, obj)
    elif obj is True:
        out.extend(b"true")
    elif obj is False:
        out.extend(b"false")
    elif obj is None:
        out.extend(b"null")
    elif isinstance(obj, int):
        out.extend(str(obj).encode())
    elif isinstance(obj, dict):
        for key in obj:
            if not isinstance(key, str):
                raise CodecError("json-key", "keys are strings")
        mark = b"{"
        for key in sorted(obj):
            out.extend(mark)
            _write_string(out, key)
            out.extend(b":")
            _write(out, obj[key], feed)
            mark = b","
        out.extend(b"}" if obj else b"{}")
        if feed:
            feed()
    elif isinstance(obj, (list, tuple)):
        mark = b"["
        for item in obj:
            out.extend(mark)
            _write(out, item, feed)
            mark = b","
        out.extend(b"]" if obj else b"[]")
    elif isinstance(obj, float):
        raise CodecError("json-float", "canonical JSON has no floats")
    else:
        raise CodecError("json-type", "no encoding for this type")


def _write_string(out, text):
    out.append(_QUOTE)
    try:
        data = text.replace("\\", "\\\\").replace('"', '\\"').encode()
        utf8(data)
    except ValueError:
        raise CodecError("json-utf8", "text with a surrogate")
    out.extend(data)
    out.append(_QUOTE)


def loads(buf, max_size, max_depth=10, feed=None):
    """Return the value of a JSON text (RFC 8259), read strictly.

    `buf`: bytes-like UTF-8 of at most `max_size` bytes; `max_depth`: arrays and objects within
    one another. `feed`: called with no argument now and then, or None. Cost is linear in the size.
    Beyond the RFC it refuses what signed metadata never needs: floats, integers above 2^53 either
    way, a key twice in an object, lone surrogates.
    Raises CodecError: "json-size", "json-depth", "json-syntax", "json-float", "json-int",
    "json-duplicate", "json-utf8", "json-nodes".
    """
    if len(buf) > max_size:
        raise CodecError("json-size", "larger than allowed")
    reader = _Reader(buf if isinstance(buf, bytes) else bytes(buf), feed)
    # An empty array is 3 bytes of text and 60 of heap: no honest metadata is made of them.
    reader.nodes = 16 + len(buf) // 8
    value = reader.value(max_depth)
    if reader.peek() is not None:
        raise _syntax("text after the value")
    return value


def _syntax(text):
    return CodecError("json-syntax", text)


class _Reader:
    """One pass over `buf`; `at` is the next unread byte."""

    def __init__(self, buf, feed):
        self.buf = buf
        self.end = len(buf)
        self.at = 0
        self.nodes = 0
        self.feed = feed

    def peek(self):
        """Skip white space; return the next byte as an int, None at the end."""
        buf = self.buf
        at = self.at
        while at < self.end and buf[at] in b" \n\r\t":
            at += 1
        self.at = at
        return buf[at] if at < self.end else None

    def value(self, depth):
        byte = self.peek()
        if byte is None:
            raise _syntax("ends within a value")
        if byte == _QUOTE:
            return self.string()
        if byte in b"{[":
            if not depth:
                raise CodecError("json-depth", "nested too deep")
            self.nodes -= 1
            if self.nodes < 0:
                raise CodecError("json-nodes", "too many arrays and objects for its size")
            if self.feed:
                self.feed()
            self.at += 1
            return self.object(depth - 1) if byte == 0x7B else self.array(depth - 1)
        if byte == 0x2D or 0x30 <= byte <= 0x39:
            return self.number()
        for word, value in ((b"true", True), (b"false", False), (b"null", None)):
            if self.buf[self.at : self.at + len(word)] == word:
                self.at += len(word)
                return value
        raise _syntax("not a value")

    def more(self, close):
        """Consume a comma (True) or the closing byte (False)."""
        byte = self.peek()
        if byte not in (0x2C, close):
            raise _syntax("neither comma nor end")
        self.at += 1
        return byte != close

    def array(self, depth):
        out = []
        if self.peek() == 0x5D:
            self.at += 1
            return out
        while True:
            out.append(self.value(depth))
            if not self.more(0x5D):
                return out

    def object(self, depth):
        out = {}
        if self.peek() == 0x7D:
            self.at += 1
            return out
        while True:
            if self.peek() != _QUOTE:
                raise _syntax("not a key")
            key = self.string()
            if key in out:
                raise CodecError("json-duplicate", "key twice")
            if self.peek() != 0x3A:
                raise _syntax("no colon")
            self.at += 1
            out[key] = self.value(depth)
            if not self.more(0x7D):
                return out

    def number(self):
        buf = self.buf
        start = self.at
        at = start + 1 if buf[start] == 0x2D else start
        first = at
        while at < self.end and 0x30 <= buf[at] <= 0x39:
            at += 1
        if at == first or (buf[first] == 0x30 and at > first + 1):
            raise _syntax("not a number")
        if at < self.end and buf[at] in b".eE":
            raise CodecError("json-float", "floats are not read")
        # 2^53 has 16 digits: no long conversion for a number that is refused anyway.
        if at - first > 16:
            raise CodecError("json-int", "integer above 2^53")
        self.at = at
        value = int(str(buf[start:at], "ascii"))
        if not -_MAX_INT <= value <= _MAX_INT:
            raise CodecError("json-int", "integer above 2^53")
        return value

    def string(self):
        """Return the str whose opening quote is next."""
        buf = self.buf
        at = self.at + 1
        parts = []
        quote = -1
        while True:
            if quote < at:
                quote = buf.find(b'"', at)
                if quote < 0:
                    raise _syntax("ends within a string")
            escape = buf.find(b"\\", at, quote)
            chunk = buf[at : quote if escape < 0 else escape]
            if chunk:
                if min(chunk) < 0x20:
                    raise _syntax("control character in a string")
                try:
                    parts.append(utf8(chunk))
                except ValueError:
                    raise CodecError("json-utf8", "string is not UTF-8")
            if escape < 0:
                self.at = quote + 1
                return "".join(parts)
            self.at = escape + 1
            parts.append(self.escape())
            at = self.at

    def escape(self):
        """Return the character of the escape whose backslash is consumed."""
        byte = self.buf[self.at]
        self.at += 1
        if byte != 0x75:
            if byte not in _ESCAPES:
                raise _syntax("unknown escape")
            return _ESCAPES[byte]
        code = self.hex4()
        if 0xD800 <= code < 0xE000:
            if code >= 0xDC00 or self.buf[self.at : self.at + 2] != b"\\u":
                raise CodecError("json-utf8", "lone surrogate")
            self.at += 2
            low = self.hex4()
            if not 0xDC00 <= low < 0xE000:
                raise CodecError("json-utf8", "lone surrogate")
            code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
        return chr(code)

    def hex4(self):
        code = 0
        digits = self.buf[self.at : self.at + 4]
        if len(digits) < 4:
            raise _syntax("ends within an escape")
        for digit in digits:
            if 0x30 <= digit <= 0x39:
                code = code << 4 | digit - 0x30
            elif 0x61 <= digit | 0x20 <= 0x66:
                code = code << 4 | (digit | 0x20) - 0x57
            else:
                raise _syntax("not a hex digit")
        self.at += 4
        return code
