# The entries of ESP-IDF's otadata as the firmware reads them. The host's model of the bootloader
# is on the other side in tests/esp32/test_runtime_lives.py.

import binascii
import struct

from nor import TORN, NorFlash, PowerCut
from tidemark import otadata
from tidemark.errors import FlashError
from tidemark.flash import Region
from tidemark.otadata import ABORTED, INVALID, NEW, PENDING, UNDEFINED, VALID, Otadata

BLANK = b"\xff" * 32


def entry(sequence, state, crc=None):
    if crc is None:
        crc = binascii.crc32(struct.pack("<I", sequence), 0xFFFFFFFF) & 0xFFFFFFFF
    return struct.pack("<I20sII", sequence, b"\xff" * 20, state, crc)


def made(first, second, weak=False):
    """Otadata with two entries (bytes) and its flash."""
    flash = NorFlash(2 * 4096, weak=weak)
    region = Region(flash, 0, 2 * 4096)
    for number, raw in enumerate((first, second)):
        if raw != BLANK:
            region.write(number * 4096, raw)
    return Otadata(region), flash


def test_crc_is_that_of_esp_idf():
    # Sequence 1 and 2 of images that Espressif's bootloader booted.
    assert struct.unpack_from("<I", entry(1, VALID), 28)[0] == 0x4743989A
    assert struct.unpack_from("<I", entry(2, VALID), 28)[0] == 0x55F63774


def test_an_entry_that_is_erased_torn_or_given_up_counts_for_nothing():
    for raw in (
        BLANK,
        entry(1, VALID, 0x4743989B),
        entry(1, ABORTED),
        entry(1, INVALID),
        entry(0xFFFFFFFF, VALID),
    ):
        assert otadata.parse(raw) is None
        assert otadata.in_charge((raw, BLANK)) is None
        assert otadata.in_charge((raw, entry(2, VALID))) == (1, 1, VALID)


def test_the_higher_sequence_is_in_charge_and_the_first_of_equals():
    assert otadata.in_charge((entry(1, VALID), entry(2, NEW))) == (1, 1, NEW)
    assert otadata.in_charge((entry(3, PENDING), entry(2, VALID))) == (0, 0, PENDING)
    assert otadata.in_charge((entry(4, VALID), entry(4, NEW))) == (0, 1, VALID)


def test_a_state_that_is_none_of_the_six_is_still_in_charge():
    assert otadata.in_charge((entry(1, 0x17), BLANK)) == (0, 0, 0x17)
    assert otadata.in_charge((entry(1, UNDEFINED), BLANK)) == (0, 0, UNDEFINED)


def test_affirm_programs_the_entry_in_charge_again_with_its_own_bytes():
    ota, flash = made(entry(1, VALID), BLANK, weak=True)
    flash.erase(4096)
    flash.plan_cut(0, TORN)
    try:
        Region(flash, 0, 2 * 4096).write(4096, entry(2, VALID))
    except PowerCut:
        pass
    flash.power_up({1: "new"})
    assert ota.in_charge() == (1, 1, VALID)
    ota.affirm()
    flash.power_up({1: "old"})
    assert ota.in_charge() == (1, 1, VALID)


def test_affirm_needs_an_entry_in_charge():
    ota, flash = made(entry(1, VALID, 0), entry(2, ABORTED))
    before = flash.operations
    ota.affirm()
    assert flash.operations == before


def test_keep_erases_the_other_entry_whatever_it_reads():
    for other in (BLANK, entry(2, VALID), entry(2, ABORTED), entry(9, VALID, 1), entry(4, VALID)):
        ota, flash = made(entry(3, VALID), other)
        ota.keep(0)
        assert ota.read() == (entry(3, VALID), BLANK)
        assert flash.erases == 1
        ota, flash = made(other, entry(3, VALID))
        ota.keep(0)
        assert ota.read() == (BLANK, entry(3, VALID))


def test_keep_leaves_the_newer_of_two_and_none_that_names_the_other_slot():
    for first, second, left in (
        (entry(1, VALID), entry(3, VALID), (BLANK, entry(3, VALID))),
        (entry(3, VALID), entry(3, NEW), (entry(3, VALID), BLANK)),
        (entry(2, VALID), entry(1, ABORTED), (BLANK, BLANK)),
        (entry(2, VALID), entry(4, VALID), (BLANK, BLANK)),
    ):
        ota, _ = made(first, second)
        ota.keep(0)
        assert ota.read() == left


def test_what_is_kept_is_firm_before_anything_is_erased():
    ota, flash = made(entry(1, VALID), entry(2, VALID))
    erase = flash.erase
    seen = []

    def erased(addr):
        seen.append((flash.operations, addr))
        erase(addr)

    flash.erase = erased
    before = flash.operations
    ota.keep(0)
    # The kept one programmed again, the CRC of the other cleared.
    assert seen == [(before + 2, 4096)]


def test_a_worn_entry_is_told():
    ota, flash = made(entry(3, VALID), entry(2, VALID))
    flash.fail(1, "dead")
    try:
        ota.keep(0)
    except FlashError as error:
        assert error.code == "readback"
    else:
        raise AssertionError("the entry is still there")
