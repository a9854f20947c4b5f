# Runs under MicroPython: says of each line "target hex" on stdin what the target makes of it.
# argv: the folders for sys.path. "romfs" lists the names of an image as MicroPython reads it.

import sys
from binascii import unhexlify

_MARK = "@@fuzz "


def listing(data):
    """Paths of all files, as the VM that mounts the image sees them."""
    import os

    import vfs

    vfs.mount(vfs.VfsRom(memoryview(data)), "/fuzz")
    found = []
    try:
        folders = ["/fuzz"]
        while folders:
            folder = folders.pop()
            for entry in os.ilistdir(folder):
                path = folder + "/" + entry[0]
                if entry[1] & 0x4000:
                    folders.append(path)
                else:
                    found.append(path[6:])
    finally:
        vfs.umount("/fuzz")
    return " ".join(sorted(found))


def main(folders):
    sys.path[:] = list(folders) + [".frozen"]
    import fuzz_parsers

    while True:
        name, _, text = sys.stdin.readline().strip().partition(" ")
        if not name:
            return
        try:
            data = unhexlify(text)
            word = listing(data) if name == "romfs" else fuzz_parsers.outcome(name, data)
        except Exception as error:
            sys.print_exception(error)
            word = "finding " + repr(error)
        print(_MARK + word)


main(sys.argv[1:])
