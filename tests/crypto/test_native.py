"""The firmware's cryptography against `cryptography` and hashlib, on random and edge cases.

On the unix port, with the native engines, which are viper's there. `TIDEMARK_CRYPTO_CASES` says
how many cases of each kind, `TIDEMARK_CRYPTO_SEED` which; a failure names both, and the case. By
default 10,000, but 1,000 of the two kinds that have no native engine and take long:
`TIDEMARK_CRYPTO_CASES=10000 .venv/bin/pytest tests/crypto/test_native.py` runs those too.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import GENERATED
from tests.crypto.cases import KINDS, Case, cases
from tidemark_host import toolchain
from tidemark_host.toolchain_build import firmware_dir
from tidemark_host.toolchain_native import host_march

COUNTS = dict.fromkeys(KINDS, 10_000) | {"p256": 1000, "rsa-pss": 1000}
if "TIDEMARK_CRYPTO_CASES" in os.environ:
    COUNTS = dict.fromkeys(KINDS, int(os.environ["TIDEMARK_CRYPTO_CASES"]))
SEED = int(os.environ.get("TIDEMARK_CRYPTO_SEED", "1"))
_SERVE = """
import sys
sys.path[:] = sys.argv[1:]
import peer
from tidemark import curve25519, ed25519, sha512
assert ed25519.group is curve25519 and sha512.native
peer.serve(sys.stdin, sys.stdout)
"""


def _on_the_unix_port(wanted: list[Case], script: Path) -> list[str]:
    script.write_text(_SERVE)
    folders = [firmware_dir(), GENERATED, Path(__file__).parent]
    done = subprocess.run(
        [*toolchain.quick_micropython(), str(script), *map(str, folders)],
        input="".join(json.dumps(case.call) + "\n" for case in wanted),
        capture_output=True,
        text=True,
        timeout=60 + len(wanted) / 10,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300 + max(COUNTS.values()) // 5)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_cryptography(kind: str, tmp_path: Path) -> None:
    if host_march() is None:
        pytest.skip("no native modules for this machine")
    count = COUNTS[kind]
    wanted = cases(kind, count, SEED)
    got = _on_the_unix_port(wanted, tmp_path / "serve.py")
    assert len(got) == len(wanted) == count
    for number, (case, answer) in enumerate(zip(wanted, got, strict=True)):
        where = f"case {number} of TIDEMARK_CRYPTO_CASES={count} TIDEMARK_CRYPTO_SEED={SEED}"
        assert answer == case.want, f"{where}: {json.dumps(case.call)}"


def test_edges_have_both_verdicts_where_there_are_two() -> None:
    for kind in ("verify", "p256", "rsa-pss"):
        wants = [case.want for case in KINDS[kind].edges()]
        assert set(wants) == {"True", "False"}
    # Keys and nonces with parts of small order: some hold without the cofactor.
    assert [case.want for case in KINDS["verify"].edges()].count("True") > 10
