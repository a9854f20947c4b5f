"""`tidemark provision`: a flashed board makes its key and gets the owner's anchors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import rich_click

from tidemark_host import discovery, provision
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.cli import _wifi_options
from tidemark_host.discovery import DiscoveryError
from tidemark_host.gateway.identity import GatewayIdentity, IdentityError
from tidemark_host.gateway.service import INVENTORY
from tidemark_host.inventory import DEFAULT_COHORT, Inventory, InventoryError
from tidemark_host.release import ReleaseError
from tidemark_host.release.delegations import check_name

# What the board takes, as in firmware/tidemark/config.py.
_DAY_S = 86_400


@rich_click.command()
@click.argument("port")
@click.option(
    "--gateway",
    "state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="State folder of a gateway that has run: its key is trusted, its inventory gets the "
    "board.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="The update repository's newest root.json.",
)
@click.option(
    "--broker", required=True, help="host:port of the MQTT broker, as the board sees it."
)
@click.option(
    "--updates", required=True, help="http:// base of the repository: metadata/, targets/."
)
@click.option("--nickname", default="", help="Your name for the board.")
@click.option(
    "--update-s",
    type=click.IntRange(1, 7 * _DAY_S),
    default=3600,
    show_default=True,
    help="Seconds between two looks for an update.",
)
@click.option(
    "--report-s",
    type=click.IntRange(1, _DAY_S),
    default=300,
    show_default=True,
    help="Seconds between two signed reports.",
)
@click.option(
    "--cohort",
    default=DEFAULT_COHORT,
    show_default=True,
    help="Its cohort: it also takes what the delegated role of this name signs.",
)
@_wifi_options.network
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    port: str,
    state: Path,
    root: Path,
    broker: str,
    updates: str,
    nickname: str,
    update_s: int,
    report_s: int,
    cohort: str,
    as_json: bool,
    **network: Any,
) -> None:
    """Provision the board at PORT: a serial device, a pty, socket://host:port, a USB serial number
    or a nickname (`tidemark boards`).

    The board makes its key, verifies the image in slot A under ROOT and confirms it. Its public
    key goes into the inventory; the private one never leaves it. May be repeated after a cut.
    """
    host, number = _broker(broker)
    base = _updates(updates)
    link = provision.LinkSettings(
        host,
        number,
        f"{base}/metadata/",
        f"{base}/targets/",
        update_s=update_s,
        report_s=report_s,
        cohort=_cohort(cohort),
        wifi=_wifi_options.chosen(**network),
    )
    try:
        gateway_key = GatewayIdentity.read_public(state)
        inventory = Inventory(state / INVENTORY)
        found = discovery.find(port, discovery.serial_ports(), discovery.read_names())
        with Repl(found.port) as console:
            born = provision.begin(console)
            if born.wifi and not link.wifi:
                raise click.UsageError(
                    f"{born.board} reaches its gateway over WiFi: say --wifi-ssid NAME with "
                    "--wifi-password-file FILE or --wifi-open. Nothing was written but its key"
                )
            if link.wifi and not born.wifi:
                click.echo(f"{born.board} joins no WiFi network: it gets no password", err=True)
                link = replace(link, wifi=None)
            name = nickname or found.nickname
            device = inventory.enroll(born.public, born.board, name, cohort)
            anchors = provision.Anchors(root.read_bytes(), gateway_key)
            answer = provision.finish(console, anchors, link)
            if device.cohort != cohort:
                inventory.assign(device.id, cohort)
            provision.leave(console)
    except provision.ProvisionError as error:
        hint = _HINTS.get(error.code, "")
        raise click.ClickException(f"the board refused: {error}. {hint}") from error
    except InventoryError as error:
        raise click.ClickException(f"{error}\n{error.hint}") from error
    except BoardError as error:
        hint = f"Try: tidemark console {port}" if error.code == "console" else ""
        raise click.ClickException(f"{error}\n{hint}{_PORTS}" if hint else str(error)) from error
    except DiscoveryError as error:
        raise click.ClickException(f"{error} ({error.code}){_PORTS}") from error
    except (IdentityError, OSError) as error:
        raise click.ClickException(str(error)) from error
    result = {"id": born.id, "public": born.public.hex(), "board": born.board, **answer}
    if link.wifi:
        result["wifi"] = link.wifi.describe()
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"device {born.id} ({born.board}): release {answer['index']} confirmed")
        if link.wifi:
            click.echo("wifi: {ssid}, password {password}".format(**link.wifi.describe()))
        click.echo("it resets into it within a second")


def _broker(text: str) -> tuple[str, int]:
    """Return "host:port" as a pair. Raises click.BadParameter."""
    host, _, number = text.rpartition(":")
    port = int(number) if number.isascii() and number.isdigit() else 0
    if not provision.fits(host) or not 0 < port < 65536:
        raise click.BadParameter(
            f"{text!r} is not host:port with a name of at most {provision.TEXT_MAX} bytes and a "
            "port from 1 to 65535, such as 192.0.2.7:1883",
            param_hint="--broker",
        )
    return host, port


def _cohort(name: str) -> str:
    """Return a cohort's name. Raises click.BadParameter."""
    if name != DEFAULT_COHORT:
        try:
            check_name(name)
        except ReleaseError as error:
            raise click.BadParameter(f"{error}: {error.hint}", param_hint="--cohort") from error
    return name


def _updates(text: str) -> str:
    """Return the base address without its last slash. Raises click.BadParameter."""
    base = text.rstrip("/")
    try:
        parts = urlsplit(base)
        port = parts.port
        good = parts.scheme == "http" and bool(parts.hostname) and port != 0
        good = good and not parts.username and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good or not base.isascii() or not provision.fits(f"{base}/metadata/"):
        raise click.BadParameter(
            f"{text!r} is not a plain http:// address, such as http://192.0.2.7:8080; what comes "
            "over it is signed",
            param_hint="--updates",
        )
    return base


_PORTS = (
    ", or `tidemark boards` for those that are plugged in; a virtual board prints its "
    "address when `tidemark virtual` switches it on"
)
_HINTS = {
    "provisioned": "It has an owner already. To give it another one: tidemark flash --force.",
    "state-lost": "Its journal is gone. To begin anew: tidemark flash --force.",
    "journal-unborn": "Other firmware left something there: tidemark flash --force erases it.",
    "header-magic": "There is no image in slot A: flash a factory image first.",
    "not-a-target": "The image in slot A is not in the repository that this root signs.",
    "no-wifi": "Say --wifi-ssid NAME with --wifi-password-file FILE or --wifi-open.",
    "wrong-board": "Flash the factory image that was made for this board.",
}
