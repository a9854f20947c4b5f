# A mark's value in the journal: a number that only rises, within a scope, and what it stands for.

import struct

from tidemark.compat import const

MAX_SCOPE = const(32)


def build_mark(number, payload, scope):
    """Return the value (bytes) of a mark: length of the scope (1), number (8), scope, payload."""
    return struct.pack(">BQ", len(scope), number) + scope + payload


def is_mark(value):
    """Return whether bytes have the shape of a mark's value."""
    return len(value) >= 9 and value[0] <= MAX_SCOPE and len(value) >= 9 + value[0]


def parse_mark(value):
    """Return (number, payload, scope) of a mark's value."""
    size, number = struct.unpack_from(">BQ", value, 0)
    return number, value[9 + size :], value[9 : 9 + size]
