"""A sample of every firmware target under MicroPython: the same word as on CPython."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import GENERATED, REPO, SHARED, firmware_dir
from tests.fuzz import regressions
from tests.fuzz.mutate import SPAN, mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import BY_NAME, TARGETS
from tidemark_host import romfs, toolchain

VM = REPO / "tests" / "vm"
LIMIT_S = 100
_MARK = "@@fuzz "
_FIRMWARE = [target for target in TARGETS if target.is_firmware]


def _said(name: str, inputs: list[bytes]) -> list[str]:
    """Return what MicroPython says of each input."""
    folders = [firmware_dir(), GENERATED, VM, SHARED, toolchain.umqtt_dir()]
    command = [*toolchain.quick_micropython(), "-X", "heapsize=64M", str(VM / "fuzz_loop.py")]
    run = subprocess.run(
        [*command, *map(str, folders)],
        input="".join(f"{name} {data.hex()}\n" for data in inputs),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_S,
        check=False,
    )
    lines = run.stdout.splitlines()
    said = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    end = f"\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    assert len(said) == len(inputs), f"it ended with {run.returncode} at {len(said)}{end}"
    return said


def _changed(target: Target, count: int) -> Iterator[bytes]:
    """Yield seeds, then changed seeds: the same in every run."""
    yield from target.corpus
    choice = random.Random(target.name)
    for _ in range(count):
        steps = [
            (choice.randrange(12), choice.randrange(SPAN), choice.randrange(SPAN))
            for _ in range(choice.randint(1, 4))
        ]
        data = mutate(choice.choice(target.corpus), steps, target.corpus, target.words)
        if target.repair and choice.random() < 0.5:
            data = target.repair(data)
        yield data[: target.limit]


@pytest.mark.parametrize("parser", _FIRMWARE, ids=lambda parser: parser.name)
def test_both_interpreters_say_the_same(parser: Target) -> None:
    inputs = [*_changed(parser, parser.examples // 4)]
    inputs += [former.data for former in regressions.load() if former.target == parser.name]
    for data, theirs in zip(inputs, _said(parser.name, inputs), strict=True):
        assert parser.run(data) == theirs, data.hex()


def test_the_board_lists_the_files_that_the_host_lists() -> None:
    target = BY_NAME["romfs"]
    taken = [data for data in _changed(target, 400) if target.run(data).startswith("taken")]
    assert len(taken) > 10
    for data, theirs in zip(taken, _said("romfs", taken), strict=True):
        assert " ".join(sorted(romfs.list_files(data))) == theirs, data.hex()
