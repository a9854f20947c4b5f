"""Flashing a board: an image, what the board holds already, and the way into its flash.

What a used board would lose is refused unless it is asked for. Here an RP2: by the boot ROM's
drive, or picotool, which runs as it comes. `flashing_esp32` has the other.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tidemark_host import bootsel, discovery, remote, toolchain_build, uf2_file
from tidemark_host.boardfile import Board, BoardFileError
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.bootsel import Drive, Progress
from tidemark_host.discovery import Found, PortInfo
from tidemark_host.toolchain_cache import ToolchainError, lock

# What a board writes itself, and must not find again behind a new key.
STATE = ("provisioning", "counter", "journal", "evidence", "outbox")
_POLL_S = 0.1
_TOOL_S = 300.0


class FlashingError(Exception):
    """A board that was not flashed; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Image:
    """What goes into a flash: `parts` (offset: content)."""

    board: Board
    parts: Mapping[int, bytes]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return (offset, bytes) of what is written, joined and rising."""
        return [(offset, len(content)) for offset, content in uf2_file.spans(self.parts)]

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hex) over the contents in rising order, as a board computes it."""
        from tidemark_host.toolchain_cache import bytes_digest

        return bytes_digest(b"".join(content for _, content in uf2_file.spans(self.parts)))

    @property
    def runtime_only(self) -> bool:
        """True when nothing but the runtime's region is written: key and slots stay."""
        end = self.board.regions["runtime"].end
        return all(offset + size <= end for offset, size in self.spans)

    def erasing_state(self, former: Board | None = None) -> Image:
        """Return this image and blank sectors for all that the board has written itself, also as
        the board that it was before."""
        blank = b"\xff" * self.board.sector
        parts = dict(self.parts)
        for board in (self.board, former or self.board):
            for name in STATE:
                region = board.regions[name]
                for offset in range(region.offset, region.end, self.board.sector):
                    parts.setdefault(offset, blank)
        return Image(self.board, parts)


@dataclass(frozen=True)
class Outcome:
    """How it went. `how`: `drive`, `picotool`, `esptool` or `none`. `verified`: the board was
    asked afterwards, and its flash holds the image; False where it could not be asked."""

    port: str
    sha256: str
    skipped: bool
    verified: bool
    how: str


@dataclass
class Bench:
    """What flashing needs of the machine: ports, drives, programs. Times in seconds.

    Tests hand in their own; everything else takes what there is.
    """

    ports: Callable[[], list[PortInfo]] = discovery.serial_ports
    drives: Callable[[], list[Drive]] = bootsel.drives
    which: Callable[[str], str | None] = shutil.which
    open: Callable[[str], AbstractContextManager[Repl]] = Repl
    # Boot ROMs of a kind of chip look the same: one board of this machine is in its own at a time.
    lock: Callable[[], AbstractContextManager[None]] = lambda: lock("boot-rom")
    progress: Progress | None = None
    drive_s: float = 20.0
    picotool_after_s: float = 3.0
    back_s: float = 30.0


def read_image(path: Path, board: Board) -> Image:
    """Read a UF2 file, or the raw content of a flash from its start, for `board`.

    Raises FlashingError `image`; Uf2Error.
    """
    if path.stat().st_size > uf2_file.MAX_FILE:
        raise FlashingError("image", f"{path} is larger than any flash")
    data = path.read_bytes()
    parts = uf2_file.decode(data, board.chip) if path.suffix == ".uf2" else {0: data}
    image = Image(board, parts)
    if not data or any(offset + size > board.flash_size for offset, size in image.spans):
        raise FlashingError("image", f"{path} does not fit the flash of {board.name}")
    return image


def flash_rp2(found: Found, image: Image, bench: Bench, *, force: bool = False) -> Outcome:
    """Flash the board at a serial port through its boot ROM, unless it holds the image already.

    The board is asked what it is first, and afterwards whether it holds the image. Raises
    FlashingError: `wrong-board`, `wrong-chip`, `wrong-flash`, `used`, `other-drive`, `no-drive`,
    `gone`, `verify`; DriveError; BoardError `console` for a board that does not answer.
    """
    # From the look for other boards' drives until this one is back and was asked.
    with bench.lock():
        return _flash_rp2(found, image, bench, force)


def _flash_rp2(found: Found, image: Image, bench: Bench, force: bool) -> Outcome:
    with _opened(found, bench) as console:
        facts = remote.ask(console)
        former = _definition(facts.board)
        refusal = _refusal(facts, former, image, force) or other_drive(image, bench)
        holds = facts.board == image.board.name and _holds(console, image)
        if facts.board and (holds or refusal):
            remote.resume(console)
        if holds:
            return Outcome(found.port, image.digest, True, True, "none")
        if refusal:
            raise refusal
        remote.enter_bootloader(console)
    # What other firmware left in the regions of our state would stop the provisioning.
    erase = (force or not facts.board) and not image.runtime_only
    how = flash_drive(image.erasing_state(former) if erase else image, bench)
    back = _wait_back(found, bench)
    with bench.open(back) as console:
        if not _holds(console, image):
            raise FlashingError("verify", f"{back}: the flash does not hold the image")
        remote.resume(console)
    return Outcome(back, image.digest, False, True, how)


def _opened(found: Found, bench: Bench) -> AbstractContextManager[Repl]:
    """Open a board that may reset just now, as one in a loop of crashes does: one more chance."""
    try:
        return bench.open(found.port)
    except BoardError as error:
        try:
            return bench.open(_wait_back(found, bench))
        except FlashingError:
            raise error from None


def _holds(console: remote.Console, image: Image) -> bool:
    return remote.digest(console, image.spans) == image.digest


def _definition(name: str) -> Board | None:
    """Return the board that a running one says it is, None for none of boards/."""
    try:
        return toolchain_build.board_of(name)
    except (BoardFileError, ToolchainError):
        return None


def _refusal(
    facts: remote.Facts, former: Board | None, image: Image, force: bool
) -> FlashingError | None:
    """Return why a board must not be flashed: without being asked for it twice, or at all."""
    if facts.board and facts.board != image.board.name:
        return _other_board(facts, former, image, force)
    if facts.used and not image.runtime_only and not force:
        return FlashingError(
            "used",
            "the board was used: a factory image takes its key and counters. --runtime keeps "
            "them; --force erases them",
        )
    return None


def _other_board(
    facts: remote.Facts, former: Board | None, image: Image, force: bool
) -> FlashingError | None:
    """Return why a board does not become another one. What `force` lifts must leave no state: the
    key of the one that it was, beside a counter that something else was written over, would be
    used again by whoever flashes that one back (I1)."""
    board = image.board
    what = f"the board runs {facts.board}, the image is for {board.name}"
    if former and former.chip.name != board.chip.name:
        return FlashingError("wrong-chip", f"{what}: {former.chip.name} against {board.chip.name}")
    if former and former.flash_size < board.flash_size:
        sizes = f"{former.flash_size >> 10} KiB against {board.flash_size >> 10}"
        return FlashingError("wrong-flash", f"{what}: a flash of {sizes}")
    if image.runtime_only:
        # Its runtime's region ends elsewhere, in the middle of the other's key and counters.
        hint = f"what it wrote itself lies elsewhere. Try: --runtime --board {facts.board}"
        return FlashingError("wrong-board", f"{what}, and {hint}")
    if not former:
        hint = "it is no folder of boards/, so nothing says where its key lies, to erase it"
        return FlashingError("wrong-board", f"{what}: {hint}")
    if not force:
        hint = "--force makes it that one, and erases its key and counters"
        return FlashingError("wrong-board", f"{what}. {hint}")
    return None


def other_drive(image: Image, bench: Bench) -> FlashingError | None:
    """Return why a board must not be sent into its boot ROM now: another one waits there, and
    would be written in its place."""
    for drive in bench.drives():
        if drive.board_id == image.board.chip.drive:
            return FlashingError(
                "other-drive",
                f"another board waits in its boot ROM at {drive.path}: unplug it, or flash it "
                f"first: tidemark flash {drive.path} --board NAME",
            )
    return None


def flash_drive(image: Image, bench: Bench, drive: Drive | None = None) -> str:
    """Flash a board that is in its boot ROM, by its drive or by picotool; return which.

    drive: this one; else the one that appears in time. Raises FlashingError `no-drive`,
    `picotool`; DriveError.
    """
    chip = image.board.chip
    file = uf2_file.encode(image.parts, chip)
    if drive is not None:
        bootsel.pick(chip, [drive])
    picotool = bench.which("picotool")
    patience = bench.picotool_after_s if picotool else bench.drive_s
    until = time.monotonic() + patience
    while drive is None:
        drive = bootsel.pick(chip, bench.drives())
        if drive is None:
            if time.monotonic() > until:
                break
            time.sleep(_POLL_S)
    if drive is not None:
        bootsel.write(drive, file, bench.progress)
        return "drive"
    if not picotool:
        raise FlashingError(
            "no-drive",
            f"no drive {chip.drive} with {bootsel.INFO} within {patience:.0f} s, and no picotool. "
            "Mount it (udisksctl mount -b /dev/sdX1) and name its folder as TARGET, or install "
            "picotool",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.uf2")
        path.write_bytes(file)
        _tool([picotool, "load", "-v", "-x", str(path)], "picotool")
    return "picotool"


def _tool(argv: Sequence[str], code: str) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TOOL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FlashingError(code, f"{code}: {error}") from error
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise FlashingError(code, f"{code}: {' '.join(last) or f'exit {done.returncode}'}")


def _wait_back(found: Found, bench: Bench) -> str:
    """Return the port of a board that was flashed, once it answers there again.

    By its serial number or location: the port's name may be another one. Raises FlashingError
    `gone`, `several`.
    """
    until = time.monotonic() + bench.back_s
    while time.monotonic() < until:
        port = _port_now(found, bench)
        if port:
            try:
                with bench.open(port):
                    return port
            except BoardError:
                pass  # it is still on its way: udev's rights, the boot itself
        time.sleep(_POLL_S)
    raise FlashingError("gone", f"flashed, but not back within {bench.back_s:.0f} s")


def _port_now(found: Found, bench: Bench) -> str:
    if found.key:
        try:
            return discovery.port_named(found.key, bench.ports())
        except discovery.DiscoveryError as error:
            raise FlashingError(error.code, f"flashed, but which one is it? {error}") from error
    return found.port if "://" in found.port or Path(found.port).exists() else ""
