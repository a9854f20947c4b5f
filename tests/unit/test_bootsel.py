"""UF2 files and the drives of boot ROMs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemark_host import bootsel, uf2_file
from tidemark_host.bootsel import Drive, DriveError
from tidemark_host.chips import CHIPS
from tidemark_host.uf2_file import Uf2Error, decode, encode, sectors, spans

RP2040, RP2350 = CHIPS["rp2040"], CHIPS["rp2350"]
PARTS = st.dictionaries(
    st.integers(0, 1000).map(lambda page: page * 4096),
    st.binary(min_size=1, max_size=600),
    max_size=5,
)


def code(image: bytes, chip: str = "rp2040") -> str:
    with pytest.raises(Uf2Error) as caught:
        decode(image, CHIPS[chip])
    return caught.value.code


@settings(deadline=None)
@given(PARTS.filter(bool), st.sampled_from([RP2040, RP2350]))
def test_what_is_written_is_what_is_read(parts: dict[int, bytes], chip: object) -> None:
    assert chip in (RP2040, RP2350)
    image = encode(parts, chip)  # pyright: ignore[reportArgumentType]
    read = spans(decode(image, chip))  # pyright: ignore[reportArgumentType]
    for (offset, content), (at, found) in zip(sorted(parts.items()), read, strict=True):
        assert offset == at
        assert found[: len(content)] == content
        assert len(found) % uf2_file.PAYLOAD == 0


def test_blocks_have_the_family_and_address_of_their_chip() -> None:
    for chip in (RP2040, RP2350):
        blocks = encode({0x1000: b"x" * 300}, chip)
        last = struct.unpack_from("<8I", blocks, len(blocks) - 512)
        assert last[3:] == (0x10001100, 256, 1, 2, chip.family)
    assert RP2040.family == 0xE48BFF56
    assert RP2350.family == 0xE48BFF59


def test_first_block_for_the_rp2350_is_the_one_its_erratum_e10_asks_for() -> None:
    image = encode({0: b"x"}, RP2350)
    assert len(image) == 1024
    head = struct.unpack_from("<8I", image)
    assert head[2:] == (0xA000, 0x10FFFF00, 256, 0, 2, 0xE48BFF57)
    assert image[32:288] == b"\xef" * 256
    assert struct.unpack_from("<I", image, 288) == (0x9957E304,)
    assert len(encode({0: b"x"}, RP2040)) == 512


def test_file_for_another_chip_or_none_is_refused() -> None:
    good = encode({0: b"x"}, RP2040)
    assert code(good, "rp2350") == "wrong-chip"
    assert code(encode({0: b"x"}, RP2350)) == "wrong-chip"
    for bad in (b"", good[:-1], b"\0" + good[1:], good[:-1] + b"\0"):
        assert code(bad) == "uf2"
    with pytest.raises(Uf2Error) as caught:
        encode({100: b"x"})
    assert caught.value.code == "misaligned"


def test_only_sectors_that_are_not_blank_are_kept_and_kept_whole() -> None:
    flash = bytearray(b"\xff" * 5 * 4096)
    flash[4096 + 7] = 0
    flash[4 * 4096 :] = b"end"
    found = sectors(bytes(flash), 0x10000)
    assert sorted(found) == [0x11000, 0x14000]
    assert all(len(sector) == 4096 for sector in found.values())


def drive(folder: Path, board_id: str) -> Path:
    folder.mkdir()
    text = f"UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: {board_id}\r\n"
    (folder / "INFO_UF2.TXT").write_text(text)
    return folder


def test_drive_is_known_by_its_info_file(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    found = bootsel.drives([stick, tmp_path / "gone", drive(tmp_path / "RPI-RP2", "RPI-RP2")])
    assert found == [Drive(tmp_path / "RPI-RP2", "RPI-RP2")]
    (stick / "INFO_UF2.TXT").write_bytes(b"\xff" * 10_000)
    assert bootsel.read_drive(stick) is None


def test_drive_of_the_right_chip_is_picked_and_two_are_a_question(tmp_path: Path) -> None:
    small = Drive(drive(tmp_path / "a", "RPI-RP2"), "RPI-RP2")
    large = Drive(drive(tmp_path / "b", "RP2350"), "RP2350")
    assert bootsel.pick(RP2350, [small, large]) == large
    assert bootsel.pick(RP2040, []) is None
    for found, refusal in (([large], "wrong-chip"), ([small, small], "several")):
        with pytest.raises(DriveError) as caught:
            bootsel.pick(RP2040, found)
        assert caught.value.code == refusal


def test_image_is_written_whole_with_its_progress(tmp_path: Path) -> None:
    here = Drive(drive(tmp_path / "RPI-RP2", "RPI-RP2"), "RPI-RP2")
    image, seen = bytes(200_000), []
    bootsel.write(here, image, lambda done, total: seen.append((done, total)))
    assert (here.path / "TIDEMARK.UF2").read_bytes() == image
    assert seen[-1] == (200_000, 200_000)
    assert len(seen) == 4


def test_drive_that_vanishes_after_the_last_byte_is_a_success_and_before_it_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Drive(drive(tmp_path / "RPI-RP2", "RPI-RP2"), "RPI-RP2")

    def vanishes(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bootsel.os, "fsync", vanishes)
    bootsel.write(here, bytes(512))
    with pytest.raises(DriveError) as caught:
        bootsel.write(here, bytes(200_000))
    assert caught.value.code == "write"
