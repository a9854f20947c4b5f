"""Signing keys in a folder: Ed25519, PKCS #8 PEM, encrypted when there is a passphrase; and files
that name a command or a token that signs (signers.py)."""

# securesystemslib re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer

from tidemark_host.release import signers
from tidemark_host.release.errors import ReleaseError

ROLES = ("root", "targets", "snapshot", "timestamp")
MAX_ROOT_KEYS = 5  # with more, root.json no longer fits a board's write-once sector
_MAX_KEY_FILE = 4096
_ENCRYPTED = b"ENCRYPTED"


@dataclass(frozen=True)
class _Fresh:
    role: str
    path: Path
    data: bytes
    signer: Signer


@dataclass(frozen=True)
class KeyStore:
    """The keys of one repository: `<folder>/<role>-<n>.pem` or `.signer.json`, n from 1.

    Root keys belong offline: copy `root-*.pem` to a medium of their own and remove them here. What
    signs needs only the keys of the roles it signs. New keys sign at once, and are in the folder
    from `save` on, which publishing calls just before it writes what names them. passphrase: of
    all key files here; `ask` (given a file's path) is called for one where there is none.
    """

    folder: Path
    passphrase: str | None = None
    ask: Callable[[Path], str] | None = None
    _fresh: list[_Fresh] = field(default_factory=list["_Fresh"])
    _asked: dict[Path, str] = field(default_factory=dict[Path, str])

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        root_keys: int = 1,
        passphrase: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> KeyStore:
        """Make fresh keys for all roles; in memory only with `dry_run`.

        Raises ReleaseError: `keys-exist`; `keys-in-git` for a folder whose files git would take,
        unless `force`; `root-keys` for a number out of range.
        """
        if not 1 <= root_keys <= MAX_ROOT_KEYS:
            raise ReleaseError("root-keys", f"1 to {MAX_ROOT_KEYS} root keys, not {root_keys}")
        if not force and _git_would_take(folder):
            raise ReleaseError(
                "keys-in-git",
                f"{folder} lies in a git repository that does not ignore it",
                "choose a folder outside, ignore it in .gitignore, or pass --force",
            )
        store = cls(folder, passphrase)
        if folder.is_dir() and any(folder.glob("*.pem")):
            raise ReleaseError(
                "keys-exist", f"{folder} holds keys already", "--keys with a new folder"
            )
        for role in ROLES:
            for _ in range(root_keys if role == "root" else 1):
                store.add(role)
        if not dry_run:
            store.save()
        return store

    def add(self, role: str) -> CryptoSigner:
        """Make one more key for `role`, a top-level or a delegated one; return its signer.

        Encrypted with the passphrase, or as other files of the folder are. Raises ReleaseError
        `key-passphrase` when those are and there is none.
        """
        private = Ed25519PrivateKey.generate()
        path = self._next(role, ".pem")
        passphrase = self.passphrase
        if not passphrase and self._has_encrypted():
            passphrase = self._passphrase_of(path)
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        signer = CryptoSigner(private)
        self._fresh.append(_Fresh(role, path, pem, signer))
        return signer

    def _has_encrypted(self) -> bool:
        if not self.folder.is_dir():
            return False
        return any(_ENCRYPTED in _read(path) for path in sorted(self.folder.glob("*.pem")))

    def _passphrase_of(self, path: Path) -> str:
        if self.passphrase:
            return self.passphrase
        if path not in self._asked:
            if self.ask is None:
                raise ReleaseError(
                    "key-passphrase",
                    f"{path} is encrypted"
                    if path.exists()
                    else f"{path} has to be encrypted, as the other keys of its folder are",
                    "its passphrase in TIDEMARK_KEY_PASSPHRASE",
                )
            self._asked[path] = self.ask(path)
        return self._asked[path]

    def add_signer(
        self, role: str, public: str, *, command: Sequence[str] = (), uri: str = ""
    ) -> Signer:
        """Note a command or a token that signs for `role`; `public`: its key, as PEM or hex.

        Raises ReleaseError: `public-key`, `signer-file`.
        """
        data = signers.encode(public, command=command, uri=uri)
        signer = signers.decode(data, "the signer")
        self._fresh.append(_Fresh(role, self._next(role, signers.SUFFIX), data, signer))
        return signer

    def save(self) -> None:
        """Write the new keys; none replaces a file."""
        if self._fresh:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while self._fresh:
            new = self._fresh[0]
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(new.path, flags, 0o600), "wb") as handle:
                handle.write(new.data)
                handle.flush()
                os.fsync(handle.fileno())
            self._fresh.pop(0)

    @property
    def fresh(self) -> list[Path]:
        """Return the files that `save` would write."""
        return [new.path for new in self._fresh]

    def signers(self, role: str) -> Sequence[Signer]:
        """Return the signers of `role` in the order of their numbers; empty when none is here.

        Raises ReleaseError: `key-passphrase`, `key-unreadable`, `public-key`, `signer-file`.
        """
        found = [
            signers.load(path) if path.name.endswith(signers.SUFFIX) else self._load(path)
            for path in self._paths(role)
        ]
        return found + [new.signer for new in self._fresh if new.role == role]

    def _paths(self, role: str) -> list[Path]:
        # Not by a glob: a role may be called "targets-2".
        name = re.compile(rf"{re.escape(role)}-\d+(\.pem|{re.escape(signers.SUFFIX)})")
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if name.fullmatch(path.name)]
        return sorted(found, key=_number)

    def _next(self, role: str, suffix: str) -> Path:
        taken = [*self._paths(role), *(new.path for new in self._fresh if new.role == role)]
        number = max((_number(path) for path in taken), default=0) + 1
        return self.folder / f"{role}-{number}{suffix}"

    def _load(self, path: Path) -> CryptoSigner:
        pem = _read(path)
        password = self._passphrase_of(path).encode() if _ENCRYPTED in pem else None
        try:
            key = load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ReleaseError(
                "key-unreadable",
                f"{path} can't be read as a key",
                "another passphrase in TIDEMARK_KEY_PASSPHRASE" if password else "",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ReleaseError(
                "key-unreadable",
                f"{path} is no Ed25519 key",
                "add-key --public --command, with a program that signs by it",
            )
        return CryptoSigner(key)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise ReleaseError("key-unreadable", f"{path}: {error.strerror}") from error
    if len(data) > _MAX_KEY_FILE:
        raise ReleaseError("key-unreadable", f"{path} is too large for a key")
    return data


def _number(path: Path) -> int:
    text = path.name.partition(".")[0].rpartition("-")[2]
    return int(text) if text.isdigit() else 0


def _git_would_take(folder: Path) -> bool:
    """Return whether `folder` lies in a git work tree that does not ignore it."""
    absolute = folder.absolute()
    tree = next((parent for parent in absolute.parents if (parent / ".git").exists()), None)
    if tree is None and not (absolute / ".git").exists():
        return False
    git = shutil.which("git")
    if git is None or tree is None:
        return True
    command = [git, "-C", str(tree), "check-ignore", "-q", str(absolute / "root-1.pem")]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
