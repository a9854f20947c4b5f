"""Debian packages without touching the system: a private apt, unpacked into the cache.

The machine's own sources say which mirror to use and which keyring signs it; only the suite's name
is replaced. apt checks signatures and hashes as always. Nothing here names a host.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tidemark_host.toolchain_cache import ToolchainError, run

_SOURCES = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)$")


def available() -> bool:
    """Return True on a Debian machine with apt and dpkg."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb") and codename())


def codename() -> str:
    """Return the release name of this Debian, or "" elsewhere."""
    try:
        fields = dict(
            line.split("=", 1) for line in _OS_RELEASE.read_text().splitlines() if "=" in line
        )
    except OSError:
        return ""
    if fields.get("ID", "").strip('"') != "debian":
        return ""
    return fields.get("VERSION_CODENAME", "").strip('"')


def source_stanzas(suite: str, etc: Path = _SOURCES, own: str | None = None) -> list[str]:
    """Return the machine's sources of the suite `own`, rewritten for `suite`, one stanza each."""
    own = codename() if own is None else own
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    stanzas: list[str] = []
    for path in files:
        if path.suffix == ".sources" and path.is_file():
            for block in re.split(r"\n\s*\n", path.read_text()):
                stanzas += _from_deb822(block, own, suite)
        elif path.suffix == ".list" and path.is_file():
            for line in path.read_text().splitlines():
                stanzas += _from_one_line(line.strip(), own, suite)
    return list(dict.fromkeys(stanzas))


def _stanza(uri: str, suite: str, extra: Sequence[str]) -> str:
    lines = ["Types: deb deb-src", f"URIs: {uri}", f"Suites: {suite}", "Components: main", *extra]
    return "\n".join(lines) + "\n"


def _from_deb822(block: str, own: str, suite: str) -> list[str]:
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    usable = (
        "deb" in fields.get("types", "").split()
        and own in fields.get("suites", "").split()
        and "main" in fields.get("components", "").split()
        and fields.get("enabled", "yes").lower() not in ("no", "false", "0")
    )
    if not usable:
        return []
    extra = [f"Signed-By: {fields['signed-by']}"] if "signed-by" in fields else []
    return [_stanza(uri, suite, extra) for uri in fields.get("uris", "").split()]


def _from_one_line(line: str, own: str, suite: str) -> list[str]:
    match = _ONE_LINE.match(line)
    if not match:
        return []
    name, *components = match["rest"].split("#")[0].split()
    if name != own or "main" not in components:
        return []
    signed = re.search(r"signed-by=(\S+)", match["options"] or "")
    return [_stanza(match["uri"], suite, [f"Signed-By: {signed[1]}"] if signed else [])]


class PrivateApt:
    """An apt of our own over one suite: its lists and its cache sit in `folder`."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite

    def update(self) -> None:
        """Fetch the suite's lists from the first of the machine's mirrors that has it."""
        stanzas = source_stanzas(self._suite)
        if not stanzas:
            raise ToolchainError(
                "apt-sources",
                f"no entry for {codename()} main in {_SOURCES}: add Debian's archive there",
            )
        failures: list[str] = []
        for stanza in stanzas:
            shutil.rmtree(self._folder, ignore_errors=True)
            (self._folder / "lists" / "partial").mkdir(parents=True)
            (self._folder / "cache" / "archives" / "partial").mkdir(parents=True)
            (self._folder / "apt.sources").write_text(stanza)
            try:
                self._apt("update", "-o", "APT::Update::Error-Mode=any")
            except ToolchainError as error:
                failures.append(str(error))
            else:
                return
        raise ToolchainError("apt-update", "\n".join(failures))

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """Download binary packages by name; return the files."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("download", *packages, cwd=into)
        return sorted(into.glob("*.deb"))

    def download_source(self, packages: Sequence[str], into: Path) -> None:
        """Download source packages (the .dsc and its archives), not unpacked."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("source", "--download-only", *packages, cwd=into)

    def download_closure(self, package: str) -> list[Path]:
        """Download `package` and those of its dependencies that this machine lacks."""
        self._apt(
            "install",
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "-o",
            "Debug::NoLocking=1",
            package,
        )
        return sorted((self._folder / "cache" / "archives").glob("*.deb"))

    def _apt(self, *args: str, cwd: Path | None = None) -> None:
        options = {
            "Dir::Etc::sourcelist": self._folder / "apt.sources",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": 3,
        }
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        run(
            ["apt-get", "-qq", *flags, *args],
            why=f"apt-get {args[0]} ({self._suite})",
            cwd=cwd,
            env={"DEBIAN_FRONTEND": "noninteractive"},
        )


def version_of(deb: Path) -> str:
    """Return the version field of a .deb file."""
    return run(["dpkg-deb", "-f", deb, "Version"], why=f"reading {deb.name}").strip()


def unpack(debs: Sequence[Path], root: Path) -> None:
    """Unpack .deb files into `root`; no maintainer script runs."""
    root.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        run(["dpkg-deb", "-x", deb, root], why=f"unpacking {deb.name}")


def install(packages: Sequence[str], why: str) -> None:
    """Install system packages where we may; else say which are missing."""
    wanted = " ".join(packages)
    if not available() or os.geteuid() != 0:
        raise ToolchainError("system-packages", f"{why} needs: {wanted}. Install them, try again.")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages]
    try:
        run(command, why=f"installing {wanted}", env=env)
    except ToolchainError:
        # Lists that are absent or old look the same: fetch them once, then it has to work.
        run(["apt-get", "-qq", "update"], why="apt-get update", env=env)
        run(command, why=f"installing {wanted}", env=env)
