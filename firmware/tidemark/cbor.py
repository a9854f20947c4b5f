# Deterministic CBOR (RFC 8949, 4.2.1) in Tidemark's profile (docs/protocol.md): what one value
# encodes to is one byte string, and only that byte string decodes.

import math
import struct

from .compat import const, utf8
from .errors import CodecError

_UINT = const(0)
_NEGATIVE = const(1)
_BYTES = const(2)
_TEXT = const(3)
_ARRAY = const(4)
_MAP = const(5)
_TAG = const(6)

_NAN16 = const(0x7E00)


class Tagged:
    """A value under a CBOR tag: `tag` int, `value` anything of the profile."""

    def __init__(self, tag, value):
        self.tag = tag
        self.value = value


# Floats are handled as bit patterns: the same on ports whose float is single precision.


def _float_bits(value):
    """Return (size in bytes, bits) of the shortest IEEE 754 form that keeps `value`."""
    if math.isnan(value):
        return 2, _NAN16
    return _narrow(struct.unpack(">Q", struct.pack(">d", value))[0])


def _narrow(bits):
    """Return (size, bits) of the shortest form of a binary64 pattern that is not a NaN."""
    sign = bits >> 63
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & 0xFFFFFFFFFFFFF
    for size, width, bias in ((2, 10, 15), (4, 23, 127)):
        top = sign << (8 * size - 1)
        if exponent == 0x7FF:
            return size, top | (2 * bias + 1) << width
        if not exponent and not fraction:
            return size, top
        e = exponent - 1023 + bias
        drop = 52 - width
        # A binary64 subnormal is far below any binary32 one.
        if e <= 0 < exponent:
            # Subnormal in the narrow form: the leading one becomes explicit.
            whole = fraction | 1 << 52
            drop += 1 - e
            if not whole & ((1 << drop) - 1):
                return size, top | whole >> drop
        elif 0 < e <= 2 * bias and not fraction & ((1 << drop) - 1):
            return size, top | e << width | fraction >> drop
    return 8, bits


def _widen(bits, width, bias):
    """Return the binary64 pattern of a narrower, finite or infinite IEEE 754 pattern."""
    top = 2 * bias + 1
    exponent = (bits >> width) & top
    fraction = bits & ((1 << width) - 1)
    sign = bits >> width + (5 if width == 10 else 8)
    if exponent == top:
        exponent = 0x7FF
    elif exponent:
        exponent += 1023 - bias
    elif fraction:
        exponent = 1024 - bias
        while not fraction >> width:
            fraction <<= 1
            exponent -= 1
        fraction &= (1 << width) - 1
    return sign << 63 | exponent << 52 | fraction << 52 - width


def _head(out, major, argument):
    """Append the shortest head of `major` (0 to 7) with `argument` (0 to 2^64 - 1)."""
    major <<= 5
    if argument < 24:
        out.append(major | argument)
    elif argument < 0x100:
        out.append(major | 24)
        out.append(argument)
    elif argument < 0x10000:
        out.append(major | 25)
        out.extend(argument.to_bytes(2, "big"))
    elif argument < 0x100000000:
        out.append(major | 26)
        out.extend(argument.to_bytes(4, "big"))
    elif argument < 0x10000000000000000:
        out.append(major | 27)
        out.extend(argument.to_bytes(8, "big"))
    else:
        raise CodecError("cbor-range", "integer beyond 64 bits")


def _put(out, obj, depth):
    if obj is None:
        out.append(0xF6)
    elif obj is True:
        out.append(0xF5)
    elif obj is False:
        out.append(0xF4)
    elif isinstance(obj, int):
        if obj < 0:
            _head(out, _NEGATIVE, -1 - obj)
        else:
            _head(out, _UINT, obj)
    elif isinstance(obj, str):
        data = _text_bytes(obj)
        _head(out, _TEXT, len(data))
        out.extend(data)
    elif isinstance(obj, (bytes, bytearray, memoryview)):
        if isinstance(obj, memoryview):
            # Its length counts items, which may be wider than a byte.
            obj = bytes(obj)
        _head(out, _BYTES, len(obj))
        out.extend(obj)
    elif isinstance(obj, float):
        size, bits = _float_bits(obj)
        out.append(0xF9 if size == 2 else 0xFA if size == 4 else 0xFB)
        out.extend(bits.to_bytes(size, "big"))
    elif isinstance(obj, (list, tuple, dict)):
        if not depth:
            raise CodecError("cbor-depth", "nested too deep")
        if isinstance(obj, dict):
            for key in obj:
                if key is True or key is False or not isinstance(key, int) or key < 0:
                    raise CodecError("cbor-key", "map keys are unsigned integers")
            _head(out, _MAP, len(obj))
            # Unsigned integers sort by their encodings as they sort by value.
            for key in sorted(obj):
                _head(out, _UINT, key)
                _put(out, obj[key], depth - 1)
        else:
            _head(out, _ARRAY, len(obj))
            for item in obj:
                _put(out, item, depth - 1)
    else:
        raise CodecError("cbor-type", "no encoding for this type")


def _text_bytes(text):
    try:
        data = text.encode()
        utf8(data)
    except ValueError:
        raise CodecError("cbor-utf8", "text with a surrogate")
    return data


def encode(obj, max_depth=6):
    """Return the one deterministic encoding (bytes) of `obj`.

    `obj`: None, bool, int of -2^64 to 2^64 - 1, float, str, bytes-like, list or tuple, dict with
    unsigned int keys; a `Tagged` at the top only. `max_depth`: arrays and maps within one
    another. Raises CodecError: cbor-range, cbor-utf8, cbor-depth, cbor-key, cbor-type.
    """
    out = bytearray()
    if isinstance(obj, Tagged):
        _head(out, _TAG, obj.tag)
        obj = obj.value
    _put(out, obj, max_depth)
    return bytes(out)


class _Reader:
    """One pass over `buf`; every read is bounded by what is left."""

    def __init__(self, buf):
        self.buf = buf
        self.end = len(buf)
        self.at = 0

    def take(self, n):
        at = self.at
        if n > self.end - at:
            raise CodecError("cbor-short", "ends within an item")
        self.at = at + n
        return self.buf[at : at + n]

    def head(self):
        """Return (major type, additional information, argument) of the next item."""
        initial = self.take(1)[0]
        info = initial & 31
        if info < 24:
            return initial >> 5, info, info
        if info == 31:
            raise CodecError("cbor-indefinite", "indefinite length")
        if info > 27:
            raise CodecError("cbor-reserved", "reserved additional information")
        size = 1 << info - 24
        argument = int.from_bytes(self.take(size), "big")
        major = initial >> 5
        # The least value that needs this many bytes; floats have a rule of their own.
        if major < 7 and argument < (24 if size == 1 else 1 << 4 * size):
            raise CodecError("cbor-not-shortest", "head longer than needed")
        return major, info, argument

    def item(self, depth):
        major, info, argument = self.head()
        if major == _UINT:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return bytes(self.take(argument))
        if major == _TEXT:
            try:
                return utf8(self.take(argument))
            except ValueError:
                raise CodecError("cbor-utf8", "text is not UTF-8")
        if major == _ARRAY:
            self.room(argument, depth)
            return [self.item(depth - 1) for _ in range(argument)]
        if major == _MAP:
            return self.map(argument, depth)
        if major == _TAG:
            raise CodecError("cbor-tag", "tag not allowed here")
        return self.simple(info, argument)

    def room(self, count, depth):
        """Refuse a container that is too deep, or cannot fit: an item has a byte at least."""
        if not depth:
            raise CodecError("cbor-depth", "nested too deep")
        if count > self.end - self.at:
            raise CodecError("cbor-short", "fewer items than announced")

    def map(self, count, depth):
        self.room(2 * count, depth)
        out = {}
        last = -1
        for _ in range(count):
            major, _, key = self.head()
            if major != _UINT:
                raise CodecError("cbor-key", "map keys are unsigned integers")
            if key <= last:
                if key == last:
                    raise CodecError("cbor-duplicate", "map key twice")
                raise CodecError("cbor-order", "map keys not sorted")
            last = key
            out[key] = self.item(depth - 1)
        return out

    def simple(self, info, argument):
        if info == 20:
            return False
        if info == 21:
            return True
        if info == 22:
            return None
        if info == 25:
            if argument == _NAN16:
                return float("nan")
            wide = argument
            if wide & 0x7C00 == 0x7C00 and wide & 0x3FF:
                raise CodecError("cbor-nan", "a NaN other than f97e00")
            return _from_bits(_widen(wide, 10, 15))
        if info == 26:
            if argument & 0x7F800000 == 0x7F800000 and argument & 0x7FFFFF:
                return _refuse_nan(argument, 13)
            wide = _widen(argument, 23, 127)
            if _narrow(wide)[0] < 4:
                raise CodecError("cbor-not-shortest", "float longer than needed")
            return _from_bits(wide)
        if info == 27:
            if (argument >> 52) & 0x7FF == 0x7FF and argument & 0xFFFFFFFFFFFFF:
                return _refuse_nan(argument, 42)
            if _narrow(argument)[0] < 8:
                raise CodecError("cbor-not-shortest", "float longer than needed")
            return _from_bits(argument)
        raise CodecError("cbor-simple", "simple value outside the profile")


def _refuse_nan(bits, drop):
    if bits & ((1 << drop) - 1):
        raise CodecError("cbor-nan", "a NaN other than f97e00")
    raise CodecError("cbor-not-shortest", "float longer than needed")


def _from_bits(wide):
    """Return the float of a binary64 pattern, exactly or not at all."""
    packed = wide.to_bytes(8, "big")
    value = struct.unpack(">d", packed)[0]
    if struct.pack(">d", value) != packed:
        raise CodecError("cbor-float-wide", "this platform's floats can't hold the value")
    return value


def decode(buf, max_depth=6, max_size=1024, tags=()):
    """Return the value of `buf` (bytes-like), which must be its deterministic encoding.

    `max_depth`: arrays and maps within one another. `max_size`: bytes of `buf`. `tags`: the tag
    numbers of which one must stand at the top; the result is then a `Tagged`.
    Byte strings come as bytes, arrays as lists, maps as dicts. Cost and memory are linear in
    `len(buf)` whatever it announces. Raises CodecError: cbor-size, cbor-short, cbor-trailing,
    cbor-indefinite, cbor-reserved, cbor-not-shortest, cbor-order, cbor-duplicate, cbor-key,
    cbor-utf8, cbor-depth, cbor-tag, cbor-simple, cbor-nan, cbor-float-wide.
    """
    if len(buf) > max_size:
        raise CodecError("cbor-size", "larger than allowed")
    reader = _Reader(memoryview(buf))
    if tags:
        major, _, tag = reader.head()
        if major != _TAG or tag not in tags:
            raise CodecError("cbor-tag", "not one of the expected tags")
        out = Tagged(tag, reader.item(max_depth))
    else:
        out = reader.item(max_depth)
    if reader.at != reader.end:
        raise CodecError("cbor-trailing", "bytes after the item")
    return out
