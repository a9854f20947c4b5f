"""What all worlds of a run share: boards, keys, signed images, flash as it leaves the factory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.powercut import esp32
from tests.powercut.life import Program, compiled
from tidemark_host import toolchain
from tidemark_host.boardfile import Board, generate_board_module, parse_board
from tidemark_host.factory import factory_image
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.hil.images import FAULTS
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_build import firmware_dir

PLAIN = "SIMULATED"
# As boards/VIRTUAL, with regions so small that they wrap within a scenario, and a quicker trial.
_BOARD = """
name = "SIMULATED"
chip = "unix"
[flash]
size = 0x2A000
sector = 4096
page = 256
[regions]
runtime = [0x00000, 0x01000]
provisioning = [0x01000, 0x01000]
counter = [0x02000, 0x02000]
journal = [0x04000, 0x04000]
evidence = [0x08000, 0x02000]
outbox = [0x0A000, 0x03000]
slot_a = [0x0D000, 0x06000]
slot_b = [0x13000, 0x06000]
vfs = [0x19000, 0x11000]
[watchdog]
timeout_ms = 4000
[trial]
hold_ms = 300
limit_ms = 10000
backoff_ms = 1000
[lease]
boot_ms = 30000
repl_ms = 60000
[health]
heap_floor = 16384
[limits]
runtime_max = 0x1000
heap = 262144
"""
_WALL = "wall"  # file of a setting
_PORT = Path(__file__).parent / "micropython" / "sim_port.py"
_ONE = {"period_ms": 1000, "readings_max": 1}
MANY = {"period_ms": 200, "readings_max": 6}
_TABLE = 6144  # bytes of a table in each image: more than two sectors of slot
# Bugs of an application that end in each way a trial can: app.py and these lines.
_STALLS = """

def tasks(base, _tasks=tasks):
    import time
    from tidemark.supervisor import Task

    def wait():
        while True:
            time.sleep_ms(100)

    return _tasks(base) + [Task("sensor", wait, 100, 5000)]
"""
_HOARDS = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    return _tasks(base) + [Task("history", lambda: bytearray(1 << 20), 1, 60000)]
"""
# Healthy in the boot that the update's reset began, and in no other.
_BRITTLE = """

def tasks(base, _tasks=tasks):
    if base.cause == "power-on":
        raise ValueError("an old fault")
    return _tasks(base)
"""
IMAGES: Mapping[str, str] = {
    "first": "",
    "good": "",
    "reads": "",
    "crashes": FAULTS["crashes"],
    "unwell": FAULTS["unwell"],
    "stalls": _STALLS,
    "hoards": _HOARDS,
    "brittle": _BRITTLE,
}
OLD_RUNTIME, NEW_RUNTIME = esp32.runtime(1), esp32.runtime(2)
HANGING_RUNTIME = esp32.runtime(2, sound=False)
RUNTIMES = (OLD_RUNTIME, NEW_RUNTIME, HANGING_RUNTIME)
FORGED_RUNTIME = esp32.runtime(3)  # what a mirror serves in the place of runtime 2
# On an ESP32 release 2 comes with runtime 2: by mirror, the image and the runtime.
PAIRS: Mapping[str, tuple[str, esp32.Runtime]] = {
    "pair": ("good", NEW_RUNTIME),
    "pair-hangs": ("good", HANGING_RUNTIME),
    "pair-unwell": ("unwell", NEW_RUNTIME),
    "pair-brittle": ("brittle", NEW_RUNTIME),
}
RUNTIME_OF = {1: OLD_RUNTIME.index, 2: NEW_RUNTIME.index}  # by release


@dataclass(frozen=True)
class Kit:
    """What belongs to boards of one kind. `factory`: their flash. `root`: of their releases."""

    board: Board
    program: Program
    factory: bytes
    root: bytes


@dataclass(frozen=True)
class Setting:
    """`kits`: by board name. `images`: of applications. `wall`: Unix time of all beginnings."""

    kits: Mapping[str, Kit]
    folder: Path
    gateway: GatewayIdentity
    images: Mapping[str, bytes]
    wall: float

    def mirror(self, board: str, name: str) -> Path:
        """Return the folder of an update repository."""
        return self.folder / "updates" / board / name


def make_board() -> Board:
    """Return the simulated board without runtime slots."""
    return parse_board(_BOARD.encode())


def make_setting(folder: Path) -> Setting:
    """Build and sign everything in an empty folder. Takes some seconds."""
    agent = firmware_dir() / "agent"
    images: dict[str, bytes] = {}
    app = (agent / "app.py").read_text("utf-8")
    for name, fault in IMAGES.items():
        overlay = folder / "overlays" / name
        (overlay / "agent").mkdir(parents=True)
        (overlay / "agent" / "app.py").write_text(app + fault, "utf-8")
        blocks = (hashlib.sha256(f"{name} {n}".encode()).digest() for n in range(_TABLE // 32))
        (overlay / "calibration.bin").write_bytes(b"".join(blocks))
        settings = MANY if name == "reads" else _ONE
        out = folder / f"{name}.romfs"
        images[name] = build_image([agent, overlay], settings, out).read_bytes()
    keys = KeyStore.create(folder / "keys")
    for board in (make_board(), esp32.make_board()):
        own = folder / board.name
        own.mkdir()
        (own / "sim_port.mpy").write_bytes(compiled(_PORT))
        (own / "tidemark_board.py").write_text(generate_board_module(board))
        base = folder / "updates" / board.name / "first"
        repository = Repository.create(base, keys)
        repository.add(images["first"], board=board.name, version="1.0.0")
        repository.publish()
        factory = factory_image(board, base, app_path(board.name, 1))
        if board.esp32:
            factory = esp32.with_runtime(board, factory, OLD_RUNTIME.image)
        (own / "factory.bin").write_bytes(factory)
        (own / "root.json").write_bytes(repository.root_bytes())
    (folder / _WALL).write_text(str(time.time()))
    return open_setting(folder)


def open_setting(folder: Path) -> Setting:
    """Return what `make_setting` made in a folder: the same keys, images and time."""
    kits: dict[str, Kit] = {}
    for board in (make_board(), esp32.make_board()):
        own = folder / board.name
        program = Program(toolchain.runtime(), own)
        factory, root = ((own / name).read_bytes() for name in ("factory.bin", "root.json"))
        kits[board.name] = Kit(board, program, factory, root)
    return Setting(
        kits,
        folder,
        GatewayIdentity.load_or_create(folder / "gateway"),
        {name: (folder / f"{name}.romfs").read_bytes() for name in IMAGES},
        float((folder / _WALL).read_text()),
    )
