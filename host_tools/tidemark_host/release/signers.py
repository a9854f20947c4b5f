"""Signers that are not key files: a command of the owner's, or a PKCS #11 token.

A `<role>-<n>.signer.json` in the key folder names one: {"public": PEM or hex Ed25519 key, and
either "command": [program, argument...] or "uri": "hsm:..." as securesystemslib has it}.
"""

# securesystemslib re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (
    HSMSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from tidemark_host.release.errors import ReleaseError

SUFFIX = ".signer.json"
PIN = "TIDEMARK_HSM_PIN"
_LIMIT_S = 120  # a person may have to touch a token
_MAX_FILE = 8192
_MAX_SIGNATURE = 2048


class CommandSigner(Signer):
    """Runs a program that gets the bytes to sign on its standard input and prints the signature
    in hex: raw for Ed25519, DER for ECDSA, RSASSA-PSS with SHA-256 for RSA.
    """

    def __init__(self, public: SSlibKey, command: Sequence[str]) -> None:
        self._public = public
        self._command = list(command)

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> CommandSigner:
        """Not by URI: a command has arguments."""
        raise NotImplementedError

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """Raises ReleaseError `signer` when the program fails or prints something else."""
        name = self._command[0]
        try:
            done = subprocess.run(
                self._command, input=payload, capture_output=True, timeout=_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReleaseError("signer", f"{name} did not run to its end: {error}") from error
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ReleaseError("signer", f"{name} ended with {done.returncode}: {''.join(last)}")
        text = done.stdout[: _MAX_SIGNATURE + 1].decode("ascii", "replace").strip()
        return checked(Signature(self._public.keyid, text), self._public, payload, name)


class TokenSigner(Signer):
    """An ECDSA P-256 key on a PKCS #11 token. PYKCS11LIB names its module; the PIN is asked for,
    or comes from TIDEMARK_HSM_PIN. Needs python-pkcs11.
    """

    def __init__(self, public: SSlibKey, uri: str) -> None:
        self._public = public
        self._uri = uri

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> TokenSigner:
        assert isinstance(public_key, SSlibKey)
        return cls(public_key, priv_key_uri)

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """Raises ReleaseError `signer` when the token is not there or refuses."""
        with _token(self._uri) as pin:
            signature = HSMSigner.from_priv_key_uri(self._uri, self._public, pin).sign(payload)
        return checked(signature, self._public, payload, self._uri)


def token_key(uri: str) -> str:
    """Return the public key that a token holds, as PEM. Raises ReleaseError `signer`."""
    with _token(uri) as pin:
        parts = urlsplit(uri)
        keyid = int(parts.path) if parts.path else None
        label = dict(parse_qsl(parts.query)).get("label")
        _, key = HSMSigner.import_(keyid, label, pin)
    return str(key.keyval["public"])


@contextmanager
def _token(uri: str) -> Generator[SecretsHandler]:
    """Hand out what asks for the PIN; turn every failure into ReleaseError `signer`."""

    def pin(name: str) -> str:
        known = os.environ.get(PIN)
        if known:
            return known
        import click

        return str(click.prompt(f"PIN of {uri}", hide_input=True, err=True))

    try:
        yield pin
    except UnsupportedLibraryError as error:
        raise ReleaseError("signer", str(error), "pip install 'tidemark[hsm]'") from error
    except Exception as error:  # python-pkcs11 raises its own, and may not even be installed
        text = str(error) or type(error).__name__
        if not os.environ.get("PYKCS11LIB"):
            hint = "PYKCS11LIB with the path of the token's PKCS #11 module"
        else:
            hint = f"another PIN in {PIN}, or pkcs11-tool --list-objects for label and key id"
        raise ReleaseError("signer", f"{uri}: {text}", hint) from error


def checked(signature: Signature, public: SSlibKey, payload: bytes, name: str) -> Signature:
    """Return the signature if it holds: a wrong one is found here, not by the fleet."""
    try:
        public.verify_signature(signature, payload)
    except Exception as error:
        raise ReleaseError("signer", f"{name} gave no signature of its key") from error
    return signature


def public_key(text: str) -> SSlibKey:
    """Return the TUF key of a PEM public key or 64 hex digits of Ed25519.

    Raises ReleaseError `public-key` for another type than boards count: Ed25519, ECDSA P-256, RSA
    of 2,048 to 4,096 bits.
    """
    try:
        if len(text.strip()) == 64:
            key: Any = Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.strip()))
        else:
            key = load_pem_public_key(text.encode())
    except ValueError as error:
        raise ReleaseError("public-key", "neither PEM nor 64 hex digits") from error
    fits = (
        isinstance(key, Ed25519PublicKey)
        or (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1))
        or (isinstance(key, RSAPublicKey) and 2048 <= key.key_size <= 4096)
    )
    if not fits:
        raise ReleaseError("public-key", "no board counts keys of this type")
    return SSlibKey.from_crypto(key)


def encode(public: str, *, command: Sequence[str] = (), uri: str = "") -> bytes:
    """Return what a signer file says. Raises ReleaseError `public-key`."""
    public_key(public)
    entry: dict[str, object] = {"public": public.strip()}
    entry |= {"command": list(command)} if command else {"uri": uri}
    return json.dumps(entry, indent=1).encode() + b"\n"


def decode(data: bytes, name: str) -> Signer:
    """Return the signer of a file. Raises ReleaseError `public-key`, `signer-file`."""
    try:
        if len(data) > _MAX_FILE:
            raise ValueError("too large")
        entry = cast("dict[str, Any]", json.loads(data))
        public, command, uri = entry["public"], entry.get("command"), entry.get("uri")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError("signer-file", f"{name} can't be read") from error
    key = public_key(str(public))
    if isinstance(command, list) and command and uri is None:
        return CommandSigner(key, [str(word) for word in cast("list[object]", command)])
    if isinstance(uri, str) and uri.startswith("hsm:") and command is None:
        return TokenSigner(key, uri)
    raise ReleaseError(
        "signer-file",
        f"{name} names neither a command nor an hsm: URI",
        "--hsm 'hsm:2?label=NAME' with the token's label",
    )


def load(path: Path) -> Signer:
    """Return the signer of a file. Raises ReleaseError `public-key`, `signer-file`."""
    try:
        with path.open("rb") as file:
            return decode(file.read(_MAX_FILE + 1), str(path))
    except OSError as error:
        raise ReleaseError("signer-file", f"{path}: {error.strerror}") from error
