# The application image in a slot: header, digest check, mounting in place.

import hashlib

from tidemark import cbor
from tidemark.compat import const
from tidemark.errors import CodecError, ImageError
from tidemark.slots import Release

HEADER_SIZE = 4096  # one sector: the ROMFS image behind it starts on a sector of its own
MOUNT_POINT = "/slot"

_MAGIC = b"TIDEMARK-SLOT-1\x00"
_HEADER_MAX = const(240)
_CHUNK = const(4096)


def encode_header(release, board):
    """The header that is written last into a slot: magic, length (u16), CBOR [board, digest,
    length, index, attempt, version], padded with 0xFF to whole 256-byte pages. It informs people
    and tools; what is authorised stands in the journal. Raises ImageError("header-size")."""
    body = cbor.encode([board] + list(release))
    raw = _MAGIC + len(body).to_bytes(2, "big") + body
    if len(raw) > _HEADER_MAX:
        raise ImageError("header-size", "%d bytes" % len(raw))
    return raw + b"\xff" * (256 - len(raw))


def decode_header(raw):
    """(board, Release) of a slot header. Raises ImageError("header-magic" or "header-shape")."""
    if bytes(raw[:16]) != _MAGIC:
        raise ImageError("header-magic", "no image header")
    size = raw[16] << 8 | raw[17]
    if size > _HEADER_MAX:
        raise ImageError("header-shape", "length %d" % size)
    try:
        fields = cbor.decode(bytes(raw[18 : 18 + size]))
    except CodecError as error:
        raise ImageError("header-shape", error.code)
    if not isinstance(fields, list) or len(fields) != 6:
        raise ImageError("header-shape", "not six fields")
    board, digest, length, index, attempt, version = fields
    integers = True
    for number in (length, index, attempt):
        integers = integers and isinstance(number, int) and not isinstance(number, bool)
        integers = integers and number >= 0
    texts = isinstance(board, str) and isinstance(version, str)
    if not (integers and texts and isinstance(digest, bytes) and len(digest) == 32):
        raise ImageError("header-shape", "field types")
    return board, Release(digest, length, index, attempt, version)


def digest(region, length, feed=None):
    """SHA-256 over the `length` bytes of image in a slot, hashed in place; `feed` is called every
    4 KiB."""
    if length < 0 or length > region.size - HEADER_SIZE:
        raise ImageError("image-length", "%d bytes" % length)
    view = region.view(HEADER_SIZE, length)
    hasher = hashlib.sha256()
    for offset in range(0, length, _CHUNK):
        hasher.update(view[offset : offset + _CHUNK])
        if feed:
            feed()
    return hasher.digest()


def check(region, release, feed=None):
    """Raises ImageError("image-digest") unless the slot holds the image of `release`, byte for
    byte (I3)."""
    if digest(region, release.length, feed) != release.digest:
        raise ImageError("image-digest", "release %d" % release.index)


def mount(region, release):
    """Mounts the ROMFS image of a checked slot at /slot, to be run in place."""
    import vfs

    try:
        vfs.mount(vfs.VfsRom(region.view(HEADER_SIZE, release.length)), MOUNT_POINT)
    except (OSError, ValueError) as error:
        raise ImageError("image-romfs", str(error))
