# A part of the flash with bounds, page padding and read-back: all flash access of the base.
# What must not go back lives in such regions, raw: never in a filesystem (docs/flash-state.md).

from tidemark.compat import const
from tidemark.errors import FlashError

_CHUNK = const(1024)
_BLANK = b"\xff" * _CHUNK

# ioctl operations of MicroPython's block device protocol.
_IOCTL_BLOCK_COUNT = const(4)
_IOCTL_BLOCK_SIZE = const(5)
_IOCTL_BLOCK_ERASE = const(6)
# What littlefs goes around (LFS_ERR_CORRUPT), and what it gives up for (LFS_ERR_IO): lfs2.h.
_CORRUPT = const(-84)
_IO = const(-5)


class Region:
    """Bytes `start` to `start + size` of a flash, addressed from 0.

    `flash`: the port's object (docs/architecture.md, Port). `start`, `size`: whole sectors, bytes.
    Every method raises FlashError `flash-bounds` for an access that is not wholly inside, before
    it touches the flash; FlashError of the port passes through: `flash-io` when its driver reports
    an error. Flash that is worn without a word shows at `write_checked`.
    """

    def __init__(self, flash, start, size):
        sector = flash.sector
        if start % sector or size % sector or size <= 0 or start < 0 or start + size > flash.size:
            raise FlashError("flash-region", "not whole sectors of this flash")
        self._flash = flash
        self._start = start
        self.size = size
        self.sector = sector
        self.page = flash.page
        self.sectors = size // sector
        # The source of every program lies here: flash can't be programmed from flash.
        self._buffer = bytearray(flash.page)
        self._blank = memoryview(_BLANK)[: flash.page]

    def read(self, off, n):
        """Return a copy of `n` bytes at `off`."""
        buf = bytearray(n)
        self.read_into(off, buf)
        return bytes(buf)

    def read_into(self, off, buf):
        """Fill the writable buffer `buf` from `off` on."""
        self.check(off, len(buf))
        self._flash.read_into(self._start + off, buf)

    def view(self, off, n):
        """Return a memoryview of `n` bytes at `off`, in place. Read-only by contract.

        Where the flash is not mapped it is a copy, and more than a sector is refused.
        """
        self.check(off, n)
        return self._flash.view(self._start + off, n)

    def write(self, off, data):
        """Program `data` (bytes-like) at any `off`, page by page, what lies beside it untouched.

        Clears bits only; the caller has erased. An interrupted write may have reached any page.
        """
        n = len(data)
        self.check(off, n)
        page = self.page
        buf = self._buffer
        data = memoryview(data)
        done = 0
        while done < n:
            into = (off + done) % page
            take = min(page - into, n - done)
            if take < page:
                for i in range(0, page, _CHUNK):
                    buf[i : i + _CHUNK] = self._blank[: page - i]
            buf[into : into + take] = data[done : done + take]
            self._flash.program(self._start + off + done - into, buf)
            done += take

    def write_checked(self, off, data):
        """`write`, then read back. Raises FlashError `readback` when other bytes came back, or an
        error in their place: what the flash may hold then is the same."""
        try:
            self.write(off, data)
            holds = self.view(off, len(data)) == data
        except FlashError as error:
            if error.code != "flash-io":
                raise
            raise FlashError("readback", error.text)
        if not holds:
            raise FlashError("readback", "flash does not hold what was written")

    def erase(self, index):
        """Erase sector `index` (0 to sectors - 1) of the region to 0xFF."""
        if index < 0:
            raise FlashError("flash-bounds", "outside the region")
        self.check(index * self.sector, self.sector)
        self._flash.erase(self._start + index * self.sector)

    def erase_checked(self, index):
        """`erase`; return False when the driver reports that it failed: nothing may be written
        there, whatever it reads."""
        try:
            self.erase(index)
        except FlashError as error:
            if error.code != "flash-io":
                raise
            return False
        return True

    def is_blank(self, off=0, n=None):
        """Return whether all of `n` bytes (default: to the end) at `off` read 0xFF."""
        if n is None:
            n = self.size - off
        self.check(off, n)
        for i in range(0, n - _CHUNK + 1, _CHUNK):
            if self.view(off + i, _CHUNK) != _BLANK:
                return False
        rest = n % _CHUNK
        return not rest or self.view(off + n - rest, rest) == _BLANK[:rest]

    def check(self, off, n):
        """Raise FlashError `flash-bounds` unless `n` bytes at `off` are inside."""
        if off < 0 or n < 0 or off + n > self.size:
            raise FlashError("flash-bounds", "outside the region")


class BlockDevice:
    """A region as MicroPython's block device with the extended interface, for vfs.VfsLfs2.

    One block is one sector. An error that the flash's driver reports is returned as littlefs
    knows it: an exception would pass through littlefs, which then is in no state to go on.
    Source: MicroPython documentation, `vfs.AbstractBlockDev`; extmod/vfs_blockdev.c.
    """

    def __init__(self, region):
        self._region = region

    def readblocks(self, block, buf, offset=0):
        """Fill `buf` from byte `offset` of `block` on."""
        try:
            self._region.read_into(block * self._region.sector + offset, buf)
        except FlashError as error:
            return _reported(error, _IO)

    def writeblocks(self, block, buf, offset=None):
        """Program `buf` at `offset` of `block`; without an offset erase the blocks first."""
        region = self._region
        try:
            if offset is None:
                offset = 0
                # All or nothing is checked first: an erase must not run ahead of a bounds error.
                region.check(block * region.sector, len(buf))
                for index in range((len(buf) + region.sector - 1) // region.sector):
                    region.erase(block + index)
            region.write(block * region.sector + offset, buf)
        except FlashError as error:
            return _reported(error, _CORRUPT)

    def ioctl(self, op, arg):
        """Answer block count and block size, erase block `arg`; 0 for what needs no work."""
        if op == _IOCTL_BLOCK_COUNT:
            return self._region.sectors
        if op == _IOCTL_BLOCK_SIZE:
            return self._region.sector
        if op == _IOCTL_BLOCK_ERASE and not self._region.erase_checked(arg):
            return _CORRUPT
        return 0


def _reported(error, number):
    if error.code != "flash-io":
        raise error
    return number


def open_regions(flash, regions):
    """Return a dict of name to Region for `regions`, a dict of name to (start, size) in bytes.

    Raises FlashError `flash-region` if one is not whole sectors of this flash or two overlap.
    """
    opened = {}
    end = 0
    for name, (start, size) in sorted(regions.items(), key=_start):
        if start < end:
            raise FlashError("flash-region", "regions overlap")
        opened[name] = Region(flash, start, size)
        end = start + size
    return opened


def _start(item):
    return item[1][0]
