"""`make soak`: tens of thousands of QoS 1 messages from one boot of a virtual board.

The real agent, through a network with faults, a real mosquitto and the real gateway, to a reader
upstream: none lost, none twice, the packet id wraps, the heap stays as it is. Exit status 0 only
if all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidemark_host.faults.oracle import PACKET_ID_MAX
from tidemark_host.faults.profiles import PROFILES
from tidemark_host.hil.processes import SiteError
from tidemark_host.hil.site import Site, clean
from tidemark_host.hil.targets import VirtualTarget
from tidemark_host.hil.waiting import Timeout
from tidemark_host.romfs import build_image

MESSAGES = 70_000  # more than packet ids there are
MAX_MESSAGES = 10_000_000
LIMIT_S = 2_400.0
STALL_S = 120.0  # without a new reading upstream
HEAP_SLACK = 2_048  # bytes that the free heap may fall by from the second to the last quarter
HEAP_FROM = 5_000  # messages: in a shorter run what is allocated once has not come to an end
HEAP_SAMPLES = 140
MAX_FAILURES = 100  # kept as text
_WAITING = 64  # readings in the outbox that sampling stops at

# The application under test is the real agent. A reading is taken whenever there is room, instead
# of by the clock, so that the run is as fast as the link; `START` is for runs that begin near the
# wrap.
_APP = """

def tasks(base, _tasks=tasks):
    sample, *others = _tasks(base)
    take = sample.step

    def take_if_room():
        if len(base.outbox) < WAITING:
            take()

    sample.step = take_if_room
    base.link._client.pid = START
    return [sample] + others
"""
_SENSORS = """

class Heap:
    number = 3

    def __init__(self):
        self._turn = 0

    def read(self):
        self._turn += 1
        if self._turn % EVERY != 1:
            return None
        import gc

        gc.collect()
        return gc.mem_free()


def fitted(port, _fitted=fitted):
    return _fitted(port) + [Heap()]
"""


@dataclass
class Result:
    """What a soak came to. `failures`: what did not hold, [] if all did."""

    messages: int  # readings asked for
    seed: int
    profile: str
    failures: list[str] = field(default_factory=list[str])
    published: int = 0  # PUBLISH packets of QoS 1 that left the board
    arrived: int = 0  # different readings upstream
    twice: int = 0  # readings that came upstream again
    wraps: int = 0  # of the packet id
    acks: int = 0
    connections: int = 0
    faults: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[str, int] = field(default_factory=dict[str, int])  # what the gateway counted
    heap: list[int] = field(default_factory=list[int])  # bytes free after a collection, in order
    evidence: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    rate: float = 0.0  # readings a second

    def fail(self, holds: object, text: str) -> None:
        """Note a failure unless something holds."""
        if not holds and len(self.failures) < MAX_FAILURES:
            self.failures.append(text)


Say = Callable[[Result, float], None]


async def soak(
    folder: Path,
    messages: int,
    seed: int,
    profile: str = "mild",
    first_id: int = 0,
    limit_s: float = LIMIT_S,
    say: Say | None = None,
) -> Result:
    """Run one soak in a new `folder`. `first_id`: packet id before the first; `say`: told of the
    progress, with the seconds since the start, about every second."""
    result = Result(messages, seed, profile)
    async with Site(folder, VirtualTarget(), "mosquitto", faulty=True) as site:
        assert site.network is not None
        # Signatures and update runs are other tests' matter.
        site.update_s, site.report_s = 3600, 10
        image = await asyncio.to_thread(_image, site, messages, first_id)
        await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
        site.network.mqtt.storm(PROFILES[profile], seed)
        try:
            await _follow(site, result, first_id, limit_s, say)
        except Timeout as error:
            result.failures.append(str(error))
        site.network.calm()
        await asyncio.to_thread(_judge, site, result)
    return result


async def _follow(
    site: Site, result: Result, first_id: int, limit_s: float, say: Say | None
) -> None:
    """Read upstream until all is there. Raises Timeout."""
    network = site.network
    assert network is not None
    seen: set[tuple[int, int]] = set()
    begin = grown = time.monotonic()
    while len(seen) < result.messages:
        await asyncio.sleep(0.2 if result.messages < 5_000 else 1.0)
        now = time.monotonic()
        # All of a run would not fit; what is judged of it is counted.
        fresh, site.upstream.messages = site.upstream.messages, []
        site.capture.messages.clear()
        for row in fresh:
            if "index" in row:
                key = row["epoch"], row["index"]
                result.twice += key in seen
                seen.add(key)
                result.fail(row["reading"]["1"] == row["index"], f"another reading under {key}")
                if "3" in row["reading"]:
                    result.heap.append(row["reading"]["3"])
        grown = now if len(seen) > result.arrived else grown
        result.arrived, result.seconds = len(seen), round(now - begin, 1)
        result.rate = round(len(seen) / (now - begin), 1)
        result.published, result.wraps = network.oracle.published, network.oracle.wraps
        result.acks, result.connections = network.oracle.acks, network.mqtt.connections
        result.faults = dict(sorted(network.mqtt.counts.items()))
        if say:
            say(result, now - begin)
        if now - begin > limit_s or now - grown > STALL_S:
            raise Timeout(f"{len(seen)} of {result.messages} readings in {now - begin:.0f} s")
    epochs = {epoch for epoch, _ in seen}
    result.fail(len(epochs) == 1, f"more than one boot: epochs {sorted(epochs)}")
    indices = {index for _, index in seen}
    result.fail(indices == set(range(1, result.messages + 1)), "indices with a hole")
    wraps = (first_id + result.messages) // PACKET_ID_MAX
    result.fail(result.wraps >= wraps, f"the packet id wrapped {result.wraps} times")


def _judge(site: Site, result: Result) -> None:
    """Say what of a run does not hold."""
    assert site.network is not None
    oracle = site.network.oracle
    result.refused = site.view.counts(site.id)
    result.fail(site.boots() == 1, f"{site.boots()} boots")
    site.halt()
    unsure = sum(row["tags"]["maybe_duplicate"] for row in site.readings())
    result.fail(not unsure, f"{unsure} readings that the gateway could not tell from copies")
    result.fail(not result.twice, f"{result.twice} readings came twice upstream")
    result.fail(not oracle.violations, f"on the wire: {oracle.violations[:5]}")
    result.fail(not site.board.violations, f"in the flash: {list(site.board.violations)[:3]}")
    result.fail(not site.view.quarantined(site.id), "quarantined")
    stored = site.stored_readings()
    # The last acknowledgements may be on their way.
    result.fail(len(stored) <= _WAITING, f"{len(stored)} readings still in the outbox")
    events = site.evidence()
    result.evidence = dict(Counter(event.code for event in events))
    result.fail(all(event.chained for event in events), "a gap in the evidence")
    heap = result.heap
    quarter = len(heap) // 4
    if quarter and result.arrived >= HEAP_FROM:
        parts = heap[quarter : 2 * quarter], heap[-quarter:]
        first, last = (statistics.median(part) for part in parts)
        result.fail(first - last <= HEAP_SLACK, f"free heap fell from {first:.0f} to {last:.0f}")
    result.fail(heap, "no sample of the heap")


def _image(site: Site, messages: int, first_id: int) -> Path:
    """Build the agent with a pace and a heap sensor of this run."""
    agent = site.firmware / "agent"
    package = site.folder / "soak" / "agent"
    package.mkdir(parents=True)
    app = _APP.replace("WAITING", str(_WAITING)).replace("START", str(first_id))
    every = max(2, messages // HEAP_SAMPLES)
    sensors = _SENSORS.replace("EVERY", str(every))
    for name, extra in (("app.py", app), ("sensors.py", sensors)):
        text = (agent / name).read_text("utf-8")
        (package / name).write_text(text + extra, "utf-8")
    settings: dict[str, Any] = {"period_ms": 1, "readings_max": messages}
    return build_image([agent, package.parent], settings, site.folder / "soak.romfs")


def replay(result: Result) -> str:
    """Return the command that runs the same again."""
    return f"make soak MESSAGES={result.messages} SEED={result.seed} PROFILE={result.profile}"


class _Progress:
    """A line on a terminal; on anything else one every half minute."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, result: Result, seconds: float) -> None:
        tty = sys.stderr.isatty()
        if not tty and seconds - self._said < 30:
            return
        self._said = seconds
        left = (result.messages - result.arrived) / max(result.rate, 0.1)
        faults = sum(count for name, count in result.faults.items() if name != "delay")
        text = (
            f"{result.arrived} of {result.messages} readings, {result.rate:.0f}/s, "
            f"{left:.0f} s to go, {faults} faults, {result.connections} connections"
        )
        print(f"\r{text}\x1b[K" if tty else text, end="" if tty else "\n", file=sys.stderr)
        sys.stderr.flush()


def show(result: Result) -> None:
    """Print the outcome for people."""
    heap = f"{min(result.heap)} to {max(result.heap)}" if result.heap else "unknown"
    for name, value in (
        ("readings", f"{result.arrived} of {result.messages}, {result.twice} twice"),
        ("QoS 1 messages from the board", f"{result.published}, packet id wrapped {result.wraps}"),
        ("acknowledgements", result.acks),
        ("connections", result.connections),
        ("faults", ", ".join(f"{n} {k}" for k, n in result.faults.items()) or "none"),
        ("counted by the gateway", ", ".join(f"{n} {k}" for k, n in result.refused.items())),
        ("free heap of the board", f"{heap} bytes in {len(result.heap)} samples"),
        ("evidence", ", ".join(f"{n} {k}" for k, n in result.evidence.items())),
        ("time", f"{result.seconds} s, {result.rate} readings/s"),
    ):
        print(f"{name:32}{value}")
    for failure in result.failures:
        print(f"FAILED: {failure}")
    if result.failures:
        print(f"again: {replay(result)}")
    else:
        print("nothing lost, nothing twice")


def main() -> int:
    """Parse the command line and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="mild")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if not 1 <= options.messages <= MAX_MESSAGES:
        parser.error(f"--messages is from 1 to {MAX_MESSAGES}")
    # The board's flash, the network and the readers share this process: short turns.
    sys.setswitchinterval(0.0005)
    folder = Path(tempfile.mkdtemp(prefix="tidemark-soak-"))
    try:
        result = asyncio.run(
            soak(
                folder / "site",
                options.messages,
                options.seed,
                options.profile,
                limit_s=options.limit,
                say=_Progress(),
            )
        )
    except SiteError as error:
        print(f"the site failed, not the board: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 2
    finally:
        clean(folder / "site")
        shutil.rmtree(folder, ignore_errors=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if options.json:
        print(
            json.dumps({**asdict(result), "holds": not result.failures, "replay": replay(result)})
        )
    else:
        show(result)
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
