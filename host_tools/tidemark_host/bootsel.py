"""The drive of an RP2040 or RP2350 in its boot ROM: found by its INFO_UF2.TXT, written with a UF2.

The ROM takes the file's blocks as they come, and starts what was flashed after the last one: the
drive vanishes then, often before the file could be closed.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tidemark_host.chips import CHIPS, Chip

INFO = "INFO_UF2.TXT"
_INFO_MAX = 4096
_CHUNK = 65_536
_GONE = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EROFS}

Progress = Callable[[int, int], None]


class DriveError(Exception):
    """A drive that can't be used; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Drive:
    """A mounted boot ROM: its folder and the Board-ID it reports."""

    path: Path
    board_id: str


def mount_points() -> list[Path]:
    """Return where removable drives are mounted on this machine."""
    if sys.platform == "darwin":
        return sorted(Path("/Volumes").glob("*"))
    if sys.platform == "win32":
        return [Path(f"{letter}:/") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"]
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    # Blanks in a path are written as octal escapes there.
    return [
        Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), row[1]))
        for row in rows
        if len(row) > 2 and row[2] in ("vfat", "msdos")
    ]


def drives(folders: Iterable[Path] | None = None) -> list[Drive]:
    """Return the boot ROMs among `folders`, by default among all mount points."""
    candidates = mount_points() if folders is None else folders
    return [drive for path in candidates if (drive := read_drive(path)) is not None]


def read_drive(path: Path) -> Drive | None:
    """Return the boot ROM that is mounted at `path`, or None."""
    try:
        with (path / INFO).open("rb") as handle:
            text = handle.read(_INFO_MAX).decode("ascii", "replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "Board-ID":
            return Drive(path, value.strip())
    return None


def pick(chip: Chip, found: Iterable[Drive]) -> Drive | None:
    """Return the drive of a `chip`; None while there is none.

    Raises DriveError: `several`; `wrong-chip` when only boot ROMs of other chips are there.
    """
    found = list(found)
    fitting = [drive for drive in found if drive.board_id == chip.drive]
    if len(fitting) > 1:
        paths = ", ".join(str(drive.path) for drive in fitting)
        raise DriveError(
            "several", f"{len(fitting)} boards wait in their boot ROM: name one of {paths}"
        )
    if found and not fitting:
        others = {row.drive: row.name for row in CHIPS.values() if row.drive}
        kind = others.get(found[0].board_id, found[0].board_id)
        raise DriveError(
            "wrong-chip", f"{found[0].path} is a {kind}, the image is for {chip.name}"
        )
    return fitting[0] if fitting else None


def write(drive: Drive, image: bytes, progress: Progress | None = None) -> None:
    """Write a UF2 file to a boot ROM. Raises DriveError `write` when it ends before the file."""
    done = 0
    try:
        with (drive.path / "TIDEMARK.UF2").open("wb", buffering=0) as handle:
            while done < len(image):
                done += handle.write(image[done : done + _CHUNK])
                # Else it only goes into the cache, and the progress says nothing.
                os.fsync(handle.fileno())
                if progress:
                    progress(done, len(image))
    except OSError as error:
        if done < len(image) or error.errno not in _GONE:
            raise DriveError("write", f"{drive.path}: {error.strerror or error}") from error
