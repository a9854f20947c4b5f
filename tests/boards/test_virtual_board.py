"""The virtual board keeps the promises of a chip: flash, watchdog, resets, power, console."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.boards.maker import PROLOGUE, SIZE, Maker
from tests.boards.usb_serial import wait
from tidemark_host.boards.base import Board, BoardError, BoardTimeout
from tidemark_host.boards.hardware import FRAME, PAYLOAD_MAX, FrameError, Frames
from tidemark_host.boards.virtual import PAGE, SECTOR, VirtualBoard

# -- flash ----------------------------------------------------------------------------------------


def test_program_and_erase_reach_the_flash_file_and_are_read_in_place(make: Maker) -> None:
    board = make("""
        flash.program(4096, b"a" * 256)
        here = flash.view(4096, 512)
        print(bytes(here[:2]), here[256])
        flash.erase(4096)
        print("then", here[0])
    """)
    board.serial_log.wait_for("b'aa' 255")
    board.serial_log.wait_for("then 255")
    assert [(o.kind, o.address, o.length) for o in board.operations] == [
        ("program", 4096, PAGE),
        ("erase", 4096, SECTOR),
    ]
    assert board.read_flash(4096, PAGE) == b"\xff" * PAGE


def test_a_program_may_clear_bits_of_blank_bytes_and_repeat_itself(make: Maker) -> None:
    board = make("""
        flash.program(0, b"\\xff" * 128 + b"b" * 128)
        attempt(flash.program, 0, b"a" * 128 + b"\\xff" * 128)
        attempt(flash.program, 0, b"a" * 128 + b"b" * 128)
        print("end")
    """)
    board.serial_log.wait_for("end")
    assert [line.text for line in board.serial_log].count("done") == 2
    assert board.read_flash(0, PAGE) == b"a" * 128 + b"b" * 128
    assert board.violations == []


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ('flash.program(0, b"b" * 256)', "overwrite"),
        ('flash.program(128, b"b" * 256)', "align"),
        ('flash.program(512, b"b" * 16)', "align"),
        ('flash.program(512, b"")', "align"),
        (f'flash.program({SIZE}, b"b" * 256)', "bounds"),
        ("flash.erase(256)", "align"),
        (f"flash.erase({SIZE})", "bounds"),
    ],
)
def test_a_breach_of_the_chips_rules_is_an_error_on_both_sides(
    make: Maker, act: str, code: str
) -> None:
    board = make(f"""
        flash.program(0, b"a" * 256)
        def act():
            {act}
        attempt(act)
    """)
    board.serial_log.wait_for(f"refused {code}")
    assert [violation.code for violation in board.violations] == [code]
    board.serial_log.wait_for("# flash violation")
    assert board.read_flash(0, SIZE) == b"a" * PAGE + b"\xff" * (SIZE - PAGE)


def test_a_read_outside_the_flash_is_refused_and_a_write_through_it_crashes(make: Maker) -> None:
    board = make(f"""
        attempt(flash.view, {SIZE - 8}, 16)
        flash.view(0, 16)[0] = 1
    """)
    board.serial_log.wait_for("refused bounds")
    board.wait_state("hung")
    assert board.read_flash(0, 1) == b"\xff"
    board.serial_log.wait_for("SIGSEGV")


def test_flashing_replaces_the_whole_chip_and_survives_power_cycles(
    runtime: Path, tmp_path: Path
) -> None:
    with VirtualBoard(tmp_path / "board", runtime=runtime, size=SIZE) as board:
        board.flash(b"old" * 1000)
        board.flash(b"new")
        with pytest.raises(BoardError, match="size"):
            board.flash(b"x" * (SIZE + 1))
    with VirtualBoard(tmp_path / "board", runtime=runtime, size=SIZE) as board:
        assert board.read_flash(0, 6) == b"new" + b"\xff" * 3
        with pytest.raises(BoardError, match="bounds"):
            board.read_flash(SIZE - 1, 2)


# -- power cuts -----------------------------------------------------------------------------------

CUT = """
    print("boot", bytes(flash.view(0, 1)) == b"\\xff")
    for page in range(4):
        flash.program(page * 256, bytes([0x40 + page]) * 256)
    flash.erase(0)
    print("finished")
"""


@pytest.mark.parametrize(
    ("n", "variant", "kind", "address", "expected"),
    [
        (2, "before", "program", 256, b"\x40" * 256 + b"\xff" * 768),
        (2, "torn", "program", 256, b"\x40" * 256 + b"\x41" * 128 + b"\xff" * 640),
        (2, "after", "program", 256, b"\x40" * 256 + b"\x41" * 256 + b"\xff" * 512),
        (5, "before", "erase", 0, bytes(0x40 + i // 256 for i in range(1024))),
        (5, "torn", "erase", 0, b"\xff" * 1024),
        (5, "after", "erase", 0, b"\xff" * 1024),
    ],
)
def test_a_cut_leaves_exactly_what_its_variant_says(
    runtime: Path, n: int, variant: str, kind: str, address: int, expected: bytes
) -> None:
    code = PROLOGUE + textwrap.dedent(CUT)
    with VirtualBoard(runtime=runtime, code=code, size=SIZE) as board:
        board.cut_at(n, variant)
        board.power_on()
        cut = board.wait_cut()
        assert (cut.operation.kind, cut.operation.address, cut.variant) == (kind, address, variant)
        assert board.state == "off"
        assert board.pid is None
        assert board.read_flash(0, 1024) == expected
        assert not any("finished" in line.text for line in board.serial_log)
        assert len(board.operations) == n - (variant == "before")


@pytest.mark.parametrize(
    ("act", "before", "after"),
    [
        ("flash.erase(0)", bytes(SECTOR), b"\xff" * 100 + bytes(SECTOR - 100)),
        ("flash.program(0, bytes(256))", b"\xff" * 256, bytes(100) + b"\xf0" + b"\xff" * 155),
    ],
)
def test_a_torn_operation_stops_at_a_given_byte_and_bit(
    runtime: Path, act: str, before: bytes, after: bytes
) -> None:
    with VirtualBoard(runtime=runtime, code=PROLOGUE + act, size=SIZE) as board:
        board.flash(before)
        board.cut_at(1, "torn", 100, 0x0F)
        board.power_on()
        board.wait_cut()
        assert board.read_flash(0, len(after)) == after


def test_power_returns_by_itself_when_asked_and_the_cut_is_not_repeated(runtime: Path) -> None:
    code = PROLOGUE + "flash.erase(0)\nprint('whole')"
    with VirtualBoard(runtime=runtime, code=code, size=SIZE, auto_power=True) as again:
        again.cut_at(1, "after")
        again.power_on()
        again.wait_cut()
        again.serial_log.wait_for("whole")
        assert again.state == "running"
        assert [reset.cause for reset in again.resets] == ["power-on", "power-on"]


def test_weak_cells_read_as_each_boot_is_told(runtime: Path) -> None:
    code = PROLOGUE + textwrap.dedent("""
        print("read", flash.view(0, 1)[0])
        if flash.view(4096, 1)[0] == 0xFF:
            flash.program(4096, bytes(256))
            flash.program(0, bytes(256))
    """)
    with VirtualBoard(runtime=runtime, code=code, size=SIZE, weak=True) as board:
        board.cut_at(2, "torn")
        board.power_on()
        board.wait_cut()
        for reading, byte in (("new", 0), ("old", 255), ("new", 0)):
            since = len(board.serial_log)
            board.power_on({1: reading})
            board.serial_log.wait_for(f"read {byte}", since=since)
            board.power_off()


def test_worn_sectors_take_nothing_and_say_nothing_also_after_flashing(runtime: Path) -> None:
    code = PROLOGUE + textwrap.dedent("""
        flash.program(0, bytes(256))
        flash.program(4096, bytes(256))
        print("read", flash.view(0, 1)[0], flash.view(4096, 1)[0])
    """)
    with VirtualBoard(runtime=runtime, code=code, size=SIZE) as board:
        board.wear(4096, SECTOR, "no-program")
        for _ in range(2):
            since = len(board.serial_log)
            board.flash(b"")
            board.power_on()
            board.serial_log.wait_for("read 0 255", since=since)
        assert board.violations == []
        with pytest.raises(BoardError, match="bounds"):
            board.wear(SIZE, SECTOR, "dead")


# -- watchdog and resets --------------------------------------------------------------------------

STATE = 'print("state", port.reset_cause(), port.marker(), "up", port.uptime_ms())\n'


def uptime_s(board: VirtualBoard, said: str) -> float:
    """Return the uptime that the board says behind this state."""
    lines = wait(lambda: [row.text for row in board.serial_log if said in row.text], said)
    return int(lines[-1].rsplit(" ", 1)[1]) / 1000 - 0.002  # of rounding


def test_a_starved_watchdog_resets_and_tells_its_cause(make: Maker) -> None:
    board = make(
        STATE
        + "if port.reset_cause() == 'power-on':\n port.set_marker(7)\n port.arm_watchdog(200)"
    )
    reset = board.wait_reset("watchdog")
    # Also where the machine stands still for seconds: before the chip's longest of 8.4 s.
    assert 0.2 < reset.time - board.resets[0].time < 8
    said = board.serial_log.wait_for("state power-on 0 up")
    assert uptime_s(board, "state watchdog 7 up") < time.monotonic() - said.time


def test_a_watchdog_fed_by_a_timer_lets_a_busy_loop_live(make: Maker) -> None:
    board = make("""
        port.start_timer(40, lambda _: port.feed())
        port.arm_watchdog(5000)
        start = port.uptime_ms()
        while port.uptime_ms() - start < 2700:
            pass
        time.sleep(2.7)
        print("alive")
    """)
    board.serial_log.wait_for("alive", timeout=30)
    assert [reset.cause for reset in board.resets] == ["power-on"]
    assert board.feeds > 20


def test_a_crashed_process_hangs_until_the_watchdog_bites(make: Maker) -> None:
    board = make("""
        import ffi
        if port.reset_cause() == "watchdog":
            print("back")
        else:
            port.arm_watchdog(300)
            ffi.open(None).func("v", "abort", "")()
    """)
    board.serial_log.wait_for("back")
    assert [reset.cause for reset in board.resets] == ["power-on", "watchdog"]
    notes = [line for line in board.serial_log if line.text.startswith("#")]
    assert [note.text for note in notes] == [
        *("# power-on", "# process ended: SIGABRT", "# watchdog")
    ]
    # Nothing ran meanwhile: it was the watchdog's time that passed.
    assert notes[2].time - notes[0].time > 0.3


def test_a_process_that_ends_without_a_watchdog_stays_hung(make: Maker) -> None:
    board = make("import ffi; ffi.open(None).func('v', '_exit', 'i')(0)")
    board.wait_state("hung")
    with pytest.raises(BoardTimeout):
        board.wait_reset("watchdog", timeout=0.3)
    board.reset()
    board.wait_reset("reset")


def test_the_marker_survives_resets_and_not_a_power_cut(make: Maker) -> None:
    board = make(STATE + "if not port.marker():\n port.set_marker(0xFFFFFFFF)\n port.reset()")
    board.serial_log.wait_for("state power-on 0 up")
    board.serial_log.wait_for("state reset 4294967295 up")
    board.serial_log.wait_for(">>> ")
    since, before = len(board.serial_log), time.monotonic()
    board.reset()
    board.serial_log.wait_for(">>> ", since=since)
    assert uptime_s(board, "state reset 4294967295 up") < time.monotonic() - before
    since, before = len(board.serial_log), time.monotonic()
    board.power_off()
    board.power_on()
    board.serial_log.wait_for("# reset", since=since)
    assert uptime_s(board, "state power-on 0 up") < time.monotonic() - before
    causes = [reset.cause for reset in board.resets]
    assert causes == ["power-on", "reset", "reset", "power-on", "reset"][: len(causes)]


def test_a_hard_reset_disarms_the_watchdog_as_on_the_chip(make: Maker) -> None:
    # Where the machine stands still between the two, it bites first: then once more.
    board = make("if port.reset_cause() != 'reset':\n port.arm_watchdog(300)\n port.reset()")
    board.wait_reset("reset")
    disarmed = [reset.cause for reset in board.resets].index("reset")
    with pytest.raises(BoardTimeout):
        board.wait_reset("watchdog", timeout=0.6, since=disarmed)


def test_a_soft_reset_keeps_watchdog_marker_and_uptime(make: Maker) -> None:
    board = make("""
        print("state", port.reset_cause(), port.marker(), port.uptime_ms() > 100)
        if port.reset_cause() != "soft":
            time.sleep(0.2)
            port.set_marker(9)
            port.start_timer(50, lambda _: port.feed())
            port.arm_watchdog(500)
            raise SystemExit
    """)
    board.serial_log.wait_for("MPY: soft reboot")
    board.serial_log.wait_for("state soft 9 True")
    # The timer died with the heap, the watchdog did not. (Of a board whose machine stood still it
    # may have bitten before, and the soft reset comes in a later life.)
    board.wait_reset("watchdog", since=[reset.cause for reset in board.resets].index("soft"))


# -- timers, console, interrupts ------------------------------------------------------------------


def test_a_timers_callback_runs_between_bytecodes_and_during_waits(make: Maker) -> None:
    board = make("""
        import select
        seen = []
        port.start_timer(40, seen.append)
        def phase(name, wait):
            for _ in range(10):  # a machine that stood still meanwhile gets another chance
                del seen[:]
                start = time.ticks_ms()
                wait()
                took = time.ticks_diff(time.ticks_ms(), start)
                found = 4 <= len(seen) <= 14, 380 < took < 1500
                if all(found):
                    break
            print(name, *found)
        def busy():
            start = time.ticks_ms()
            while time.ticks_diff(time.ticks_ms(), start) < 400:
                [0] * 100
        phase("busy", busy)
        phase("sleep", lambda: time.sleep(0.4))
        phase("sleep-ms", lambda: time.sleep_ms(400))
        poller = select.poll()
        phase("poll", lambda: poller.poll(400))
    """)
    for name in ("busy", "sleep", "sleep-ms", "poll"):
        board.serial_log.wait_for(f"{name} True True", timeout=30)


def test_an_error_in_a_timers_callback_is_shown_and_the_timer_goes_on(make: Maker) -> None:
    board = make("""
        def callback(_):
            print("tick")
            1 / 0
        port.start_timer(20, callback)
        time.sleep(5)
    """)
    board.serial_log.wait_for("ZeroDivisionError")
    board.serial_log.wait_for("ZeroDivisionError", since=len(board.serial_log))


def test_flash_operations_hold_timers_off(make: Maker) -> None:
    board = make("""
        def callback(_):
            assert flash.view(0, 1)[0] == flash.view(255, 1)[0]
            port.set_marker(port.marker() + 1)
        port.start_timer(20, callback)
        start = time.ticks_ms()
        took = 0
        while took < 600 or port.marker() <= 5 and took < 8000:
            flash.erase(0)
            flash.program(0, bytes(256))
            took = time.ticks_diff(time.ticks_ms(), start)
        print("held", 5 < port.marker() < took // 20 + 10)
    """)
    board.serial_log.wait_for("held True", timeout=20)
    assert board.violations == []


def test_sockets_connect_wait_and_refuse_while_a_timer_ticks(make: Maker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        board = make(f"""
            import select
            port.start_timer(20, lambda _: None)
            sock = port.open_socket("localhost", {port}, 20)
            sock.setblocking(False)
            sock.write(b"ping")
            poller = select.poll()
            poller.register(sock, select.POLLIN)
            start = time.ticks_ms()
            print("empty", poller.poll(300) == [], time.ticks_diff(time.ticks_ms(), start) >= 290)
            sock.write(b"go on")
            print("ready", len(poller.poll(20000)), sock.read(4))
            attempt(port.open_socket, "127.0.0.1", 1, 20)
            attempt(port.open_socket, "no.such.name.invalid", 1, 2)
            print("end", len(port.random(32)), len(port.unique_id()))
        """)
        peer = server.accept()[0]
        with peer:
            board.serial_log.wait_for("empty True True")
            peer.sendall(b"pong")
            board.serial_log.wait_for("ready 1 b'pong'")
        board.serial_log.wait_for("refused refused")
        board.serial_log.wait_for("end 32 8", timeout=30)
        assert any(line.text == "refused resolve" for line in board.serial_log)


def test_it_has_all_of_the_shared_interface(make: Maker) -> None:
    board: Board = make("print('here')")  # the type checker looks at signatures
    assert board.serial_log.wait_for("here").text == "here"


# -- cleaning up ----------------------------------------------------------------------------------


def test_no_process_outlives_its_host_even_in_a_busy_loop(runtime: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from tidemark_host.boards.virtual import VirtualBoard
        board = VirtualBoard(Path({str(tmp_path)!r}), runtime=Path({str(runtime)!r}),
                             code="print('busy')\\nwhile True: pass")
        board.power_on()
        board.serial_log.wait_for("busy")
        print(board.pid, flush=True)
        time.sleep(60)
    """)
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    with host:
        pid = int(host.stdout.readline())
        os.kill(pid, 0)
        host.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while time.monotonic() < until and _runs(pid):
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_close_ends_the_process_and_removes_what_was_made(make: Maker) -> None:
    board = make("while True: pass")
    pid, folder = board.pid, board.flash_path.parent
    assert pid is not None
    board.close()
    board.close()
    assert not _runs(pid)
    assert not folder.exists()
    with pytest.raises(BoardError, match="closed"):
        board.power_on()


# -- hardware channel -----------------------------------------------------------------------------


def test_frames_are_cut_from_any_pieces_and_bounded() -> None:
    stream = FRAME.pack(2, 1, 3, 9) + b"abc" + FRAME.pack(3, 2, 0, 7)
    frames = Frames()
    found = [frame for i in range(len(stream)) for frame in frames.feed(stream[i : i + 1])]
    assert [(frame.op, frame.arg, frame.payload) for frame in found] == [
        (2, 9, b"abc"),
        (3, 7, b""),
    ]
    with pytest.raises(FrameError):
        frames.feed(FRAME.pack(2, 1, PAYLOAD_MAX + 1, 0))
