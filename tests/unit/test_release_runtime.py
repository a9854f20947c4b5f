"""Releases of ESP32 runtimes: what the host refuses, and what metadata says of a pair."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tidemark_host.boardfile import Board, generate_board_module, load_board, runtime_mark
from tidemark_host.cli.release import command as release_command
from tidemark_host.esp32.image import CHIPS, Segment, make_image
from tidemark_host.hil.site import Site
from tidemark_host.release import KeyStore, ReleaseError, Repository
from tidemark_host.release.listing import KEEP
from tidemark_host.romfs import pack

BOARDS = Path(__file__).parents[2] / "boards"
ESP32 = load_board(BOARDS / "TIDEMARK_ESP32" / "board.toml")
C3 = load_board(BOARDS / "TIDEMARK_ESP32_C3" / "board.toml")
PICO = load_board(BOARDS / "TIDEMARK_PICO" / "board.toml")
APP = pack({"agent/app.mpy": b"M\x06"})


def runtime(index: int, board: Board = ESP32, *, text: bytes = b"", **other: Any) -> bytes:
    """Return an image that the bootloader of `board` starts, and that says what it is."""
    data = text or runtime_mark(board.name, index)
    data += bytes(-len(data) % 4)
    chip = CHIPS[board.chip.name]
    return make_image([Segment(chip.ram, data)], chip, **other)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repo", KeyStore.create(tmp_path / "keys"))


def refused(code: str) -> object:
    """Expect a ReleaseError with this code."""
    return pytest.raises(ReleaseError, check=lambda error: error.code == code)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pair_is_published_byte_for_byte_with_what_the_board_reads(
    repository: Repository,
) -> None:
    data = runtime(2)
    assert repository.add_runtime(data, board=ESP32, version="1.1.0") == 2
    app = repository.add(APP, board=ESP32.name, version="1.1.0", min_runtime=2)
    repository.publish()
    opened = Repository.open(repository.folder, repository.keys)
    entry = opened.targets.targets["TIDEMARK_ESP32/runtime-2.bin"]
    assert entry.custom == {
        "board": "TIDEMARK_ESP32",
        "kind": "runtime",
        "index": 2,
        "version": "1.1.0",
        "attempt": 0,
        "cohort": 100,
        "abort": False,
    }
    assert entry.length == len(data)
    assert entry.hashes == {"sha256": hashlib.sha256(data).hexdigest()}
    assert opened.target_path(ESP32.name, 2, kind="runtime").read_bytes() == data
    assert opened.entry(ESP32.name, app).custom["min_runtime"] == 2
    assert opened.indices(ESP32.name) == [app]
    assert opened.indices(ESP32.name, kind="runtime") == [2]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(APP, id="an application"),
        pytest.param(runtime(2)[:-1], id="cut short"),
        pytest.param(runtime(2) + b"\xff", id="with a tail"),
        pytest.param(runtime(2, C3), id="for another chip"),
        pytest.param(runtime(2, text=runtime_mark(C3.name, 2)), id="of another board"),
        pytest.param(runtime(2, text=b"stock"), id="no Tidemark"),
        pytest.param(
            runtime(2, text=runtime_mark(ESP32.name, 2) + runtime_mark(ESP32.name, 3)),
            id="of two minds",
        ),
        pytest.param(runtime(3), id="built as another"),
        pytest.param(runtime(2, hash_appended=False), id="without its SHA-256"),
        pytest.param(runtime(2, least=400), id="for a later revision of the chip"),
        pytest.param(
            runtime(2, text=runtime_mark(ESP32.name, 2).ljust(0x180000)), id="above the slot"
        ),
    ],
)
def test_an_image_that_the_board_could_not_start_is_refused(
    repository: Repository, data: bytes
) -> None:
    before = content(repository.folder)
    with refused("runtime"):
        repository.add_runtime(data, board=ESP32, version="1", index=2)
    repository.publish(dry_run=True)
    assert content(repository.folder) == before
    assert not repository.targets.targets


def test_any_bit_that_flips_in_a_runtime_is_seen(repository: Repository) -> None:
    good = runtime(2)
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 1
        with refused("runtime"):
            repository.add_runtime(bytes(bad), board=ESP32, version="1", index=2)


def test_a_board_without_runtime_slots_has_no_runtime_releases(repository: Repository) -> None:
    with refused("runtime"):
        repository.add_runtime(runtime(2), board=PICO, version="1", index=2)


def test_one_runtime_index_names_one_image_and_rises(repository: Repository) -> None:
    for index in (0, 1):
        with refused("index" if index else "runtime"):
            repository.add_runtime(runtime(index), board=ESP32, version="1")
    repository.add_runtime(runtime(4), board=ESP32, version="1")
    # The same bytes under the same index are no new release.
    assert repository.add_runtime(runtime(4), board=ESP32, version="other") == 4
    assert repository.entry(ESP32.name, 4, kind="runtime").custom["version"] == "1"
    other = runtime(4, text=runtime_mark(ESP32.name, 4) + b"other")
    with refused("index"):
        repository.add_runtime(other, board=ESP32, version="1")
    with refused("index"):
        repository.add_runtime(runtime(3), board=ESP32, version="1")
    # Applications and other boards have indices of their own.
    assert repository.add(APP, board=ESP32.name, version="1") == 1
    assert repository.add_runtime(runtime(2, C3), board=C3, version="1") == 2
    repository.withdraw(ESP32.name, 4, kind="runtime")
    repository.publish()
    again = Repository.open(repository.folder, repository.keys)
    with refused("index"):
        again.add_runtime(runtime(4), board=ESP32, version="1")


def test_a_release_needs_a_runtime_that_is_published(repository: Repository) -> None:
    with refused("runtime-missing"):
        repository.add(APP, board=ESP32.name, version="1", min_runtime=2)
    repository.add_runtime(runtime(2), board=ESP32, version="1")
    for board, least in ((C3.name, 2), (ESP32.name, 3)):
        with refused("runtime-missing"):
            repository.add(APP, board=board, version="1", min_runtime=least)
    repository.change(ESP32.name, 2, kind="runtime", abort=True)
    with refused("runtime-missing"):
        repository.add(APP, board=ESP32.name, version="1", min_runtime=2)
    repository.change(ESP32.name, 2, kind="runtime", abort=False)
    repository.add(APP, board=ESP32.name, version="1", min_runtime=2)
    # What every board leaves the factory with is there.
    repository.add(APP, board=C3.name, version="1", min_runtime=1)
    # A Pico gets its runtime over USB.
    repository.add(APP, board=PICO.name, version="1", min_runtime=9, cabled=True)


def test_a_runtime_that_a_release_needs_stays(repository: Repository) -> None:
    repository.add_runtime(runtime(2), board=ESP32, version="1")
    app = repository.add(APP, board=ESP32.name, version="1", min_runtime=2)
    for index in range(3, KEEP + 6):
        repository.add_runtime(runtime(index), board=ESP32, version=str(index))
    assert repository.indices(ESP32.name, kind="runtime") == [2, *range(6, KEEP + 6)]
    with refused("runtime-needed"):
        repository.withdraw(ESP32.name, 2, kind="runtime")
    repository.withdraw(ESP32.name, app)
    repository.withdraw(ESP32.name, 2, kind="runtime")
    assert 2 not in repository.indices(ESP32.name, kind="runtime")


def test_a_cohorts_release_needs_a_runtime_of_the_fleet(repository: Repository) -> None:
    repository.delegate("tugs", [repository.keys.add("tugs").public_key])
    with refused("runtime-missing"):
        repository.add(APP, board=ESP32.name, version="1", role="tugs", min_runtime=2)
    repository.add_runtime(runtime(2), board=ESP32, version="1")
    repository.add(APP, board=ESP32.name, version="1", role="tugs", min_runtime=2)
    repository.publish()
    with refused("runtime-needed"):
        repository.withdraw(ESP32.name, 2, kind="runtime")


# -- the verbs


def call(folder: Path, *words: object, code: int = 0) -> str:
    where = ("--repo", folder / "repo", "--keys", folder / "keys")
    said = CliRunner().invoke(release_command, [str(word) for word in (*words, *where)])
    assert said.exit_code == code, said.output
    return said.output


def test_release_add_publishes_a_pair_at_once(tmp_path: Path) -> None:
    call(tmp_path, "init")
    app, file = tmp_path / "app.romfs", tmp_path / "runtime.bin"
    app.write_bytes(APP)
    file.write_bytes(runtime(2))
    add = ("add", app, "--board", ESP32.name, "--version", "1.1.0", "--json")
    before = content(tmp_path)
    dry = json.loads(call(tmp_path, *add, "--runtime", file, "--dry-run"))
    assert content(tmp_path) == before
    assert [name for name in dry["files"] if name.endswith(".runtime-2.bin")]
    assert dry["min_runtime"] == 2 and not dry["published"]
    said = json.loads(call(tmp_path, *add, "--runtime", file, "--runtime-index", 2))
    assert said["published"] and (said["index"], said["min_runtime"]) == (1, 2)
    later = json.loads(call(tmp_path, *add, "--min-runtime", 2))
    assert (later["index"], later["min_runtime"]) == (2, 2)
    status = json.loads(call(tmp_path, "status", "--json"))
    kinds = sorted((one["custom"]["kind"], one["custom"]["index"]) for one in status["releases"])
    assert kinds == [("app", 1), ("app", 2), ("runtime", 2)]
    what = ("--board", ESP32.name, "--kind", "runtime", "--index", 2)
    changed = json.loads(call(tmp_path, "change", *what, "--abort", "--json"))
    assert changed["kind"] == "runtime" and changed["abort"]


def test_release_add_says_what_to_do_about_a_runtime_that_is_missing(tmp_path: Path) -> None:
    call(tmp_path, "init")
    app, file = tmp_path / "app.romfs", tmp_path / "runtime.bin"
    app.write_bytes(APP)
    file.write_bytes(runtime(3))
    add = ("add", app, "--version", "1")
    said = call(tmp_path, *add, "--board", ESP32.name, "--min-runtime", 2, code=1)
    assert "runtime-missing" in said and "--runtime FILE --runtime-index 2" in said
    pair = ("--runtime", file, "--runtime-index", 2)
    said = call(tmp_path, *add, "--board", ESP32.name, *pair, code=1)
    assert "was built as runtime 3" in said and "RUNTIME_INDEX" in said
    said = call(tmp_path, *add, "--board", "NOWHERE", "--force", *pair, code=1)
    assert "no boards/NOWHERE/board.toml" in said
    call(tmp_path, *add, "--board", PICO.name, "--min-runtime", 2)
    said = call(tmp_path, *add, "--board", PICO.name, *pair, code=1)
    assert "over USB only" in said
    call(tmp_path, *add, "--board", ESP32.name, *pair, "--min-runtime", 2, code=2)
    call(tmp_path, *add, "--board", ESP32.name, "--runtime-index", 2, code=2)


# -- the site of a bench


def test_a_site_publishes_a_pair(repository: Repository, tmp_path: Path) -> None:
    app = tmp_path / "app.romfs"
    app.write_bytes(APP)
    site: Any = SimpleNamespace(
        definition=ESP32, repository=repository, image=lambda *_, **__: app, note=lambda _: None
    )
    site.release = lambda *words, **named: Site.release(site, *words, **named)
    index = asyncio.run(Site.publish(site, "1.1.0", runtime=runtime(2), runtime_index=2))
    assert repository.entry(ESP32.name, index).custom["min_runtime"] == 2
    assert repository.target_path(ESP32.name, 2, kind="runtime").read_bytes() == runtime(2)
    later = asyncio.run(Site.publish(site, "1.2.0", runtime_index=2))
    assert repository.entry(ESP32.name, later).custom["min_runtime"] == 2
    with refused("runtime"):
        asyncio.run(Site.publish(site, "1.3.0", runtime=b"no image", runtime_index=3))
    odd = asyncio.run(
        Site.publish(site, "1.3.0", runtime=b"no image", runtime_index=3, check_runtime=False)
    )
    assert repository.entry(ESP32.name, odd).custom["min_runtime"] == 3


def test_the_board_module_says_which_runtime_it_is() -> None:
    for index in (1, 2):
        names: dict[str, Any] = {}
        exec(generate_board_module(replace(ESP32, runtime_index=index)), names)
        assert names["RUNTIME_INDEX"] == index
        assert names["RUNTIME_MARK"] == runtime_mark(ESP32.name, index)
