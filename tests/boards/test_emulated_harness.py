"""The real RP2040 image in the emulator: it boots, has the base, and takes the same cycles twice.

Also what the emulator needed mending for: these tests hang or fail with the emulator as it comes.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPO
from tidemark_host import toolchain
from tidemark_host.boards import emulated_chip
from tidemark_host.boards.base import BoardError, BoardTimeout
from tidemark_host.boards.emulated import EmulatedPico, cross_compile, measure
from tidemark_host.toolchain_cache import ToolchainError, cache_dir
from tidemark_host.toolchain_rp2 import flash_of, uf2

# One worker: a first build and the compiled emulator are made once.
pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(600)]

CANDIDATE = """
import micropython

@micropython.viper
def total(n: int) -> int:
    sum = 0
    while n:
        sum += n
        n -= 1
    return sum

@micropython.asm_thumb
def spin(r0):
    label(AGAIN)
    sub(r0, r0, 1)
    bne(AGAIN)
"""
JOB = """
import candidate
result = bench.measure("viper", candidate.total, 1000)
bench.measure("short", candidate.spin, 1000)
bench.measure("long", candidate.spin, 3000)
bench.measure("list", list, range(100))
print("said")
"""


@pytest.fixture(scope="module")
def image() -> Path:
    return toolchain.firmware("TIDEMARK_PICO")


def test_image_boots_to_a_repl_and_imports_the_base(image: Path) -> None:
    pico = EmulatedPico(image)
    said = pico.exec(
        "import sys, hashlib, tidemark_board, tidemark.errors\n"
        "print(sys.platform, tidemark_board.NAME, tidemark.errors.__file__, sys.path)\n"
        "print(hashlib.sha256(b'abc').digest().hex())"
    )
    lines = said.splitlines()
    assert lines[0] == "rp2 TIDEMARK_PICO tidemark/errors.py ['.frozen']"
    assert lines[1] == hashlib.sha256(b"abc").hexdigest()


def test_traceback_endless_loop_and_next_command(image: Path) -> None:
    pico = EmulatedPico(image)
    with pytest.raises(BoardError, match="ZeroDivisionError"):
        pico.exec("1 / 0")
    assert pico.exec("print(6 * 7)") == "42\n"
    with pytest.raises(BoardTimeout):
        pico.exec("while True: pass", timeout=0.05)


def test_time_passes_while_the_chip_sleeps(image: Path) -> None:
    pico = EmulatedPico(image)
    before = pico.nanoseconds
    pico.exec("import time; time.sleep(5)")
    assert 5.0e9 < pico.nanoseconds - before < 5.2e9


def test_watchdog_resets_once_and_the_next_boot_stays_up(image: Path) -> None:
    pico = EmulatedPico(image)
    pico.chip.send(b"import machine; w = machine.WDT(timeout=200)\r")
    assert not pico.chip.run(1.5)
    assert pico.chip.resets == 1
    said = pico.exec("import machine; print(machine.mem32[0x40058008])")
    assert said == "1\n"


def test_unique_id_is_none_of_a_blank_chip(image: Path) -> None:
    said = EmulatedPico(image).exec("import machine; print(machine.unique_id().hex())")
    assert len(said) == 17
    assert set(said.strip()) != {"f"}


def test_measured_cycles_repeat_exactly_and_follow_the_instructions() -> None:
    files = {"candidate.mpy": cross_compile("candidate.py", CANDIDATE)}
    first, second = measure(files, JOB), measure(files, JOB)
    assert first == second
    assert (first.result, first.output) == (500500, "said\n")
    # sub and a taken branch: 1 + 2 cycles on a Cortex-M0+. The interpreter's call around them
    # takes a few more or less, as its cache of lookups has it.
    assert abs(first.cycles["long"] - first.cycles["short"] - 2000 * 3) < 50
    assert first.costs["list"].allocated >= first.costs["list"].kept >= 400
    assert first.costs["short"].allocated == 0


def test_compiled_loop_gives_the_times_of_the_emulators_own(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> tuple[str, int, float]:
        pico = EmulatedPico(image)
        said = pico.exec("import time; time.sleep_ms(7); print(sum(range(5000)), time.ticks_us())")
        return said, pico.cycles, pico.nanoseconds

    times = run()
    monkeypatch.setattr(emulated_chip, "_loop", emulated_chip._Loop)
    assert run() == times


def test_start_of_a_pio_state_machine_is_an_error_rather_than_a_silence(image: Path) -> None:
    code = (
        "import rp2\n"
        "@rp2.asm_pio()\n"
        "def nothing():\n"
        "    nop()\n"
        "machine = rp2.StateMachine(0, nothing)\n"
        "print('set up')\n"
        "machine.active(1)\n"
    )
    with pytest.raises(BoardError, match="PIO state machines do not run"):
        EmulatedPico(image).exec(code)


def test_measure_reports_what_the_job_raises() -> None:
    with pytest.raises(BoardError, match="KeyError"):
        measure({}, "{}['missing']")


def test_image_follows_the_firmware_and_comes_from_the_cache_for_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "firmware"
    shutil.copytree(REPO / "firmware", copy)
    monkeypatch.setenv("TIDEMARK_FIRMWARE", str(copy))
    before = toolchain.firmware("TIDEMARK_PICO")
    added = copy / "tidemark" / "only_here.py"
    added.write_text("ANSWER = 42\n")
    altered = toolchain.firmware("TIDEMARK_PICO")
    assert altered != before
    ask = "import tidemark.only_here as m, tidemark_board as b; print(m.ANSWER, b.RUNTIME.hex())"
    said = EmulatedPico(altered).exec(ask).split()
    assert said[0] == "42"
    assert said[1].startswith(altered.parent.name)
    added.unlink()
    assert toolchain.firmware("TIDEMARK_PICO") == before


def test_image_has_no_path_of_this_machine(image: Path) -> None:
    parts = flash_of(image.read_bytes())
    content = b"".join(parts[offset] for offset in sorted(parts))
    assert str(cache_dir()).encode() not in content
    assert str(REPO).encode() not in content


def test_uf2_round_trip_and_refusals() -> None:
    binary = bytes(range(256)) * 3 + b"end"
    image = uf2(binary, 0x1000)
    parts = flash_of(image)
    assert sorted(parts) == [0x1000, 0x1100, 0x1200, 0x1300]
    assert b"".join(parts[key] for key in sorted(parts)).rstrip(b"\0") == binary
    for bad in (b"", image[:-1], b"\0" + image[1:], image[:28] + b"\0" + image[29:]):
        with pytest.raises(ToolchainError):
            flash_of(bad)
