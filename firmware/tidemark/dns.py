# One question to a name server, and its answer: the ports' own getaddrinfo waits longer for a
# server that is gone than a watchdog allows (docs/wifi.md). Pure; RFC 1035, IPv4 addresses only.

from tidemark.compat import const
from tidemark.errors import LinkError

ANSWER_MAX = const(512)  # RFC 1035, 2.3.4: of an answer over UDP

_NAME_MAX = const(253)
_LABEL_MAX = const(63)
_RECORDS_MAX = const(16)
_ADDRESSES_MAX = const(4)
_HEADER = const(12)
_QUESTION_TAIL = b"\x00\x01\x00\x01"  # type A, class IN


def is_address(host):
    """True for an IPv4 address in figures (str), which is no name to ask for."""
    parts = host.split(".")
    if len(parts) != 4:
        return False
    for part in parts:
        if not part.isdigit() or len(part) > 3 or int(part) > 255:
            return False
    return True


def question(number, name):
    """Return the query (bytes) for the addresses of `name` (str). `number`: 0..65535, random.

    Raises LinkError("resolve") for what is no name.
    """
    labels = name.encode().split(b".")
    if not 0 < len(name) <= _NAME_MAX:
        raise LinkError("resolve", "no name")
    out = bytearray(number.to_bytes(2, "big"))
    out.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")  # recursion desired, one question
    for label in labels:
        if not 0 < len(label) <= _LABEL_MAX:
            raise LinkError("resolve", "no name")
        out.append(len(label))
        out.extend(label)
    out.append(0)
    out.extend(_QUESTION_TAIL)
    return bytes(out)


def answer(asked, data):
    """Return the addresses (list of str, at most 4) in `data`, an answer to the query `asked`.

    None when it is no answer to it: one to another question, or cut short. Raises
    LinkError("resolve") when the server says that there is no such name or address.
    """
    data = bytes(data)
    end = len(asked)
    # The question comes back as it was asked: an answer from elsewhere would have to guess it.
    if len(data) < end or data[:2] != asked[:2] or data[_HEADER:end] != asked[_HEADER:]:
        return None
    if data[2] & 0xFA != 0x80 or data[4:6] != b"\x00\x01":
        return None  # not an answer to a standard query, or one that was cut
    if data[3] & 0x0F:
        raise LinkError("resolve", "the name server knows no such name")
    found = []
    at = end
    for _ in range(min(int.from_bytes(data[6:8], "big"), _RECORDS_MAX)):
        at = _skip_name(data, at)
        if at is None or at + 10 > len(data):
            return None
        size = int.from_bytes(data[at + 8 : at + 10], "big")
        body = data[at + 10 : at + 10 + size]
        if len(body) != size:
            return None
        if data[at : at + 4] == _QUESTION_TAIL and size == 4 and len(found) < _ADDRESSES_MAX:
            found.append("%d.%d.%d.%d" % tuple(body))
        at += 10 + size
    if not found:
        raise LinkError("resolve", "no address of that name")
    return found


def _skip_name(data, at):
    """Return the offset behind the name at `at`, None where the data ends before it."""
    # Nothing follows a pointer here, so no loop of pointers can hold this up.
    while at < len(data):
        size = data[at]
        if size >= 0xC0:
            return at + 2
        if size > _LABEL_MAX:
            return None
        at += 1 + size
        if not size:
            return at
    return None
