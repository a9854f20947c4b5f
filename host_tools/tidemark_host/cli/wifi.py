"""`tidemark wifi`: a provisioned board is told of another network."""

from __future__ import annotations

import json
from typing import Any

import click
import rich_click

from tidemark_host import discovery, provision
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.cli import _wifi_options
from tidemark_host.discovery import DiscoveryError


@rich_click.command()
@click.argument("port", default="")
@_wifi_options.network
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(port: str, as_json: bool, **options: Any) -> None:
    """Tell the board at PORT which WiFi network to join; its other settings stay.

    PORT as of `tidemark provision`, which sets the first one. The board resets and joins it.
    """
    wifi = _wifi_options.chosen(**options)
    if wifi is None:
        raise click.UsageError("--wifi-ssid is missing")
    try:
        found = discovery.find(port, discovery.serial_ports(), discovery.read_names())
        with Repl(found.port) as console:
            device = provision.set_wifi(console, wifi)
            provision.leave(console)
    except provision.ProvisionError as error:
        hint = _HINTS.get(error.code, "")
        raise click.ClickException(f"the board refused: {error}. {hint}") from error
    except BoardError as error:
        hint = f"\nTry: tidemark console {port}".rstrip() if error.code == "console" else ""
        raise click.ClickException(f"{error}{hint}") from error
    except DiscoveryError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    said = wifi.describe()
    if as_json:
        click.echo(json.dumps({"id": device, "wifi": said}))
    else:
        click.echo(f"device {device}: wifi {said['ssid']}, password {said['password']}")
        click.echo("it resets within a second")


_HINTS = {
    "not-provisioned": "Try: tidemark provision, with the same options.",
    "no-radio": "It needs no WiFi.",
}
