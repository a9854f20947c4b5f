"""The steps of the main job. Each is judged by what can be seen from outside the board."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidemark_host.demo.show import Show
from tidemark_host.hil import attack as attacks
from tidemark_host.hil.site import Site
from tidemark_host.hil.waiting import until

_READINGS = 200
_COPIES = 20
_TRIES = 3


async def enroll(site: Site, show: Show) -> None:
    """A board nobody has seen: flashed, provisioned, with a key of its own, and at the gateway."""
    image = await asyncio.to_thread(site.image, "v1")
    show.say(f"flash a blank board with release 1, {image.stat().st_size} bytes, and provision it")
    born = await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
    claims = await until("the board says hello", site.claims)
    region = site.definition.regions["provisioning"]
    sector = site.board.read_flash(region.offset, region.size)
    show.check(born.public in sector, f"flash: provisioned with the key of device {born.id}")
    seed = await asyncio.to_thread(_find_seed, site, born.public)
    show.check(seed is not None, "flash: the private key is in the board's journal")
    if seed is not None:
        wire = b"".join(message.payload for message in site.capture.messages)
        console = "\n".join(line.text for line in site.board.serial_log)
        show.check(seed not in wire, "wire: the private key was never sent")
        show.check(seed.hex() not in console, "console: the private key was never printed")
    digest = hashlib.sha256(image.read_bytes()).digest()
    show.check(claims.get("mode") == "normal", "gateway: enrolled, verified hello, mode normal")
    show.check(_bytes(claims.get("image-digest")) == digest, "gateway: it runs the signed image")


async def telemetry(site: Site, show: Show) -> None:
    """200 readings, once each, in order, verified."""
    rows = await until(
        f"{_READINGS} readings",
        lambda: rows if len(rows := site.readings()) >= _READINGS else None,
        60,
    )
    keys = [(row["epoch"], row["index"]) for row in rows][:_READINGS]
    show.check(len(set(keys)) == _READINGS, f"gateway: {_READINGS} readings, each once")
    show.check(keys == sorted(keys), "gateway: in the order in which they were taken")
    indices = [index for _, index in keys]
    show.check(indices == list(range(1, _READINGS + 1)), "gateway: none is missing")
    trust = {row["tags"]["trust"] for row in rows}
    show.check(trust == {"mac"}, "gateway: all of them verified by MAC")
    await until("upstream has them", lambda: len(site.upstream.messages) >= _READINGS)
    show.check(True, f"upstream: a reader has {_READINGS} and more")
    verified = await _verify_independently(site)
    show.check(verified, f"by docs/examples/verify_capture.py, none of our code: {verified}")


async def attack(site: Site, show: Show) -> None:
    """Replayed, reordered, altered and forged messages change nothing."""
    rows = site.readings()
    sent = site.capture.of(site.id, "telemetry")
    chance = random.Random(1)
    replayed = sent[-_COPIES:]
    reordered = sent[-2 * _COPIES : -_COPIES]
    chance.shuffle(reordered)
    altered = [attacks.flip(message, chance) for message in sent[-_COPIES:]]
    forged = [attacks.forge_report(site, n) for n in range(_COPIES)]
    macs = [attacks.forge_reading(site, n) for n in range(_COPIES)]
    site.injected.update(altered, forged, macs)
    before = site.view.counts(site.id)

    def grown(*codes: str) -> int:
        now = site.view.counts(site.id)
        return sum(now.get(code, 0) - before.get(code, 0) for code in codes)

    show.say(f"{_COPIES} each: replayed, reordered, altered by a bit, forged")
    await attacks.publish(site, "telemetry", [*replayed, *reordered])
    await until("redeliveries counted", lambda: grown("redelivery", "stale") >= 2 * _COPIES)
    show.check(True, f"gateway: {2 * _COPIES} copies counted as redelivery or stale")
    await attacks.publish(site, "telemetry", altered)
    refusals = ("mac", "shape", "size", "no-session", "space", "signature")
    await until("altered ones refused", lambda: grown(*refusals) >= _COPIES)
    show.check(True, f"gateway: {_COPIES} altered ones refused")
    await attacks.publish(site, "report", forged)
    await until("forged ones refused", lambda: grown("signature") >= _COPIES)
    show.check(True, f"gateway: {_COPIES} forged reports refused, reason signature")
    mac = grown("mac")
    await attacks.publish(site, "telemetry", macs)
    await until("forged MACs refused", lambda: grown("mac") >= mac + _COPIES)
    show.check(True, f"gateway: {_COPIES} forged readings refused, reason mac")
    count = len(site.readings())
    await until("the board goes on", lambda: len(site.readings()) > count)
    now = site.readings()
    show.check(now[: len(rows)] == rows, "gateway: what was accepted before is unchanged")
    honest = all(row["reading"]["1"] == row["index"] for row in now)
    show.check(honest, "gateway: each reading is the one the sensor gave")
    _check_once(site, show)
    show.check(site.view.quarantined(site.id) is None, "gateway: the victim is not locked out")


async def power(site: Site, show: Show) -> None:
    """The supply fails while sending and in the middle of flash programs."""
    before = await asyncio.to_thread(site.counters)
    top = max(epoch for epoch, _ in before)
    show.say("power off while it sends")
    await asyncio.to_thread(site.board.power_off)
    await asyncio.to_thread(site.board.power_on)
    top = await _next_epoch(site, top)
    # A boot programs evidence, affirmations and the counter: every few operations another spot.
    for n, variant in ((1, "before"), (4, "torn"), (7, "torn"), (9, "after")):
        show.say(f"power off in flash operation {n} of a boot, {variant}")
        await asyncio.to_thread(site.board.power_off)
        site.board.cut_at(n, variant)
        await asyncio.to_thread(site.board.power_on)
        await asyncio.to_thread(site.board.wait_cut, 20)
        await asyncio.to_thread(site.board.power_on)
        top = await _next_epoch(site, top)
    counters = await asyncio.to_thread(site.counters)
    show.check(
        len(set(counters)) == len(counters),
        f"wire: {len(counters)} messages, no counter was used twice",
    )
    epochs = list(dict.fromkeys(epoch for epoch, seq in counters if seq & 3 == 0))
    show.check(
        epochs == sorted(epochs) and len(epochs) >= 6,
        f"wire: each boot that spoke has a higher epoch ({', '.join(map(str, epochs))})",
    )
    show.check(not site.board.violations, "flash: no rule of the chip was broken")
    _check_once(site, show)


async def update(site: Site, show: Show) -> None:
    """A signed release goes into the other slot, across a power cut."""
    image = await asyncio.to_thread(site.image, "v2")
    data = image.read_bytes()
    region = site.definition.regions["slot_b"]
    slot_a = site.slot_bytes("slot_a", len(data))
    first = len(site.board.operations)
    # So slow that the cut is planned before it is over, also where this machine is late.
    site.mirror.bytes_per_s = 16_000
    index = site.release("1.1.0", image)
    show.say(f"release {index} is signed and published, {len(data)} bytes")

    def written() -> int:
        found = list(site.board.operations)[first:]
        return sum(region.offset <= op.address < region.end for op in found)

    await until("the download begins", lambda: written() > 100, 60, 0.01)
    site.board.cut_at(40, "torn")
    await asyncio.to_thread(site.board.wait_cut, 30)
    site.mirror.bytes_per_s = None
    show.say(f"power off in the download, after {written()} flash operations on the slot")
    await asyncio.to_thread(site.board.power_on)
    await until("confirmed", lambda: (index, "confirmed", "ok") in site.trials(), 60)
    ranges = [
        wanted
        for path, _, wanted in site.mirror.requests
        if "/targets/" in path and wanted and not wanted.startswith("bytes=0-")
    ]
    show.check(ranges, f"mirror: the download was resumed ({ranges[-1] if ranges else ''})")
    show.check(site.slot_bytes("slot_b", len(data)) == data, "flash: slot B holds it, whole")
    show.check(slot_a == site.slot_bytes("slot_a", len(slot_a)), "flash: slot A was not touched")
    claims = await until("mode normal", lambda: _with(site.claims(), mode="normal"))
    show.check(claims["floor"] == index, f"gateway: confirmed, floor {index}")
    digest = hashlib.sha256(data).digest()
    show.check(_bytes(claims["image-digest"]) == digest, "gateway: it runs the new image")


async def rollback(site: Site, show: Show) -> None:
    """Bad releases end with their reason; an outage only delays a good one."""
    former = site.claims()["image-digest"]
    confirmed = site.slot_bytes("slot_b")
    for fault, version, reasons in (
        ("hangs", "1.2.0", ("deadline", "watchdog")),
        ("crashes", "1.3.0", ("crash",)),
        ("loses-link", "1.4.0", ("loses-link",)),
    ):
        image = await asyncio.to_thread(site.image, version, fault)
        resets = len(site.board.resets)
        index = site.release(version, image)
        show.say(f"release {index}: {fault}")
        trial = await until(f"{fault} is rejected", lambda i=index: _outcome(site, i), 90)
        show.check(trial[2] in reasons, f"gateway: release {index} rejected, reason {trial[2]}")
        causes = [reset.cause for reset in list(site.board.resets)[resets:]]
        if fault == "hangs":
            show.check("watchdog" in causes, "board: the watchdog ended it")
        if fault == "loses-link":
            tries = [t for t in site.trials() if t[0] == index and t[1] == "inconclusive"]
            show.check(len(tries) == 3, f"gateway: {len(tries)} inconclusive trials before that")
        claims = await until("former image", lambda: _with(site.claims(), mode="normal"))
        back = claims["floor"] == 2 and claims["image-digest"] == former
        show.check(back, "gateway: the former image runs, the floor stayed")
    show.check(
        confirmed == site.slot_bytes("slot_b"),
        "flash: the confirmed slot was not touched",
    )
    for number in range(_TRIES):
        image = await asyncio.to_thread(site.image, f"v{6 + number}")
        index = site.release(f"1.5.{number}", image)
        show.say(f"release {index} is good; the gateway dies when its trial begins")
        if await _tried_alone(site, index):
            break
        show.say("this machine was late: it was confirmed by then. Another one")
    await until("inconclusive", lambda: (index, "inconclusive", "no-ack") in site.trials(), 60)
    show.check(True, "gateway: back again, it is told of an inconclusive trial")
    await until("confirmed", lambda: (index, "confirmed", "ok") in site.trials(), 90)
    show.check(
        _outcome(site, index) is None, f"gateway: release {index} confirmed, never rejected"
    )


async def refusals(site: Site, show: Show) -> None:
    """Releases that are not the owner's, not for this board, or not new."""
    slots = site.slot_bytes("slot_a"), site.slot_bytes("slot_b")
    from tidemark_host.hil import mirror

    for attempt in mirror.ATTEMPTS:
        show.say(attempt.text)
        with attempt.staged(site):
            code = await until(
                f"refused: {attempt.text}",
                lambda codes=attempt.codes: _update_code(site, codes),
                60,
            )
        show.check(True, f"gateway: the board reports {code}")
        await until("back to current", lambda: _with(site.claims(), update="current"), 60)
    after = site.slot_bytes("slot_a"), site.slot_bytes("slot_b")
    show.check(slots == after, "flash: neither slot was touched")


async def outage(site: Site, show: Show) -> None:
    """Broker and gateway are killed and come back: nothing is lost, nothing comes twice."""
    count = len(site.readings())
    show.say("broker and gateway are killed")
    await site.kill_gateway()
    # What the broker has acknowledged is its own to hand on: dead, this one would forget it.
    handed = _keys(site.readings()) - site.in_flight
    await until("the reader has what was delivered", lambda: handed <= set(_read(site)))
    await site.broker.stop()
    marks = len(site.board.operations)
    await until("readings pile up", lambda: len(site.board.operations) > marks + 60)
    await asyncio.to_thread(site.board.power_off)
    stored = await asyncio.to_thread(site.stored_readings)
    show.check(len(stored) > 40, f"flash: {len(stored)} readings wait in the outbox, power is off")
    await asyncio.to_thread(site.board.power_on)
    await site.broker.start()
    # The killed broker has forgotten who subscribed: the reader comes back before the gateway.
    await until("the upstream reader is back", lambda: site.upstream.subscribed)
    await site.start_gateway()
    show.say("both are back")
    await until(
        "what was stored arrives",
        lambda: stored <= _keys(site.readings()),
        60,
    )
    show.check(True, "gateway: every one of them has arrived")
    await until("readings flow again", lambda: len(site.readings()) > count + 100, 60)
    _check_once(site, show)
    rows = site.readings()
    for epoch in sorted({row["epoch"] for row in rows})[-2:]:
        indices = sorted(row["index"] for row in rows if row["epoch"] == epoch)
        whole = indices == list(range(1, len(indices) + 1))
        show.check(whole, f"gateway: no reading of epoch {epoch} is missing")
    await until("upstream has all", lambda: site.view.waiting() == 0)
    keys = _keys(rows)
    # The broker acknowledges to the gateway before it hands on to the reader.
    await until("the reader has all", lambda: keys <= set(_read(site)))
    got = Counter(_read(site))
    show.check(keys <= set(got), f"upstream: a reader has all {len(keys)}")
    again = {key for key, times in got.items() if times > 1}
    show.check(
        again <= site.in_flight,
        f"upstream: {len(again)} came again, in flight when the gateway was killed",
    )


STEPS: list[tuple[str, Callable[[Site, Show], Awaitable[None]]]] = [
    ("a blank board is flashed, makes its key, is provisioned and enrolls", enroll),
    (f"{_READINGS} readings arrive once each, in order, verified", telemetry),
    ("replayed, reordered, altered and forged messages change nothing", attack),
    ("power fails while sending and in flash programs; no counter is used twice", power),
    ("a signed release is installed across a power cut, tried and confirmed", update),
    ("releases that hang, crash, lose the network end with their reason", rollback),
    ("older, wrongly signed and foreign releases are refused", refusals),
    ("broker and gateway are killed and restarted: no loss, nothing counted twice", outage),
]


# -- looking closer


def _keys(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Return what tells readings of one device apart: epoch and index."""
    return {(row["epoch"], row["index"]) for row in rows}


def _read(site: Site) -> list[tuple[int, int]]:
    """Return (epoch, index) of each reading that the reader upstream was given, in order."""
    kinds = ("telemetry", "backlog")
    rows = [row for row in site.upstream.messages if row.get("kind") in kinds]
    return [(row["epoch"], row["index"]) for row in rows]


def _find_seed(site: Site, public: bytes) -> bytes | None:
    """Look through the journal's bytes for the seed of `public`: the demo may, an attacker can."""
    region = site.definition.regions["journal"]
    data = site.board.read_flash(region.offset, region.size)
    for at in range(len(data) - 32):
        seed = data[at : at + 32]
        if len(set(seed)) > 16:
            key = Ed25519PrivateKey.from_private_bytes(seed)
            if key.public_key().public_bytes_raw() == public:
                return seed
    return None


def _bytes(value: Any) -> bytes:
    """Return the bytes behind a value of claims, which are kept as JSON."""
    return bytes.fromhex(str(value["bytes"])) if value else b""


def _with(claims: dict[str, Any], **wanted: Any) -> dict[str, Any] | None:
    return claims if all(claims.get(name) == value for name, value in wanted.items()) else None


def _outcome(site: Site, index: int) -> tuple[int, str, str] | None:
    for trial in site.trials():
        if trial[0] == index and trial[1] == "rejected":
            return trial
    return None


async def _tried_alone(site: Site, index: int) -> bool:
    """Kill the gateway when the trial of a release begins, and start it after the trial's end.

    Returns whether the trial ended without its word: it has little time to be killed in.
    """
    log = site.board.serial_log
    began = await asyncio.to_thread(log.wait_for, f"release {index} (1.5.", 60)
    await site.kill_gateway()

    def ended() -> str:
        said = [line.text for line in log if line.time > began.time]
        return next((text for text in said if "inconclusive" in text or "confirmed" in text), "")

    end = await until("the end of the trial", ended, 60)
    await site.start_gateway()
    return "inconclusive no-ack" in end


def _update_code(site: Site, codes: tuple[str, ...]) -> str | None:
    code = site.claims().get("update")
    return code if code in codes else None


def _check_once(site: Site, show: Show) -> None:
    keys = [(row["epoch"], row["index"]) for row in site.readings()]
    show.check(len(keys) == len(set(keys)), f"gateway: {len(keys)} readings, none twice")


async def _verify_independently(site: Site) -> str:
    """Run the example for people who write their own gateway on what the wire has shown.

    Returns its last line, "" when anything did not hold.
    """
    script = Path(__file__).parents[3] / "docs" / "examples" / "verify_capture.py"
    capture = site.folder / "capture-step-2.jsonl"
    capture.write_bytes(site.capture_path.read_bytes())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), str(capture), str(site.inventory.path)),
        *("--keylog", str(site.keylog)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode().strip().splitlines()[-1] if process.returncode == 0 else ""


async def _next_epoch(site: Site, top: int) -> int:
    """Wait for readings of a later epoch than `top` at the gateway; returns it."""

    def later() -> int:
        return max((row["epoch"] for row in site.readings() if row["epoch"] > top), default=0)

    return await until("readings of a new boot", later, 40)
