"""Power cuts at every flash operation of an A/B update on the emulated Pico: the real image, the
real updater and boot chain, the real bytecode.

    .venv/bin/python -m tests.powercut.pico_cuts [--jobs 2] [--every 1] [SCENARIO...]
    .venv/bin/python -m tests.powercut.pico_cuts --replay crash/12:weak:on

A scenario runs once. At each of its flash operations the process forks, once for each cut: the
child loses its power there, boots twice on what is left, with torn cells that read differently
each time, and judges what came up. So no cut pays for what led to it. Two cuts an operation:
behind it, and within it; how torn cells read goes round from one to the next.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import REPO, firmware_dir
from tests.powercut import variants
from tidemark_host import toolchain
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError, Violation
from tidemark_host.boards.emulated import EmulatedPico
from tidemark_host.boards.emulated_chip import Chip
from tidemark_host.boards.emulated_life import provisioned
from tidemark_host.boards.nor import AFTER, OLD, READINGS, NorFlash, PowerCut
from tidemark_host.hil.images import FAULTS, overlay
from tidemark_host.romfs import build_image

NAME = "TIDEMARK_PICO"
BOARD = load_board(REPO / "boards" / NAME / "board.toml")
_BANNER = re.compile(rb"tidemark: slot (\w), release (\d+) \([^)]*\), (\w+)")
_BOOT_S = 5.0
A, TRIAL, B = "a 1 normal", "b 2 trial", "b 2 normal"
_RELEASE_OF = {"a": 1, "b": 2}

# What a mirror would have served, handed to the updater below its HTTP client.
_STAGE = """
from tidemark import stage0
from tidemark.slots import Release
base = stage0.base
class Served:
    def __init__(self, start):
        self.start = start
        self.left = len(content) - start
    def readinto(self, view):
        size = min(len(view), self.left)
        at = len(content) - self.left
        view[:size] = content[at : at + size]
        self.left -= size
        return size
    def close(self):
        pass
class Mirror:
    def get(self, path, start, length):
        yield
        return Served(start)
updater = base.updates.updater
updater.targets = Mirror()
release = Release({digest!r}, len(content), 2, 0, "2.0.0")
for _ in updater._install("image", release, updater.slots.target_slot(), None):
    pass
"""
_SLOTS = "from tidemark import stage0\nslots = stage0.base.slots\n"
# Without a gateway a trial ends after six seconds, five of which the link takes to find that out.
_HOARDS = """

def tasks(base, _tasks=tasks):
    from tidemark.supervisor import Task

    history = []
    return _tasks(base) + [Task("history", lambda: history.append(bytearray(98304)), 1, 60000)]
"""
_PART = 256


class Live(EmulatedPico):
    """A board in the hands of a scenario. `cuts(operation)`: called before each flash operation
    while `watched`."""

    def __init__(self, flash: tuple[object, ...], cut: Callable[[Live], None]) -> None:
        chip = Chip({}, weak=True)
        chip.nor.restore(flash)
        self.watched = False
        self.violations: list[Violation] = []
        chip.on_violation = self.violations.append
        operate = chip.mcu.ssi._operate

        def hook(address: int, data: bytes | None, size: int) -> None:
            self.next = (address, data)
            if self.watched:
                cut(self)
            operate(address, data, size)

        chip.mcu.ssi._operate = hook
        self._begin(chip)

    def boot(self, banner: str = "", seconds: float = _BOOT_S) -> str:
        """Run up to the next hand-over (to `banner`, if given); return what was handed over to."""
        while True:
            self._wait(b"tidemark: ", seconds, "a hand-over")
            line = b"tidemark: " + self._wait(b"\r\n", 1.0, "the end of a line")
            match = _BANNER.match(line)
            found = b" ".join(match.groups()).decode() if match else ""
            if line.startswith(b"tidemark: rescue"):
                found = "rescue"
            if found and banner in ("", found):
                return found

    def interrupt(self) -> None:
        """Stop the application from the console, once its tasks run."""
        self.chip.run(0.5)
        self.chip.send(b"\x03")
        self._wait(b">>> ", 5.0, "the REPL's prompt")

    def install(self, content: bytes) -> None:
        """Have the updater write and stage `content` as release 2."""
        self.exec("content = bytearray()")
        for start in range(0, len(content), _PART):
            self.exec(f"content.extend({content[start : start + _PART]!r})")
        self.watched = True
        self.exec(_STAGE.format(digest=hashlib.sha256(content).digest()), 60)

    @property
    def flash(self) -> tuple[object, ...]:
        """The flash as it is now."""
        return self.chip.nor.snapshot()


@dataclass(frozen=True)
class Scenario:
    """`fault`: of the image in slot B. `order`: what may come up, never an earlier one later.

    `outcome`: how the trial ends without a cut, "" when it does not.
    """

    fault: str
    order: Sequence[str]
    play: Callable[[Live], None]
    outcome: str = ""
    staged: bool = True


def _update(live: Live) -> None:
    live.boot(A)
    live.interrupt()
    live.install(_images()["good"])


def _confirm(live: Live) -> None:
    live.boot(TRIAL)
    live.interrupt()
    live.watched = True
    live.exec(_SLOTS + "slots.confirm()")


def _ends(seconds: float) -> Callable[[Live], None]:
    def play(live: Live) -> None:
        live.boot(TRIAL)
        live.watched = True
        live.boot(A, seconds)

    return play


def _told(call: str) -> Callable[[Live], None]:
    def play(live: Live) -> None:
        live.boot(TRIAL)
        live.interrupt()
        live.watched = True
        live.exec(_SLOTS + call + "\nimport machine\n")
        live.chip.send(b"machine.reset()\x04")
        live.boot(A)

    return play


def _power(live: Live) -> None:
    for _ in range(17):  # the trial's first boot, and 16 that may follow a loss of power
        live.boot(TRIAL)
        live.chip.reset_pin()
    live.watched = True
    live.boot(A)


def _decayed(live: Live) -> None:
    at = BOARD.regions["slot_b"].offset + 4096 + 100
    live.chip.write_flash(at, bytes([live.chip.read_flash(at, 1)[0] ^ 1]))
    live.watched = True
    live.boot(A)


SCENARIOS = {
    "update": Scenario("good", (A, TRIAL), _update, staged=False),
    "trial": Scenario("good", (TRIAL,), lambda live: _watch_boot(live, TRIAL)),
    "confirm": Scenario("good", (TRIAL, B), _confirm, "confirmed ok"),
    "crash": Scenario("crashes", (TRIAL, A), _ends(20), "rejected crash"),
    "deadline": Scenario("hangs", (TRIAL, A), _ends(60), "rejected deadline"),
    "heap": Scenario("hoards", (TRIAL, A), _ends(60), "rejected heap"),
    "no-ack": Scenario("good", (TRIAL, A), _ends(60), "inconclusive no-ack"),
    "health": Scenario("good", (TRIAL, A), _told("slots.fault('health')"), "rejected health"),
    "power": Scenario("good", (TRIAL, A), _power, "inconclusive power"),
    "digest": Scenario("good", (A,), _decayed, "inconclusive image-digest"),
}


def _watch_boot(live: Live, banner: str) -> None:
    live.watched = True
    live.boot(banner)


_made: dict[str, Any] = {}


def _images() -> dict[str, bytes]:
    """Return the image of each fault."""
    if "images" not in _made:
        agent = firmware_dir() / "agent"
        found: dict[str, bytes] = {}
        with tempfile.TemporaryDirectory() as name:
            for fault in (*FAULTS, "hoards"):
                folder = overlay(
                    Path(name, fault), agent, fault if fault in FAULTS else "good", table=0
                )
                if fault == "hoards":
                    with (folder / "agent" / "app.py").open("a") as app:
                        app.write(_HOARDS)
                out = build_image(
                    [agent, folder], {"period_ms": 1000}, Path(name, f"{fault}.romfs")
                )
                found[fault] = out.read_bytes()
        _made["images"] = found
    return _made["images"]


def _factory() -> bytes:
    """Return the flash of a board that runs release 1."""
    if "factory" not in _made:
        with tempfile.TemporaryDirectory() as name:
            uf2 = toolchain.firmware(NAME)
            made = provisioned(BOARD, uf2, firmware_dir() / "agent", Path(name))
        _made["factory"] = made.flash
    return _made["factory"]


def _fresh(content: bytes) -> tuple[object, ...]:
    return NorFlash(bytearray(content), weak=True).snapshot()


def _staged(fault: str) -> tuple[object, ...]:
    """Return the flash of a board that holds release 2, with `fault`, for its trial."""
    key = f"staged {fault}"
    if key not in _made:
        live = Live(_fresh(_factory()), lambda _: None)
        live.boot(A)
        live.interrupt()
        live.install(_images()[fault])
        _made[key] = live.flash
    return _made[key]


# -- a cut and what comes of it -------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """One cut of a scenario and its verdict: `came` up at the first and second boot; `wrong`.

    `path`: what replays it. The operation's number may differ by one or two from run to run: the
    board's key is made anew, and lengths of records with it.
    """

    path: str
    kind: str
    address: int
    came: Sequence[str]
    wrong: str


def _judge(order: Sequence[str], flash: tuple[object, ...], readings: Sequence[str]) -> list[Any]:
    """Boot twice on `flash`; return what came up, and what is wrong with it ("" if nothing)."""
    came: list[str] = []
    for reading in readings:
        live = Live(flash, lambda _: None)
        nor = live.chip.nor
        nor.power_up(dict.fromkeys(nor.weak_groups(), reading))
        try:
            came.append(live.boot())
        except BoardError as error:
            return [came, f"boot {len(came) + 1}: {error}"]
        flash = live.flash
        if live.violations:
            return [came, f"refused by the flash: {live.violations[0]}"]
    confirmed, floor, _ = _state(flash)
    return [came, verdict(order, came, confirmed, floor)]


def verdict(order: Sequence[str], came: Sequence[str], confirmed: str, floor: int) -> str:
    """Return what is wrong ("" if nothing) with a board on which `came` came up, one after the
    other, and that has this slot confirmed (I3) and this floor (I4) at the end."""
    wrong = [what for what in came if what not in order]
    if wrong:
        return f"{wrong[0]!r} came up"
    if order.index(came[1]) < order.index(came[0]):
        return "went back at the second boot"
    if came[1] != TRIAL and confirmed != came[1][0]:
        return f"slot {confirmed} is confirmed"
    if floor != _RELEASE_OF.get(confirmed):
        return f"floor {floor}, slot {confirmed} confirmed"
    return ""


def _state(flash: tuple[object, ...]) -> tuple[str, int, str]:
    """Return the confirmed slot, the floor and the last trial's outcome, by the board's code."""
    from tidemark.flash import Region
    from tidemark.journal import Journal
    from tidemark.slots import Slots

    region = BOARD.regions["journal"]
    content: Any = flash[0]
    copy = NorFlash(bytearray(content[region.offset : region.end]))
    journal: Any = Journal(Region(copy, 0, region.size))
    journal.recover()
    slots: Any = Slots(journal)
    slots.recover()
    confirmed = "ab"[slots.confirmed] if slots.confirmed in (0, 1) else "none"
    return confirmed, slots.floor, " ".join(slots.last_trial[2:4]) if slots.last_trial else ""


def _ways(turn: int) -> list[str]:
    """Return how the cuts at an operation fail, named as in variants.py: two boots' readings."""
    letters = (READINGS[turn % 4][0], READINGS[(turn // 4 + turn + 1) % 4][0])
    return [AFTER, f"weak:{''.join(letters)}"]


def _parse(path: str) -> tuple[str, int, str]:
    """Return (scenario, operation, way) of a path; operation 0: no cut. Raises ValueError."""
    name, _, rest = path.partition("/")
    if name not in SCENARIOS:
        raise ValueError(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    if not rest:
        return name, 0, ""
    number, _, way = rest.partition(":")
    variant = variants.parse(way)
    if "/" in rest or variant.count >= 0 or (way != AFTER and len(variant.readings) != 2):
        raise ValueError("one cut: <scenario>/<operation>:after or :weak:<two letters>")
    if int(number) < 1:
        raise ValueError("operations are counted from 1")
    return name, int(number), way


def replay(path: str) -> list[Cut]:
    """Run a scenario with the one cut of a path, or none. Raises ValueError."""
    name, operation, way = _parse(path)
    cuts = play(name, 1, lambda number, _turn: [way] if number == operation else [])
    if operation and all(cut.path == name for cut in cuts):
        raise ValueError(f"a run of {name} has fewer than {operation} operations")
    return cuts


def play(
    name: str, every: int = 1, ways: Callable[[int, int], list[str]] | None = None
) -> list[Cut]:
    """Run a scenario with its cuts at each `every`-th operation; return them all.

    `ways`: from an operation's number and its turn the names of the cuts there.
    """
    scenario = SCENARIOS[name]
    cuts: list[Cut] = []
    count = turn = 0

    def cut(live: Live) -> None:
        nonlocal count, turn
        count += 1
        if count % every:
            return
        for way in ways(count, turn) if ways else _ways(turn):
            came, wrong = _forked(lambda w=way: _lose_power(live, scenario, w))
            address, data = live.next
            kind = "erase" if data is None else "program"
            cuts.append(Cut(f"{name}/{count}:{way}", kind, address, came, wrong))
        turn += 1

    flash = _staged(scenario.fault) if scenario.staged else _fresh(_factory())
    live = Live(flash, cut)
    scenario.play(live)
    live.watched = False
    outcome = _state(live.flash)[2]
    if live.violations:
        cuts.append(Cut(name, "", 0, (), f"refused: {live.violations[0]}"))
    if outcome != scenario.outcome:
        cuts.append(Cut(name, "", 0, (), f"the trial ended {outcome!r}"))
    return cuts


def _lose_power(live: Live, scenario: Scenario, way: str) -> list[Any]:
    nor = live.chip.nor
    address, data = live.next
    variant = variants.parse(way)
    readings = variant.readings or (OLD, OLD)
    nor.plan_cut(0, variant.kind)
    try:
        if data is None:
            nor.erase(address)
        else:
            nor.program(address, data)
    except PowerCut:
        return _judge(scenario.order, nor.snapshot(), readings)
    return [[], "the cut did not come"]


def _forked(work: Callable[[], list[Any]]) -> list[Any]:
    """Do `work` in a child process, so that it leaves no trace here; return its result."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = work()
        except BaseException as error:  # it ends here: the parent must not go on twice
            result = [[], f"{type(error).__name__}: {error}"]
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return json.loads(data) if data else [[], "the child died"]


def _tell(cut: Cut) -> None:
    where = f"{cut.kind} at {cut.address:#x}, then {' and '.join(cut.came)}" if cut.kind else ""
    print(f"BROKEN {cut.wrong} ({where})", file=sys.stderr)
    print(f"  make powercut TARGET=emulated REPLAY={cut.path}", file=sys.stderr, flush=True)


def _replayed(path: str) -> int:
    try:
        _parse(path)
        toolchain.firmware(NAME)
        cuts = replay(path)
    except ValueError as error:
        print(f"powercut: {path!r} can't be replayed: {error}", file=sys.stderr)
        return 2
    for cut in cuts:
        if cut.wrong:
            _tell(cut)
        else:
            print(f"{cut.path}: {cut.kind} at {cut.address:#x}, then {' and '.join(cut.came)}")
    if any(cut.wrong for cut in cuts):
        return 1
    print("no invariant is broken")
    return 0


def main() -> int:
    """Run the scenarios of the command line; print what was tried and what is wrong."""
    parser = argparse.ArgumentParser(description="power cuts on the emulated Pico")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="cut at each n-th operation only")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--replay", metavar="PATH", help="one cut, by what its violation printed")
    options = parser.parse_args()
    if options.replay:
        return _replayed(options.replay)
    names = options.scenarios or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {unknown[0]}")
    toolchain.firmware(NAME)
    total = wrong = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        tried = pool.map(play, names, [options.every] * len(names))
        for name, cuts in zip(names, tried, strict=True):
            bad = [cut for cut in cuts if cut.wrong]
            ends = Counter(cut.came[-1] for cut in cuts if cut.came)
            total, wrong = total + len(cuts), wrong + len(bad)
            said = ", ".join(f"{what}: {times}" for what, times in ends.most_common())
            print(f"{name}: {len(cuts)} cuts ({said})", flush=True)
            for cut in bad:
                _tell(cut)
    print(f"{total} cuts, {wrong} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
