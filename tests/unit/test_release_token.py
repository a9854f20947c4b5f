"""Keys on a PKCS #11 token (SoftHSM): a threshold root of a file and a token, as an operator makes
it, taken by python-tuf and, under MicroPython, by the board's client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.served import both_clients_take, http_server
from tidemark_host.release import app_path
from tidemark_host.romfs import pack
from tidemark_host.toolchain_softhsm import softhsm

PIN = "2718"
URI = "hsm:7?label=fleet"
MAKE_KEY = """
import os, sys
import pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

token = pkcs11.lib(os.environ["PYKCS11LIB"]).get_token(token_label="fleet")
with token.open(rw=True, user_pin=sys.argv[1]) as session:
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters(sys.argv[2])}
    domain = session.create_domain_parameters(KeyType.EC, curve, local=True)
    domain.generate_keypair(store=True, id=bytes([int(sys.argv[3])]), label="release")
"""


@dataclass
class Operator:
    """Somebody at a shell in a folder of her own, with a token plugged in."""

    folder: Path
    env: dict[str, str]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tidemark_host", *(str(word) for word in words)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def release(self, *words: str | Path) -> str:
        """Run a verb that must succeed; returns what it printed."""
        done = self.run("release", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str | Path) -> str:
        """Run a verb that must be refused; returns what it said."""
        done = self.run("release", *words)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    def make_key(self, number: int, curve: str = "secp256r1") -> None:
        words = [sys.executable, "-c", MAKE_KEY, PIN, curve, str(number)]
        subprocess.run(words, env=self.env, timeout=60, check=True)

    def files(self) -> dict[Path, bytes]:
        return {
            path: path.read_bytes()
            for top in ("repo", "keys")
            for path in (self.folder / top).rglob("*")
            if path.is_file()
        }


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    token = softhsm()
    config = token.make_token(tmp_path / "token", "fleet", PIN)
    kept = ("TIDEMARK_CACHE", "TIDEMARK_FIRMWARE")
    env = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMARK_") or k in kept}
    env |= {
        "SOFTHSM2_CONF": str(config),
        "PYKCS11LIB": str(token.module),
        "TIDEMARK_HSM_PIN": PIN,
        "NO_COLOR": "1",
    }
    made = Operator(tmp_path, env)
    made.make_key(7)
    (tmp_path / "app.romfs").write_bytes(pack({"agent/app.mpy": b"M\x06"}))
    return made


def test_root_of_a_file_and_a_token_is_taken_by_python_tuf_and_by_the_board(
    operator: Operator,
) -> None:
    operator.release("init")
    first = (operator.folder / "repo/metadata/1.root.json").read_bytes()
    said = operator.release("add-key", "root", "--hsm", URI, "--threshold", "2")
    assert "root: 2 of 2 keys sign" in said
    operator.release("add-key", "targets", "--hsm", URI)
    (operator.folder / "keys/targets-1.pem").unlink()  # from now on the token signs releases
    operator.release("add", "app.romfs", "--board", "VIRTUAL", "--version", "1.0.0")
    operator.release("rotate", "timestamp")
    with http_server(operator.folder / "repo") as url:
        both_clients_take(operator.folder, url, first, app_path("VIRTUAL", 1), root=4)


def test_token_is_one_holder_of_several(operator: Operator) -> None:
    operator.release("init", "--root-keys", "2", "--root-threshold", "2")
    first = (operator.folder / "repo/metadata/1.root.json").read_bytes()
    operator.release("add-key", "root", "--hsm", URI)
    vault = operator.folder / "vault"
    vault.mkdir()
    shutil.move(operator.folder / "keys/root-3.signer.json", vault)
    shutil.move(operator.folder / "keys/root-2.pem", operator.folder / "lost.pem")
    assert "1 of 2" in operator.refused("publish", "--refresh", "root")
    assert "1 of 2" in operator.release("publish", "--refresh", "root", "--stage")
    assert "2 of 2" in operator.release("sign", "--keys", "vault")
    operator.release("publish")
    with http_server(operator.folder / "repo") as url:
        both_clients_take(operator.folder, url, first, None, root=3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"TIDEMARK_HSM_PIN": "1111"}, "TIDEMARK_HSM_PIN"),
        ({"PYKCS11LIB": ""}, "PYKCS11LIB"),
        ({"PYKCS11LIB": "/nowhere.so"}, "signer"),
        ({"SOFTHSM2_CONF": "/nowhere.conf"}, "signer"),
    ],
    ids=["wrong-pin", "no-module", "absent-module", "no-token"],
)
def test_token_that_refuses_leaves_every_file_as_it_was(
    operator: Operator, change: dict[str, str], says: str
) -> None:
    operator.release("init")
    operator.release("add-key", "root", "--hsm", URI, "--threshold", "2")
    before = operator.files()
    operator.env |= change
    said = operator.refused("publish", "--refresh", "root")
    assert "(signer)" in said and "Try: " in said and says in said
    assert operator.files() == before


def test_key_that_is_not_on_the_token_or_that_no_board_counts_is_refused(
    operator: Operator,
) -> None:
    operator.release("init")
    operator.make_key(8, "secp384r1")
    before = operator.files()
    said = operator.refused("add-key", "root", "--hsm", "hsm:9?label=fleet")
    assert "could not find" in said and "Try: " in said
    assert "public-key" in operator.refused("add-key", "root", "--hsm", "hsm:8?label=fleet")
    assert "signer" in operator.refused("add-key", "root", "--hsm", "hsm:x")
    assert operator.files() == before
