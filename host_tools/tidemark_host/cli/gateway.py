"""`tidemark gateway`: runs a gateway until it is interrupted."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from pathlib import Path

import click
import rich_click

from tidemark_host.gateway.broker import BrokerError
from tidemark_host.gateway.identity import IdentityError
from tidemark_host.gateway.service import Gateway, GatewayConfig
from tidemark_host.gateway.view import GatewayView
from tidemark_host.inventory import InventoryError

_PROGRESS_S = 2.0


def _address(text: str) -> tuple[str, int]:
    """Return "host:port" as a pair."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not host:port, such as 127.0.0.1:1883")
    return host.strip("[]"), int(port)


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
@click.option("--embedded-port", type=click.IntRange(0, 65535), default=0, help="Its port.")
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
    type=_address,
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    help="Where to serve it.",
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

    Prints its id and addresses, then progress, until SIGINT or SIGTERM.
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
    except (BrokerError, IdentityError, InventoryError, OSError) as error:
        raise click.ClickException(f"the gateway does not start: {error}") from error


async def _run(config: GatewayConfig, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def say(event: str, **values: object) -> None:
        if as_json:
            click.echo(json.dumps({"event": event, **values}))
        else:
            text = ", ".join(f"{k} {v}" for k, v in values.items() if v not in (None, {}))
            click.echo(f"{event}: {text}")

    async with Gateway(config) as gateway:
        host, port = gateway.broker
        say(
            "ready",
            gateway=gateway.identity.id,
            public=gateway.identity.public.hex(),
            broker=f"{host}:{port}",
            updates=gateway.updates,
            database=str(config.database),
        )
        last: dict[str, object] = {}
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), _PROGRESS_S)
            except TimeoutError:
                now = await asyncio.to_thread(_progress, gateway.view)
                now["connected"] = gateway.connected.is_set()
                if now != last:
                    say("progress", **now)
                last = now
    say("stopped")


def _progress(view: GatewayView) -> dict[str, object]:
    return {"accepted": view.accepted(), "waiting": view.waiting(), "refused": view.counts()}
