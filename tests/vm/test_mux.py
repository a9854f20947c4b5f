# The serial line's multiplex: sockets on the board, the bridge's end, and everything a line does.

import os
from errno import EAGAIN, ECONNRESET

from mux_world import Counting, World, pattern

from tidemark import mux, mux_end
from tidemark.errors import LinkError


def code_of(call, *args):
    try:
        call(*args)
    except LinkError as error:
        return error.code
    return ""


def errno_of(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return 0


# -- sockets ------------------------------------------------------------------------------------


def test_streams_go_both_ways_whole_and_in_order():
    world = World()
    sock = world.open()
    data = pattern(1, 5000)
    sent = 0
    got = b""
    while len(got) < len(data):
        sent += sock.write(data[sent:]) or 0
        got += sock.read(700) or b""
        world.wait(1)
    assert got == data
    assert world.server().got == data


def test_blocking_socket_waits_as_umqtt_expects():
    world = World()
    sock = world.mux.open("echo", 1883, 5)
    data = pattern(2, 3000)
    assert sock.write(data, 2000) == 2000
    assert sock.read(2) == data[:2]
    assert sock.read(1500) == data[2:1502]
    buf = bytearray(100)
    assert sock.readinto(buf) and buf[0] == data[1502]


def test_non_blocking_socket_says_not_yet_as_sockets_do():
    world = World()
    sock = world.open("silent")
    assert sock.read(10) is None
    assert sock.readinto(bytearray(10)) is None
    assert errno_of(sock.recv, 10) == EAGAIN
    world.server().reads = False
    world.asleep = True
    while sock.write(pattern(3, 500)):
        pass
    assert sock.write(b"more") is None
    assert errno_of(sock.send, b"more") == EAGAIN
    assert sock.send(b"") == 0
    assert sock.write(b"") == 0


def test_port_and_name_reach_the_bridge():
    world = World()
    world.open("bröker.example", 65535)
    assert world.network.asked == [("bröker.example", 65535)]


def test_failures_to_connect_have_the_ports_codes():
    world = World()
    assert code_of(world.open, "resolve") == "resolve"
    assert code_of(world.open, "refused") == "refused"
    assert code_of(world.open, "timeout") == "timeout"
    assert code_of(world.open, "denied") == "refused"
    assert code_of(world.open, "") == "resolve"
    assert code_of(world.open, "x" * 201) == "resolve"
    assert code_of(world.open, "echo", 0) == "resolve"
    assert code_of(world.open, "echo", 65536) == "resolve"
    world.run(100)
    assert world.idle()


def test_no_answer_to_connect_ends_in_time_and_frees_the_channel():
    world = World()
    began = world.passed
    assert code_of(world.open, "mute", 1883, 3) == "timeout"
    assert 3000 <= world.passed - began < 3100
    world.run(200)
    assert world.idle()


def test_without_a_bridge_open_ends_in_time():
    world = World()
    world.there = False
    began = world.passed
    assert code_of(world.open, "echo", 1883, 2) == "timeout"
    assert 2000 <= world.passed - began < 2100


def test_bridge_that_comes_later_is_found():
    world = World()
    world.there = False
    assert code_of(world.open, "echo", 1883, 2) == "timeout"
    world.there = True
    world.open("echo", 1883, 2)


def test_four_sockets_at_once_and_no_fifth():
    world = World()
    socks = [world.open() for _ in range(4)]
    assert code_of(world.open) == "full"
    for n, sock in enumerate(socks):
        world.write(sock, pattern(n, 800))
    for n, sock in enumerate(socks):
        assert world.read(sock, 800) == pattern(n, 800)
    for sock in socks:
        sock.close()
    # Those that are being closed become free while the next one waits.
    assert world.open()


def test_closed_channel_is_used_again_without_old_bytes():
    world = World()
    for n in range(12):
        sock = world.open()
        world.write(sock, pattern(n, 900))
        assert world.read(sock, 100) == pattern(n, 100)
        sock.close()
        sock.close()
    world.run(100)
    assert world.idle()
    assert errno_of(sock.read, 1)
    assert errno_of(sock.write, b"x")


def test_what_was_written_before_close_still_arrives():
    world = World()
    sock = world.open("silent")
    data = pattern(5, 700)
    world.write(sock, data)
    sock.close()
    server = world.server()
    world.until(lambda: server.ended)
    assert server.got == data


def test_peers_end_is_read_after_its_last_byte():
    world = World()
    sock = world.open("file")
    server = world.server()
    server.pending = pattern(6, 3000)
    server.closing = True
    assert world.read(sock, 9999) == pattern(6, 3000)
    assert sock.read(1) == b""
    assert sock.recv(1) == b""
    assert errno_of(sock.write, b"x") == ECONNRESET
    sock.close()
    world.run(100)
    assert world.idle()


def test_broken_peer_is_an_error():
    world = World()
    sock = world.open("file")
    server = world.server()
    server.closing = server.broken = True
    world.until(lambda: errno_of(sock.recv, 1) == ECONNRESET)


# -- flow ---------------------------------------------------------------------------------------


def test_reader_that_stops_holds_back_its_own_channel_only():
    world = World()
    lazy = world.open("file")
    server = world.server()
    server.pending = pattern(7, 5000)
    busy = world.open()
    for n in range(10):
        world.write(busy, pattern(n, 500))
        assert world.read(busy, 500) == pattern(n, 500)
    assert len(server.pending) == 5000 - mux_end.WINDOW
    assert world.read(lazy, 5000) == pattern(7, 5000)


def test_server_that_stops_reading_holds_back_the_board():
    world = World()
    sock = world.open("slow")
    server = world.server()
    server.reads = False
    taken = 0
    for _ in range(2000):
        taken += sock.write(pattern(8, 300)[:300]) or 0
        world.wait(1)
    assert taken == mux_end.WINDOW
    server.reads = True
    world.until(lambda: sock.write(b"x"))


def test_bridge_never_sends_but_in_answer_to_a_turn():
    world = World()
    world.open("file")
    world.until(lambda: not world.mux._waiting)
    world.server().pending = pattern(9, 5000)
    before = len(world.down.log)
    world.wait(10000)
    assert len(world.down.log) == before


def test_answer_to_a_turn_fits_the_boards_buffer():
    world = World()
    socks = [world.open("file") for _ in range(4)]
    for server in world.network.every:
        server.pending = bytes(5000)  # the longest on the line
    for sock in socks:
        sock.read(1)
    most = 0
    for _ in range(300):
        world.mux.step()
        before = len(world.down.log)
        world.wait(1)
        most = max(most, len(world.down.log) - before)
    assert 0 < most <= mux.RX_BUFFER // 2


def test_idle_line_is_asked_ever_less_often():
    world = World()
    sock = world.open("silent")
    turns = world.host.turns
    for _ in range(1000):
        sock.read(1)
        world.wait(1)
    assert 20 < world.host.turns - turns < 60
    turns = world.host.turns
    world.run(10000)  # nobody reads: only signs of life
    assert 9 <= world.host.turns - turns <= 11


def test_line_without_sockets_is_silent():
    world = World()
    world.open().close()
    world.run(100)
    sent = len(world.up.log)
    world.run(20000)
    assert len(world.up.log) == sent


# -- quiet --------------------------------------------------------------------------------------


def test_quiet_lets_nothing_arrive_until_resume():
    world = World()
    sock = world.open("file")
    server = world.server()
    for _ in range(200):
        server.pending += pattern(0, 500)
        sock.read(256)
        assert world.mux.quiet()
        sent = len(world.up.log)
        down = len(world.down.log)
        world.wait(50)
        assert not world.down.arrived and not world.down.under_way
        world.mux.step()
        sock.read(0)
        assert (len(world.up.log), len(world.down.log)) == (sent, down)
        world.mux.resume()
        world.wait(1)


def test_quiet_waits_a_tenth_of_a_second_at_most():
    world = World()
    sock = world.open("file")
    world.asleep = True
    world.until(lambda: sock.read(1) is None and world.mux._waiting)
    began = world.passed
    assert not world.mux.quiet()
    assert world.passed - began <= 101
    world.mux.resume()


def test_bytes_lost_in_a_flash_operation_are_sent_again():
    world = World()
    sock = world.open("file")
    world.server().pending = pattern(4, 20000)
    got = b""
    while len(got) < 20000:
        got += sock.read(234) or b""
        world.asleep = True
        world.mux.quiet()  # the bridge is late: its burst comes within the erase
        world.asleep = False
        world.wait(60)
        world.down.arrived = world.down.arrived[:32]  # what the FIFO holds
        world.mux.resume()
        for _ in range(200):
            world.mux.step()
            world.wait(1)
    assert got == pattern(4, 20000)


def test_callback_within_a_step_does_no_harm():
    world = World()
    sock = world.open()
    calls = []

    def pause(ms):
        world.mux.step()
        calls.append(world.mux.quiet())
        world.mux.resume()
        world.wait(ms)

    world.mux.pause = pause
    world.until(lambda: sock.read(1) is None and world.mux._waiting)
    world.mux.quiet()
    world.mux.resume()
    assert calls
    world.write(sock, pattern(1, 900))
    assert world.read(sock, 900) == pattern(1, 900)


# -- a bad line ---------------------------------------------------------------------------------


class Every:
    """Does something to every n-th piece that is written."""

    def __init__(self, n, what):
        self.n = n
        self.what = what
        self.count = 0

    def __call__(self, data):
        self.count += 1
        return data if self.count % self.n else self.what(data)


def flip(data):
    at = len(data) // 2
    return data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :]


def lose(data):
    at = len(data) // 3
    return data[:at] + data[at + 1 :]


def double(data):
    return data + data


def gone(data):
    return b""


def babble(data):
    return bytes([(i * 37 + 1) & 0xFF or 1 for i in range(700)]) + data


def test_each_kind_of_damage_is_mended():
    for what in (flip, lose, double, gone, babble):
        for n in (3, 5, 8):
            world = World()
            sock = world.open()
            world.up.damage = Every(n, what)
            world.down.damage = Every(n + 1, what)
            data = pattern(n, 3000)
            sent = 0
            got = b""
            for _ in range(30000):
                sent += sock.write(data[sent:]) or 0
                got += sock.read(700) or b""
                world.wait(1)
                assert got == data[: len(got)]
                if len(got) == len(data):
                    break
            assert len(got) == len(data), (what, n, len(got))
            assert world.server().got == data
            assert world.host.sessions == world.mux.sessions == 0
            assert what is double or world.mux.bad + world.host.bad or what is gone


def test_duplicates_are_counted_and_dropped():
    world = World()
    sock = world.open()
    world.up.damage = world.down.damage = double
    world.write(sock, pattern(1, 2000)[:900])
    assert world.read(sock, 900) == pattern(1, 900)
    assert world.host.duplicates and world.mux.duplicates
    assert world.server().got == pattern(1, 900)


def test_dead_line_is_an_error_within_six_seconds():
    world = World()
    sock = world.open()
    world.there = False
    began = world.passed
    while not errno_of(sock.read, 1) == ECONNRESET:
        assert world.passed - began < 7000
        world.run(1)
        if sock._channel.broken:
            break
    assert 4000 < world.passed - began < 6500
    assert errno_of(sock.recv, 1) == ECONNRESET
    assert errno_of(sock.send, b"x") == ECONNRESET
    sock.close()
    assert world.mux.sessions == 1


def test_noise_without_end_is_no_answer():
    world = World()
    sock = world.open()

    class Noise:
        def readinto(self, buf):
            buf[0] = 0x55
            return 1

    world.mux._stream.readinto = Noise().readinto
    for _ in range(20000):
        world.run(1)
        if sock._channel.broken:
            break
    assert sock._channel.broken


def test_line_that_comes_back_in_time_keeps_its_sockets():
    world = World()
    sock = world.open()
    world.there = False
    world.run(3000)
    world.there = True
    world.write(sock, pattern(1, 500))
    assert world.read(sock, 500) == pattern(1, 500)
    assert not world.mux.sessions


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


# -- select.poll --------------------------------------------------------------------------------


def test_vm_poll_waits_for_a_socket():
    import select

    world = World()
    sock = world.open("silent")
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    assert poller.poll(30) == []
    world.server().pending = b"x"
    turns = world.host.turns
    for _ in range(50):
        found = poller.poll(1)
        if found:
            break
        world.wait(1)
    assert found[0][0] is sock and found[0][1] == select.POLLIN
    assert world.host.turns > turns
    poller.modify(sock, select.POLLOUT)
    assert poller.poll(0)[0][1] == select.POLLOUT
    assert sock.read(9) == b"x"
    world.new_bridge()
    poller.modify(sock, select.POLLIN)
    for _ in range(2000):
        found = poller.poll(1)
        if found:
            break
        world.wait(1)
    assert found[0][1] & select.POLLERR
    sock.close()


def test_vm_traffic_leaves_no_garbage_that_stays():
    import gc

    world = World()
    sock = world.open()

    def talk():
        for n in range(20):
            world.write(sock, pattern(n, 200))
            assert world.read(sock, 200)
        world.up.log = world.down.log = world.server().got = b""
        gc.collect()
        return gc.mem_alloc()

    first = talk()
    for _ in range(5):
        last = talk()
    assert last - first < 1024
