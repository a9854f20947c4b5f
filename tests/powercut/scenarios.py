"""What a board lives through while its power fails: each scenario drives it to its end.

`prepare` sets the stage without cuts. `drive` switches on and does what board and operator do; it
is called again, from the start, after each loss of power, and returns when the end is reached.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.powercut import esp32
from tests.powercut.broken import Broken
from tests.powercut.setting import FORGED_RUNTIME, PAIRS, PLAIN, Setting
from tests.powercut.world import READINGS, World
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32 import otadata
from tidemark_host.provision import ProvisionError
from tidemark_host.release import KeyStore, Repository

_FLOOR, _MODE, _LAST_TRIAL, _UPDATE = 1003, 1006, 1009, 1012  # claims


@dataclass(frozen=True)
class Scenario:
    """`says`: one line for people. `short`: cuts in the recovery from each cut are tried, too."""

    says: str
    prepare: Callable[[World], None]
    drive: Callable[[World], None]
    short: bool = False
    erases: tuple[str, ...] = ()  # regions of which a clean run erases a sector: what it is for
    board: str = PLAIN


# -- ends ---------------------------------------------------------------------------------------


def _reported(release: int) -> Callable[[World], bool]:
    """The gateway acknowledged a report of a boot of this release, outside a trial, and all
    readings that the flash held have arrived."""

    def goal(world: World) -> bool:
        banner = world.banner
        if not banner or banner.release != release or not world.told:
            return False
        told = world.told
        return told[_MODE] == "normal" and told[_FLOOR] == release and not world.oracle.owed

    return goal


def _runs(release: int) -> Callable[[World], None]:
    def drive(world: World) -> None:
        world.power_on()
        world.run(_reported(release), f"release {release} reports, confirmed")

    return drive


def _updates(world: World) -> None:
    """Release 2 runs. After four downloads that were cut off the board waits a day, and says so:
    a mirror that breaks off must not wear the flash out."""
    world.power_on()

    def goal(w: World) -> bool:
        if _reported(2)(w):
            return True
        cuts = w.restarts.count("power-on") - 2
        return cuts >= 4 and _reported(1)(w) and w.told[_UPDATE] == "erase-limit"

    world.run(goal, "release 2 reports, confirmed")


# -- first life ---------------------------------------------------------------------------------


def _factory(world: World) -> None:
    world.life.load(world.kit.factory)


def _birth(world: World) -> None:
    world.power_on()
    _key(world)


def _key(world: World) -> None:
    try:
        world.begin()
    except ProvisionError as error:
        # Several cuts within the journal's birth: it never erases, so both units may be torn. The
        # board says so, and whoever flashed it flashes it again. Not once its key was shown.
        if error.code != "journal-unborn" or world.oracle.public:
            raise
        world.power_off()
        _factory(world)
        world.oracle.anew()
        world.power_on()
        world.begin()


def _provision(world: World) -> None:
    world.power_on()
    world.run(lambda w: w.banner is not None or b"not provisioned" in w.life.said, "a boot")
    if world.banner is None:
        _key(world)
        world.finish()
        world.exec("provision.leave()")
    world.run(_reported(1), "the provisioned board reports")


def provisioned(world: World) -> None:
    """A board that runs release 1, has said so, and is switched off."""
    _factory(world)
    _provision(world)
    world.power_off()
    world.oracle.confirmed = 1


# -- state --------------------------------------------------------------------------------------


def _region(world: World, name: str) -> tuple[Any, Any]:
    """Return (Region, place) over the living flash, for the firmware's own code."""
    from tidemark.flash import Region

    part = world.board.regions[name]
    content = bytearray(world.life.content)
    nor = NorFlash(content)
    return Region(nor, part.offset, part.size), content


def _old_counter(world: World) -> None:
    """A counter whose next record is the first of a sector that holds old ones."""
    from tidemark.counter import Counter

    provisioned(world)
    region, content = _region(world, "counter")
    slots = region.size // 16
    while True:
        counter = Counter(region)
        epoch = counter.recover()
        if epoch and epoch % (slots // 2) == 0 and epoch > slots:
            break
        counter.open_epoch()
    world.life.load(bytes(content))


def _full_journal(world: World) -> None:
    """A journal whose unit is full but for a few blocks: the boot changes to the other one."""
    from tidemark import cbor
    from tidemark.journal import Journal

    provisioned(world)
    region, content = _region(world, "journal")
    journal = Journal(region)
    journal.recover()
    before = bytes(content)
    generation = journal._generation
    age = 0
    while journal._generation == generation:
        before = bytes(content)
        age += 1
        journal.put("download", cbor.encode([bytes(32), 1, 0, 1, age]))
    world.life.load(before)


def _full_evidence(world: World) -> None:
    """An evidence ring whose next records begin a sector that holds old ones."""
    from tidemark.evidence import SYSTEM, Evidence

    provisioned(world)
    region, content = _region(world, "evidence")
    evidence = Evidence(region)
    evidence.recover()
    slots = region.size // 64
    while evidence.head()[0] < 2 * slots or evidence.head()[0] % (slots // 2) != slots // 2 - 1:
        evidence.add("filler", b"", SYSTEM)
    world.life.load(bytes(content))


def _lost(world: World) -> None:
    """The journal's region was erased: the board must not go on as if nothing had happened."""
    provisioned(world)
    part = world.board.regions["journal"]
    content = bytearray(world.life.content)
    content[part.offset : part.end] = b"\xff" * part.size
    world.life.load(bytes(content))
    world.lost = True


def _safe_then_anew(world: World) -> None:
    """Nothing is sent until an operator flashes the board anew and gives it a new key."""
    if world.lost:
        said = world.oracle.messages
        world.power_on()
        world.run(lambda w: w.banner is not None, "safe mode")
        if world.banner and world.banner.mode != "safe":
            raise Broken("I1", f"state was lost, the board came up as {world.banner}")
        start = world.life.now
        world.run(lambda w: w.life.now > start + 20_000, "twenty seconds")
        if world.oracle.messages != said:
            raise Broken("I1", "a board that lost its state sent a message")
        world.power_off()
        _factory(world)
        world.oracle.anew()
        world.lost = False
    _provision(world)


# -- readings -----------------------------------------------------------------------------------


def _reads(world: World) -> None:
    """A board with three readings of an earlier boot that nobody has acknowledged."""
    _running(world, "reads")
    _store_three(world)


def _full_outbox(world: World) -> None:
    """The same in an outbox where the next boot's readings begin a sector that holds old ones."""
    from tidemark.outbox import Outbox

    _running(world, "reads")
    region, content = _region(world, "outbox")
    outbox = Outbox(region)
    outbox.recover()
    index = 0
    while outbox._serial <= region.sectors or outbox._next_chunk < outbox._chunks - 1:
        index += 1
        outbox.ack(outbox.add(1, index, bytes(100)))
    world.life.load(bytes(content))
    _store_three(world)


def _store_three(world: World) -> None:
    world.deaf = lambda _world: True
    world.power_on()
    world.run(lambda w: len(_waiting(w)) >= 3, "three readings stored")
    world.power_off()
    world.deaf = lambda _world: False


def _waiting(world: World) -> list[tuple[int, int]]:
    state = world.state()
    return state.waiting if state else []


def _all_readings(world: World) -> None:
    world.power_on()

    def goal(w: World) -> bool:
        if not w.told or w.oracle.owed:
            return False
        mine = [
            key for key in w.oracle.upstream if key[1] == "reading" and key[2] == w.oracle.epoch
        ]
        return len(mine) == READINGS and not _waiting(w)

    world.run(goal, "all readings arrive")


# -- releases -----------------------------------------------------------------------------------


def publish(setting: Setting) -> None:
    """Make the update repositories of the scenarios, once."""
    keys = KeyStore(setting.folder / "keys")
    for name, image in setting.images.items():
        if name in ("first", "brittle"):
            continue
        target = setting.mirror(PLAIN, name)
        shutil.copytree(setting.mirror(PLAIN, "first"), target)
        repository = Repository.open(target, keys)
        repository.add(image, board=PLAIN, version="2.0.0")
        if name == "good":
            repository.rotate("timestamp")
        repository.publish()
    board = setting.kits[esp32.NAME].board
    for name, (image, runtime) in PAIRS.items():
        target = setting.mirror(board.name, name)
        shutil.copytree(setting.mirror(board.name, "first"), target)
        repository = Repository.open(target, keys)
        least = repository.add_runtime(runtime.image, board=board, version="2.0.0")
        content = setting.images[image]
        repository.add(content, board=board.name, version="2.0.0", min_runtime=least)
        repository.publish()
    forged = setting.mirror(board.name, "pair-forged")
    shutil.copytree(setting.mirror(board.name, "pair"), forged)
    file = Repository.open(forged, keys).target_path(board.name, 2, kind="runtime")
    file.write_bytes(FORGED_RUNTIME.image)


def _offered(image: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        provisioned(world)
        world.network.mirror = world.setting.mirror(world.board.name, image)

    return prepare


def _staged(image: str) -> Callable[[World], None]:
    """A board that has release 2 in slot B, staged, and is switched off."""

    def prepare(world: World) -> None:
        _offered(image)(world)
        world.power_on()
        world.run(
            lambda w: (
                len(w.restarts) > 1
                and w.restarts[-1] == "reset"
                and w.life.marker != 0
                and not w.banner
            ),
            "the reset into the trial",
        )
        world.power_off()

    return prepare


def _running(world: World, image: str) -> None:
    """A board that runs release 2."""
    _offered(image)(world)
    _runs(2)(world)
    world.power_off()


def _ends(release: int, outcome: str) -> Callable[[World], None]:
    """The trial of release 2 ends, and `release` reports it."""

    def drive(world: World) -> None:
        world.power_on()

        def goal(w: World) -> bool:
            if not _reported(release)(w):
                return False
            last = w.told.get(_LAST_TRIAL)
            return bool(last) and last[2] == outcome

        world.run(goal, f"the trial ends {outcome}, release {release} reports it")

    return drive


def _rejected_for_good(world: World) -> None:
    """The trial ends in a rejection, and the mirror goes on to offer what was rejected."""
    _ends(1, "rejected")(world)
    world.run(
        lambda w: _reported(1)(w) and w.told[_UPDATE] == "rejected", "the next offer is refused"
    )


def _silent_trial(world: World) -> None:
    """The gateway does not hear release 2, so its trial can't be decided."""
    _staged("good")(world)
    world.deaf = lambda w: bool(w.banner) and w.banner.mode == "trial"  # type: ignore[union-attr]


def _many_losses(world: World, image: str = "good") -> None:
    """A trial that has lost its supply seventeen times: one more and it is called off."""
    _staged(image)(world)
    world.deaf = lambda _world: True
    for _ in range(17):
        world.power_on()
        world.run(lambda w: w.banner is not None, "the trial")
        world.power_off()
    world.deaf = lambda _world: False


# -- releases with a runtime ----------------------------------------------------------------------


def _fresh_otadata(world: World) -> None:
    """A pair is offered to a board whose bootloader has still to make the first entry."""
    _offered("pair")(world)
    assert world.life.chip
    region = world.life.chip.layout.otadata
    assert region
    content = bytearray(world.life.content)
    content[region.offset : region.offset + region.size] = b"\xff" * region.size
    world.life.load(bytes(content))


def _found_valid(world: World) -> None:
    """The runtime on trial was marked valid, and the power failed before the confirmation."""
    _staged("pair-brittle")(world)
    world.power_on()
    world.run(_new_is_valid, "the new runtime's entry is valid")
    world.power_off()
    state = world.state()
    if not state or state.release != 1:
        raise Broken("I5", "the new pair is confirmed already")


def _new_is_valid(world: World) -> bool:
    chip = world.life.chip
    assert chip and chip.layout.otadata
    entries = otadata.read(world.life.nor, chip.layout.otadata)
    index = otadata.active(entries)
    if index is None or entries[index].state != otadata.State.VALID:
        return False
    return otadata.slot_of(entries[index].seq, 2) == 1


def _forged(world: World) -> None:
    """The mirror serves another runtime than the signed one: release 1 says so, and runs on."""
    world.power_on()

    def goal(w: World) -> bool:
        return _reported(1)(w) and w.told[_UPDATE] in ("target-hash", "erase-limit")

    world.run(goal, "release 1 reports what the mirror served")


SCENARIOS: Mapping[str, Scenario] = {
    "birth": Scenario("first boot: the board makes its key", _factory, _birth, True),
    "provision": Scenario("provisioning, to the first report", _factory, _provision),
    "boot": Scenario("a boot, its hello and a reading", provisioned, _runs(1), True),
    "readings": Scenario("backlog and live readings", _reads, _all_readings),
    "update": Scenario(
        "root rotation, metadata, download, slot, trial, confirmation", _offered("good"), _updates
    ),
    "confirm": Scenario("trial to confirmation", _staged("good"), _ends(2, "confirmed")),
    "crash": Scenario(
        "an image that crashes: rollback, and the next offer",
        _staged("crashes"),
        _rejected_for_good,
    ),
    "deadline": Scenario("a task that hangs: rollback", _staged("stalls"), _ends(1, "rejected")),
    "heap": Scenario("an image without heap: rollback", _staged("hoards"), _ends(1, "rejected")),
    "unwell": Scenario("a health check fails: reject", _staged("unwell"), _ends(1, "rejected")),
    "no-ack": Scenario("three trials nobody hears", _silent_trial, _ends(1, "rejected")),
    "power": Scenario(
        "a trial called off after too many losses of power, then repeated",
        _many_losses,
        _ends(2, "confirmed"),
    ),
    "journal": Scenario(
        "a boot that fills the journal's unit", _full_journal, _runs(1), erases=("journal",)
    ),
    "evidence": Scenario(
        "a boot that wraps the evidence ring", _full_evidence, _runs(1), erases=("evidence",)
    ),
    "counter": Scenario(
        "a boot that erases a counter sector", _old_counter, _runs(1), erases=("counter",)
    ),
    "outbox": Scenario(
        "backlog and live readings, which erase an outbox sector",
        _full_outbox,
        _all_readings,
        erases=("outbox",),
    ),
    "runtime": Scenario(
        "an application with its runtime, from a blank otadata to confirmation",
        _fresh_otadata,
        _updates,
        erases=("otadata", "ota_1"),
        board=esp32.NAME,
    ),
    "runtime-forged": Scenario(
        "a runtime in the signed one's place: nothing of it would start",
        _offered("pair-forged"),
        _forged,
        erases=("otadata", "ota_1"),
        board=esp32.NAME,
    ),
    "runtime-crash": Scenario(
        "a runtime that does not get to stage 0: the bootloader's rollback",
        _staged("pair-hangs"),
        _ends(1, "rejected"),
        erases=("otadata",),
        board=esp32.NAME,
    ),
    "runtime-unwell": Scenario(
        "a health check fails on the new runtime: both go back",
        _staged("pair-unwell"),
        _ends(1, "rejected"),
        erases=("otadata",),
        board=esp32.NAME,
    ),
    "runtime-restore": Scenario(
        "a pair rejected when its runtime is valid already",
        _found_valid,
        _ends(1, "rejected"),
        erases=("otadata",),
        board=esp32.NAME,
    ),
    "runtime-power": Scenario(
        "a pair's trial called off after too many losses of power, then repeated",
        lambda world: _many_losses(world, "pair"),
        _ends(2, "confirmed"),
        erases=("otadata",),
        board=esp32.NAME,
    ),
    "lost": Scenario("lost state: silence and safe mode", _lost, _safe_then_anew),
}
