# Regions, block device, and the NOR model that all other tests of flash state stand on.

from nor import AFTER, BEFORE, JUNK, NEW, OLD, TORN, NorError, NorFlash, PowerCut
from tidemark.errors import FlashError
from tidemark.flash import BlockDevice, Region, open_regions


def _code(call, *args):
    try:
        call(*args)
    except (FlashError, NorError) as error:
        return error.code
    return None


def _cut(flash, call, *args):
    try:
        call(*args)
    except PowerCut:
        return True
    return False


def test_program_clears_bits_and_never_sets_one():
    flash = NorFlash(8192)
    page = bytes(range(256))
    flash.program(256, page)
    flash.program(256, page)
    flash.program(256, b"\xff" * 256)
    assert flash.view(256, 256) == page
    assert _code(flash.program, 256, b"\x01" * 256) == "overwrite"
    assert _code(flash.program, 256, bytes([1]) + page[1:]) == "overwrite"
    assert flash.view(256, 256) == page
    flash.program(256, b"\x00" * 256)  # clearing what is left of a byte is no other content
    assert flash.view(256, 256) == b"\x00" * 256
    flash.erase(0)
    assert flash.view(0, 4096) == b"\xff" * 4096
    assert (flash.programs, flash.erases, flash.erase_counts) == (4, 1, [1, 0])


def test_program_takes_whole_aligned_pages_inside_the_flash():
    flash = NorFlash(8192)
    assert _code(flash.program, 16, bytes(256)) == "align"
    assert _code(flash.program, 0, bytes(16)) == "align"
    assert _code(flash.program, 0, b"") == "align"
    assert _code(flash.program, 8192, bytes(256)) == "bounds"
    assert _code(flash.program, -256, bytes(256)) == "bounds"
    assert _code(flash.erase, 256) == "align"
    assert _code(flash.erase, 8192) == "bounds"
    assert _code(flash.view, 8000, 200) == "bounds"
    assert _code(flash.read_into, 8192, bytearray(1)) == "bounds"
    assert flash.operations == 0


def test_cut_before_torn_and_after_an_operation():
    flash = NorFlash(8192)
    flash.plan_cut(1, BEFORE)
    assert _cut(flash, flash.program, 0, bytes(512))
    assert flash.view(0, 512) == bytes(256) + b"\xff" * 256
    flash.plan_cut(0, TORN, 3, 0x0F)
    assert _cut(flash, flash.program, 256, bytes(256))
    assert flash.view(256, 5) == b"\x00\x00\x00\xf0\xff"
    flash.plan_cut(0, AFTER)
    assert _cut(flash, flash.program, 512, bytes(256))
    assert flash.view(512, 256) == bytes(256)
    flash.plan_cut(0, TORN, 256)
    assert _cut(flash, flash.erase, 0)
    assert flash.view(0, 260) == b"\xff" * 256 + b"\x00\x00\x00\xf0"


def test_torn_cells_read_as_told_until_the_same_bytes_come_again():
    flash = NorFlash(8192, weak=True)
    data = b"\x12" * 16 + b"\xff" * 240
    flash.plan_cut(0, TORN)
    assert _cut(flash, flash.program, 0, data)
    group = flash.weak_groups()[0]
    flash.power_up({group: NEW})
    assert flash.view(0, 256) == data
    flash.power_up({group: OLD})
    assert flash.view(0, 16) == b"\xff" * 16
    flash.power_up({group: JUNK})
    assert flash.view(0, 16) not in (b"\xff" * 16, b"\x12" * 16)
    flash.program(0, data)
    flash.power_up({group: OLD})
    assert flash.view(0, 256) == data and flash.weak_groups() == []


def test_other_bytes_over_torn_cells_stay_weak():
    flash = NorFlash(8192, weak=True)
    flash.plan_cut(0, TORN)
    assert _cut(flash, flash.program, 0, b"\x12" * 256)
    flash.power_up({1: OLD})
    flash.program(0, b"\x34" * 256)
    assert flash.view(0, 4) == b"\x34" * 4
    flash.power_up({1: OLD})
    assert flash.view(0, 4) == b"\xff" * 4
    flash.erase(0)
    assert flash.weak_groups() == []


def test_region_writes_at_any_offset_and_leaves_the_rest():
    flash = NorFlash(16384)
    region = Region(flash, 4096, 8192)
    assert (region.size, region.sectors, region.sector, region.page) == (8192, 2, 4096, 256)
    data = bytes([i & 0x7F for i in range(600)])
    region.write(200, data)
    region.write(100, b"beside")
    assert region.read(200, 600) == data and region.read(100, 6) == b"beside"
    assert region.read(190, 10) == b"\xff" * 10 and region.read(800, 10) == b"\xff" * 10
    assert flash.view(4296, 600) == data
    buf = bytearray(6)
    region.read_into(100, buf)
    assert buf == b"beside"
    region.erase(0)
    assert region.is_blank()


def test_region_refuses_what_is_not_inside():
    flash = NorFlash(16384)
    region = Region(flash, 4096, 4096)
    before = flash.operations
    for call, args in (
        (region.read, (4090, 7)),
        (region.read, (-1, 2)),
        (region.view, (0, 4097)),
        (region.write, (4090, bytes(7))),
        (region.write, (-1, b"x")),
        (region.erase, (1,)),
        (region.erase, (-1,)),
        (region.is_blank, (4000, 97)),
    ):
        assert _code(call, *args) == "flash-bounds"
    assert flash.operations == before
    for start, size in ((1, 4096), (0, 100), (0, 0), (12288, 8192), (-4096, 4096)):
        assert _code(Region, flash, start, size) == "flash-region"


def test_write_checked_notices_worn_cells():
    flash = NorFlash(8192)
    region = Region(flash, 0, 8192)
    flash.worn = {0}
    assert _code(region.write_checked, 0, b"data") == "readback"
    region.write_checked(4096, b"data")


def test_is_blank_sees_every_byte():
    for at in (0, 1, 63, 64, 65, 127, 199):
        flash = NorFlash(4096)
        region = Region(flash, 0, 4096)
        region.write(at, b"\x7f")
        assert not region.is_blank(0, 200) and region.is_blank(at + 1, 50)
        assert region.is_blank(0, at)


def test_open_regions_refuses_overlap():
    flash = NorFlash(16384)
    opened = open_regions(flash, {"b": (8192, 4096), "a": (0, 8192)})
    assert opened["a"].sectors == 2 and opened["b"].sectors == 1
    assert _code(open_regions, flash, {"a": (0, 8192), "b": (4096, 4096)}) == "flash-region"
    assert _code(open_regions, flash, {"a": (0, 32768)}) == "flash-region"


def test_block_device_serves_reads_writes_and_erases():
    flash = NorFlash(16384)
    device = BlockDevice(Region(flash, 4096, 8192))
    assert device.ioctl(4, 0) == 2 and device.ioctl(5, 0) == 4096
    assert device.ioctl(1, 0) == 0 and device.ioctl(3, 0) == 0
    device.writeblocks(1, b"\x11" * 32, 64)
    buf = bytearray(32)
    device.readblocks(1, buf, 64)
    assert buf == b"\x11" * 32
    device.writeblocks(0, b"\x22" * 4096)
    device.writeblocks(0, b"\x33" * 4096)
    device.readblocks(0, buf)
    assert buf == b"\x33" * 32
    assert device.ioctl(6, 1) == 0
    device.readblocks(1, buf, 64)
    assert buf == b"\xff" * 32
    erases = flash.erases
    assert _code(device.writeblocks, 1, b"\x00" * 8192) == "flash-bounds"
    assert _code(device.ioctl, 6, 2) == "flash-bounds"
    assert flash.erases == erases


def test_vm_littlefs_mounts_over_a_region():
    import vfs

    flash = NorFlash(65536)
    device = BlockDevice(Region(flash, 4096, 57344))
    vfs.VfsLfs2.mkfs(device)
    filesystem = vfs.VfsLfs2(device)
    with filesystem.open("a.txt", "w") as file:
        file.write("kept" * 500)
    with vfs.VfsLfs2(device).open("a.txt", "r") as file:
        assert file.read() == "kept" * 500
    assert flash.view(0, 4096) == b"\xff" * 4096
