"""Which boards are plugged in, and what people call them.

A board is named by its serial port, its USB serial number, or a nickname from boards.toml in the
user's configuration folder (`TIDEMARK_BOARDS` names another file). Nothing here opens a port.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import platformdirs

MAX_FILE = 65_536  # bytes of boards.toml
MAX_NAMES = 1_024
_NICKNAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_SERIAL = re.compile(r"[A-Za-z0-9:._-]{1,64}")
# USB vendors of boards that run MicroPython: Raspberry Pi, Espressif, bridges beside ESP32s.
_VENDORS = frozenset({0x2E8A, 0x303A, 0x10C4, 0x1A86, 0x0403})


class DiscoveryError(Exception):
    """A board that can't be found or named; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class PortInfo(Protocol):
    """What is used of pyserial's ListPortInfo."""

    device: str
    serial_number: str | None
    vid: int | None
    product: str | None


@dataclass(frozen=True)
class Nickname:
    """A person's name for a board: its USB serial number and the folder of boards/ it is."""

    name: str
    serial: str
    board: str


@dataclass(frozen=True)
class Found:
    """A board as it was named: port ("" when it is not plugged in), serial number, nickname."""

    port: str
    serial: str = ""
    nickname: str = ""
    board: str = ""
    product: str = ""


def serial_ports() -> list[PortInfo]:
    """Return the serial ports that the operating system lists."""
    from serial.tools import list_ports

    return [cast("PortInfo", port) for port in list_ports.comports()]


def names_path() -> Path:
    """Return where nicknames are kept."""
    named = os.environ.get("TIDEMARK_BOARDS")
    return Path(named) if named else platformdirs.user_config_path("tidemark") / "boards.toml"


def read_names(path: Path | None = None) -> dict[str, Nickname]:
    """Return nickname: board. Raises DiscoveryError `names` for a file of another shape."""
    path = path or names_path()
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
        document = tomllib.loads(data.decode()) if len(data) <= MAX_FILE else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DiscoveryError("names", f"{path}: {error}") from error
    if document is None or len(document) > MAX_NAMES:
        raise DiscoveryError(
            "names", f"{path} is larger than {MAX_FILE} bytes or {MAX_NAMES} names"
        )
    return {name: _nickname(path, name, table) for name, table in document.items()}


def _nickname(path: Path, name: str, table: object) -> Nickname:
    row = cast("dict[str, object]", table if isinstance(table, dict) else {})
    serial, board = row.get("serial"), row.get("board", "")
    good = isinstance(serial, str) and isinstance(board, str) and set(row) <= {"serial", "board"}
    if not good or not isinstance(serial, str) or not isinstance(board, str):
        raise DiscoveryError("names", f'{path}: [{name}] wants serial = "..." and board = "..."')
    return _checked(Nickname(name, serial, board))


def _checked(nickname: Nickname) -> Nickname:
    if not _NICKNAME.fullmatch(nickname.name):
        raise DiscoveryError(
            "nickname", f"{nickname.name!r}: a letter, then at most 31 letters, digits, - or _"
        )
    if not _SERIAL.fullmatch(nickname.serial):
        raise DiscoveryError("serial", f"{nickname.serial!r} is no USB serial number")
    if nickname.board and not nickname.board.isidentifier():
        raise DiscoveryError("board", f"{nickname.board!r} is no folder of boards/")
    return nickname


def keep_name(nickname: Nickname, path: Path | None = None) -> None:
    """Add or replace a nickname. Raises DiscoveryError."""
    names = read_names(path)
    names[nickname.name] = _checked(nickname)
    if len(names) > MAX_NAMES:
        raise DiscoveryError("names", f"there are {MAX_NAMES} names already")
    _write_names(names, path or names_path())


def forget_name(name: str, path: Path | None = None) -> None:
    """Drop a nickname. Raises DiscoveryError `unknown` when there is none."""
    names = read_names(path)
    if names.pop(name, None) is None:
        raise DiscoveryError("unknown", f"nobody is called {name}")
    _write_names(names, path or names_path())


def _write_names(names: Mapping[str, Nickname], path: Path) -> None:
    tables = [
        f'[{row.name}]\nserial = "{row.serial}"\n'
        + (f'board = "{row.board}"\n' if row.board else "")
        for row in sorted(names.values(), key=lambda row: row.name)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(tables))
    fresh.replace(path)


def boards(ports: Iterable[PortInfo], names: Mapping[str, Nickname]) -> list[Found]:
    """Return the boards that are plugged in, then those that have a name and are absent."""
    by_serial = {row.serial: row for row in names.values()}
    found: list[Found] = []
    for port in sorted(ports, key=lambda port: port.device):
        serial = port.serial_number or ""
        row = by_serial.pop(serial, None) if serial else None
        if row or port.vid in _VENDORS:
            found.append(
                Found(
                    port.device,
                    serial,
                    row.name if row else "",
                    row.board if row else "",
                    port.product or "",
                )
            )
    absent = sorted(by_serial.values(), key=lambda row: row.name)
    return found + [Found("", row.serial, row.name, row.board) for row in absent]


def find(
    target: str, ports: Iterable[PortInfo], names: Mapping[str, Nickname], *, absent: bool = False
) -> Found:
    """Return the board that `target` names: nickname, USB serial number, or port.

    Anything with a slash, `socket://` or `COM` is taken as a port, listed or not. "" is the only
    board that is plugged in. absent: a known board that is not plugged in is an answer, too.
    Raises DiscoveryError: `none`, `several`, `absent`, `unknown`.
    """
    ports = list(ports)
    known = boards(ports, names)
    here = [board for board in known if board.port]
    if not target:
        if len(here) != 1:
            listed = ", ".join(board.nickname or board.serial or board.port for board in here)
            raise DiscoveryError(
                "several" if here else "none",
                f"name one of: {listed}" if here else "no board is plugged in",
            )
        return here[0]
    if "/" in target or re.fullmatch(r"COM\d+", target):
        device = target
        real = str(Path(target).resolve()) if Path(target).exists() else target
        listed = [board for board in here if board.port in (device, real)]
        return listed[0] if listed else Found(target)
    for board in known:
        if target not in (board.nickname, board.serial):
            continue
        if board.port or absent:
            return board
        raise DiscoveryError("absent", f"{target} (USB serial number {board.serial}) is not here")
    # A serial number that nobody named and whose maker is not on the list above.
    for port in ports:
        if port.serial_number == target:
            return Found(port.device, target, product=port.product or "")
    raise DiscoveryError(
        "unknown", f"no board has the port, USB serial number or nickname {target!r}"
    )
