"""UF2 files, as the boot ROMs of RP2040 and RP2350 take them.

Source: Microsoft's UF2 specification. Blocks carry 256 bytes; the ROM erases the sector of the
first block it meets there, so a sector that is written at all is written whole.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tidemark_host.chips import CHIPS, Chip

PAYLOAD = 256
SECTOR = 4096
MAX_FILE = 64 << 20
_BLOCK = 512
_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_FAMILY_PRESENT = 0x00002000
_EXTENSIONS_PRESENT = 0x00008000
_XIP_SPAN = 0x01000000
# RP2350-E10: without a block of the absolute family first, a drive may lose what follows. The ROM
# is told to ignore it.
_ABSOLUTE = 0xE48BFF57
_IGNORE_BLOCK = 0x9957E304
_ABSOLUTE_AT = 0x10FFFF00

RP2040 = CHIPS["rp2040"]


class Uf2Error(Exception):
    """Bytes that are no UF2 file for this chip; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def encode(parts: Mapping[int, bytes], chip: Chip = RP2040) -> bytes:
    """Return a UF2 file that writes each content of `parts` at its flash offset, in rising order.

    Offsets are multiples of 256. Raises Uf2Error `misaligned`.
    """
    pages: list[tuple[int, bytes]] = []
    for offset, content in sorted(parts.items()):
        if offset % PAYLOAD:
            raise Uf2Error("misaligned", f"offset {offset:#x} is not on a page of {PAYLOAD} bytes")
        for start in range(0, len(content), PAYLOAD):
            pages.append((offset + start, content[start : start + PAYLOAD]))
    blocks = [_absolute_block()] if chip.name == "rp2350" else []
    for number, (offset, page) in enumerate(pages):
        head = (_FAMILY_PRESENT, chip.xip + offset, PAYLOAD, number, len(pages), chip.family)
        blocks.append(_block(head, page.ljust(PAYLOAD, b"\0")))
    return b"".join(blocks)


def decode(image: bytes, chip: Chip = RP2040) -> dict[int, bytes]:
    """Return flash offset: content, for each block of a UF2 file for `chip`.

    Raises Uf2Error: `uf2` for anything else, `wrong-chip` for another chip's.
    """
    start0, start1, end = _MAGIC
    if not image or len(image) % _BLOCK or len(image) > MAX_FILE:
        raise Uf2Error("uf2", "not a UF2 file: its size is no multiple of 512")
    parts: dict[int, bytes] = {}
    for at in range(0, len(image), _BLOCK):
        block = image[at : at + _BLOCK]
        first, second, flags, address, size, _, _, family = struct.unpack_from("<8I", block)
        if (first, second) != (start0, start1) or block[508:] != struct.pack("<I", end):
            raise Uf2Error("uf2", f"not a UF2 block at byte {at}")
        if at == 0 and block == _absolute_block():
            continue
        if not flags & _FAMILY_PRESENT or family != chip.family:
            raise Uf2Error("wrong-chip", f"a UF2 file, but not for the {chip.name}")
        if size > 476 or not chip.xip <= address < chip.xip + _XIP_SPAN:
            raise Uf2Error("uf2", f"block at byte {at}: {size} bytes at {address:#x}")
        parts[address - chip.xip] = block[32 : 32 + size]
    return parts


def sectors(flash: bytes, start: int = 0) -> dict[int, bytes]:
    """Return offset: content of each sector of `flash` that is not blank.

    start: offset of its first byte, on a sector.
    """
    blank = b"\xff" * SECTOR
    found: dict[int, bytes] = {}
    for at in range(0, len(flash), SECTOR):
        sector = flash[at : at + SECTOR].ljust(SECTOR, b"\xff")
        if sector != blank:
            found[start + at] = sector
    return found


def spans(parts: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """Return the contents of `parts` joined where they follow one another: (offset, bytes)."""
    joined: list[tuple[int, bytearray]] = []
    for offset, content in sorted(parts.items()):
        if joined and joined[-1][0] + len(joined[-1][1]) == offset:
            joined[-1][1].extend(content)
        else:
            joined.append((offset, bytearray(content)))
    return [(offset, bytes(content)) for offset, content in joined]


def _block(head: tuple[int, int, int, int, int, int], data: bytes) -> bytes:
    start0, start1, end = _MAGIC
    return (
        struct.pack("<8I", start0, start1, *head) + data.ljust(476, b"\0") + struct.pack("<I", end)
    )


def _absolute_block() -> bytes:
    head = (_FAMILY_PRESENT | _EXTENSIONS_PRESENT, _ABSOLUTE_AT, PAYLOAD, 0, 2, _ABSOLUTE)
    return _block(head, b"\xef" * PAYLOAD + struct.pack("<I", _IGNORE_BLOCK))
