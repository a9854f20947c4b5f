# Short words for values and bytes, the same for the same ones on both interpreters.

import binascii


def mark(*parts):
    """A short word for any values."""
    return "%08x" % (binascii.crc32(repr(parts).encode()) & 0xFFFFFFFF)


def mark_bytes(data):
    """A short word for bytes."""
    return "%08x" % (binascii.crc32(bytes(data)) & 0xFFFFFFFF)
