"""The native engines against `cryptography` and hashlib, on random and edge cases.

On the unix port, where native code is x64 viper: a few hundred cases of each kind here, 10,000 by
`TIDEMARK_CRYPTO_CASES=10000 .venv/bin/pytest tests/crypto`. On the emulated RP2040: a sample.
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

COUNT = int(os.environ.get("TIDEMARK_CRYPTO_CASES", "200"))
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
        timeout=60 + COUNT / 20,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300 + COUNT // 10)
@pytest.mark.parametrize("kind", KINDS)
def test_viper_agrees_with_cryptography(kind: str, tmp_path: Path) -> None:
    if host_march() is None:
        pytest.skip("no native modules for this machine")
    wanted = cases(kind, COUNT)
    got = _on_the_unix_port(wanted, tmp_path / "serve.py")
    assert len(got) == len(wanted)
    for case, answer in zip(wanted, got, strict=True):
        assert answer == case.want, case.call
