# The update's files on a filesystem whose sectors fail: whole, or a refusal that keeps the former.

from nor import FAULTS, IO, NorFlash
from tidemark.errors import StateError
from tidemark.flash import BlockDevice, Region
from tidemark.store import Files

_SECTORS = 16
_MOUNT = "/worn"


def _mounted(device):
    import vfs

    vfs.mount(vfs.VfsLfs2(device, progsize=256), _MOUNT)
    return Files(_MOUNT + "/tuf")


def _life(kind, order, seed):
    """Saves files while sectors fail in the given order; returns how often it was refused."""
    import vfs

    flash = NorFlash(_SECTORS * 4096)
    device = BlockDevice(Region(flash, 0, flash.size))
    vfs.VfsLfs2.mkfs(device, progsize=256)
    files = _mounted(device)
    held = {}
    refused = 0
    try:
        for i in range(4 * _SECTORS):
            if i % 4 == 3:
                flash.fail(order[i // 4], kind)
            name = ("root", "timestamp", "snapshot")[i % 3]
            data = bytes([i & 0xFF]) * (200 + (i * 331 + seed) % 3000)
            try:
                files.save(name, data)
                held[name] = data
            except StateError as error:
                assert error.code == "file-write", error.code
                refused += 1
            vfs.umount(_MOUNT)
            files = _mounted(device)
            for name, data in held.items():
                assert files.load(name) == data, (kind, i, name)
    finally:
        vfs.umount(_MOUNT)
    return refused


def _whole_or_the_former_one(start):
    order = [(start + i * 7) % _SECTORS for i in range(_SECTORS)]
    for kind in FAULTS:
        if kind != IO:
            assert _life(kind, order, start), kind


# One function for each order: each takes some 17 s of a processor.
def test_vm_file_on_failing_sectors_is_whole_or_the_former_one():
    _whole_or_the_former_one(0)


def test_vm_file_is_whole_or_the_former_one_when_a_later_sector_fails_first():
    _whole_or_the_former_one(5)


def test_vm_file_is_whole_or_the_former_one_when_one_of_the_last_sectors_fails_first():
    _whole_or_the_former_one(11)


def test_vm_littlefs_goes_around_sectors_of_which_the_driver_reports_errors():
    # Each error is littlefs's own: which sectors it takes next differs from run to run.
    order = [i * 7 % _SECTORS for i in range(_SECTORS)]
    refused = _life(IO, order, 0)
    assert 0 < refused < 3 * _SECTORS, refused
