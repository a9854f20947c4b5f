# Runs under MicroPython: imports one test file and calls the functions whose names come on stdin.
# argv: the file, then the folders for sys.path. Prints one marked line at each function's end.

import sys

_MARK = "@@tidemark "


def main(path, folders):
    # Nothing but these and the built-ins: a test must not depend on where it was started.
    sys.path[:] = list(folders) + [".frozen"]
    module = __import__(path.rsplit("/", 1)[-1][:-3])
    while True:
        name = sys.stdin.readline().strip()
        if not name:
            return
        try:
            getattr(module, name)()
        except Exception as error:
            sys.print_exception(error)
            print(_MARK + "fail " + name)
        else:
            print(_MARK + "ok " + name)


main(sys.argv[1], sys.argv[2:])
