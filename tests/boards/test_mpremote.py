"""The stock `mpremote` works on the virtual board's console, over the pty and over TCP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemark_host import toolchain
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.virtual import VirtualBoard

# A littlefs at /, where stage 0 mounts one; in RAM: the board's state is not this test's matter.
BOOT = """
import vfs
class Ram:
    def __init__(self, blocks):
        self.data = bytearray(blocks * 512)
    def readblocks(self, n, buf, off=0):
        buf[:] = self.data[n * 512 + off : n * 512 + off + len(buf)]
    def writeblocks(self, n, buf, off=0):
        self.data[n * 512 + off : n * 512 + off + len(buf)] = buf
    def ioctl(self, op, arg):
        return len(self.data) // 512 if op == 4 else 512 if op == 5 else 0
ram = Ram(64)
vfs.VfsLfs2.mkfs(ram)
vfs.mount(vfs.VfsLfs2(ram), "/")
with open("/note.txt", "w") as f:
    f.write("high water\\n")
print("boot runs")
"""
MAIN = "print('main runs')\nwhile True:\n    pass\n"


@pytest.fixture
def board() -> Iterator[VirtualBoard]:
    runtime = toolchain.runtime("VIRTUAL")
    with VirtualBoard(runtime=runtime, code={"_boot.py": BOOT, "main.py": MAIN}) as made:
        made.power_on()
        made.serial_log.wait_for("main runs")
        yield made


def mpremote(device: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", device, *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("link", ["pty", "tcp"])
def test_exec_interrupts_main_soft_resets_and_prints(board: VirtualBoard, link: str) -> None:
    device = board.console_path if link == "pty" else board.console_url
    code = "import sys; print(sys.platform, 6 * 7)"
    assert mpremote(device, "exec", code).split() == ["linux", "42"]
    assert [reset.cause for reset in board.resets] == ["power-on", "soft"]
    said = [line.text for line in board.serial_log]
    assert said.count("boot runs") == 2
    assert said.count("main runs") == 1


def test_resume_keeps_the_heap(board: VirtualBoard) -> None:
    mpremote(board.console_path, "exec", "kept = 17")
    assert mpremote(board.console_path, "resume", "exec", "print(kept)").strip() == "17"
    assert [reset.cause for reset in board.resets] == ["power-on", "soft"]


def test_an_error_on_the_board_is_mpremotes_error(board: VirtualBoard) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        mpremote(board.console_path, "exec", "1 / 0")


def test_files_go_both_ways(board: VirtualBoard, tmp_path: Path) -> None:
    sent = tmp_path / "sent.bin"
    sent.write_bytes(bytes(range(256)) * 8)
    back = tmp_path / "back.bin"
    assert "note.txt" in mpremote(board.console_path, "fs", "ls")
    assert mpremote(board.console_path, "resume", "fs", "cat", ":note.txt") == "high water\n"
    mpremote(board.console_path, "resume", "fs", "cp", str(sent), ":sent.bin")
    mpremote(board.console_path, "resume", "fs", "cp", ":sent.bin", str(back))
    assert back.read_bytes() == sent.read_bytes()


def test_soft_reset_command_runs_boot_and_leaves_a_prompt(board: VirtualBoard) -> None:
    mpremote(board.console_path, "soft-reset")
    assert [reset.cause for reset in board.resets] == ["power-on", "soft"]
    since = len(board.serial_log)
    board.send(b"40 + 4\r")
    board.serial_log.wait_for("44", since=since)


def test_a_long_script_is_run_and_its_long_output_is_whole(board: VirtualBoard) -> None:
    script = "total = 0\n" + "total += 1\n" * 1500 + "print('x' * 60000)\nprint(total)\n"
    with board.repl() as repl:
        out = repl.exec(script, timeout=20)
    assert out == "x" * 60000 + "\n1500\n"


def test_repl_tells_tracebacks_time_outs_and_a_dead_board_apart(board: VirtualBoard) -> None:
    with board.repl(soft_reset=True) as repl:
        assert repl.exec("print('ä\\r\\nb')") == "ä\nb\n"
        with pytest.raises(BoardError, match=r"exec: Traceback[\s\S]*NameError"):
            repl.exec("nothing")
        with pytest.raises(BoardError, match="console"):
            repl.exec("import time; time.sleep(5)", timeout=0.3)
    with board.repl() as repl:
        repl.soft_reset()
        assert repl.exec("print(1)") == "1\n"


def test_repl_of_a_board_that_is_off_is_an_error_within_bounds(board: VirtualBoard) -> None:
    board.power_off()
    with pytest.raises(BoardError, match="console"):
        board.repl(timeout=0.5)
