# Small files on a file system: a cut leaves the former file or the new one.

import os

from tidemark import store
from tidemark.errors import StateError
from tidemark.store import Files

# Of this run alone: the other interpreter may be at the same tests.
_FOLDER = "/tmp/tidemark-store-" + "".join(["%02x" % byte for byte in os.urandom(6)])


class Cut(Exception):
    pass


class CutOs:
    """The module os, which the power leaves after so many changes to the file system."""

    def __init__(self, changes):
        self.left = changes

    def count(self):
        if not self.left:
            raise Cut
        self.left -= 1

    def stat(self, path):
        return os.stat(path)

    def mkdir(self, path):
        self.count()
        os.mkdir(path)

    def rename(self, old, new):
        self.count()
        os.rename(old, new)

    def open(self, path, mode):
        if "w" not in mode:
            return open(path, mode)
        self.count()
        return CutFile(open(path, mode), self)


class CutFile:
    """Written byte by byte, each of them a change."""

    def __init__(self, file, power):
        self.file = file
        self.power = power

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, data):
        for i in range(len(data)):
            self.power.count()
            self.file.write(data[i : i + 1])


class Folder:
    """An empty folder of `Files`, which is gone afterwards."""

    def __enter__(self):
        os.mkdir(_FOLDER)
        return Files(_FOLDER)

    def __exit__(self, *exception):
        for name in os.listdir(_FOLDER):
            os.remove(_FOLDER + "/" + name)
        os.rmdir(_FOLDER)


def saved(files, data, changes):
    """Whether `save` came to its end before the cut."""
    former = store.os
    store.os = power = CutOs(changes)
    store.open = power.open
    try:
        files.save("role", data)
        return True
    except Cut:
        return False
    finally:
        store.os = former
        del store.open


def test_cut_between_any_two_writes_leaves_the_former_file_or_the_new_one():
    for changes in range(20):
        with Folder() as files:
            files.save("role", b"former")
            done = saved(files, b"newer one", changes)
            assert files.load("role") == (b"newer one" if done else b"former"), changes
            # What the cut left behind is in nobody's way.
            files.save("role", b"third")
            assert files.load("role") == b"third"
    assert done


def test_missing_file_is_none_and_a_removed_one_is_missing():
    with Folder() as files:
        assert files.load("role") is None
        files.remove("role")
        files.save("role", b"x")
        files.remove("role")
        assert files.load("role") is None


def test_names_stay_in_the_folder():
    with Folder() as files:
        for name in ("", "../x", "a/b", "x" * 121):
            try:
                raise AssertionError(files.load(name))
            except StateError as error:
                assert error.code == "file-name"
