"""Which boards are plugged in, and what people call them.

A board is named by its serial port; its USB serial number; its USB location (1-1.4: bus, then the
port of each hub) where it has no number of its own; or a nickname from boards.toml in the user's
configuration folder (`TIDEMARK_BOARDS` names another file). Nothing here opens a port.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import platformdirs

from tidemark_host.filelock import only_writer

MAX_FILE = 65_536  # bytes of boards.toml
MAX_NAMES = 1_024
_NICKNAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_SERIAL = re.compile(r"[A-Za-z0-9:._-]{1,64}")
# As pyserial has it: with the interface behind it, of a device that has several.
_LOCATION = re.compile(r"\d{1,3}-\d{1,3}(\.\d{1,3}){0,6}(:[x\d]{1,3}\.\d{1,3})?")
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
    location: str | None


@dataclass(frozen=True)
class Nickname:
    """A person's name for a board: its USB serial number, or "" and its USB location; and the
    folder of boards/ it is."""

    name: str
    serial: str
    board: str
    location: str = ""


@dataclass(frozen=True)
class Found:
    """A board as it was named: port ("" when it is not plugged in), serial number, nickname.

    `by_location`: known by the place that it is plugged in at, not by its serial number.
    """

    port: str
    serial: str = ""
    nickname: str = ""
    board: str = ""
    product: str = ""
    location: str = ""
    by_location: bool = False

    @property
    def key(self) -> str:
        """Return what it is found again by when its port has another name, "" for a bare port."""
        return self.location if self.by_location else self.serial


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
    known = {"serial", "board", "location"}
    texts = {key: value for key, value in row.items() if isinstance(value, str) and key in known}
    if len(texts) != len(row) or ("serial" in texts) == ("location" in texts):
        raise DiscoveryError(
            "names",
            f'{path}: [{name}] wants serial = "..." or location = "...", and board = "..."',
        )
    made = Nickname(
        name, texts.get("serial", ""), texts.get("board", ""), texts.get("location", "")
    )
    return _checked(made)


def _checked(nickname: Nickname) -> Nickname:
    if not _NICKNAME.fullmatch(nickname.name):
        raise DiscoveryError(
            "nickname", f"{nickname.name!r}: a letter, then at most 31 letters, digits, - or _"
        )
    if nickname.location and not is_location(nickname.location):
        raise DiscoveryError("location", f"{nickname.location!r} is no USB location, as 1-1.4 is")
    if not nickname.location and not _SERIAL.fullmatch(nickname.serial):
        raise DiscoveryError("serial", f"{nickname.serial!r} is no USB serial number")
    if nickname.board and not nickname.board.isidentifier():
        raise DiscoveryError("board", f"{nickname.board!r} is no folder of boards/")
    return nickname


def is_location(text: str) -> bool:
    """Return whether a text looks like a USB location."""
    return bool(_LOCATION.fullmatch(text))


def keep_name(nickname: Nickname, path: Path | None = None) -> None:
    """Add or replace a nickname. Raises DiscoveryError."""
    path = path or names_path()
    with only_writer(path):
        names = read_names(path)
        names[nickname.name] = _checked(nickname)
        if len(names) > MAX_NAMES:
            raise DiscoveryError("names", f"there are {MAX_NAMES} names already")
        _write_names(names, path)


def forget_name(name: str, path: Path | None = None) -> None:
    """Drop a nickname. Raises DiscoveryError `unknown` when there is none."""
    path = path or names_path()
    with only_writer(path):
        names = read_names(path)
        if names.pop(name, None) is None:
            raise DiscoveryError("unknown", f"nobody is called {name}")
        _write_names(names, path)


def _write_names(names: Mapping[str, Nickname], path: Path) -> None:
    tables = [
        f"[{row.name}]\n"
        + (f'location = "{row.location}"\n' if row.location else f'serial = "{row.serial}"\n')
        + (f'board = "{row.board}"\n' if row.board else "")
        for row in sorted(names.values(), key=lambda row: row.name)
    ]
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(tables))
    fresh.replace(path)


def boards(ports: Iterable[PortInfo], names: Mapping[str, Nickname]) -> list[Found]:
    """Return the boards that are plugged in, then those that have a name and are absent."""
    ports = sorted(ports, key=lambda port: port.device)
    named = [_found(port, ports, names) for port in ports]
    found = [row for row, port in zip(named, ports, strict=True) if row.nickname or _ours(port)]
    here = {row.nickname for row in found}
    for row in sorted(names.values(), key=lambda row: row.name):
        if row.name not in here:
            place = bool(row.location)
            found.append(
                Found("", row.serial, row.name, row.board, "", row.location, by_location=place)
            )
    return found


def _ours(port: PortInfo) -> bool:
    return port.vid in _VENDORS


def _found(port: PortInfo, ports: Iterable[PortInfo], names: Mapping[str, Nickname]) -> Found:
    """Return the board at a port. Of several with one serial number each is known by its place,
    and each has the nickname that goes by that number."""
    serial, location = port.serial_number or "", port.location or ""
    row = next((row for row in names.values() if row.location and _at(port, row.location)), None)
    by_location = bool(row) or (bool(location) and len(_with_serial(serial, ports)) != 1)
    if row is None and serial:
        row = next((row for row in names.values() if row.serial == serial), None)
    return Found(
        port.device,
        serial,
        row.name if row else "",
        row.board if row else "",
        port.product or "",
        location,
        by_location,
    )


def _with_serial(serial: str, ports: Iterable[PortInfo]) -> list[PortInfo]:
    return [port for port in ports if serial and port.serial_number == serial]


def _at(port: PortInfo, location: str) -> bool:
    """Return whether a port is at a USB location, with its interface or without."""
    here = port.location or ""
    return bool(location) and location in (here, here.partition(":")[0])


def port_named(key: str, ports: Iterable[PortInfo]) -> str:
    """Return the port with a USB serial number, or at a USB location; "" when there is none.

    Raises DiscoveryError `several`: an adapter's maker may give all of them one number.
    """
    ports = list(ports)
    fit = _with_serial(key, ports) or [port for port in ports if _at(port, key)]
    if len(fit) > 1:
        raise _several(key, fit)
    return fit[0].device if fit else ""


def _several(key: str, ports: Iterable[PortInfo] | Iterable[Found]) -> DiscoveryError:
    rows = sorted(
        (port.port if isinstance(port, Found) else port.device, port.location or "")
        for port in ports
    )
    listed = ", ".join(device + (f" at {place}" if place else "") for device, place in rows)
    places = [place for _, place in rows if place]
    hint = f"the port or its USB location, as {places[0]}" if places else "the port"
    return DiscoveryError("several", f"{len(rows)} ports are {key!r}: {listed}. Name {hint}")


def find(
    target: str, ports: Iterable[PortInfo], names: Mapping[str, Nickname], *, absent: bool = False
) -> Found:
    """Return the board that `target` names: nickname, USB serial number, USB location, or port.

    Anything with a slash, `socket://` or `COM` is taken as a port, listed or not. "" is the only
    board that is plugged in. absent: a known board that is not plugged in is an answer, too.
    Raises DiscoveryError: `none`, `several`, `absent`, `unknown`.
    """
    ports = list(ports)
    known = boards(ports, names)
    here = [board for board in known if board.port]
    if not target:
        if len(here) != 1:
            listed = ", ".join(board.nickname or board.key or board.port for board in here)
            raise DiscoveryError(
                "several" if here else "none",
                f"name one of: {listed}. `tidemark boards` lists them"
                if here
                else "no board is plugged in. Plug one in: `tidemark boards` lists it",
            )
        return here[0]
    if "/" in target or re.fullmatch(r"COM\d+", target):
        device = target
        real = str(Path(target).resolve()) if Path(target).exists() else target
        listed = [board for board in here if board.port in (device, real)]
        return listed[0] if listed else Found(target)
    # Beside them what nobody named and whose maker is not on the list above.
    others = [_found(port, ports, names) for port in ports if not _ours(port)]
    fit = _fitting(target, [*known, *(row for row in others if not row.nickname)])
    plugged = [board for board in fit if board.port]
    if len(plugged) > 1:
        raise _several(target, plugged)
    if plugged or (fit and absent):
        return (plugged or fit)[0]
    if fit:
        what = "USB location" if fit[0].by_location else "USB serial number"
        raise DiscoveryError(
            "absent", f"{target} ({what} {fit[0].key}) is not here. Is it plugged in, and on?"
        )
    raise DiscoveryError(
        "unknown",
        f"no board has the port, USB serial number, USB location or nickname {target!r}. "
        "`tidemark boards` lists those that are plugged in",
    )


def _fitting(target: str, boards: Iterable[Found]) -> list[Found]:
    """Return the boards of a name: by nickname, else serial number, else USB location."""
    boards = list(boards)
    fit = [board for board in boards if board.nickname == target]
    fit = fit or [board for board in boards if board.serial == target]
    if fit:
        return fit
    return [
        replace(board, by_location=True)
        for board in boards
        if target in (board.location, board.location.partition(":")[0])
    ]
