"""SoftHSM: a PKCS #11 token in software, to test signing with one. Not part of `make setup`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemark_host import toolchain_apt as apt
from tidemark_host import toolchain_cache as cache
from tidemark_host.toolchain_cache import ToolchainError, run

_PACKAGE = "softhsm2"
_MODULE = "libsofthsm2.so"


@dataclass(frozen=True)
class SoftHsm:
    """`module`: the PKCS #11 library. `util`: the program that makes tokens for it."""

    module: Path
    util: Path

    def make_token(self, folder: Path, label: str, pin: str) -> Path:
        """Make an empty token below `folder`; return the file for SOFTHSM2_CONF."""
        tokens = folder / "tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
        run(
            [
                *(self.util, "--module", self.module, "--init-token", "--free"),
                *("--label", label, "--pin", pin, "--so-pin", pin),
            ],
            why="making a token",
            env={"SOFTHSM2_CONF": str(config)},
            timeout_s=60,
        )
        return config


def softhsm() -> SoftHsm:
    """Return the system's SoftHSM, else Debian's, unpacked privately: nothing is installed.

    Raises ToolchainError.
    """
    found = shutil.which("softhsm2-util")
    if found:
        modules = [path for top in ("/usr/lib", "/usr/local/lib", "/opt") for path in _in(top)]
        if modules:
            return SoftHsm(modules[0], Path(found))
    if not apt.available():
        raise ToolchainError("softhsm", f"no softhsm2-util and no apt: install {_PACKAGE}")
    key = cache.digest("softhsm", apt.codename())
    root = cache.ensure("softhsm", key, "fetching SoftHSM", _fetch)
    modules = _in(str(root))
    if not modules:
        cache.forget("softhsm")
        raise ToolchainError("softhsm", f"{_PACKAGE} has no {_MODULE}")
    return SoftHsm(modules[0], root / "softhsm2-util")


def _in(top: str) -> list[Path]:
    return sorted(Path(top).glob(f"**/softhsm/{_MODULE}")) if Path(top).is_dir() else []


def _fetch(folder: Path) -> None:
    work = folder / ".fetch"
    private = apt.PrivateApt(work / "apt", apt.codename())
    private.update()
    apt.unpack(private.download_closure(_PACKAGE), folder / "root")
    shutil.rmtree(work)
    wrapper = folder / "softhsm2-util"
    wrapper.write_text(
        "#!/bin/sh\n"
        "# Runs the unpacked program with the libraries that came with it.\n"
        'root="$(dirname "$(readlink -f "$0")")/root"\n'
        'libraries="$(echo "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu* | tr " " ":")"\n'
        'LD_LIBRARY_PATH="$libraries" exec "$root/usr/bin/softhsm2-util" "$@"\n'
    )
    wrapper.chmod(0o755)
