"""Application images: the check that the bootloader makes before it starts one, and a maker.

From ESP-IDF: esp_app_format.h (esp_image_header_t, esp_image_segment_header_t) and
bootloader_support's esp_image_format.c; without secure boot.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemark_host.esp32.flash import Flash, Region

MAGIC = 0xE9
MAX_SEGMENTS = 16
MAX_SIZE = 0x1000000  # bytes of a partition, and more than any segment has
CHECKSUM_SEED = 0xEF
DIGEST_SIZE = 32
MMU_PAGE = 0x10000
# magic, segments, SPI mode, speed and size, entry, WP pin, drive, chip, least revision (unused),
# least and greatest revision as major * 100 + minor, reserved, hash appended
_HEADER = struct.Struct("<BBBBIB3sHBHH4sB")
_SEGMENT = struct.Struct("<II")
_NO_REVISION = (0, 0xFFFF)


class ImageError(Exception):
    """An image that does not boot.

    `code`, in the order of the checks: `size`, `magic`, `chip`, `revision`, `segments`,
    `segment-length`, `segment-align`, `bounds`, `checksum`, `length`, `digest`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass(frozen=True)
class Chip:
    """What the check knows of a chip.

    `chip_id`: esp_chip_id_t. `mapped`: addresses that flash is mapped to (soc.h: SOC_DROM_LOW to
    SOC_DROM_HIGH, SOC_IROM_LOW to SOC_IROM_HIGH). `ram`: an address that segments are loaded to.
    `revision`: major * 100 + minor.
    """

    chip_id: int
    mapped: tuple[tuple[int, int], ...]
    ram: int
    revision: int

    def maps(self, address: int) -> bool:
        """Tell whether a segment is mapped there rather than loaded (should_map)."""
        return any(low <= address < high for low, high in self.mapped)


ESP32 = Chip(0, ((0x3F400000, 0x3F800000), (0x400D0000, 0x40400000)), 0x3FFB0000, 300)
ESP32_S3 = Chip(9, ((0x3C000000, 0x3E000000), (0x42000000, 0x44000000)), 0x3FC90000, 2)
ESP32_C3 = Chip(5, ((0x3C000000, 0x3C800000), (0x42000000, 0x42800000)), 0x3FC90000, 4)
CHIPS: Mapping[str, Chip] = {"esp32": ESP32, "esp32s3": ESP32_S3, "esp32c3": ESP32_C3}


@dataclass(frozen=True)
class Segment:
    """A segment: the address it is loaded or mapped to, and its data."""

    address: int
    data: bytes


@dataclass(frozen=True)
class Image:
    """An image that passed. `length`: bytes with the digest. `digest`: empty if there is none."""

    entry: int
    segments: tuple[Segment, ...]
    length: int
    digest: bytes


def _xor(data: bytes) -> int:
    """Return the exclusive or of all bytes, folding them in halves."""
    value, size = int.from_bytes(data, "little"), len(data)
    while size > 1:
        size = (size + 1) // 2
        value = (value >> 8 * size) ^ (value & ((1 << 8 * size) - 1))
    return value


def _read(flash: Flash, addr: int, size: int) -> bytes:
    if addr + size > flash.size:
        raise ImageError("bounds", f"{addr:#x} + {size:#x} is outside the flash")
    return bytes(flash.view(addr, size))


def verify(flash: Flash, region: Region, chip: Chip = ESP32) -> Image:
    """Check the image in a partition as the bootloader does and return it (image_load).

    Raises ImageError. At most 16 segments are read, each below 16 MB and inside the flash. As in
    ESP-IDF the partition's end is looked at last: an image that runs over it is read first.
    """
    if region.size > MAX_SIZE:
        raise ImageError("size", f"a partition of {region.size:#x} bytes is above 16 MB")
    header = _read(flash, region.offset, _HEADER.size)
    count, entry, hash_appended = _check_header(header, chip)
    sha = hashlib.sha256(header)
    checksum = CHECKSUM_SEED
    addr = region.offset + _HEADER.size
    segments: list[Segment] = []
    for number in range(count):
        head = _read(flash, addr, _SEGMENT.size)
        address, length = _SEGMENT.unpack(head)
        addr += _SEGMENT.size
        _check_segment(number, address, length, addr, chip)
        data = _read(flash, addr, length)
        sha.update(head + data)
        checksum ^= _xor(data)
        segments.append(Segment(address, data))
        addr += length
    # process_checksum: zeros up to the last byte of a block of 16, which is the checksum.
    end = _read(flash, addr, 16 - (addr - region.offset) % 16)
    if end[-1] != checksum:
        raise ImageError("checksum", f"{checksum:#04x} was computed, {end[-1]:#04x} is there")
    sha.update(end)
    addr += len(end)
    # process_appended_hash, verify_simple_hash
    digest = _read(flash, addr, DIGEST_SIZE) if hash_appended else b""
    addr += len(digest)
    if addr - region.offset > region.size:
        raise ImageError("length", f"{addr - region.offset:#x} bytes run over the partition")
    if digest and digest != sha.digest():
        raise ImageError("digest", "the SHA-256 behind the image is another one")
    return Image(entry, tuple(segments), addr - region.offset, digest)


def _check_header(header: bytes, chip: Chip) -> tuple[int, int, bool]:
    """Return number of segments, entry, and whether a digest follows (verify_image_header)."""
    fields = _HEADER.unpack(header)
    magic, count, entry, chip_id, least, greatest = (fields[i] for i in (0, 1, 4, 7, 9, 10))
    if magic != MAGIC:
        raise ImageError("magic", f"{magic:#04x} is not {MAGIC:#04x}")
    # bootloader_common_loader.c: bootloader_common_check_chip_validity
    if chip_id != chip.chip_id:
        raise ImageError("chip", f"made for chip {chip_id}, this is {chip.chip_id}")
    if chip.revision < least:
        raise ImageError("revision", f"needs revision {least}, this is {chip.revision}")
    if greatest not in _NO_REVISION and chip.revision > greatest:
        raise ImageError("revision", f"ends with revision {greatest}, this is {chip.revision}")
    if count > MAX_SEGMENTS:
        raise ImageError("segments", f"{count} segments, at most {MAX_SEGMENTS}")
    return count, entry, fields[12] != 0


def _check_segment(number: int, address: int, length: int, addr: int, chip: Chip) -> None:
    """Check a segment's header (verify_segment_header); `addr`: its data in the flash."""
    if length % 4 or length >= MAX_SIZE:
        raise ImageError("segment-length", f"segment {number} has {length:#x} bytes")
    if chip.maps(address) and addr % MMU_PAGE != address % MMU_PAGE:
        raise ImageError("segment-align", f"segment {number}, {address:#x}, lies at {addr:#x}")


def make_image(
    segments: Sequence[Segment],
    chip: Chip = ESP32,
    *,
    entry: int = 0,
    hash_appended: bool = True,
    least: int = 0,
    greatest: int = 0xFFFF,
) -> bytes:
    """Return an application image that `chip` takes, if its mapped segments lie where they must.

    `least`, `greatest`: chip revisions. Raises ImageError `segments`, `segment-length`.
    """
    if len(segments) > MAX_SEGMENTS:
        raise ImageError("segments", f"{len(segments)} segments, at most {MAX_SEGMENTS}")
    body = bytearray(
        _HEADER.pack(
            MAGIC,
            len(segments),
            2,  # DIO
            0x2F,  # 80 MHz, 4 MB
            entry or chip.ram,
            0xEE,  # no WP pin
            bytes(3),
            chip.chip_id,
            0,
            least,
            greatest,
            bytes(4),
            int(hash_appended),
        )
    )
    checksum = CHECKSUM_SEED
    for number, segment in enumerate(segments):
        if len(segment.data) % 4 or len(segment.data) >= MAX_SIZE:
            raise ImageError("segment-length", f"segment {number}: {len(segment.data):#x} bytes")
        body += _SEGMENT.pack(segment.address, len(segment.data)) + segment.data
        checksum ^= _xor(segment.data)
    body += bytes(15 - len(body) % 16)
    body.append(checksum)
    if hash_appended:
        body += hashlib.sha256(body).digest()
    return bytes(body)
