"""The WiFi network that a board is provisioned for: checked before the board is asked to take it.

The rules are those of firmware/tidemark/config.py, which checks them again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAX_FILE = 256  # bytes of a password file, which has one line

_PASSPHRASE = re.compile(r"[ -~]{8,63}")
_PSK = re.compile(r"[0-9A-Fa-f]{64}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_SSID_MAX = 32  # bytes


class WifiError(Exception):
    """Not what a WiFi network has. `option`: of `tidemark provision`. Never holds a password."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


@dataclass(frozen=True)
class Wifi:
    """`password`: "" for an open network; no repr, error or report shows it. `country`: "" where
    only what is allowed everywhere may be used. Raises WifiError for what is out of bounds."""

    ssid: str
    password: str = field(default="", repr=False)
    country: str = ""

    def __post_init__(self) -> None:
        try:
            size = len(self.ssid.encode())
        except UnicodeEncodeError:
            size = 0
        if not 0 < size <= _SSID_MAX or "\0" in self.ssid:
            raise WifiError("--wifi-ssid", f"a network's name has 1 to {_SSID_MAX} bytes of UTF-8")
        if self.password and not _fits(self.password):
            raise WifiError(
                "--wifi-password-file",
                "a password has 8 to 63 printable ASCII characters, or is a key of 64 hexadecimal "
                "digits",
            )
        if self.country and not _COUNTRY.fullmatch(self.country):
            raise WifiError("--wifi-country", "a country has two capital letters, such as DE")

    def to_list(self) -> list[str]:
        """Return what the board's settings have for it."""
        return [self.ssid, self.password, self.country]

    def describe(self) -> dict[str, str]:
        """Return what may be shown of it."""
        shown = "(set)" if self.password else "(open network)"
        return {"ssid": self.ssid, "password": shown, "country": self.country}


def _fits(password: str) -> bool:
    return bool(_PASSPHRASE.fullmatch(password) or _PSK.fullmatch(password))


def read_password(source: Path | BinaryIO) -> str:
    """Return the password in a file or stream, without the end of its line. Raises WifiError."""
    option = "--wifi-password-file"
    try:
        if isinstance(source, Path):
            with source.open("rb") as handle:
                data = handle.read(MAX_FILE + 1)
        else:
            data = source.read(MAX_FILE + 1)
    except OSError as error:
        raise WifiError(option, f"{source}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise WifiError(option, f"longer than {MAX_FILE} bytes: no password has that")
    text = data.decode("ascii", "replace").removesuffix("\n").removesuffix("\r")
    if not text:
        raise WifiError(option, "it is empty; an open network is said by --wifi-open")
    return text
