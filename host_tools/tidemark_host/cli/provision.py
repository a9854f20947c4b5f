"""`tidemark provision`: a flashed board makes its key and gets the owner's anchors."""

from __future__ import annotations

import json
from pathlib import Path

import click
import rich_click

from tidemark_host import provision
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.repl import Repl
from tidemark_host.gateway.identity import GatewayIdentity, IdentityError
from tidemark_host.gateway.service import INVENTORY
from tidemark_host.inventory import Inventory, InventoryError


@rich_click.command()
@click.argument("port")
@click.option(
    "--gateway",
    "state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="State folder of the gateway: its key is trusted, its inventory gets the board.",
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
@click.option("--update-s", type=int, default=3600, show_default=True)
@click.option("--report-s", type=int, default=300, show_default=True)
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
    as_json: bool,
) -> None:
    """Provision the board at PORT (a serial device, a pty, or socket://host:port).

    The board makes its key, verifies the image in slot A under ROOT and confirms it. Its public
    key goes into the inventory; the private one never leaves it. May be repeated after a cut.
    """
    host, _, number = broker.rpartition(":")
    if not host or not number.isdigit():
        raise click.BadParameter("is not host:port, such as 192.0.2.7:1883", param_hint="--broker")
    base = updates.rstrip("/")
    link = provision.LinkSettings(
        host,
        int(number),
        f"{base}/metadata/",
        f"{base}/targets/",
        update_s=update_s,
        report_s=report_s,
    )
    try:
        identity = GatewayIdentity.load_or_create(state)
        inventory = Inventory(state / INVENTORY)
        with Repl(port) as console:
            born = provision.begin(console)
            inventory.enroll(born.public, born.board, nickname)
            anchors = provision.Anchors(root.read_bytes(), identity.public)
            answer = provision.finish(console, anchors, link)
            console.exec("from tidemark import provision; provision.leave()")
    except provision.ProvisionError as error:
        hint = _HINTS.get(error.code, "")
        raise click.ClickException(f"the board refused: {error}. {hint}") from error
    except (BoardError, IdentityError, InventoryError, OSError) as error:
        raise click.ClickException(str(error)) from error
    result = {"id": born.id, "public": born.public.hex(), "board": born.board, **answer}
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"device {born.id} ({born.board}): release {answer['index']} confirmed")
        click.echo("it resets into it within a second")


_HINTS = {
    "provisioned": "It has an owner already: erase its flash to give it another one.",
    "state-lost": "Its journal is gone: erase its flash, then flash and provision it anew.",
    "header-magic": "There is no image in slot A: flash a factory image first.",
    "not-a-target": "The image in slot A is not in the repository that this root signs.",
    "wrong-board": "Flash the factory image that was made for this board.",
}
