"""The gateway's own key: made at the first start, kept in its state directory, mode 0600."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tidemark_host.protocol import key_id

KEY_FILE = "gateway.key"
PUBLIC_FILE = "gateway.pub"


class IdentityError(Exception):
    """A key file that can't be used."""


@dataclass(frozen=True, slots=True)
class GatewayIdentity:
    """`id`: 16 hex digits, from the public key (32 raw bytes)."""

    key: Ed25519PrivateKey
    public: bytes
    id: str

    @staticmethod
    def read_public(directory: Path) -> bytes:
        """Return the public key (32 bytes) of the gateway whose state directory this is.

        Raises IdentityError. Makes nothing, and does not need the private key.
        """
        path = directory / PUBLIC_FILE
        start = f"start it first: tidemark gateway --state {directory}"
        try:
            public = bytes.fromhex(path.read_text("ascii"))
        except FileNotFoundError as error:
            raise IdentityError(f"{directory} is no gateway's state; {start}") from error
        except (OSError, ValueError) as error:
            raise IdentityError(f"{path} is not readable as hex; {start}") from error
        if len(public) != 32:
            raise IdentityError(f"{path} is not an Ed25519 key; {start}")
        return public

    @classmethod
    def load_or_create(cls, directory: Path) -> GatewayIdentity:
        """Read the key of a state directory, or make one there. Raises IdentityError.

        The public key is left beside it as hex, for provisioning.
        """
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / KEY_FILE
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            partial = directory / f".{KEY_FILE}.{os.getpid()}"
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            try:
                # link fails where rename would replace the key of a gateway that was faster.
                os.link(partial, path)
            except FileExistsError:
                pass
            finally:
                partial.unlink()
        if path.stat().st_mode & 0o077:
            raise IdentityError(f"{path} is readable by others; run: chmod 600 {path}")
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except ValueError as error:
            raise IdentityError(f"{path} is not a private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path} is not an Ed25519 key")
        public = key.public_key().public_bytes_raw()
        (directory / PUBLIC_FILE).write_text(public.hex() + "\n")
        return cls(key, public, key_id(public))
