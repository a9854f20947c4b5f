"""What the serial line's multiplex costs a Pico, beside the time of the bytes on the line."""

from __future__ import annotations

from tidemark_host.bench.registry import Results, suite
from tidemark_host.boards.emulated import measure

_BAUD = 921_600
_JOB = """
from tidemark import mux, mux_frame
from tidemark.mux_end import DATA, LAST, OPENED, WINDOW

class Line:
    def __init__(self):
        self.sent = b""
        self.at = 0

    def readinto(self, buf):
        size = min(len(buf), len(self.sent) - self.at)
        buf[:size] = memoryview(self.sent)[self.at : self.at + size]
        self.at += size
        return size or None

    def write(self, buf):
        self.sent += bytes(buf)
        return len(buf)

line = Line()
writer = mux_frame.Writer()
board = mux.Mux(line, lambda n: bytes(n), lambda: 0, lambda ms: None)
sock = mux.Socket(board, 0)
sock.setblocking(False)
# Bytes as an image has them, one zero in eight; and nothing but zeros, the slowest.
mixed = memoryview(bytes([i * 5 & 0xFF if i % 8 else 0 for i in range(234)]))
zeros = memoryview(bytes(234))

def answered(payload):
    # The bridge's answer to turn 1 is on the line.
    line.sent = b""
    line.at = 0
    for seq in range(4):
        last = LAST if seq == 3 else 0
        writer.build(DATA | last, 0, 1, 7, seq, 0, payload, 234)
        writer.flush(line)
    board._begin_session(7, 9)
    channel = board.channels[0]
    channel.reset()
    channel.state = OPENED
    channel.room = channel.credit = WINDOW
    board._turn = 1
    board._waiting = True
    return len(line.sent)

answered(zeros)
bench.measure("take a burst of 4 frames, all zeros", board._take)
result = answered(mixed)
bench.measure("take a burst of 4 frames", board._take)
bench.measure("read 512 bytes of it", sock.recv, 512)
bench.measure("build a full frame", writer.build, DATA, 0, 1, 7, 1, 1, mixed, 234)
bench.measure("give a turn", board._begin, 0)
line.sent = b""
line.at = 0
bench.measure("step without news", board.step)
"""


@suite("link")
def link(results: Results) -> None:
    """Measure it on the emulated Pico."""
    measured = measure({}, _JOB)
    results.add("burst of 4 frames on the line", measured.result * 10e3 / _BAUD, "ms")
    results.add_cycles(measured)
