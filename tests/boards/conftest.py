"""Virtual boards that run a test's own firmware; one behind serial hardware, with its release."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boards.esp32_runtime import BOOT, DEFINITION, MAIN, Make
from tests.boards.maker import Maker
from tests.boards.usb_serial import MACHINE, BootRom, Port, UsbSerial
from tests.conftest import REPO, firmware_dir
from tidemark_host import bootsel, toolchain
from tidemark_host.boardfile import Board, load_board
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.virtual import VirtualBoard
from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board
from tidemark_host.chips import CHIPS
from tidemark_host.factory import factory_image
from tidemark_host.flashing import Bench, Image
from tidemark_host.release import KeyStore, Repository
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_virtual_esp32 import runtime_image
from tidemark_host.uf2_file import sectors


@dataclass
class Desk:
    """A board on a desk: `board` behind `usb`, with the boot ROM of an RP2040, and its release.

    `definition`: the virtual board's, with an RP2's chip. `image`: a factory image for it.
    """

    board: VirtualBoard
    usb: UsbSerial
    rom: BootRom
    definition: Board
    repository: Repository
    image: Image
    bench: Bench
    port: Port


class DeskRepl(Repl):
    """A REPL on whose board `machine.bootloader` leads somewhere."""

    def __init__(self, console_path: str) -> None:
        super().__init__(console_path)
        self.exec(MACHINE)


@pytest.fixture(scope="session")
def virtual() -> Board:
    return load_board(REPO / "boards" / "VIRTUAL" / "board.toml")


@pytest.fixture(scope="session")
def repository(virtual: Board, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("release")
    app = build_image([firmware_dir() / "agent"], None, folder / "app.romfs")
    made = Repository.create(folder / "repo", KeyStore.create(folder / "keys"))
    made.add(app, board=virtual.name, version="1.0.0")
    made.publish()
    return made


@pytest.fixture
def desk(virtual: Board, repository: Repository, tmp_path: Path) -> Iterator[Desk]:
    definition = dataclasses.replace(virtual, chip=CHIPS["rp2040"])
    flash = bytearray(factory_image(virtual, repository.folder, "VIRTUAL/app-1.romfs"))
    # Stands for the runtime: it is flashed and asked for like the real one, and not run.
    flash[: 64 * 1024] = bytes(range(256)) * 256
    image = Image(definition, sectors(bytes(flash)))
    path, drive = tmp_path / "ttyACM0", tmp_path / "media" / "RPI-RP2"
    runtime = toolchain.runtime()
    with VirtualBoard(tmp_path / "board", runtime=runtime, native_usb=True) as board:
        board.power_on()
        with UsbSerial(board, path) as usb, BootRom(board, definition.chip, drive) as rom:
            port = Port(str(path))
            bench = Bench(
                ports=lambda: [port] if path.exists() else [],
                drives=lambda: bootsel.drives([drive]),
                which=lambda name: None,
                open=DeskRepl,
            )
            yield Desk(board, usb, rom, definition, repository, image, bench, port)


@pytest.fixture(scope="session")
def runtime() -> Path:
    return toolchain.runtime("VIRTUAL")


@pytest.fixture
def make(runtime: Path) -> Iterator[Maker]:
    maker = Maker(runtime)
    yield maker
    for board in maker.boards:
        board.close()


@pytest.fixture(scope="session")
def esp32_image() -> bytes:
    return runtime_image(DEFINITION, 1, {"_boot.py": BOOT, "main.py": MAIN})


@pytest.fixture
def esp32(esp32_image: bytes, tmp_path: Path) -> Iterator[Make]:
    """Makes boards whose runtime is MAIN; `flash`: offset to content, over what is there."""
    boards: list[VirtualEsp32Board] = []

    def board(flash: dict[int, bytes] | None = None, **options: Any) -> VirtualEsp32Board:
        made = VirtualEsp32Board(tmp_path / f"{len(boards)}", **{"image": esp32_image, **options})
        boards.append(made)
        content = bytearray(made.read_flash(0, DEFINITION.flash_size))
        for start, data in (flash or {}).items():
            content[start : start + len(data)] = data
        made.flash(bytes(content))
        made.power_on()
        return made

    yield board
    for made in boards:
        made.close()
