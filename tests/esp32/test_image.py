"""Application images: ours before esptool's reader, esptool's before ours, and damaged ones."""

from __future__ import annotations

import hashlib
import struct

import pytest
from esptool.bin_image import ELFSection, ESP32FirmwareImage, LoadFirmwareImage
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.flash import SECTOR, Region, program_padded
from tidemark_host.esp32.image import (
    ESP32,
    ESP32_C3,
    ESP32_S3,
    MAX_SEGMENTS,
    Chip,
    ImageError,
    Segment,
    make_image,
    verify,
)

CHIPS = {"esp32": ESP32, "esp32s3": ESP32_S3, "esp32c3": ESP32_C3}
REGION = Region(0x10000, 0x30000)
SMALL = Region(0, SECTOR)
WORDS = bytes(range(64))


def flash_with(data: bytes, region: Region = SMALL, size: int = SECTOR) -> NorFlash:
    flash = NorFlash(size)
    if data:
        program_padded(flash, region.offset, data)
    return flash


def code_of(data: bytes, region: Region = SMALL, chip: Chip = ESP32) -> str:
    """Return why an image is refused, or nothing."""
    try:
        verify(flash_with(data), region, chip)
    except ImageError as error:
        return error.code
    return ""


def with_digest(body: bytes) -> bytes:
    """Return an image whose last 32 bytes are made right again."""
    return body[:-32] + hashlib.sha256(body[:-32]).digest()


GOOD = make_image([Segment(ESP32.ram, WORDS), Segment(ESP32.ram + 64, WORDS[:4])])


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("sizes", [(4,), (16, 64), (0, 4, 60), (4,) * MAX_SEGMENTS])
def test_esptool_reads_our_image(name: str, sizes: tuple[int, ...]) -> None:
    chip = CHIPS[name]
    segments = [Segment(chip.ram + 256 * i, WORDS[:size]) for i, size in enumerate(sizes)]
    data = make_image(segments, chip, entry=chip.ram + 4)
    theirs = LoadFirmwareImage(name, data)
    assert theirs.checksum == theirs.calculate_checksum()
    assert theirs.stored_digest == theirs.calc_digest == data[-32:]
    assert theirs.data_length == len(data) - 32
    assert theirs.chip_id == theirs.ROM_LOADER.IMAGE_CHIP_ID
    assert theirs.entrypoint == chip.ram + 4
    assert [(s.addr, s.data) for s in theirs.segments] == [(s.address, s.data) for s in segments]


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("hash_appended", [True, False])
def test_an_image_by_esptool_passes(name: str, hash_appended: bool) -> None:
    chip = CHIPS[name]
    theirs = type(LoadFirmwareImage(name, make_image([], chip)))(append_digest=hash_appended)
    assert isinstance(theirs, ESP32FirmwareImage)
    theirs.entrypoint = chip.ram
    # One segment to load and two to map, for which esptool pads to their place in the flash.
    theirs.segments = [ELFSection(b".data", chip.ram, WORDS, 0)]
    theirs.segments += [ELFSection(b".flash", low + 0x20, WORDS * 9, 0) for low, _ in chip.mapped]
    data = theirs.save(None)
    assert data
    flash = flash_with(data, REGION, 0x40000)
    image = verify(flash, REGION, chip)
    assert image.length == len(data)
    assert image.digest == (data[-32:] if hash_appended else b"")
    mapped = [s.address for s in image.segments if chip.maps(s.address)]
    assert mapped == sorted(low + 0x20 for low, _ in chip.mapped)
    # A page of 64 KiB further on it would be mapped rightly still, a sector further on not.
    moved = Region(REGION.offset + SECTOR, 0x20000)
    with pytest.raises(ImageError) as caught:
        verify(flash_with(data, moved, 0x40000), moved, chip)
    assert caught.value.code == "segment-align"


def changed(at: int, value: bytes) -> bytes:
    return GOOD[:at] + value + GOOD[at + len(value) :]


# what is done to the image, code
REFUSED = {
    "erased": (b"\xff" * 64, "magic"),
    "magic": (changed(0, b"\xe8"), "magic"),
    "another chip": (changed(12, b"\x05"), "chip"),
    "needs a later revision": (changed(15, struct.pack("<H", 301)), "revision"),
    "ends with an earlier revision": (changed(17, struct.pack("<H", 299)), "revision"),
    "17 segments": (changed(1, b"\x11"), "segments"),
    "one segment more": (changed(1, b"\x03"), "segment-length"),
    "length not of words": (changed(28, b"\x41"), "segment-length"),
    "length of 16 MB": (changed(28, struct.pack("<I", 0x1000000)), "segment-length"),
    "length beyond the flash": (changed(28, struct.pack("<I", 0xFFFFFC)), "bounds"),
    "a mapped segment misplaced": (changed(24, struct.pack("<I", 0x3F400000)), "segment-align"),
    "checksum": (changed(len(GOOD) - 33, bytes([GOOD[-33] ^ 1])), "checksum"),
    "one bit of data": (changed(32, b"\x01"), "checksum"),
    "two bits of data that cancel out": (changed(32, b"\x01\x00"), "digest"),
    "entry": (changed(4, b"\x99"), "digest"),
    "digest": (changed(len(GOOD) - 1, bytes([GOOD[-1] ^ 1])), "digest"),
}


def test_a_damaged_image_is_refused_by_the_first_check_that_fails() -> None:
    assert code_of(GOOD) == ""
    assert {name: code_of(data) for name, (data, _) in REFUSED.items()} == {
        name: code for name, (_, code) in REFUSED.items()
    }


def test_an_image_may_fill_its_partition_and_no_more() -> None:
    assert code_of(GOOD, Region(0, len(GOOD))) == ""
    assert code_of(GOOD, Region(0, len(GOOD) - 1)) == "length"
    assert code_of(GOOD, Region(0, 0x1000001)) == "size"


def test_without_a_digest_only_the_checksum_guards() -> None:
    plain = make_image([Segment(ESP32.ram, WORDS)], hash_appended=False)
    assert code_of(plain) == ""
    assert code_of(plain[:32] + b"\x01\x00" + plain[34:]) == ""
    assert code_of(plain[:32] + b"\x01" + plain[33:]) == "checksum"


def test_unset_revisions_ask_for_nothing() -> None:
    for greatest in (0, 0xFFFF, 300):
        assert code_of(with_digest(changed(17, struct.pack("<H", greatest)))) == ""


def test_the_maker_refuses_what_the_check_would() -> None:
    for segments, code in (
        ([Segment(ESP32.ram, b"")] * 17, "segments"),
        ([Segment(ESP32.ram, b"abc")], "segment-length"),
    ):
        with pytest.raises(ImageError) as caught:
            make_image(segments)
        assert caught.value.code == code


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(0, len(GOOD)), head=st.booleans())
def test_any_bytes_are_refused_with_a_code_or_pass(data: bytes, at: int, head: bool) -> None:
    mixed = (GOOD[:at] + data if head else data)[:SECTOR]
    code = code_of(mixed)
    assert code or bytes(mixed[: len(GOOD)]) == GOOD
