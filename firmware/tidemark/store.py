# Small files that may be lost, replaced atomically: the update metadata under /tuf on littlefs.

import errno
import os

from tidemark.compat import const
from tidemark.errors import StateError

_MAX_NAME = const(120)
_MAX_FILE = const(65536)  # what we write is smaller: metadata is bounded by tuf.Limits


class Files:
    """`<name>.json` in `folder`. littlefs renames atomically: a cut leaves the former file or the
    new one.
    """

    def __init__(self, folder="/tuf"):
        self.folder = folder

    def _path(self, name):
        if not name or len(name) > _MAX_NAME or "/" in name:
            raise StateError("file-name", "not a file of the store")
        return self.folder + "/" + name + ".json"

    def load(self, name):
        """The file's bytes, or None when it is not there or can't be read."""
        path = self._path(name)
        try:
            size = os.stat(path)[6]
            if size > _MAX_FILE:
                return None
            with open(path, "rb") as handle:
                # By size: without one MicroPython grows a buffer, and holds two for a while.
                return handle.read(size)
        except OSError:
            return None

    def remove(self, name):
        """Deletes the file if there is one. Raises StateError("file-write")."""
        try:
            os.remove(self._path(name))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise StateError("file-write", "errno %d" % (error.errno or 0))

    def save(self, name, data):
        """Replaces the file. Raises StateError("file-write") with the former file kept."""
        path = self._path(name)
        temporary = path + "~"
        try:
            try:
                os.stat(self.folder)
            except OSError:
                os.mkdir(self.folder)
            with open(temporary, "wb") as handle:
                handle.write(data)
            os.rename(temporary, path)
        except OSError as error:
            raise StateError("file-write", "errno %d" % (error.errno or 0))
