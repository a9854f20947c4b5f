"""What a board was found with: a copy on disk until the board has it back, and its state taken off
the board meanwhile.

Had the board used its counter after it was read, the copy that is written back would issue the
same values again (I1). So it is read, copied and left without its key's state while it is stopped,
in one session of its REPL. A board that started in between may still run what it is sent, as a
paste: what erases asks for a word that only the stopped board was told. What is erased first is
what it needs to take itself for provisioned.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import platformdirs

from tidemark_host.boardfile import Board as Definition
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.serial_board import SerialBoard, read

_ERASE_S = 30.0
_ERASE = """
if _tidemark_kept == {word!r}:
    from tidemark import stage0
    for _name in ("provisioning", "journal", "counter"):
        _region = stage0.base.regions[_name]
        for _sector in range(_region.sectors):
            _region.erase(_sector)
        print(_region.is_blank())
"""

Say = Callable[[str], None]


class Copy:
    """The copy of the board with a USB serial number, readable for its owner alone."""

    def __init__(self, serial: str, folder: Path | None = None) -> None:
        """folder: by default one of the user's, where nothing that cleans up a build looks."""
        folder = folder or platformdirs.user_state_path("tidemark") / "found"
        self.path = folder / f"{quote(serial, safe='')}.bin"

    def write(self, content: bytes) -> None:
        """Keep `content`, durably and whole, or raise BoardError `copy`."""
        fresh = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise BoardError("copy", f"{self.path}: {error.strerror}") from error

    def read(self, definition: Definition) -> bytes:
        """Return what an earlier run left, b"" for nothing. Raises BoardError `copy`."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise BoardError("copy", f"{self.path}: {error.strerror}") from error
        if len(content) != definition.flash_size:
            raise BoardError(
                "copy",
                f"{self.path}, left by an earlier run, is no flash of {definition.name}: give it "
                "to the board that it is of, or move it away",
            )
        return content

    def age(self) -> str:
        """Return when it was made."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.path.stat().st_mtime))

    def set_aside(self) -> Path:
        """Make place for a newer one; return where this one is from now on."""
        made = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.path.stat().st_mtime))
        return self.path.rename(self.path.with_name(f"{self.path.stem}-{made}.bin"))

    def remove(self) -> None:
        """The board has it back."""
        self.path.unlink(missing_ok=True)


def keep(board: SerialBoard, definition: Definition, copy: Copy, say: Say) -> bytes:
    """Return what the board is given back at the end; it is in `copy` then, and off the board.

    A copy that an earlier run left is what the board was found with then: what it holds now is
    that run's. Unless it is provisioned as the copy is: then it got that back, and has run since;
    all of it or a part, so the older copy is set aside, never removed.

    Raises BoardError: `foreign` for a board that runs nothing of ours, which can't be read;
    `copy`; `keep` for one whose state was not taken off it as a whole; `console`.
    """
    left = copy.read(definition)
    word = secrets.token_hex(4)
    with board.stopped(resume=False) as console:
        console.exec(f"_tidemark_kept = {word!r}")
        try:
            newer = not left or _got_back(console, definition, left)
            content = read(console, 0, definition.flash_size) if newer else b""
        except BoardError as error:
            if error.code != "exec" or "ImportError" not in str(error):
                raise
            if not left:
                raise BoardError(
                    "foreign",
                    "it runs nothing of ours and can't be left as it was found. To have it "
                    "overwritten, say restore = false in bench.toml",
                ) from error
            content = b""
        if not content:
            say(
                f"a run of {copy.age()} did not give back what it was found with; this one will "
                f"({copy.path})"
            )
            return left
        if left:
            say(
                "a run did not see that this board has what it was found with, which goes on from "
                f"what it holds now. The copy of then is {copy.set_aside()}"
            )
        copy.write(content)
        try:
            erased = console.exec(_ERASE.format(word=word), _ERASE_S).split()
        except BoardError as error:  # it has started, or a part of it is gone: the next run sees
            erased = [str(error)]
        if erased != ["True"] * 3:
            told = " ".join(erased)
            raise BoardError("keep", f"its state stays ({told}); a copy of it is {copy.path}")
    return content


def _got_back(console: Repl, definition: Definition, left: bytes) -> bool:
    """Say whether a board is provisioned as a copy of it is."""
    region = definition.regions["provisioning"]
    own = left[region.offset : region.end]
    return bool(own.strip(b"\xff")) and read(console, region.offset, region.size) == own
