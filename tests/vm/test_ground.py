# The ground that the other tests of this folder stand on.

import sys

import tidemark_board
from tidemark import compat


def test_board_constants_are_importable():
    offset, size = tidemark_board.REGIONS["counter"]
    assert offset % tidemark_board.SECTOR == 0
    assert size >= 2 * tidemark_board.SECTOR


def test_tick_arithmetic_crosses_the_wrap():
    before = compat.ticks_add(0, -5)
    assert compat.ticks_diff(compat.ticks_add(before, 10), before) == 10


def test_cpython_is_what_it_says():
    assert sys.implementation.name == "cpython"


def test_vm_is_micropython():
    assert sys.implementation.name == "micropython"


def test_vm_has_romfs():
    import vfs

    assert hasattr(vfs, "VfsRom")
