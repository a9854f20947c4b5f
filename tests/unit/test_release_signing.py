"""Several key holders, signers that are programs or tokens, dry runs and the calendar."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.unit.test_release import content, refused
from tidemark.tuf import TrustedSet
from tidemark_host.cli.release import command as release_command
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import pack

IMAGE = pack({"agent/app.mpy": b"M\x06"})
NOW = datetime(2027, 1, 15, tzinfo=UTC)

SIGNER = """
import sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key

key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
data = sys.stdin.buffer.read()
if isinstance(key, ec.EllipticCurvePrivateKey):
    print(key.sign(data, ec.ECDSA(hashes.SHA256())).hex())
else:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    print(key.sign(data, pss, hashes.SHA256()).hex())
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with two of three root keys to sign, all three here."""
    keys = KeyStore.create(tmp_path / "keys", root_keys=3)
    return Repository.create(tmp_path / "repo", keys, root_threshold=2, now=NOW)


def taken_by_a_board(repository: Repository, now: datetime = NOW) -> TrustedSet:
    """Return what the board's client trusts after a walk over all published files."""
    trusted = TrustedSet(now=int(now.timestamp()))
    folder = repository.metadata_dir
    trusted.load_root((folder / "1.root.json").read_bytes())
    number = 2
    while (folder / f"{number}.root.json").is_file():
        trusted.update_root((folder / f"{number}.root.json").read_bytes())
        number += 1
    trusted.update_timestamp((folder / "timestamp.json").read_bytes())
    trusted.update_snapshot(repository.path("snapshot").read_bytes())
    trusted.update_targets(repository.path("targets").read_bytes())
    return trusted


def holder(repository: Repository, *names: str) -> Repository:
    """Return the repository as somebody opens it who has only these key files."""
    folder = repository.folder.parent / "-".join(names)
    folder.mkdir()
    for name in names:
        shutil.copy(repository.keys.folder / f"{name}.pem", folder)
    return Repository.open(repository.folder, KeyStore(folder), now=NOW)


def test_two_holders_sign_a_root_one_after_the_other(repository: Repository) -> None:
    online = holder(repository, "root-1", "targets-1", "snapshot-1", "timestamp-1")
    other = holder(repository, "root-3")
    with refused("no-key"):
        online.publish(refresh=["root"])
    (row,) = online.stage(refresh=["root"])
    assert (row.role, row.version, row.signed, row.threshold) == ("root", 2, 1, 2)
    before = content(repository.metadata_dir)
    with refused("signatures"):
        online.publish()
    (row,) = online.sign_staged()
    assert row.signed == 1
    assert content(repository.metadata_dir) == before
    (row,) = other.sign_staged()
    assert row.done
    with refused("no-key"):
        other.publish()
    online = Repository.open(repository.folder, online.keys, now=NOW)
    online.publish()
    assert taken_by_a_board(online).root.version == 2
    assert online.staged() == []


def test_staged_release_is_published_with_a_staged_root(repository: Repository) -> None:
    repository.add_key("targets", repository.keys.add("targets").public_key, 2)
    repository.keys.save()
    repository.add(IMAGE, board="VIRTUAL", version="1")
    one = holder(repository, "root-1", "root-2", "targets-1", "snapshot-1", "timestamp-1")
    two = holder(repository, "targets-2")
    repository.keys = one.keys
    rows = {row.role: row for row in repository.stage()}
    assert rows["root"].done and not rows["targets"].done
    assert all(row.done for row in two.sign_staged())
    one = Repository.open(repository.folder, one.keys, now=NOW)
    one.publish()
    targets = taken_by_a_board(one).targets["targets"].signed["targets"]
    assert list(targets) == [app_path("VIRTUAL", 1)]
    assert one.target_path("VIRTUAL", 1).read_bytes() == IMAGE


def test_staged_role_that_was_overtaken_is_refused(repository: Repository) -> None:
    repository.stage(refresh=["targets"])
    staged = content(repository.folder / "staged")
    repository.publish()
    for path, data in staged.items():
        Path(path).write_bytes(data)
    with refused("staged"):
        repository.publish()
    with refused("staged"):
        repository.stage(refresh=["targets"])
    call("sign", "--discard", repository=repository)
    repository.publish()


def test_change_beside_what_is_staged_is_refused(repository: Repository) -> None:
    repository.stage(refresh=["targets"])
    repository.add(IMAGE, board="VIRTUAL", version="1")
    with refused("staged"):
        repository.publish()


def pem_files(folder: Path, private: PrivateKeyTypes) -> tuple[Path, Path]:
    """Write a private key and its public half; return both paths."""
    secret, public = folder / "secret.pem", folder / "public.pem"
    encoded = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secret.write_bytes(encoded)
    half = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(half)
    return secret, public


def call(*words: str | Path, repository: Repository) -> str:
    """Run a verb that must succeed; returns what it printed."""
    where = ["--keys", repository.keys.folder, "--repo", repository.folder]
    result = CliRunner().invoke(release_command, [str(word) for word in [*words, *where]])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_program_that_signs_counts_on_the_board(
    repository: Repository, tmp_path: Path, kind: str
) -> None:
    private = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ecdsa"
        else rsa.generate_private_key(65537, 2048)
    )
    secret, public = pem_files(tmp_path, private)
    program = tmp_path / "signer.py"
    program.write_text(SIGNER)
    words = shlex.join([sys.executable, str(program), str(secret)])
    said = call(
        *("add-key", "targets", "--threshold", "2"),
        *("--public", public, "--command", words),
        repository=repository,
    )
    assert "2 of 2" in said
    image = tmp_path / "app.romfs"
    image.write_bytes(IMAGE)
    call("add", image, "--board", "VIRTUAL", "--version", "1", repository=repository)
    assert len(json.loads(repository.path("targets").read_bytes())["signatures"]) == 2
    trusted = taken_by_a_board(repository, datetime.now(UTC))
    assert list(trusted.targets["targets"].signed["targets"]) == [app_path("VIRTUAL", 1)]


@pytest.mark.parametrize("words", ["false", "echo 00", "no-such-program-here"])
def test_program_that_does_not_sign_is_noticed_before_anything_is_written(
    repository: Repository, tmp_path: Path, words: str
) -> None:
    _, public = pem_files(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    signer = repository.keys.add_signer("targets", public.read_text(), command=shlex.split(words))
    before = content(repository.folder)
    repository.add_key("targets", signer.public_key, 2)
    with refused("signer"):
        repository.publish()
    assert content(repository.folder) == before


def test_token_that_is_not_there_is_refused_with_a_hint(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYKCS11LIB", raising=False)
    monkeypatch.setenv("TIDEMARK_HSM_PIN", "1234")
    _, public = pem_files(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    signer = repository.keys.add_signer("root", public.read_text(), uri="hsm:2?label=fleet")
    repository.add_key("root", signer.public_key)
    with refused("signer"):
        signer.sign(b"data")
    assert repository.keys.signers("root")[-1].public_key == signer.public_key


@pytest.mark.parametrize(
    "private",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)],
    ids=["p384", "rsa1024"],
)
def test_keys_that_no_board_counts_are_refused(
    repository: Repository, tmp_path: Path, private: PrivateKeyTypes
) -> None:
    _, public = pem_files(tmp_path, private)
    with refused("public-key"):
        repository.keys.add_signer("root", public.read_text(), command=["true"])
    with refused("signer-file"):
        _, good = pem_files(tmp_path, ec.generate_private_key(ec.SECP256R1()))
        repository.keys.add_signer("root", good.read_text(), uri="file:somewhere")
    assert not list(repository.keys.folder.glob("*.json"))


def test_dry_run_says_what_it_would_write_and_writes_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    image = tmp_path / "app.romfs"
    image.write_bytes(IMAGE)
    before = content(tmp_path)
    for words in (
        ("publish", "--refresh", "root"),
        ("rotate", "targets"),
        ("add-key", "root"),
        ("add", image, "--board", "VIRTUAL", "--version", "1"),
    ):
        said = call(*words, "--dry-run", repository=repository)
        assert "would write" in said and "timestamp.json" in said
        assert content(tmp_path) == before
    call("rotate", "targets", repository=repository)
    assert repository.path("root").name == "2.root.json"


def test_status_has_a_calendar(repository: Repository, tmp_path: Path) -> None:
    rows = repository.calendar()
    assert [row.role for row in rows] == ["timestamp", "snapshot", "targets", "root"]
    assert rows[0].expires - rows[0].renew == timedelta(days=7) / 3
    file = tmp_path / "days.ics"
    call("status", "--ics", file, repository=repository)
    text = file.read_bytes().decode()
    assert text.count("BEGIN:VEVENT") == 4 and text.endswith("END:VCALENDAR\r\n")
    assert all(len(line) <= 75 for line in text.split("\r\n"))
    start = rows[0].renew.strftime("%Y%m%dT%H%M%SZ")
    assert f"DTSTART:{start}\r\n" in text
    status = json.loads(call("status", "--json", repository=repository))
    assert status["roles"][0]["renew"] == rows[-1].renew.isoformat()
    assert status["staged"] == []
