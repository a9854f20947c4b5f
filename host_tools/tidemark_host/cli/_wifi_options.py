"""How a verb is told a WiFi network: everywhere by the same options, never the password itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from tidemark_host.wifi import Wifi, WifiError, read_password

_OPTIONS = (
    click.option("--wifi-ssid", help="The WiFi network that a board with a radio joins."),
    click.option(
        "--wifi-password-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
        help="A file with its password or 64 digits of its key; - reads it here, unseen on a "
        "terminal. There is no option for the password itself: command lines are seen by others.",
    ),
    click.option("--wifi-open", is_flag=True, help="The network has no password."),
    click.option(
        "--wifi-country", default="", help="Two letters: whose radio channels may be used, as DE."
    ),
)


def network(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options whose values `chosen` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def chosen(
    wifi_ssid: str | None, wifi_password_file: Path | None, wifi_open: bool, wifi_country: str
) -> Wifi | None:
    """Return the network of the options, None without any. Raises click.UsageError."""
    if wifi_ssid is None:
        if wifi_password_file or wifi_open or wifi_country:
            raise click.UsageError("--wifi-ssid is missing: the other WiFi options belong to it")
        return None
    if wifi_open == bool(wifi_password_file):
        raise click.UsageError(
            "--wifi-ssid wants one of --wifi-password-file FILE and --wifi-open"
        )
    try:
        password = "" if wifi_open else _password(cast("Path", wifi_password_file))
        return Wifi(wifi_ssid, password, wifi_country)
    except WifiError as error:
        raise click.BadParameter(str(error), param_hint=error.option) from error


def _password(file: Path) -> str:
    if str(file) != "-":
        return read_password(file)
    if sys.stdin.isatty():
        return click.prompt("WiFi password", hide_input=True, err=True)
    return read_password(sys.stdin.buffer)
