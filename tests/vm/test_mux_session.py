# The serial line's multiplex: where its sessions begin and end, and what a hostile line gains.

import os
from errno import EAGAIN, ECONNRESET

from mux_world import Counting, World, code_of, errno_of, pattern

from tidemark import mux_end

# -- sessions -----------------------------------------------------------------------------------


def test_new_bridge_ends_the_old_sockets_at_once():
    world = World()
    sock = world.open()
    world.new_bridge()
    began = world.passed
    world.until(lambda: sock._channel.broken)
    assert world.passed - began < 1500
    assert errno_of(sock.recv, 1) == ECONNRESET
    sock.close()
    again = world.open()
    world.write(again, pattern(1, 500))
    assert world.read(again, 500) == pattern(1, 500)


def test_open_outlives_a_bridge_that_was_started_anew():
    world = World()
    world.open()
    world.new_bridge()
    sock = world.open()
    world.write(sock, pattern(1, 500))
    assert world.read(sock, 500) == pattern(1, 500)


def test_new_board_drops_the_old_connections_once_it_is_there():
    world = World()
    world.open()
    world.open()
    world.new_board()
    world.open()
    assert world.network.drops == 1
    assert len(world.network.servers) == 1


def test_greeting_of_a_former_session_changes_nothing():
    world = World()
    world.open()
    greeting = world.up.log
    world.new_board()
    sock = world.open()
    world.up.arrived += greeting
    world.run(100)
    world.write(sock, pattern(1, 500))
    assert world.read(sock, 500) == pattern(1, 500)
    assert world.network.drops == 1


def replayed(world, up):
    """A new board's socket and server, once one way of the former session came again."""
    sock = world.open()
    for n in range(40):
        world.write(sock, pattern(n, 20))
        assert world.read(sock, 20) == pattern(n, 20)
    former = world.up.log if up else world.down.log
    world.new_board()
    sock = world.open("silent")
    server = world.server()
    # One end counts many frames and the other few: so no number of the old frames is impossible.
    for n in range(60):
        if up:
            server.pending = b"x"
            assert world.read(sock, 1) == b"x"
        else:
            server.reads = False
            before = world.host._expected
            world.write(sock, b"x")
            world.until(lambda: world.host._expected > before)
    (world.up if up else world.down).under_way += former
    for _ in range(1000):
        sock.read(0)
        world.run(1)
    return sock, server


def test_frames_of_a_former_session_are_not_taken_by_the_board():
    world = World()
    sock, server = replayed(world, False)
    assert sock.read(1) is None
    assert not world.mux.sessions
    server.pending = b"new"
    assert world.read(sock, 3) == b"new"


def test_frames_of_a_former_session_are_not_taken_by_the_bridge():
    world = World()
    sock, server = replayed(world, True)
    assert server.got == b""
    assert world.host.sessions == 1
    world.write(sock, b"new")
    world.until(lambda: server.got == b"new")


def test_frames_of_this_session_count_once_however_often_they_come():
    world = World()
    sock = world.open()
    for n in range(40):
        world.write(sock, pattern(n, 300))
        assert world.read(sock, 300) == pattern(n, 300)
    up = world.up.log
    down = world.down.log
    world.up.under_way += up
    world.down.under_way += down
    world.run(1000)
    assert sock.read(1) is None
    assert world.server().got == b"".join([pattern(n, 300) for n in range(40)])
    world.write(sock, b"on")
    assert world.read(sock, 2) == b"on"
    assert not world.mux.sessions


def test_session_ends_before_its_numbers_come_again():
    for far in (True, False):
        world = World()
        sock = world.open()
        last = mux_end.SEQ_MAX - 2
        near, other = (world.host, world.mux) if far else (world.mux, world.host)
        near._first = near._next = near._sent = near._cursor = other._expected = last
        error = 0
        for _ in range(200):
            error = error or errno_of(sock.write, b"x") or errno_of(sock.recv, 9)
            error = 0 if error == EAGAIN else error
            world.run(5)
            assert near._next <= mux_end.SEQ_MAX + 4
        assert error == ECONNRESET
        sock.close()
        world.open()


# -- a hostile line -----------------------------------------------------------------------------


class Forger:
    """Builds good frames of any content."""

    def __init__(self):
        self.writer = mux_end.Writer()
        self.data = b""

    def write(self, buf):
        self.data += bytes(buf)
        return len(buf)

    def frame(self, first, channel, turn, tag, seq, ack, payload=b""):
        self.data = b""
        payload = memoryview(payload)
        self.writer.build(first, channel, turn, tag, seq, ack, payload, len(payload))
        self.writer.flush(self)
        return self.data


def forged(world, kind, channel, payload, to_board):
    """A frame that is next in order, and whose content is wrong."""
    end = world.mux if to_board else world.host
    return Forger().frame(kind, channel, 0, end._mine, end._expected, end._first, payload)


def test_frames_outside_the_protocol_end_the_session():
    cases = (
        (mux_end.DATA, 0, bytes(234) * 1, 5),  # five times: above the credit
        (mux_end.DATA, 4, b"x", 1),
        (mux_end.DATA, 3, b"x", 1),
        (mux_end.DATA, 0, b"", 1),
        (mux_end.GRANT, 0, b"\xff\xff", 1),
        (mux_end.GRANT, 0, b"\0", 1),
        (mux_end.GRANT, 3, b"\1\0", 1),
        (mux_end.CLOSE, 0, b"\2", 1),
        (mux_end.CLOSE, 0, b"", 1),
        (mux_end.CLOSE, 3, b"\0", 1),
        (mux_end.OPEN, 0, b"\1\0\1\0x", 1),
        (mux_end.ANSWER, 0, b"\7", 1),
        (mux_end.ANSWER, 3, b"\0", 1),
        (99, 0, b"", 1),
    )
    for kind, channel, payload, times in cases:
        for to_board in (True, False):
            world = World()
            world.open("silent")
            world.run(100)
            if not to_board:
                world.server().reads = False
            end = world.mux if to_board else world.host
            way = world.down if to_board else world.up
            before = end.violations
            for _ in range(times):
                way.arrived += forged(world, kind, channel, payload, to_board)
                world.run(1)
            assert end.violations == before + 1, (kind, channel, payload, to_board)
            world.run(2000)
            world.open()


def test_open_of_a_used_channel_or_without_a_name_ends_the_session():
    nameless = b"\1\0\1\0"
    for channel, payload in (
        (0, nameless + b"x"),
        (1, nameless),
        (1, b"\1\0\0\0x"),
        (1, nameless + b"\xff"),
    ):
        world = World()
        world.open("silent")
        world.run(100)
        world.up.arrived += forged(world, mux_end.OPEN, channel, payload, False)
        world.run(1)
        assert world.host.violations == 1


def test_no_bytes_raise_or_grow_anything():
    forger = Forger()
    random = Counting(7)
    for to_board in (True, False):
        world = World()
        world.open("silent")
        world.run(50)
        end = world.mux if to_board else world.host
        way = world.down if to_board else world.up
        for n in range(600):
            noise = os.urandom(16)
            tag = end._mine if n % 3 else int.from_bytes(random(4), "little")
            seq = end._expected if noise[1] & 1 else noise[2]
            kind = noise[0] % 12 | noise[3] & 0x80
            payload = noise[8:] * (noise[4] % 25)
            way.arrived += forger.frame(
                kind, noise[5] % 6, noise[6], tag, seq, noise[7] % 5, payload
            )
            way.arrived += os.urandom(noise[4])
            world.run(2)
            if not end._peer and n % 10 == 0:
                code_of(world.open, "silent", 1, 1)
        world.run(3000)
        world.new_board()
        sock = world.open()
        world.write(sock, b"fine")
        assert world.read(sock, 4) == b"fine"


def test_other_version_is_not_welcomed():
    world = World()
    world.up.arrived += Forger().frame(mux_end.HELLO | mux_end.LAST, 0, 1, 0, 0, 0, b"\2\1\0\0\0")
    world.wait(10)
    assert world.host.versions == 1
    assert not world.down.log
