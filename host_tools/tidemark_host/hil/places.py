"""Boards on a desk: what bench.toml says of them, which of them are here, and how to hold one.

[[board]]
nickname = "desk-1"
board = "TIDEMARK_PICO"             # a folder of boards/
serial = "E6614103E7452D2F"         # USB serial number of its console
link = "A50285BI"                   # of the adapter on its link: a must where it has no network
power = { hub = "1-1.4", port = 2 } # uhubctl; or { on = [...], off = [...] }; or left out
restore = true                      # leave it as it was found

[[board]]                           # one that joins a WiFi network
nickname = "desk-2"
board = "TIDEMARK_ESP32"
location = "1-1.3"                  # the USB port it is at, where it has no number of its own
address = "192.168.1.7"             # of this machine in that network: where the board finds it
wifi = { ssid = "bench", password_file = "wifi.txt", country = "DE" } # or open = true
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import platformdirs

from tidemark_host import discovery, wifi
from tidemark_host.boardfile import Board as Definition
from tidemark_host.boardfile import BoardFileError, load_board
from tidemark_host.boards.base import Board, BoardError
from tidemark_host.boards.serial_board import BAUD, SerialBoard
from tidemark_host.discovery import PortInfo
from tidemark_host.esp32 import loader
from tidemark_host.esp32.loader import LoaderError
from tidemark_host.hil.door import Door
from tidemark_host.hil.flasher import ToolFlasher
from tidemark_host.hil.power import Command, uhubctl
from tidemark_host.hil.targets import BOARDS, CONSOLE, CUT, HOST, POWER, RUNTIMES
from tidemark_host.wifi import Wifi, WifiError

MAX_FILE = 65_536  # bytes of bench.toml
MAX_BOARDS = 64
_MAX_BOARD = 32  # letters of a board's name
BACK_S = 10.0
WATCHDOG_S = 10.0  # longer than any watchdog of ours, and the boot after it
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_KNOWN = {"nickname", "board", "link", "baud", "power", "restore", "wifi", "address"}
_BY = ("serial", "location")  # one of them says which port is a board's


class PlaceError(Exception):
    """A bench.toml that can't be used; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Place:
    """A board's place on the bench. `serial`, `link`: USB serial numbers, or USB locations; `link`
    "": none.

    Of a board with a radio, `wifi`: the network that it joins, `address`: this machine's there.
    """

    nickname: str
    board: str
    serial: str
    link: str = ""
    baud: int = BAUD
    power: Command | None = None
    restore: bool = True
    wifi: Wifi | None = None
    address: str = ""


def default_path() -> Path:
    """Return bench.toml of this folder, else the one in the user's configuration."""
    here = Path("bench.toml")
    return here if here.is_file() else platformdirs.user_config_path("tidemark") / "bench.toml"


def read(path: Path) -> list[Place]:
    """Return the places of a bench.toml, [] when there is no such file. Raises PlaceError."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise PlaceError("bench-size", f"{path} is larger than {MAX_FILE} bytes")
        document = tomllib.loads(data.decode())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise PlaceError("bench-format", f"{path}: {error}") from error
    rows = document.pop("board", [])
    if document or not isinstance(rows, list) or len(cast("list[object]", rows)) > MAX_BOARDS:
        raise PlaceError("bench-format", f"{path}: only [[board]] tables, at most {MAX_BOARDS}")
    places = [_place(path, row) for row in cast("list[object]", rows)]
    for what in ("nickname", "serial"):
        values = [getattr(place, what) for place in places]
        if len(values) != len(set(values)):
            raise PlaceError("bench-twice", f"{path}: two boards have the same {what}")
    return places


def _place(path: Path, row: object) -> Place:
    table = cast("dict[str, Any]", row if isinstance(row, dict) else {})
    name = table.get("nickname")
    # What is no text may be tables within tables, deeper than it can be printed.
    where = f"{path}: board {name!r}" if isinstance(name, str) else f"{path}: a board's nickname"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PlaceError("bench-format", f"{where}: a letter, then letters, digits, - or _")
    unknown = sorted(set(table) - _KNOWN - set(_BY))
    if unknown:
        raise PlaceError("bench-format", f"{where}: no such key: {', '.join(unknown)}")
    by = [table[key] for key in _BY if key in table]
    for key, value in (("board", table.get("board")), ("serial", by[0] if by else None)):
        if not isinstance(value, str) or not value:
            raise PlaceError("bench-format", f'{where} wants {key} = "..."')
    if len(by) > 1:
        raise PlaceError("bench-format", f"{where}: serial or location, not both")
    if "location" in table and not discovery.is_location(by[0]):
        raise PlaceError("bench-format", f"{where}: {by[0][:40]!r} is no location, as 1-1.4 is")
    folder = table["board"]
    # An identifier, as every board's name: no path to elsewhere, and none too long to look up.
    named = folder.isidentifier() and len(folder) <= _MAX_BOARD
    if not named or not (BOARDS / folder / "board.toml").is_file():
        raise PlaceError(
            "bench-board", f"{where}: {folder[:_MAX_BOARD]!r} is no folder of boards/"
        )
    link, baud = table.get("link", ""), table.get("baud", BAUD)
    restore = table.get("restore", True)
    if not isinstance(link, str) or not isinstance(restore, bool):
        raise PlaceError("bench-format", f"{where}: link is a text, restore true or false")
    try:
        definition = load_board(BOARDS / table["board"] / "board.toml")
    except BoardFileError as error:
        raise PlaceError("bench-board", f"{where}: {error}") from error
    if not link and not definition.network:
        # Else every test would fail as if the board could not find its gateway.
        raise PlaceError(
            "bench-link",
            f'{where}: {definition.name} has no network of its own. Say link = "...", the USB '
            "serial number or location of the adapter on its uart1 (docs/uart-link.md); "
            "`tidemark boards` prints it",
        )
    if not isinstance(baud, int) or isinstance(baud, bool) or not 1200 <= baud <= 4_000_000:
        raise PlaceError("bench-format", f"{where}: baud is a number from 1200 to 4000000")
    power = _power(where, table.get("power"))
    joins = _wifi(where, path.parent, table.get("wifi"))
    address = _address(where, table.get("address", ""))
    if definition.wifi and not (joins and address):
        # Else every test would fail as if the board could not find its gateway.
        raise PlaceError(
            "bench-wifi",
            f'{where}: {definition.name} joins a WiFi network. Say wifi = {{ ssid = "...", '
            'password_file = "..." } and address = "...", this machine\'s in that network',
        )
    return Place(name, table["board"], by[0], link, baud, power, restore, joins, address)


def _wifi(where: str, folder: Path, value: object) -> Wifi | None:
    if value is None:
        return None
    table = cast("dict[str, Any]", value if isinstance(value, dict) else {})
    texts = all(
        isinstance(table.get(key, ""), str) for key in ("ssid", "password_file", "country")
    )
    # Its password is no part of bench.toml, which people show around.
    one = ("password_file" in table) != (table.get("open") is True)
    if not texts or not one or set(table) - {"ssid", "password_file", "country", "open"}:
        raise PlaceError(
            "bench-wifi", f'{where}: {{ ssid = "...", password_file = "..." }}, or open = true'
        )
    try:
        named = table.get("password_file")
        password = wifi.read_password(folder / Path(named).expanduser()) if named else ""
        return Wifi(table.get("ssid", ""), password, table.get("country", ""))
    except WifiError as error:
        raise PlaceError("bench-wifi", f"{where}: {error}") from error


def _address(where: str, value: object) -> str:
    try:
        if isinstance(value, str) and (not value or not IPv4Address(value).is_unspecified):
            return value
    except ValueError:
        pass
    raise PlaceError("bench-address", f'{where}: address = "192.0.2.7", one that a board can use')


def _power(where: str, value: object) -> Command | None:
    if value is None:
        return None
    table = cast("Mapping[str, object]", value if isinstance(value, dict) else {})
    if set(table) == {"hub", "port"}:
        hub, port = table["hub"], table["port"]
        if isinstance(hub, str) and hub and isinstance(port, int) and not isinstance(port, bool):
            return uhubctl(hub, port)
    if set(table) == {"on", "off"}:
        on, off = _words(table["on"]), _words(table["off"])
        if on and off:
            return Command(on, off)
    raise PlaceError(
        "bench-power", f'{where}: {{ hub = "1-1", port = 2 }} or {{ on = [..], off = [..] }}'
    )


def _words(value: object) -> tuple[str, ...]:
    """Return a program and its arguments, () for anything that is not a list of texts."""
    words = cast("list[object]", value if isinstance(value, list) else [])
    texts = tuple(word for word in words if isinstance(word, str))
    return texts if len(texts) == len(words) and all(texts[:1]) else ()


# -- a board in hand ------------------------------------------------------------------------------


class SerialTarget:
    """A board at its place; `targets.Target`."""

    patience = 5.0
    period_ms = 100
    exclusive = True
    wifi: Wifi | None = None

    def __init__(self, place: Place) -> None:
        self.place = place
        self.name = place.nickname
        self.definition: Definition = load_board(BOARDS / place.board / "board.toml")
        self.wifi = place.wifi
        self.host = place.address or HOST
        able = {POWER, CUT} if place.power else set[str]()
        self.abilities = frozenset(able | {RUNTIMES} if self.definition.esp32 else able)
        self._trouble = ""  # with its switch

    def lacks(self, ability: str) -> str:
        if ability in (POWER, CUT):
            return f"{self.name} has no power switch in bench.toml"
        if ability == RUNTIMES:
            return f"{self.name} has one runtime, which changes over USB"
        if ability == CONSOLE:
            return f"what {self.name} says before its port is back after a reset is lost"
        return f"{self.name} is a real board, whose {ability} can't be seen"

    @property
    def here(self) -> bool:
        """Whether its console is plugged in, and on. Raises BoardError `several`."""
        return bool(port_of(self.place.serial))

    def wake(self) -> bool:
        """Return whether it is here with its switch on: a run that ended early left it off.

        Raises BoardError `several`: of two boards with one number neither is taken.
        """
        if not self.here and self.place.power:
            try:
                self.place.power.on()
            except BoardError as error:
                self._trouble = f", {error}"
                return False
            self._wait()
        return self.here

    def missing(self, off: bool) -> str:
        """Return what of it is unplugged, "" for nothing. off: its switch has taken its console
        away. Takes up to 10 s: a board that starts is away for a moment."""
        if not off:
            self.wake()
            self._wait()
        gone = [] if off or self.here else [f"its console ({self.place.serial})"]
        if self.place.link and not port_of(self.place.link):
            gone.append(f"the adapter on its link ({self.place.link})")
        return " and ".join(gone)

    def _wait(self) -> None:
        """Wait for its port: a board that starts is away for a moment."""
        end = time.monotonic() + BACK_S
        while not self.here and time.monotonic() < end:
            time.sleep(0.1)

    def describe(self) -> str:
        """Return one line for people."""
        place = self.place
        port = port_of(place.serial)
        power = f"power by {place.power}" if place.power else "no power switch: reset instead"
        where = f"at {port}, {power}" if port else f"absent{self._trouble}"
        return f"{place.nickname} ({place.board}, {place.serial}): {where}"

    def parts(self) -> Mapping[int, bytes]:
        """Return the runtime: an image built here, where boards of this name have one."""
        from tidemark_host import toolchain, toolchain_esp32
        from tidemark_host.toolchain_rp2 import flash_of

        if self.definition.chip.port == "unix":
            return {}
        if self.definition.esp32:
            tools = toolchain.mpy_cross(), toolchain.umqtt_dir()
            return toolchain_esp32.firmware(self.definition, *tools).parts
        return flash_of(toolchain.firmware(self.place.board).read_bytes())

    def runtime_image(
        self, index: int = 1, changes: Mapping[str, str | None] | None = None
    ) -> bytes:
        """Return a runtime that ESP-IDF builds now. `changes`: path in the base to what stands
        there instead, None for nothing."""
        from tidemark_host import toolchain, toolchain_build, toolchain_esp32

        board = dataclasses.replace(self.definition, runtime_index=index)
        tools = toolchain.mpy_cross(), toolchain.umqtt_dir()
        with tempfile.TemporaryDirectory() as name:
            sources = Path(name, "firmware")
            shutil.copytree(toolchain_build.firmware_dir(), sources)
            for path, text in (changes or {}).items():
                if text is None:
                    (sources / path).unlink()
                else:
                    (sources / path).write_text(text)
            built = toolchain_esp32.firmware(board, *tools, sources)
        return built.parts[board.regions["runtime"].offset]

    def open(self, folder: Path) -> SerialBoard:
        place = self.place
        if place.power and not self.here:
            place.power.on()
        self._wait()
        return SerialBoard(
            lambda: port_of(place.serial),
            baud=place.baud,
            power=place.power,
            flasher=ToolFlasher(self.definition, place.serial),
            lines=_run if self.definition.esp32 else None,
        )

    def link(self, board: Board, ports: tuple[int, ...]) -> AbstractAsyncContextManager[object]:
        if self.place.address:
            return Door(self.place.address, ports)
        if not self.place.link:
            return nullcontext()
        from tidemark_host.bridge import Bridge

        if not port_of(self.place.link):
            raise BoardError("absent", f"the adapter {self.place.link} of {self.name}'s link")

        def say(event: str, values: Mapping[str, Any]) -> None:
            told = " ".join(f"{name}={value}" for name, value in values.items())
            cast("SerialBoard", board).note(f"link {event} {told}")

        # By its name, not by the port that it has now: one that was unplugged may have another.
        allow = [(HOST, number) for number in ports]
        return Bridge(self.place.link, allow, say=say, find=port_of)


def _run(port: str) -> None:
    """Start the firmware of an ESP32 by the lines of its port. Raises BoardError `lines`."""
    try:
        loader.run(port)
    except LoaderError as error:
        raise BoardError("lines", str(error)) from error


def serial_ports() -> list[PortInfo]:
    """Return the serial ports of this machine."""
    return discovery.serial_ports()


def port_of(key: str) -> str:
    """Return the port with a USB serial number or at a USB location, "" when there is none.

    Raises BoardError `several`.
    """
    try:
        return discovery.port_named(key, serial_ports())
    except discovery.DiscoveryError as error:
        hint = "In bench.toml: location = (of a link: link =) its USB location"
        raise BoardError(error.code, f"{error}. {hint}") from error


def recover(board: SerialBoard, timeout: float = 10.0) -> str:
    """Bring a board to where it answers at its REPL; returns by what.

    `console`: it answered, from whatever mode it was left in; `power`: after its supply was
    switched; `lines`: after an ESP32 was reset by its port, as one that waits in its boot ROM's
    loader must be; `watchdog`: after it had time to bite. Raises BoardError `absent` when nothing
    helps.
    """
    try:
        board.repl(timeout=timeout).close()
        return "console"
    except BoardError:
        pass
    try:
        board.power_off()
        board.power_on()
        how = "power"
    except BoardError:
        how = "watchdog"
        with suppress(BoardError):
            board.kick()
            how = "lines"
    end = time.monotonic() + WATCHDOG_S + timeout
    while time.monotonic() < end:
        try:
            board.repl(timeout=timeout / 4).close()
            return how
        except BoardError:
            continue
    raise BoardError("absent", f"no REPL after its {how}")
