"""The emulated Pico as a board: flash and its cuts, resets and what survives them, the console.

The code that runs here is the real image's: port/rp2.py under stage 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import select
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO, firmware_dir
from tidemark_host import toolchain
from tidemark_host.boardfile import load_board
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.emulated import EmulatedPico
from tidemark_host.boards.emulated_board import EmulatedBoard
from tidemark_host.boards.emulated_chip import PAGE, SECTOR, Timing
from tidemark_host.boards.emulated_life import provisioned as life

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(900)]

NAME = "TIDEMARK_PICO"
WAIT_S = 120.0  # a machine that is busy with other things may be slow
DEFINITION = load_board(REPO / "boards" / NAME / "board.toml")
SPARE = DEFINITION.regions["slot_b"].offset
PROLOGUE = """
from tidemark import stage0, reasons
from tidemark.errors import TidemarkError
base = stage0.base
port = base.port
flash = port.flash()
def attempt(what, *args):
    try:
        what(*args)
        print("done")
    except TidemarkError as e:
        print("refused", e.code)
"""


@pytest.fixture(scope="module")
def image() -> Path:
    return toolchain.firmware(NAME)


@pytest.fixture
def board(image: Path) -> Iterator[EmulatedBoard]:
    """A blank board: it waits for its provisioning at the REPL."""
    with EmulatedBoard(image) as made:
        made.power_on()
        made.serial_log.wait_for("waits on this console", WAIT_S)
        yield made


@pytest.fixture(scope="module")
def provisioned(image: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The flash of a provisioned board that runs release 1 and has nobody to talk to."""
    folder = tmp_path_factory.mktemp("pico")
    return life(DEFINITION, image, firmware_dir() / "agent", folder, {"period_ms": 200}).flash


@pytest.fixture
def running(image: Path, provisioned: bytes) -> Iterator[EmulatedBoard]:
    """A provisioned board whose application runs."""
    with EmulatedBoard(image) as made:
        made.flash(provisioned)
        made.power_on()
        made.serial_log.wait_for("tidemark: slot a, release 1", WAIT_S)
        yield made


def run(board: EmulatedBoard, code: str) -> list[str]:
    with board.repl(timeout=WAIT_S) as repl:
        return repl.exec(PROLOGUE + code, WAIT_S).split("\n")[:-1]


# -- flash ----------------------------------------------------------------------------------------


def test_port_programs_erases_and_refuses_what_a_chip_would_take_silently(
    board: EmulatedBoard,
) -> None:
    before = len(board.operations)
    said = run(
        board,
        f"""
at = {SPARE}
attempt(flash.erase, at)
attempt(flash.program, at, b"A" * 512)
attempt(flash.program, at + 256, flash.view(at, 256))  # out of flash: by way of RAM
print(bytes(flash.view(at, 3)), flash.view(at + 512, 1)[0])
attempt(flash.program, at + 1024, b"short")
attempt(flash.program, at + 1, b"A" * 256)
attempt(flash.erase, at + 256)
attempt(flash.program, 0, b"A" * 256)  # the runtime
attempt(flash.erase, flash.size)
attempt(flash.view, flash.size - 1, 2)
""",
    )
    assert said == [
        *("done", "done", "done", "b'AAA' 255"),
        *("refused align", "refused align", "refused align"),
        *("refused bounds", "refused bounds", "refused bounds"),
    ]
    done = [(step.kind, step.address, step.length) for step in board.operations[before:]]
    assert done == [
        ("erase", SPARE, SECTOR),
        ("program", SPARE, PAGE),
        ("program", SPARE + PAGE, PAGE),
        ("program", SPARE + PAGE, PAGE),
    ]
    assert board.violations == []
    assert board.read_flash(SPARE, 513) == b"A" * 512 + b"\xff"


def test_chip_refuses_other_bytes_over_programmed_ones_and_data_from_flash(
    board: EmulatedBoard,
) -> None:
    run(
        board,
        f"""
import rp2
attempt(flash.erase, {SPARE})
attempt(flash.program, {SPARE}, b"\\xf0" * 256)
attempt(flash.program, {SPARE}, b"\\x0f" * 256)
block = ({SPARE} - flash._floor) // 4096
rp2.Flash().writeblocks(block, flash.view(0, 256), 256)
""",
    )
    codes = [(wrong.code, wrong.address) for wrong in board.violations]
    assert codes == [("overwrite", SPARE), ("source", SPARE + 256)]
    assert board.read_flash(SPARE, 512) == b"\xf0" * 256 + b"\xff" * 256


def test_time_of_flash_operations_passes_with_interrupts_held_off(image: Path) -> None:
    with EmulatedBoard(image, timing=Timing(erase_s=0.4, program_s=0.003)) as board:
        board.power_on()
        board.serial_log.wait_for("waits on this console", WAIT_S)
        said = run(
            board,
            f"""
import time, machine
fired = []
timer = machine.Timer(-1, period=10, callback=lambda t: fired.append(1))
begin = time.ticks_us()
flash.erase({SPARE})
middle = time.ticks_us()
flash.program({SPARE}, b"A" * 256)
print(time.ticks_diff(middle, begin), time.ticks_diff(time.ticks_us(), middle), len(fired))
""",
        )
    erase_us, program_us, fired = (int(word) for word in said[0].split())
    assert 400_000 < erase_us < 410_000
    assert 3_000 < program_us < 5_000
    assert fired <= 9  # 40 without the interrupts held off; the queue of callbacks has 8


def cut(board: EmulatedBoard, operation: str, n: int, variant: str, **how: int) -> bytes:
    """Cut the power at the n-th step of `operation`; return the spare sector's content."""
    board.cut_at(n, variant, **how)
    with contextlib.suppress(BoardError), board.repl(timeout=WAIT_S) as repl:
        repl.exec(PROLOGUE + operation, 5)
    happened = board.wait_cut(WAIT_S)
    assert happened.variant == variant
    assert board.state == "off"
    return board.read_flash(SPARE, SECTOR)


def test_power_cut_in_a_program_leaves_nothing_part_or_all(board: EmulatedBoard) -> None:
    run(board, f"flash.erase({SPARE})")
    clean = board.snapshot()
    for variant, how, want in (
        ("before", {}, b""),
        ("torn", {}, b"\x55" * 128),
        ("torn", {"count": 3, "mask": 0xF0}, b"\x55" * 3 + b"\x5f"),
        ("after", {}, b"\x55" * 256),
    ):
        board.restore(clean)
        since = len(board.serial_log)
        board.power_on()
        board.serial_log.wait_for("waits on this console", WAIT_S, since)
        left = cut(board, f"flash.program({SPARE}, b'U' * 512)", 1, variant, **how)
        assert left == want.ljust(SECTOR, b"\xff"), (variant, how)


def test_power_cut_in_an_erase_and_behind_an_operation(board: EmulatedBoard) -> None:
    run(board, f"flash.erase({SPARE})\nflash.program({SPARE}, b'U' * 4096)")
    code = f"flash.erase({SPARE})\nflash.program({SPARE}, b'V' * 256)"
    assert cut(board, code, 1, "torn") == b"\xff" * 2048 + b"U" * 2048
    since = len(board.serial_log)
    board.power_on()
    board.serial_log.wait_for("waits on this console", WAIT_S, since)
    assert cut(board, code, 2, "before") == b"\xff" * SECTOR


# -- resets ---------------------------------------------------------------------------------------


def after_boot(board: EmulatedBoard) -> list[str]:
    return run(board, "print(base.cause, base.reason)\nprint(port.uptime_ms() < 60000)")


# What the boot ROM leaves when it starts what came over USB (its watchdog_reboot): both cleared.
AFTER_ROM = "import machine\nmachine.mem32[0x4005800C] = machine.mem32[0x4005801C] = 0\n"
NO_FEED = "from tidemark.port import rp2; rp2._timers[0].deinit()"


def test_causes_of_resets_and_what_the_marker_survives(board: EmulatedBoard) -> None:
    assert after_boot(board)[0] == "power-on "
    for code, cause, seen in (
        ("import machine; machine.reset()", "reset", "reset request"),
        # Nobody feeds any more: the watchdog bites.
        (NO_FEED, "watchdog", "watchdog request"),
        (AFTER_ROM + NO_FEED, "watchdog", "unknown "),
    ):
        since, lines = len(board.resets), len(board.serial_log)
        with contextlib.suppress(BoardError), board.repl(timeout=WAIT_S) as repl:
            repl.exec(PROLOGUE + "port.set_marker(reasons.encode('request'))\n" + code, 1)
        board.wait_reset(cause, WAIT_S, since)
        board.serial_log.wait_for("waits on this console", WAIT_S, lines)
        assert after_boot(board)[0] == seen
    with board.repl(timeout=WAIT_S) as repl:
        repl.exec(PROLOGUE + "port.set_marker(reasons.encode('request'))")
        repl.soft_reset()
        assert repl.exec(PROLOGUE + "print(base.cause, base.reason)") == "soft request\n"
        repl.exec(PROLOGUE + "port.set_marker(reasons.encode('request'))")
    # Pin and power clear the register (RP2040 datasheet, 4.7.6).
    since = len(board.serial_log)
    board.reset()
    board.serial_log.wait_for("waits on this console", WAIT_S, since)
    assert after_boot(board)[0] == "power-on "
    causes = [reset.cause for reset in board.resets]
    assert causes == ["power-on", "reset", "watchdog", "watchdog", "soft", "reset"]


def test_uptime_goes_on_over_a_soft_reset_and_begins_anew_at_a_hard_one(
    board: EmulatedBoard,
) -> None:
    with board.repl(timeout=WAIT_S) as repl:
        ask = PROLOGUE + "print(port.uptime_ms())"
        first = int(repl.exec(ask))
        repl.exec("import time; time.sleep(2)")
        repl.soft_reset()
        assert int(repl.exec(ask)) > first + 2000
    since, earlier = len(board.serial_log), time.monotonic()
    board.reset()
    board.serial_log.wait_for("waits on this console", WAIT_S, since)
    with board.repl(timeout=WAIT_S) as repl:
        again = int(repl.exec(ask))
    # Emulated time never runs ahead of the host's, but for the slice in which it is heard.
    assert again < (time.monotonic() - earlier) * 1000 + 100


def test_forgotten_repl_ends_in_a_reset_with_its_reason(board: EmulatedBoard) -> None:
    lines = len(board.serial_log)
    with board.skipping():
        board.wait_reset("reset", WAIT_S)
    board.serial_log.wait_for("the lease ran out", WAIT_S)
    board.serial_log.wait_for("waits on this console", WAIT_S, lines)
    assert after_boot(board)[0] == "reset lease"


def test_last_words_are_before_the_reset_that_ends_them(board: EmulatedBoard) -> None:
    def says_and_resets() -> None:
        for byte in b"last words":
            board._on_byte(0, byte)
        board._started("reset")

    board._service.do(says_and_resets)
    said = [line.text for line in board.serial_log]
    assert said[said.index("# reset") - 1].endswith("last words")


# -- random source --------------------------------------------------------------------------------


def test_random_source_differs_from_board_to_board_and_repeats_for_a_seed(image: Path) -> None:
    def draw(seed: bytes) -> str:
        with EmulatedBoard(image, seed=seed, unique_id=bytes(8)) as board:
            board.power_on()
            board.serial_log.wait_for("waits on this console", WAIT_S)
            return run(board, "print(port.random(40).hex(), port.random(3).hex())")[0]

    one, again, other = draw(b"1"), draw(b"1"), draw(b"2")
    assert one == again
    assert one != other
    assert len(one) == 87


def test_oscillator_that_stands_still_makes_no_key(image: Path) -> None:
    pico = EmulatedPico(image)
    for value in (0, 1):
        pico.chip.mcu.peripherals[0x40060].fit(lambda value=value: value)
        said = pico.exec(PROLOGUE + "attempt(port.random, 1)")
        assert said == "refused random-health\n"
    # os.urandom of the runtime takes such an oscillator for a good one.
    assert len(set(pico.exec("import os; print(os.urandom(8).hex())"))) > 4


# -- console --------------------------------------------------------------------------------------


def test_interrupt_within_a_bracket_is_kept_and_told_once(image: Path) -> None:
    pico = EmulatedPico(image)
    pico.exec(PROLOGUE)
    hold = (
        "import time\n"
        "port.kbd_intr(False); port.kbd_intr(False)\n"
        "time.sleep(1)\n"
        "port.kbd_intr(True); print('inner'); port.kbd_intr(True)\n"
        "print(port.interrupted(), port.interrupted())\n"
    )
    pico.chip.send(hold.encode() + b"\x04")
    assert not pico.chip.run(0.5)
    pico.chip.send(b"typed\x03")
    assert pico._wait(b"\x04>", 3.0, "the end") == b"inner\r\nTrue False\r\n\x04"
    # And without a bracket it interrupts as ever.
    pico.chip.send(b"import time; time.sleep(2)\x04")
    assert not pico.chip.run(0.5)
    pico.chip.send(b"\x03")
    assert b"KeyboardInterrupt" in pico._wait(b"\x04>", 3.0, "the end")


def test_bytes_that_come_while_a_sector_is_erased_are_lost(image: Path) -> None:
    pico = EmulatedPico(image)
    pico.exec(PROLOGUE + "import machine\nline = machine.UART(1, 115200, rxbuf=512)")
    pico.chip.send(f"flash.erase({SPARE}); flash.erase({SPARE})\x04".encode())
    assert not pico.chip.run(0.01)
    pico.chip.send(bytes(range(256)), uart=1)
    pico._wait(b"\x04>", 1.0, "the end")
    read = int(pico.exec("import time; time.sleep_ms(50); print(line.any())"))
    assert read + pico.chip.lost(1) == 256
    assert 100 < pico.chip.lost(1) <= 256 - 32  # as many as a FIFO holds are kept


def mpremote(device: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", device, *words],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_stock_mpremote_on_a_board_in_normal_operation(running: EmulatedBoard) -> None:
    said = mpremote(running.console_path, "exec", "import sys; print(sys.platform, 6 * 7)")
    assert said.split() == ["rp2", "42"]
    running.serial_log.wait_for("stopped from the console", WAIT_S)
    assert "tuf/" in mpremote(running.console_path, "fs", "ls")
    since = len(running.serial_log)
    mpremote(running.console_url, "soft-reset")
    running.send(b"40 + 4\r")
    running.serial_log.wait_for("44", WAIT_S, since)
    causes = [reset.cause for reset in running.resets]
    assert causes == ["power-on", "soft", "soft", "soft"]
    assert running.violations == []


def test_stock_mpremote_repl_on_a_board_in_normal_operation(running: EmulatedBoard) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)  # as mpremote does, at times only after what it says first
    program = subprocess.Popen(
        [sys.executable, "-m", "mpremote", "connect", running.console_path, "repl"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = _until(ours, b"Ctrl-]")
        os.write(ours, b"\x03")
        shown += _until(ours, b">>> ")
        os.write(ours, b"from tidemark import stage0; stage0.base.mode\r")
        shown += _until(ours, b"'normal'")
        os.write(ours, b"\x1d")
        assert program.wait(WAIT_S) == 0, shown
    finally:
        program.kill()
        program.wait()
        os.close(ours)
    assert [reset.cause for reset in running.resets] == ["power-on"]


def _until(terminal: int, text: bytes) -> bytes:
    shown = b""
    end = time.monotonic() + WAIT_S
    while text not in shown:
        assert select.select([terminal], [], [], end - time.monotonic())[0], shown
        shown += os.read(terminal, 4096)
    return shown


def test_same_seed_gives_the_same_run_to_the_nanosecond(image: Path) -> None:
    def begin_one() -> tuple[float, str]:
        pico = EmulatedPico(image)
        said = pico.exec("from tidemark import provision\nprovision.begin()", 60)
        return pico.nanoseconds, hashlib.sha256(said.encode()).hexdigest()

    assert begin_one() == begin_one()


def test_board_that_was_closed_is_gone_and_says_so(image: Path) -> None:
    board: Any = EmulatedBoard(image)
    board.close()
    board.close()
    with pytest.raises(BoardError, match="closed"):
        board.power_on()
