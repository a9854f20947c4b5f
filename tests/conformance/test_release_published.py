"""What `tidemark release` publishes, behind Python's own web server, taken by python-tuf's client
and by the board's under MicroPython: top-level and delegated roles, rotations, refusals."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.served import board_takes, both_clients_take, http_server, ngclient_takes, run_client
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import pack

IMAGE = pack({"agent/app.mpy": b"M\x06" * 5000})
CANARY = app_path("VIRTUAL", 2, "canary")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    keys = KeyStore.create(tmp_path / "keys", root_keys=3)
    made = Repository.create(tmp_path / "repo", keys, root_threshold=2)
    made.add(IMAGE, board="VIRTUAL", version="1")
    made.delegate("canary", [keys.add("canary").public_key])
    made.add(IMAGE, board="VIRTUAL", version="2", role="canary")
    made.publish()
    return made


@pytest.fixture
def first(repository: Repository) -> bytes:
    return (repository.metadata_dir / "1.root.json").read_bytes()


@pytest.fixture
def url(repository: Repository) -> Generator[str]:
    with http_server(repository.folder) as address:
        yield address


@pytest.mark.parametrize("path", [app_path("VIRTUAL", 1), CANARY], ids=["fleet", "cohort"])
def test_release_is_found_and_fetched_from_any_web_server(
    repository: Repository, first: bytes, url: str, tmp_path: Path, path: str
) -> None:
    both_clients_take(tmp_path, url, first, path, root=1)


def test_every_rotation_is_followed_from_the_first_root(
    repository: Repository, first: bytes, url: str, tmp_path: Path
) -> None:
    both_clients_take(tmp_path, url, first, None, root=1)
    for role in ("timestamp", "snapshot", "targets", "root", "canary"):
        repository.rotate(role)
        repository.publish()
    both_clients_take(tmp_path, url, first, CANARY, root=5)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_board_recovers_from_a_stolen_online_key_when_it_is_rotated(
    repository: Repository, first: bytes, url: str, tmp_path: Path, role: str
) -> None:
    honest = {path: path.read_bytes() for path in repository.metadata_dir.iterdir()}
    getattr(repository, role).version = 2**31 - 2
    repository.publish(refresh=[role])  # what a thief of the online keys serves for a while
    board_takes(tmp_path, url, first, None)
    for path in repository.metadata_dir.iterdir():
        path.unlink()
    for path, data in honest.items():
        path.write_bytes(data)
    said = run_client(tmp_path / "board", "--metadata-url", f"{url}/metadata", "refresh", code=1)
    assert "rollback" in said
    owner = Repository.open(repository.folder, repository.keys)
    owner.rotate(role)
    owner.publish()
    assert board_takes(tmp_path, url, first, app_path("VIRTUAL", 1)) == 2


def test_what_a_revoked_team_signed_is_found_no_more(
    repository: Repository, first: bytes, url: str, tmp_path: Path
) -> None:
    both_clients_take(tmp_path, url, first, CANARY, root=1)
    repository.revoke("canary")
    repository.publish()
    for path in (tmp_path / "board-files").iterdir():
        path.unlink()
    with pytest.raises(AssertionError, match="is not found"):
        ngclient_takes(tmp_path, url, first, CANARY)
    with pytest.raises(AssertionError, match="not-a-target"):
        board_takes(tmp_path, url, first, CANARY)
    # A new team of that name begins with nothing of the former one, above its versions.
    repository.delegate("canary", [repository.keys.add("canary").public_key])
    repository.publish()
    with pytest.raises(AssertionError, match="is not found"):
        ngclient_takes(tmp_path, url, first, CANARY)
    again = repository.add(IMAGE, board="VIRTUAL", version="3", role="canary")
    repository.publish()
    both_clients_take(tmp_path, url, first, app_path("VIRTUAL", again, "canary"), root=1)
