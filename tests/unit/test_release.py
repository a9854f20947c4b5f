"""Release tools: keys, the repository they sign, application images, and the two verbs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from tidemark_host.cli.build import command as build_command
from tidemark_host.cli.release import PASSPHRASE
from tidemark_host.cli.release import command as release_command
from tidemark_host.release import KeyStore, ReleaseError, Repository
from tidemark_host.release.repository import KEEP, MAX_ROOT_SIZE
from tidemark_host.romfs import MAX_DEPTH, MAX_FILES, ImageError, build_image, list_files, pack
from tidemark_host.toolchain import quick_micropython

NOW = datetime(2027, 1, 15, tzinfo=UTC)
IMAGE = pack({"agent/app.mpy": b"M\x06"})
APP = "def tasks(base):\n    return []\n"


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore.create(tmp_path / "keys")


@pytest.fixture
def repository(tmp_path: Path, keys: KeyStore) -> Repository:
    return Repository.create(tmp_path / "repo", keys, now=NOW)


def refused(code: str) -> object:
    """Expect a ReleaseError with this code."""
    return pytest.raises(ReleaseError, check=lambda error: error.code == code)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- keys


def test_keys_are_fresh_private_and_one_a_role(tmp_path: Path) -> None:
    store = KeyStore.create(tmp_path / "keys", root_keys=3)
    files = sorted(path.name for path in store.folder.iterdir())
    assert files == [
        *("root-1.pem", "root-2.pem", "root-3.pem"),
        *("snapshot-1.pem", "targets-1.pem", "timestamp-1.pem"),
    ]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in store.folder.iterdir())
    assert len({path.read_bytes() for path in store.folder.iterdir()}) == len(files)


def test_existing_keys_are_never_overwritten(keys: KeyStore) -> None:
    before = content(keys.folder)
    with refused("keys-exist"):
        KeyStore.create(keys.folder)
    assert content(keys.folder) == before


def test_encrypted_keys_need_their_passphrase(tmp_path: Path) -> None:
    store = KeyStore.create(tmp_path / "keys", passphrase="tide")
    assert b"ENCRYPTED" in (store.folder / "root-1.pem").read_bytes()
    assert len(store.signers("root")) == 1
    with refused("key-passphrase"):
        KeyStore(store.folder).signers("root")
    with refused("key-unreadable"):
        KeyStore(store.folder, "ebb").signers("root")
    # Nor is a key made that would lie beside them in the clear.
    with refused("key-passphrase"):
        KeyStore(store.folder).add("root")
    asked: list[Path] = []
    asking = KeyStore(store.folder, ask=lambda path: asked.append(path) or "tide")
    fresh = asking.add("root")
    asking.save()
    assert b"ENCRYPTED" in (store.folder / "root-2.pem").read_bytes()
    assert [one.public_key for one in asking.signers("root")][1] == fresh.public_key
    assert [path.name for path in asked] == ["root-2.pem", "root-1.pem"]


def test_keys_in_a_git_tree_are_refused_unless_ignored_or_forced(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, capture_output=True)
    with refused("keys-in-git"):
        KeyStore.create(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()
    (tmp_path / ".gitignore").write_text("keys/\n")
    KeyStore.create(tmp_path / "keys")
    KeyStore.create(tmp_path / "other", force=True)


# -- repository


def test_root_fits_the_write_once_sector_with_the_most_keys(tmp_path: Path) -> None:
    store = KeyStore.create(tmp_path / "keys", root_keys=3)
    made = Repository.create(tmp_path / "repo", store, root_threshold=2)
    assert len(made.root_bytes()) <= MAX_ROOT_SIZE
    made.rotate("root")
    made.publish()
    assert len(made.root_bytes()) <= MAX_ROOT_SIZE


def test_root_that_does_not_fit_is_refused_and_nothing_written(tmp_path: Path) -> None:
    store = KeyStore.create(tmp_path / "keys", root_keys=5)
    made = Repository.create(tmp_path / "repo", store, root_threshold=2)
    before = content(made.folder)
    made.rotate("root")
    with refused("root-size"):
        made.publish()
    assert content(made.folder) == before


def test_offline_roles_say_when_they_were_issued(repository: Repository) -> None:
    for role in ("root", "targets"):
        signed = json.loads(repository.path(role).read_bytes())["signed"]
        assert signed["issued"] == "2027-01-15T00:00:00Z"
    for role in ("snapshot", "timestamp"):
        assert "issued" not in json.loads(repository.path(role).read_bytes())["signed"]


def test_index_rises_only_and_stays_used(repository: Repository) -> None:
    assert repository.add(IMAGE, board="VIRTUAL", version="1") == 1
    assert repository.add(IMAGE, board="VIRTUAL", version="7", index=7) == 7
    assert repository.add(IMAGE, board="PICO", version="1") == 1
    repository.publish()
    for index in (7, 6, 0, -1, 1 << 32):
        with refused("index"):
            repository.add(IMAGE, board="VIRTUAL", version="x", index=index)
    repository.withdraw("VIRTUAL", 7)
    repository.publish()
    again = Repository.open(repository.folder, repository.keys)
    assert again.indices("VIRTUAL") == [1]
    with refused("index"):
        again.add(IMAGE, board="VIRTUAL", version="7", index=7)
    assert again.add(IMAGE, board="VIRTUAL", version="8") == 8


def test_metadata_keeps_the_newest_releases(repository: Repository) -> None:
    for number in range(KEEP + 5):
        repository.add(IMAGE, board="VIRTUAL", version=str(number))
    repository.publish()
    assert repository.indices("VIRTUAL") == list(range(6, KEEP + 6))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("version", {"version": ""}),
        ("version", {"version": "x" * 25}),
        ("version", {"version": "1 0"}),
        ("board", {"board": "../x"}),
        ("cohort", {"cohort": 101}),
        ("attempt", {"attempt": -1}),
        ("min-runtime", {"min_runtime": -1}),
        ("image", {"image": b""}),
        ("image", {"image": b"any bytes"}),
        ("image", {"image": pack({"agent/other.mpy": b"", "app.mpy": b""})}),
        ("image", {"image": IMAGE[:-1]}),
        ("image", {"image": IMAGE + b"\xff"}),
        ("image", {"image": Path("nowhere.romfs")}),
    ],
)
def test_release_that_a_board_would_refuse_is_not_made(
    repository: Repository, code: str, change: dict[str, object]
) -> None:
    before = content(repository.folder)
    values: dict[str, object] = {"image": IMAGE, "board": "VIRTUAL", "version": "1", **change}
    with refused(code):
        repository.add(values.pop("image"), **values)  # pyright: ignore[reportArgumentType]
    assert content(repository.folder) == before
    assert repository.indices("VIRTUAL") == []


def test_attempt_rises_only(repository: Repository) -> None:
    repository.add(IMAGE, board="VIRTUAL", version="1")
    repository.change("VIRTUAL", 1, attempt=1, cohort=10, abort=True)
    with refused("attempt"):
        repository.change("VIRTUAL", 1, attempt=1)
    with refused("no-release"):
        repository.change("VIRTUAL", 2, cohort=1)
    entry = repository.targets.targets["VIRTUAL/app-1.romfs"].custom
    assert (entry["attempt"], entry["cohort"], entry["abort"]) == (1, 10, True)


def test_missing_key_refuses_and_leaves_every_file(repository: Repository) -> None:
    (repository.keys.folder / "targets-1.pem").unlink()
    repository.add(IMAGE, board="VIRTUAL", version="1")
    before = {path: data for path, data in content(repository.folder).items() if "json" in path}
    with refused("no-key"):
        repository.publish()
    after = {path: data for path, data in content(repository.folder).items() if "json" in path}
    assert after == before
    # What needs other keys only still goes.
    again = Repository.open(repository.folder, repository.keys)
    again.publish()
    assert again.timestamp.version == 2


def test_timestamp_alone_is_renewed_with_its_key_alone(repository: Repository) -> None:
    for role in ("root", "targets", "snapshot"):
        (repository.keys.folder / f"{role}-1.pem").unlink()
    before = content(repository.folder)
    repository.publish()
    changed = {path for path, data in content(repository.folder).items() if before[path] != data}
    assert changed == {str(repository.path("timestamp"))}


def test_rotated_key_no_longer_signs(repository: Repository) -> None:
    old = list(repository.root.roles["targets"].keyids)
    repository.rotate("targets")
    repository.publish()
    metadata = Metadata.from_file(str(repository.path("targets")))
    assert set(metadata.signatures) == set(repository.root.roles["targets"].keyids)
    assert not set(old) & set(metadata.signatures)


def test_words_that_nobody_signed_are_never_signed_with_the_rest(repository: Repository) -> None:
    repository.add(IMAGE, board="VIRTUAL", version="1.0.0", check_image=False)
    repository.publish()
    for role in ("targets", "snapshot", "root", "timestamp"):
        path = repository.path(role)
        data = path.read_bytes()
        changed = json.loads(data)
        changed["signed"]["x-note"] = "from whoever can write to the web server's folder"
        path.write_text(json.dumps(changed))
        with refused("repository-changed"):
            Repository.open(repository.folder, repository.keys, now=NOW)
        path.write_bytes(data)
    Repository.open(repository.folder, repository.keys, now=NOW).publish()


def test_root_that_the_former_one_did_not_sign_is_not_built_upon(
    repository: Repository, tmp_path: Path
) -> None:
    other = Repository.create(tmp_path / "other", KeyStore.create(tmp_path / "thief"), now=NOW)
    other.publish(refresh=["root"])
    for path in other.metadata_dir.iterdir():
        if path.name != "1.root.json":
            (repository.metadata_dir / path.name).write_bytes(path.read_bytes())
    with refused("repository-changed"):
        Repository.open(repository.folder, repository.keys, now=NOW)


def test_status_tells_what_is_left(repository: Repository) -> None:
    rows = {row.role: row for row in repository.status()}
    assert rows["timestamp"].left == timedelta(days=7)
    assert rows["root"].version == 1 and rows["root"].keys == 1


def test_second_repository_in_a_folder_is_refused(repository: Repository) -> None:
    with refused("repository-exists"):
        Repository.create(repository.folder, repository.keys)


def test_folder_without_repository_is_refused(tmp_path: Path, keys: KeyStore) -> None:
    with refused("no-repository"):
        Repository.open(tmp_path / "nothing", keys)


# -- images


def source(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_image_mounts_and_runs_under_micropython(tmp_path: Path) -> None:
    agent = source(tmp_path / "agent", app="from agent import sensors\n" + APP, sensors="N = 42\n")
    overlay = source(tmp_path / "mine", sensors="N = 43\n", extra="import math\nP = math.pi\n")
    settings = {"period_ms": 5, "app": {"place": "harbour"}}
    image = build_image([agent, overlay], settings, tmp_path / "app.romfs")
    script = (
        "import sys, os, vfs, json\n"
        f"data = open({str(image)!r}, 'rb').read()\n"
        "vfs.mount(vfs.VfsRom(memoryview(data)), '/slot')\n"
        "sys.path[:] = ['.frozen', '/slot']\n"
        "from agent import app, extra\n"
        "print(app.sensors.N, app.tasks(None), int(extra.P * 100), sorted(os.listdir('/slot')))\n"
        "print(json.load(open('/slot/settings.json'))['app'])\n"
        "print(sorted(os.listdir('/slot/agent')))\n"
    )
    run = subprocess.run(
        [*quick_micropython(), "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.splitlines() == [
        "43 [] 314 ['agent', 'settings.json']",
        "{'place': 'harbour'}",
        "['app.mpy', 'extra.mpy', 'sensors.mpy']",
    ]


def test_same_sources_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    images: list[bytes] = []
    for name in ("a", "b/c"):
        folder = source(tmp_path / name / "src", app=APP, two="X = 1\n")
        os.utime(folder / "app.py", (0, len(name)))
        images.append(build_image([folder], {}, tmp_path / name / "o.romfs").read_bytes())
    assert images[0] == images[1]
    assert str(tmp_path).encode() not in images[0]


@pytest.mark.parametrize(
    ("code", "files", "settings"),
    [
        ("no-app", {"other": "X = 1\n"}, None),
        ("compile", {"app": "def :\n"}, None),
        ("compile", {"app": "import micropython\n@micropython.native\ndef f(): pass\n"}, None),
        ("settings", {"app": APP}, {"period": 5}),
        ("settings", {"app": APP}, {"period_ms": 0}),
        ("settings", {"app": APP}, {"app": {"x": "y" * 5000}}),
    ],
)
def test_image_that_would_not_run_is_not_built(
    tmp_path: Path, code: str, files: dict[str, str], settings: dict[str, object] | None
) -> None:
    with pytest.raises(ImageError) as error:
        build_image([source(tmp_path / "src", **files)], settings, tmp_path / "o.romfs")
    assert error.value.code == code
    assert not (tmp_path / "o.romfs").exists()


NAMES = st.from_regex(r"[a-z]{1,8}(/[A-Z]{1,4}){0,3}", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=12))
def test_files_of_an_image_are_listed(files: dict[str, bytes]) -> None:
    folders = {"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/"))}
    files = {path: data for path, data in files.items() if path not in folders}
    files = {p: d for p, d in files.items() if not any(q.startswith(f"{p}/") for q in files)}
    assert sorted(list_files(pack(files))) == sorted(files)


@given(st.data())
def test_damaged_image_is_listed_or_refused(data: st.DataObject) -> None:
    image = bytearray(pack({"agent/app.mpy": b"x" * 200, "agent/lib/a.mpy": b"", "s.json": b"{}"}))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    image = image[: data.draw(st.integers(0, len(image)))]
    try:
        assert len(list_files(bytes(image))) <= len(image)
    except ImageError as error:
        assert error.code == "format"


@pytest.mark.parametrize(
    "data",
    [
        pack({"a/" * (MAX_DEPTH + 1) + "x": b""}),
        pack({f"{n}": b"" for n in range(MAX_FILES + 1)}),
        b"\xd2\xcd\x31",
        b"\xd2\xcd\x31" + b"\xff" * 100,
        pack({"..": b""}),
    ],
    ids=["deep", "many", "no-length", "endless-number", "dots"],
)
def test_image_beyond_the_bounds_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, check=lambda error: error.code == "format"):
        list_files(data)


# -- verbs


def call(group: object, *words: str | Path, **env: str) -> str:
    """Run a verb that must succeed; returns what it printed."""
    result = CliRunner().invoke(group, [str(word) for word in words], env=env)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


def test_verbs_from_first_key_to_published_release(tmp_path: Path) -> None:
    where = ["--keys", tmp_path / "keys", "--repo", tmp_path / "repo"]
    project = tmp_path / "tidemark.toml"
    project.write_text("[agent]\nperiod_ms = 50\n")
    out = tmp_path / "app.romfs"
    agent = source(tmp_path / "agent", app=APP)
    built = call(build_command, "--agent", agent, "--project", project, "--out", out, "--json")
    assert json.loads(built)["size"] == out.stat().st_size

    def release(verb: str, *words: str | Path) -> dict[str, Any]:
        done = call(release_command, verb, *where, *words, "--json", **{PASSPHRASE: "tide"})
        return json.loads(done)

    assert release("init", "--encrypt")["version"] == 1
    added = release("add", out, "--board", "VIRTUAL", "--version", "1.0.0")
    assert (added["board"], added["index"], added["version"]) == ("VIRTUAL", 1, "1.0.0")
    assert added["published"] and added["files"][-1].endswith("timestamp.json")
    changed = release("change", "--board", "VIRTUAL", "--index", "1", "--cohort", "50")
    assert (changed["cohort"], changed["attempt"]) == (50, 0)
    assert release("rotate", "timestamp")["root"] == 2
    assert release("publish")["versions"]["timestamp"] == 5
    status = json.loads(call(release_command, "status", *where, "--json"))
    assert [row["version"] for row in status["roles"]] == [2, 3, 3, 5]
    assert status["releases"][0]["custom"]["cohort"] == 50
    assert "VIRTUAL" in call(release_command, "status", *where)


def test_verb_says_what_why_and_what_to_try(tmp_path: Path) -> None:
    where = ["--keys", str(tmp_path / "keys"), "--repo", str(tmp_path / "repo")]
    result = CliRunner().invoke(release_command, ["status", *where])
    assert result.exit_code == 1
    assert "no-repository" in result.output and "tidemark release init" in result.output


def test_release_for_a_board_that_nobody_has_is_refused_unless_forced(tmp_path: Path) -> None:
    where = ["--keys", str(tmp_path / "keys"), "--repo", str(tmp_path / "repo")]
    call(release_command, "init", *where)
    image = tmp_path / "app.romfs"
    image.write_bytes(IMAGE)
    words = ["add", str(image), *where, "--board", "NOBODYS", "--version", "1"]
    result = CliRunner().invoke(release_command, words)
    assert result.exit_code == 1
    assert "boards/NOBODYS" in result.output and "--force" in result.output
    call(release_command, *words, "--force")


def test_project_file_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = source(tmp_path / "agent", app=APP)
    words = ["--agent", str(agent), "--out", str(tmp_path / "app.romfs")]
    for name in ("other.toml", "tidemark.toml"):
        result = CliRunner().invoke(build_command, [*words, "--project", name])
        assert result.exit_code == 1
        assert name in result.output
        assert not (tmp_path / "app.romfs").exists()
    call(build_command, *words)
    plain = (tmp_path / "app.romfs").read_bytes()
    (tmp_path / "tidemark.toml").write_text("[agent]\nperiod_ms = 50\n")
    call(build_command, *words)
    assert "settings.json" in list_files((tmp_path / "app.romfs").read_bytes())
    assert "settings.json" not in list_files(plain)
