# Slot header and digest check; identity and the write-once sector.

import hashlib
import os

from nor import FAULTS, IO, STUCK_1, NorFlash, PowerCut
from tidemark import identity, image
from tidemark.errors import ImageError, StateError
from tidemark.flash import Region
from tidemark.slots import Release


def slot_with(content):
    flash = NorFlash(4096 * 4)
    region = Region(flash, 0, 4096 * 4)
    release = Release(hashlib.sha256(content).digest(), len(content), 7, 1, "1.2.3")
    region.write(image.HEADER_SIZE, content)
    return region, release


def code_of(function, *args):
    try:
        function(*args)
    except (ImageError, StateError) as error:
        return error.code
    raise AssertionError("not refused")


def test_header_says_again_what_was_written():
    _, release = slot_with(b"x" * 300)
    raw = image.encode_header(release, "VIRTUAL")
    assert len(raw) == 256
    assert image.decode_header(raw) == ("VIRTUAL", release)


def test_torn_blank_or_altered_header_is_refused():
    _, release = slot_with(b"x" * 300)
    raw = image.encode_header(release, "VIRTUAL")
    assert code_of(image.decode_header, b"\xff" * 256) == "header-magic"
    assert code_of(image.decode_header, raw[:60] + b"\xff" * 196) == "header-shape"
    assert code_of(image.decode_header, raw[:16] + b"\xff\xff" + raw[18:]) == "header-shape"


def test_image_of_another_digest_is_not_run():
    region, release = slot_with(b"x" * 300)
    image.check(region, release)
    other = Release(release.digest, 299, 7, 1, "1.2.3")
    assert code_of(image.check, region, other) == "image-digest"
    long = Release(release.digest, 4096 * 4, 7, 1, "1.2.3")
    assert code_of(image.check, region, long) == "image-length"


def provisioning():
    return identity.Provisioning(b"\x11" * 32, b"{}" * 900, "0123456789abcdef", b"\x22" * 32)


def test_provisioning_is_written_once():
    region = Region(NorFlash(8192), 0, 8192)
    assert identity.read_provisioning(region) is None
    identity.write_provisioning(region, provisioning())
    assert identity.read_provisioning(region).fields() == provisioning().fields()
    identity.write_provisioning(region, provisioning())
    other = identity.Provisioning(b"\x33" * 32, b"{}", "0123456789abcdef", b"\x22" * 32)
    assert code_of(identity.write_provisioning, region, other) == "provisioned"


def test_power_cut_leaves_provisioning_undone_or_done_and_it_can_be_repeated():
    clean = NorFlash(8192)
    identity.write_provisioning(Region(clean, 0, 8192), provisioning())
    operations = clean.operations
    assert operations > 3
    for n in range(operations):
        for variant in ("before", "torn", "after"):
            flash = NorFlash(8192)
            region = Region(flash, 0, 8192)
            flash.plan_cut(n, variant)
            try:
                identity.write_provisioning(region, provisioning())
                raise AssertionError("no cut")
            except PowerCut:
                flash.power_up({})
            try:
                assert identity.read_provisioning(region) is None or n == operations - 1
            except StateError as error:
                assert error.code == "provisioning-damaged"
            identity.write_provisioning(region, provisioning())
            assert identity.read_provisioning(region).fields() == provisioning().fields()


class Journal:
    def __init__(self):
        self.values = {}

    def affirm(self, key):
        return self.values.get(key)

    def put(self, key, value):
        self.values[key] = value


def test_key_is_born_once_and_a_dead_random_source_makes_none():
    journal = Journal()
    assert code_of(identity.birth, journal, lambda n: b"\x07" * n) == "random-health"
    assert identity.load(journal) is None
    born = identity.birth(journal, os.urandom)
    assert identity.birth(journal, lambda n: b"").public == born.public
    assert born.id == hashlib.sha256(born.public).digest()[:8].hex()


def test_provisioning_that_does_not_hold_is_refused_and_read_as_nothing():
    refused = 0
    for kind in FAULTS:
        for sector in (0, 1):
            flash = NorFlash(8192)
            # What an earlier life left there.
            flash.program(sector * 4096, b"\xa5" * 4096)
            flash.fail(sector, kind)
            region = Region(flash, 0, 8192)
            try:
                identity.write_provisioning(region, provisioning())
                assert identity.read_provisioning(region).fields() == provisioning().fields()
                assert sector == 1 and kind != IO, kind
                continue
            except StateError as error:
                assert error.code == "provisioning-worn"
            refused += 1
            try:
                assert identity.read_provisioning(region) is None
            except StateError as error:
                assert error.code == "provisioning-damaged"
    # The body does not reach the second sector; that it was not erased is heard of all the same.
    assert refused == len(FAULTS) + 1


def test_one_bad_bit_in_the_provisioning_body_is_noticed():
    flash = NorFlash(8192)
    flash.fail(0, STUCK_1, 0, (600, 601))  # "{}": one of them needs that bit
    region = Region(flash, 0, 8192)
    assert code_of(identity.write_provisioning, region, provisioning()) == "provisioning-worn"
    assert identity.read_provisioning(region) is None
