"""`tidemark gateway`: runs a gateway until it is interrupted."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import click
import rich_click

from tidemark_host.gateway.broker import BrokerError
from tidemark_host.gateway.identity import IdentityError
from tidemark_host.gateway.service import Gateway, GatewayConfig, StateInUse
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import InventoryError

_PROGRESS_S = 2.0
_GRACE_S = 0.5  # a broker that is there answers within it
_LOOK_S = 0.2

_log = logging.getLogger(__name__)


def _place(text: str) -> tuple[str, int]:
    """Return "host:port" as a pair; port 0 is any."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _address(text: str) -> tuple[str, int]:
    """Return "host:port" of a server as a pair."""
    host, port = _place(text)
    if not port:
        raise click.BadParameter(f"{text!r} has no port; a broker's is mostly 1883")
    return host, port


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("gateway"),
    show_default=True,
    envvar="TIDEMARK_GATEWAY_STATE",
    help="Directory of the gateway's key, database and inventory.",
)
@click.option("--inventory", type=click.Path(dir_okay=False, path_type=Path), help="Other file.")
@click.option("--broker", type=_address, metavar="HOST:PORT", help="The devices' MQTT broker.")
@click.option("--embedded-broker", is_flag=True, help="Start a broker on loopback instead.")
@click.option(
    "--embedded-port",
    type=click.IntRange(0, 65535),
    default=1883,
    show_default=True,
    help="Its port; 0: any that is free. Boards are provisioned with it.",
)
@click.option(
    "--upstream",
    type=_address,
    metavar="HOST:PORT",
    help="Broker for what was accepted; default: same.",
)
@click.option(
    "--updates",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the TUF repository to serve.",
)
@click.option(
    "--listen",
    type=_place,
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where to serve it; port 0: any that is free. Boards are provisioned with it.",
)
@click.option(
    "--keylog",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write session keys here, for protocol analysis ONLY: who has them can forge messages.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
@click.option("-v", "--verbose", is_flag=True, help="Log more to stderr.")
def command(
    state: Path,
    inventory: Path | None,
    broker: tuple[str, int] | None,
    embedded_broker: bool,
    embedded_port: int,
    upstream: tuple[str, int] | None,
    updates: Path | None,
    listen: tuple[str, int],
    keylog: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run the gateway of a site: verify what devices send, keep it, hand it upstream.

    Prints its id and addresses, then whether the broker is there and progress, until SIGINT or
    SIGTERM. One gateway runs on a state directory at a time.
    """
    if (broker is None) != embedded_broker:
        raise click.UsageError("choose one: --broker HOST:PORT or --embedded-broker")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    config = GatewayConfig(
        state, broker, embedded_port, upstream, inventory, updates, listen, keylog
    )
    if keylog:
        click.secho(f"WARNING: session keys go to {keylog}; use it for analysis only", err=True)
    try:
        asyncio.run(_run(config, as_json))
    except (BrokerError, IdentityError, StateInUse, OSError) as error:
        hint = _hint(error)
        raise click.ClickException(
            f"the gateway does not start: {error}" + (f"\nTry: {hint}" if hint else "")
        ) from error
    except InventoryError as error:
        raise click.ClickException(f"the gateway does not start: {error}\n{error.hint}") from error
    except sqlite3.DatabaseError as error:
        raise click.ClickException(
            f"the gateway does not start: {config.database} can't be used: {error}\n"
            f"{_database_hint(error)}"
        ) from error


def _hint(error: Exception) -> str:
    """Return what to try next, "" when the text says it."""
    if isinstance(error, StateInUse):
        return "stop that one first, or give this one a directory of its own with --state"
    if isinstance(error, BrokerError):
        return "--embedded-port with another port, or --broker with the one that runs there"
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
        return "--listen with another address"
    return ""


def _database_hint(error: sqlite3.DatabaseError) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return "Try: free space on the disk, and the owner and mode of that file and its directory"
    return (
        "It holds the replay windows. Try: restore it from a backup. Without one, move it away; "
        "reports that were captured before may then be accepted once more"
    )


async def _run(config: GatewayConfig, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def say(event: str, values: dict[str, object], text: str = "") -> None:
        if as_json:
            click.echo(json.dumps({"event": event, **values}))
        else:
            parts = ", ".join(f"{k} {v}" for k, v in values.items() if v not in (None, {}))
            click.echo(text or (f"{event}: {parts}" if parts else event))

    async with Gateway(config) as gateway:
        host, port = gateway.broker
        about: dict[str, object] = {
            "gateway": gateway.identity.id,
            "public": gateway.identity.public.hex(),
            "broker": f"{host}:{port}",
            "updates": gateway.updates,
            "database": str(config.database),
        }
        say("ready", about)
        link = asyncio.create_task(_tell_link(gateway, say))
        last: dict[str, object] = {}
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), _PROGRESS_S)
            except TimeoutError:
                try:
                    now = await asyncio.to_thread(_progress, gateway.view)
                except sqlite3.Error as error:
                    _log.error("%s can't be read: %s", config.database, error)
                    continue
                now["connected"] = gateway.connected.is_set()
                if now != last:
                    say("progress", now)
                last = now
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
    say("stopped", {})


async def _tell_link(gateway: Gateway, say: Callable[[str, dict[str, object], str], None]) -> None:
    """Say when the broker is there and when it is not, until cancelled."""
    where = "{}:{}".format(*gateway.broker)
    while True:
        try:
            async with asyncio.timeout(_GRACE_S):
                await gateway.connected.wait()
        except TimeoutError:
            say("waiting", {"broker": where}, f"waiting for the broker at {where}")
            await gateway.connected.wait()
        say("connected", {"broker": where}, f"connected to the broker at {where}")
        while gateway.connected.is_set():
            await asyncio.sleep(_LOOK_S)


def _progress(view: GatewayView) -> dict[str, object]:
    return {"accepted": view.accepted(), "waiting": view.waiting(), "refused": view.counts()}
