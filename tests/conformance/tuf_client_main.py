# The board's TUF client with a file system for its store and TCP sockets, under MicroPython's
# unix port. argv: folder of the firmware, then the command line (docs/tuf-client.md).

import errno
import hashlib
import os
import select
import socket
import sys
import time
from binascii import hexlify, unhexlify

sys.path[:] = [sys.argv[1], ".frozen"]

from tidemark import sha512
from tidemark.errors import LinkError, StateError, TidemarkError, TrustError
from tidemark.http import Client as HttpClient
from tidemark.http import quote
from tidemark.store import Files
from tidemark.tuf import Limits, TrustedSet
from tidemark.tuf_client import Client, target_file

_ROOT_MAX = 65536
_OPTIONS = (
    "--metadata-dir",
    "--metadata-url",
    "--target-name",
    "--target-base-url",
    "--target-dir",
)
_poller = select.poll()


class Marks:
    """What the journal keeps on a board: `<key>.mark` beside the metadata, with a line each of
    number, payload and scope. Written whole or not at all; the rules are `Journal.raise_mark`'s.
    """

    def __init__(self, folder):
        self._folder = folder

    def get(self, key):
        """The record's bytes, or None."""
        try:
            with open(self._path(key), "rb") as file:
                return file.read()
        except OSError:
            return None

    def mark(self, key, scope=b""):
        """(number, payload), or (0, b"") without a record in this scope."""
        raw = self.get(key)
        if raw is None:
            return 0, b""
        number, payload, found = raw.decode().split("\n")[:3]
        if unhexlify(found) != scope:
            return 0, b""
        return int(number), unhexlify(payload)

    def raise_mark(self, key, number, payload=b"", scope=b""):
        """Raises StateError("mark-falls") for a number below the one in this scope."""
        held, other = self.mark(key, scope)
        if number < held:
            raise StateError("mark-falls", "a mark only rises")
        if number == held and payload != other:
            raise StateError("mark-conflict", "same number, other payload")
        # Not bytes.hex(): MicroPython's gives bytes, not a str, for nothing.
        text = b"%d\n%s\n%s\n" % (number, hexlify(payload), hexlify(scope))
        replace(self._path(key), text)

    def _path(self, key):
        return self._folder + "/" + key + ".mark"


def replace(path, data):
    """Writes a file whole or not at all."""
    with open(path + "~", "wb") as file:
        file.write(data)
    os.rename(path + "~", path)


class NoWait:
    """A socket that takes itself out of the poller when it is closed."""

    def __init__(self, sock):
        self._sock = sock
        self.setblocking = sock.setblocking
        self.send = sock.send
        self.recv = sock.recv
        _poller.register(sock, select.POLLIN)

    def close(self):
        _poller.unregister(self._sock)
        self._sock.close()


def open_socket(host, port, timeout_s):
    """A connected TCP socket. Raises LinkError("connect")."""
    sock = socket.socket()
    try:
        sock.connect(socket.getaddrinfo(host, port)[0][-1])
    except OSError as error:
        sock.close()
        raise LinkError("connect", "errno %d" % (error.errno or 0))
    return NoWait(sock)


def finish(steps):
    """The value that a generator returns; waits for its socket between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        _poller.poll(5)


def parse(arguments):
    """(verb, its positional arguments, options by name: lists). Raises ValueError."""
    options = {name: [] for name in _OPTIONS}
    words = []
    at = 0
    while at < len(arguments):
        name, equals, value = arguments[at].partition("=")
        if not name.startswith("--"):
            words.append(arguments[at])
        elif name not in options:
            raise ValueError("no option " + name)
        else:
            if not equals:
                at += 1
                if at == len(arguments):
                    raise ValueError(name + " needs a value")
                value = arguments[at]
            options[name].append(value)
        at += 1
    if not words:
        raise ValueError("init, refresh or download")
    return words[0], words[1:], options


def only(options, name):
    """The value of an option that must come once."""
    if len(options[name]) != 1:
        raise ValueError(name + " once")
    return options[name][0]


def make_folder(path):
    """Creates `path` and what is missing above it."""
    at = 0
    while at >= 0:
        at = path.find("/", at + 1)
        try:
            os.mkdir(path if at < 0 else path[:at])
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise


def read_root(path):
    """The bytes of a root file. Raises OSError, TrustError("metadata-size")."""
    # Asked first: MicroPython allocates what a read may return, not what it returns.
    if os.stat(path)[6] > _ROOT_MAX:
        raise TrustError("metadata-size", "larger than a root may be")
    with open(path, "rb") as file:
        return file.read()


def init(folder, root):
    """Trusts the root metadata of the file `root`."""
    data = read_root(root)
    TrustedSet(limits()).load_root(data)
    make_folder(folder)
    replace(folder + "/provisioned", data)
    files = Files(folder)
    if files.load("root") is None:
        files.save("root", data)


def limits():
    """More than a small board has room for: this is a test of rules, not of a heap."""
    limits = Limits()
    limits.root_size = limits.timestamp_size = _ROOT_MAX
    limits.snapshot_size = limits.targets_size = _ROOT_MAX
    limits.root_files = 256
    return limits


def refresh(folder, url):
    """A client whose top-level roles are up to date."""
    try:
        root = read_root(folder + "/provisioned")
    except OSError:
        raise TrustError("no-root", "run init first")
    http = HttpClient(open_socket, url)
    client = Client(Files(folder), Marks(folder), http.fetch, root, limits())
    finish(client.refresh(int(time.time())))
    return client


def download(client, name, url, folder):
    """Stores the target `name`, verified, as one file in `folder`; no request if it is there."""
    entry = finish(client.find(name))
    if entry is None:
        raise TrustError("not-a-target", "no role that may speak for it names it")
    path = folder + "/" + quote(name)
    if is_stored(path, entry):
        return
    consistent = client.trusted.root.signed.get("consistent_snapshot", False)
    http = HttpClient(open_socket, url)
    finish(fetch(http, target_file(entry, name, consistent), path, entry))


class Check:
    """Whether a target's bytes, as they come, are those that its entry promises."""

    def __init__(self, entry):
        self._left = entry["length"]
        self._running = []
        for name, make in (("sha256", hashlib.sha256), ("sha512", sha512.sha512)):
            if name in entry["hashes"]:
                self._running.append((make(), entry["hashes"][name].lower()))

    def update(self, data):
        self._left -= len(data)
        for running, _ in self._running:
            running.update(data)

    def holds(self):
        """All bytes came, and each hash of a known algorithm is right; one there must be."""
        return (
            not self._left
            and bool(self._running)
            and all(running.digest().hex() == promised for running, promised in self._running)
        )


def is_stored(path, entry):
    """Whether the file holds what the entry promises."""
    try:
        if os.stat(path)[6] != entry["length"]:
            return False
        check = Check(entry)
        with open(path, "rb") as file:
            while data := file.read(4096):
                check.update(data)
    except OSError:
        return False
    return check.holds()


def fetch(http, url_path, path, entry):
    """Generator: the target to `path`, which changes only once all of it was verified."""
    response = yield from http.get(url_path, 0, entry["length"])
    if response is None:
        raise LinkError("target-missing", "not on this mirror")
    check = Check(entry)
    buf = bytearray(4096)
    try:
        with open(path + "~", "wb") as file:
            while response.left:
                size = response.readinto(buf)
                check.update(buf[:size])
                file.write(buf[:size])
                yield
    finally:
        response.close()
    if not check.holds():
        os.remove(path + "~")
        raise TrustError("target-hash", "the mirror served something else")
    os.rename(path + "~", path)


def main(arguments):
    """Exit status of one command line."""
    try:
        verb, words, options = parse(arguments)
        folder = only(options, "--metadata-dir")
        if verb == "init" and len(words) == 1:
            init(folder, words[0])
        elif verb == "refresh" and not words:
            refresh(folder, only(options, "--metadata-url"))
        elif verb == "download" and not words and options["--target-name"]:
            base, place = only(options, "--target-base-url"), only(options, "--target-dir")
            make_folder(place)
            client = refresh(folder, only(options, "--metadata-url"))
            for name in options["--target-name"]:
                download(client, name, base, place)
        else:
            raise ValueError("init ROOT, refresh, or download with --target-name")
    except (TidemarkError, ValueError, OSError) as error:
        sys.stderr.write("tuf-client: %s\n" % error)
        return 1
    return 0


sys.exit(main(sys.argv[2:]))
