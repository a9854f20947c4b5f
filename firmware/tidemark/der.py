# DER (X.690) as far as public keys and ECDSA signatures need it, and the PEM armour around keys
# (RFC 7468). Strict: one encoding for each value, nothing behind the end.

from binascii import a2b_base64, b2a_base64

from tidemark.compat import const
from tidemark.errors import CodecError

INTEGER = const(0x02)
BIT_STRING = const(0x03)
NULL = const(0x05)
OBJECT_ID = const(0x06)
SEQUENCE = const(0x30)

_BEGIN = "-----BEGIN PUBLIC KEY-----"
_END = "-----END PUBLIC KEY-----"
_PEM_MAX = const(1200)  # characters: an RSA key of 4,096 bits takes 800


def _malformed(text):
    return CodecError("der", text)


def read(buf, at, end, tag):
    """(start, stop) of the contents of the element at `at`, which must have `tag` and end by
    `end`. Lengths are definite, minimal and below 65,536. Raises CodecError("der").
    """
    if at + 2 > end or buf[at] != tag:
        raise _malformed("another element")
    length = buf[at + 1]
    at += 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 2 or at + count > end:
            raise _malformed("length")
        length = int.from_bytes(buf[at : at + count], "big")
        at += count
        if length < (0x80 if count == 1 else 0x100):
            raise _malformed("length is not minimal")
    if at + length > end:
        raise _malformed("ends within an element")
    return at, at + length


def read_all(buf, at, end, tag):
    """`read` of an element that must end exactly at `end`."""
    start, stop = read(buf, at, end, tag)
    if stop != end:
        raise _malformed("bytes behind the end")
    return start, stop


def read_uint(buf, at, end):
    """(value, stop) of the non-negative INTEGER at `at`, in its shortest form. Raises
    CodecError("der").
    """
    start, stop = read(buf, at, end, INTEGER)
    if start == stop or buf[start] & 0x80:
        raise _malformed("empty or negative integer")
    if buf[start] == 0 and stop - start > 1 and not buf[start + 1] & 0x80:
        raise _malformed("integer is not minimal")
    return int.from_bytes(buf[start:stop], "big"), stop


def public_key(text):
    """(algorithm identifier bytes, key bytes) of a PEM SubjectPublicKeyInfo (RFC 5280, 4.1).
    Raises CodecError("der") or CodecError("pem").

    The algorithm identifier comes whole, object id and parameters, for the caller to compare.
    """
    data = _unarmour(text)
    at, end = read_all(data, 0, len(data), SEQUENCE)
    start, stop = read(data, at, end, SEQUENCE)
    first, last = read_all(data, stop, end, BIT_STRING)
    if first == last or data[first] != 0:
        raise _malformed("bits that fill no bytes")
    return data[start:stop], data[first + 1 : last]


def _unarmour(text):
    if not isinstance(text, str) or len(text) > _PEM_MAX:
        raise CodecError("pem", "too long")
    text = text.strip(" \t\r\n")  # what CPython takes for white space is more
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise CodecError("pem", "not a public key")
    body = text[len(_BEGIN) : -len(_END)].replace("\r", "").replace("\n", "").encode()
    try:
        data = a2b_base64(body)
    except ValueError:
        raise CodecError("pem", "not base64")
    # Decoders pass over what they do not know: only the one encoding of these bytes counts.
    if b2a_base64(data)[:-1] != body:
        raise CodecError("pem", "not base64")
    return data
