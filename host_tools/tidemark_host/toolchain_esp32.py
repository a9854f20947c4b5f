"""Firmware images for ESP32 boards: MicroPython's esp32 port with our base frozen in.

No package has ESP-IDF or its compilers: both trees are the user's, named by MICROPY_DIR and by
ESP-IDF's own export script. What is missing is said before anything is built.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tidemark_host import toolchain_build as build
from tidemark_host import toolchain_cache as cache
from tidemark_host.boardfile import Board, Esp32, generate_board_module
from tidemark_host.chips import CHIPS
from tidemark_host.esp32 import partitions
from tidemark_host.toolchain_cache import REPO, ToolchainError, cache_dir, run, say
from tidemark_host.toolchain_native import native_parts

# What MicroPython 1.25 supports (ports/esp32/README.md); the first is the one its own images have.
IDF_SERIES = ("5.2", "5.3", "5.4")
_IDF = "5.2.2"
_FRAGMENTS = REPO / "boards" / "esp32"
# Of a board's definition, in the order of mpconfigboard.cmake: the last one counts.
_SETTINGS = ("sdkconfig.tidemark", "sdkconfig.board", "sdkconfig.tidemark_board")
# Parts of the checkout that are submodules, and that the build reads.
_SUBMODULES = ("lib/berkeley-db-1.xx/README", "lib/tinyusb/src/tusb.c")
_RECIPE = "1"
_IDF_TIMEOUT_S = 3_600


@dataclass(frozen=True)
class Firmware:
    """A built image. `parts`: flash offset to content, of ESP-IDF's bootloader, the partition
    table and the runtime. `size`: bytes of the runtime. `runtime`: SHA-256 (hex) over all that it
    is built from, which the board reports. `signed`: False where the option secure-boot is on, and
    the parts start nowhere before they are signed."""

    parts: dict[int, bytes]
    size: int
    runtime: str
    signed: bool


def need(board: Board) -> None:
    """Raise ToolchainError, with all that is missing, where an image of `board` can't be built.

    Its code is that of the first: `port-missing`, `micropython-dir`, `esp-idf`.
    """
    missing = [*_missing_port(), *_missing_tree(), *_missing_idf()]
    if missing:
        raise ToolchainError(
            missing[0][0],
            f"an image of {board.name} needs more than packages have: "
            + "; ".join(text for _, text in missing),
        )


def _missing_port() -> list[tuple[str, str]]:
    if (build.firmware_dir() / "tidemark" / "port" / "esp32.py").is_file():
        return []
    return [("port-missing", "firmware/tidemark/port/esp32.py, which is not there")]


def _missing_tree() -> list[tuple[str, str]]:
    named = os.environ.get("MICROPY_DIR")
    after = "after `make -C ports/esp32 submodules` there"
    want = f"MICROPY_DIR=<git checkout of MicroPython {build.MICROPYTHON}>, {after}"
    if not named:
        return [("micropython-dir", want)]
    tree = Path(named).expanduser().resolve()
    found = build.source_version(tree)
    if found != build.MICROPYTHON:
        return [("micropython-dir", f"{want} ({tree} is {found or 'no MicroPython'})")]
    lacking = [part for part in _SUBMODULES if not (tree / part).is_file()]
    if lacking:
        names = ", ".join("/".join(part.split("/")[:2]) for part in lacking)
        return [("micropython-dir", f"{want} ({tree} lacks {names})")]
    return []


def _missing_idf() -> list[tuple[str, str]]:
    want = (
        f"ESP-IDF {_IDF} (or another of {', '.join(IDF_SERIES)}): in its checkout `./install.sh "
        "esp32,esp32s3,esp32c3`, then `. ./export.sh` in this shell"
    )
    named = os.environ.get("IDF_PATH")
    if not named:
        return [("esp-idf", want)]
    found = idf_version(Path(named))
    if not found.startswith(tuple(f"{series}." for series in IDF_SERIES)):
        return [("esp-idf", f"{want} ({named} is {found or 'no ESP-IDF'})")]
    if not shutil.which("idf.py"):
        return [("esp-idf", f"{want} (there is no idf.py on PATH)")]
    return []


def idf_version(folder: Path) -> str:
    """Return ESP-IDF's version, as its tools/cmake/version.cmake says; "" where it says none."""
    path = folder / "tools" / "cmake" / "version.cmake"
    found = re.findall(
        r"set\(IDF_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)\)",
        path.read_text() if path.is_file() else "",
    )
    return ".".join(found)


def firmware(board: Board, mpy_cross: Path, umqtt: Path, sources: Path | None = None) -> Firmware:
    """Build the image of `board` and return it. ESP-IDF compiles only what has changed.

    sources: another firmware than ours, for tests of what does not work.

    Raises ToolchainError as `need`; `sdkconfig` as `check_settings`; `firmware-size` for a part
    that has no room; `partition-table` for a table that is not board.toml's; others with the last
    lines of what failed. Safe to call from several processes at once.
    """
    need(board)
    esp32 = _of(board)
    folder = REPO / "boards" / esp32.definition
    sources = sources or build.firmware_dir()
    tree = Path(os.environ["MICROPY_DIR"]).expanduser().resolve()
    key = _key(board, folder, sources, tree, umqtt)
    work = cache_dir() / f"build-{board.name}-{cache.digest(_RECIPE, str(tree), str(folder))}"
    with cache.lock(work.name):
        generated = generate_board_module(board, key)
        march = board.chip.march
        stage = build.stage_frozen(f"stage-{board.name}", sources, generated, umqtt, march)
        if _key(board, folder, stage / "firmware", tree, umqtt) != key:
            raise ToolchainError("firmware-changes", f"{sources} changed just now: once more")
        definition = define(board, folder, work.with_name(f"{work.name}-board"))
        _build(board, definition, tree, stage, mpy_cross, work)
        check_settings(board, definition, work)
        return collect(board, work, key)


def check_settings(board: Board, definition: Path, work: Path) -> None:
    """Compare the settings that ESP-IDF built with (`work`/sdkconfig) with those of `definition`.

    It drops a name that it doesn't know with no more than a warning, and one whose condition does
    not hold without any. Raises ToolchainError `sdkconfig`, which names all that differ.
    """
    wanted = _settings(*(definition / name for name in _SETTINGS))
    made = _settings(work / "sdkconfig")
    wrong = [
        f"{name} is {made.get(name, 'n')}, not {value}"
        for name, value in wanted.items()
        if made.get(name, "n") != value and not _of_another_chip(name, board)
    ]
    if wrong:
        raise ToolchainError("sdkconfig", "ESP-IDF did not take: " + "; ".join(sorted(wrong)))


def _settings(*files: Path) -> dict[str, str]:
    """Return ESP-IDF's settings by name; of two of one name the last counts. `n` is not said in
    what it writes itself, but in a comment."""
    text = "\n".join(file.read_text() for file in files)
    return dict(re.findall(r"^(CONFIG_\w+)=(.*?)\s*$", text, re.MULTILINE))


def _of_another_chip(name: str, board: Board) -> bool:
    """Tell whether a setting is one that only another chip has, as CONFIG_ESP32_REV_MIN_3 is."""
    chip = name.split("_")[1].lower()
    return chip in CHIPS and chip != board.chip.name


def collect(board: Board, work: Path, key: str) -> Firmware:
    """Return what ESP-IDF has built in the folder `work`. Raises as `firmware`."""
    esp32 = _of(board)
    table = partitions.encode(esp32.partitions, board.flash_size)
    made = (work / "partition_table" / "partition-table.bin").read_bytes()
    if made != table:
        raise ToolchainError("partition-table", "ESP-IDF's table is not that of board.toml")
    runtime = board.regions["runtime"]
    rooms = {
        "bootloader/bootloader.bin": (
            board.chip.bootloader,
            partitions.TABLE_OFFSET - board.chip.bootloader,
        ),
        "micropython.bin": (runtime.offset, board.constants["RUNTIME_MAX"]),
    }
    parts = {partitions.TABLE_OFFSET: table}
    for name, (offset, room) in rooms.items():
        content = (work / name).read_bytes()
        if len(content) > room:
            raise ToolchainError(
                "firmware-size", f"{name} of {board.name} has {len(content)} bytes, not {room}"
            )
        parts[offset] = content
    size = len(parts[runtime.offset])
    return Firmware(dict(sorted(parts.items())), size, key, "secure-boot" not in esp32.options)


def flash_content(parts: dict[int, bytes]) -> bytes:
    """Return one image from the flash's start on, blank between the parts."""
    content = bytearray()
    for offset, part in sorted(parts.items()):
        content += b"\xff" * (offset - len(content)) + part
    return bytes(content)


def _of(board: Board) -> Esp32:
    if board.esp32 is None:
        raise ToolchainError("no-build", f"{board.name} is no ESP32")
    return board.esp32


def _key(board: Board, folder: Path, sources: Path, tree: Path, umqtt: Path) -> str:
    """Return the SHA-256 (hex) over all that the image is built from."""
    idf = Path(os.environ["IDF_PATH"])
    return cache.full_digest(
        _RECIPE,
        build.checkout_identity(tree),
        idf_version(idf),
        build.checkout_identity(idf),
        cache.tree_digest(folder),
        cache.tree_digest(_FRAGMENTS),
        (REPO / "manifest.py").read_bytes(),
        generate_board_module(board),
        sdkconfig(board, Path("partitions.csv")),
        cache.tree_digest(umqtt, ".py"),
        *native_parts(board.chip.march),
        *build.frozen_parts(sources),
    )


def header(board: Board) -> str:
    """Return the C header `tidemark_board.h`: the board's names, and a check of its flash size."""
    size = f"CONFIG_ESPTOOLPY_FLASHSIZE_{board.flash_size >> 20}MB"
    return (
        f"// Made from the board.toml of {board.name}. Change that file.\n"
        '#include "sdkconfig.h"\n'
        f'#define MICROPY_HW_BOARD_NAME "{board.label}"\n'
        f'#define MICROPY_HW_MCU_NAME "{board.chip.name.upper()}"\n'
        f"#if !{size}\n"
        "#error board.toml and ESP-IDF disagree about the size of the flash\n"
        "#endif\n"
    )


def sdkconfig(board: Board, csv: Path) -> str:
    """Return ESP-IDF's settings that follow from board.toml; `csv`: the partition table's file.

    The fragments of the chosen options come with them.
    """
    sizes = [size >> 20 for size in partitions.FLASH_SIZES]
    lines = [
        f"# Made from the board.toml of {board.name}. Change that file.",
        *(
            f"CONFIG_ESPTOOLPY_FLASHSIZE_{size}MB={'y' if size == board.flash_size >> 20 else 'n'}"
            for size in sizes
        ),
        f"CONFIG_PARTITION_TABLE_OFFSET={partitions.TABLE_OFFSET:#x}",
        "CONFIG_PARTITION_TABLE_MD5=y",
        "CONFIG_PARTITION_TABLE_CUSTOM=y",
        f'CONFIG_PARTITION_TABLE_CUSTOM_FILENAME="{csv}"',
        # Last, so that no board's own settings turn it on (boardfile.py, unsafe-option).
        "CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK=n",
    ]
    options = [(_FRAGMENTS / f"sdkconfig.{name}").read_text() for name in _of(board).options]
    return "\n".join(lines) + "\n" + "".join(options)


def define(board: Board, folder: Path, target: Path) -> Path:
    """Lay the board's definition out in `target` for MicroPython's build, and return it.

    Its files of boards/, the fragment of all ESP32 boards, and what board.toml says. Files that
    stay the same keep their time stamps: they are not compiled again.
    """
    csv = target / "partitions.csv"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files |= {
        "sdkconfig.tidemark": (_FRAGMENTS / "sdkconfig.tidemark").read_bytes(),
        "sdkconfig.tidemark_board": sdkconfig(board, csv).encode(),
        "tidemark_board.h": header(board).encode(),
        csv.name: partitions.to_csv(_of(board).partitions, board.name).encode(),
    }
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    return target


def _build(
    board: Board, definition: Path, tree: Path, stage: Path, mpy_cross: Path, work: Path
) -> None:
    say(f"building the firmware of {board.name} with ESP-IDF (from nothing it takes minutes)")
    began = time.monotonic()
    settings = {
        "MICROPY_BOARD": board.name,
        "MICROPY_BOARD_DIR": definition,
        "MICROPY_FROZEN_MANIFEST": REPO / "boards" / _of(board).definition / "manifest.py",
        "MICROPY_LIB_DIR": stage / "lib",
        "MICROPY_MANIFEST_FIRMWARE": stage / "firmware",
        "MICROPY_MANIFEST_GENERATED": stage / "generated",
        "MICROPY_MANIFEST_UMQTT": stage / "umqtt",
    }
    # Frozen objects of another firmware must not survive: names are all the freezer looks at.
    shutil.rmtree(work / "frozen_mpy", ignore_errors=True)
    # ESP-IDF keeps the first settings it was given in a file of its own.
    (work / "sdkconfig").unlink(missing_ok=True)
    run(
        [
            *_idf_py(),
            "-B",
            work,
            *(word for name, value in settings.items() for word in ("-D", f"{name}={value}")),
            "build",
        ],
        why=f"building the firmware of {board.name}",
        cwd=tree / "ports" / "esp32",
        env={**build.ENV, "PYTHONHASHSEED": "0", "MICROPY_MPYCROSS": str(mpy_cross)},
        timeout_s=_IDF_TIMEOUT_S,
    )
    say(f"firmware of {board.name} built in {time.monotonic() - began:.1f} s")


def _idf_py() -> list[str | Path]:
    """Return idf.py as a command, run by ESP-IDF's own Python where its export script names one:
    the first `python` on PATH may be this project's."""
    python = Path(os.environ.get("IDF_PYTHON_ENV_PATH", ""), "bin", "python")
    script = Path(os.environ["IDF_PATH"], "tools", "idf.py")
    return [python, script] if python.is_file() and script.is_file() else ["idf.py"]
