"""`tidemark bridge`: connects a board on a serial line to broker and update server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal

import click
import rich_click

from tidemark_host.bridge import BAUD, Bridge, BridgeError

_PROGRESS_S = 5.0


def _address(text: str) -> tuple[str, int]:
    """Return "host:port" as a pair."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not host:port, such as 192.168.1.10:1883")
    return host.strip("[]"), int(port)


@click.command(cls=rich_click.RichCommand)
@click.option(
    "--port",
    required=True,
    help="Serial device, its USB serial number or location, its nickname (`tidemark boards`), or "
    "a pyserial URL (socket://HOST:PORT).",
)
@click.option(
    "--allow",
    type=_address,
    metavar="HOST:PORT",
    multiple=True,
    required=True,
    help="What the board may reach, as it names it: the broker, the update server. Repeatable.",
)
@click.option("--baud", type=int, default=BAUD, show_default=True, help="As the board has it.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
def command(port: str, allow: tuple[tuple[str, int], ...], baud: int, as_json: bool) -> None:
    """Connect a board without a network to the network, over its serial line.

    Opens TCP connections on the board's request, to the destinations of --allow and to no others.
    The device may be unplugged and come back, at another port where it is named by serial number,
    location or nickname. Runs until SIGINT or SIGTERM; prints what happens,
    and counters whenever they change.
    """
    try:
        interrupted = asyncio.run(_run(port, allow, baud, as_json))
    except BridgeError as error:
        raise click.ClickException(str(error)) from error
    if interrupted:
        raise click.exceptions.Abort


def plain(value: object) -> str:
    """Return text that a board may have chosen, a host's name, as a terminal may see it."""
    return str(value).encode("unicode_escape").decode("ascii")


async def _run(port: str, allow: tuple[tuple[str, int], ...], baud: int, as_json: bool) -> bool:
    """Return whether Ctrl-C ended it."""
    stop = asyncio.Event()
    interrupted = False

    def end(number: signal.Signals) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)

    def say(event: str, values: dict[str, object]) -> None:
        if as_json:
            click.echo(json.dumps({"event": event, **values}))
        else:
            parts = ", ".join(
                f"{key.replace('_', ' ')} {plain(value)}" for key, value in values.items()
            )
            click.echo(f"{event}: {parts}" if parts else event)

    async with Bridge(port, allow, baud=baud, say=say) as bridge:
        last: dict[str, object] = {}
        ends = [asyncio.create_task(event.wait()) for event in (stop, bridge.failed)]
        while not stop.is_set() and not bridge.failed.is_set():
            await asyncio.wait(ends, timeout=_PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
            now = _counters(bridge, as_json)
            if now != last and not stop.is_set():
                say("counters", now)
            last = now
        for task in ends:
            task.cancel()
        say("stopped", _counters(bridge, as_json))
    return interrupted


def _counters(bridge: Bridge, whole: bool) -> dict[str, object]:
    """Return the counters; for people only those that are not 0."""
    values = dataclasses.asdict(bridge.counters)
    return {name: value for name, value in values.items() if value or whole}
