"""What several tests of the suite do with a site."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import serial

from tidemark_host.boards.base import BoardError
from tidemark_host.hil.site import Site, Trial
from tidemark_host.hil.targets import CONSOLE

CTRL_C = b"\x03"


def digest(claims: dict[str, Any]) -> bytes:
    """Return the digest of the running image from a board's claims, b"" in rescue."""
    value = claims["image-digest"]
    return bytes.fromhex(value["bytes"]) if value else b""


def once_each(site: Site) -> list[tuple[int, int]]:
    """Return (epoch, index) of all readings at the gateway, none of which came twice."""
    keys = [(row["epoch"], row["index"]) for row in site.readings()]
    assert len(keys) == len(set(keys)), "a reading came twice"
    counters = site.counters()
    assert len(counters) == len(set(counters)), "a counter was used twice"
    return keys


async def more_readings(site: Site, count: int, timeout: float = 60.0) -> None:
    """Wait until the gateway has `count` readings more than now."""
    have = len(site.readings())
    await site.until(
        f"{count} more readings", lambda: len(site.readings()) >= have + count, timeout
    )


async def overheard(site: Site) -> None:
    """Wait until who listens beside the gateway, too, has heard this boot: hello and more.

    What comes late then is of this boot and adds neither a hello nor an epoch.
    """
    epoch = site.claims()["epoch"]
    await site.until("it is overheard", lambda: any(epoch == at for at, _ in site.counters()))
    assert site.capture.of(site.id, "hello")


def slow_mirror(site: Site) -> None:
    """Let downloads last: the mirror lives in this process, so what a test does in the midst of
    one comes in time however slow the machine is. `site.mirror.bytes_per_s = None` ends it."""
    site.mirror.bytes_per_s = 32 * 1024


async def downloading(site: Site) -> None:
    """Wait until the mirror has begun to send the board an image."""
    await site.until(
        "the download", lambda: any("/targets/" in path for path, _, _ in site.mirror.requests), 60
    )


async def unhurried(site: Site, hold_s: int = 12, limit_s: int = 40) -> None:
    """Give the board's trials more time than a slow machine takes to act in the midst of one."""
    times = [hold_s, limit_s, 1]
    code = "from tidemark import cbor, config, stage0\nvalues = stage0.base.config\n"
    code += f"values[config.TRIAL] = {times}\n"
    code += "stage0.base.journal.put('config', cbor.encode(values))"
    boots = site.boots()
    await at_repl(site, code)
    await asyncio.to_thread(site.board.reset)
    assert (await site.heard(boots))["trial-times"] == times


async def on_trial(site: Site, index: int, since: int) -> None:
    """Wait until a release is on trial. `since`: length of the console's log before it."""
    if CONSOLE in site.target.abilities:
        await site.said(f"release {index} (", 60, since)
    else:
        await site.claimed(mode="trial", timeout=60)


def conclusions(site: Site, index: int) -> list[Trial]:
    """Return how the trials of a release ended, from the first that was decided on.

    Before that one a machine that stood still may have had no acknowledgement in time.
    """
    trials = [trial for trial in site.trials() if trial[0] == index]
    while trials and trials[0][1:] == ("inconclusive", "no-ack"):
        trials.pop(0)
    return trials


def last_record(site: Site) -> int:
    """Return the number of the board's last record of evidence at its last hello or report."""
    return site.claims()["evidence-head"][0]


async def both_slots(site: Site) -> tuple[bytes, bytes]:
    """Return what the flash holds in both slots."""
    return (
        await asyncio.to_thread(site.slot_bytes, "slot_a"),
        await asyncio.to_thread(site.slot_bytes, "slot_b"),
    )


async def causes_since(site: Site, number: int) -> list[str]:
    """Return the causes of the boots that a board recorded after this number of its evidence."""
    events = await asyncio.to_thread(site.evidence)
    return [event.cause for event in events if event.code == "boot" and event.number > number]


async def mpremote(site: Site, *words: str) -> str:
    """Run the stock mpremote on the board's console; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mpremote", "connect", site.board.console_path, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    site.note("mpremote " + " ".join(words))
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 30 * site.target.patience)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode("utf-8", "backslashreplace")
    assert process.returncode == 0, text
    return text


async def type_on_console(site: Site, data: bytes, answer: str) -> None:
    """Press keys on the board's console, as a person at a terminal does, and see the answer."""
    since = len(site.board.serial_log)
    port = await asyncio.to_thread(serial.Serial, site.board.console_path, timeout=1)
    try:
        await asyncio.to_thread(port.write, data)
        await site.said(answer, 30, since)
    finally:
        port.close()


async def at_repl(site: Site, code: str, soft_reset: bool = False) -> str:
    """Run code at the raw REPL, which stops the application; returns what it printed."""

    def run() -> str:
        patience = 10 * site.target.patience
        with site.board.repl(soft_reset, patience) as console:
            return console.exec(code, patience)

    return await asyncio.to_thread(run)


async def leave_hanging(site: Site, code: str) -> None:
    """Start code at the raw REPL that never ends."""

    def run() -> None:
        with site.board.repl(timeout=10 * site.target.patience) as console:
            try:
                console.exec(code, 0.5)
            except BoardError as error:
                if error.code != "console":
                    raise

    await asyncio.to_thread(run)


async def from_board(site: Site, expression: str) -> Any:
    """Return a value of the running firmware that JSON can carry; stops the application."""
    code = f"import json\nfrom tidemark import stage0\nprint(json.dumps({expression}))"
    return json.loads((await at_repl(site, code)).strip().splitlines()[-1])
