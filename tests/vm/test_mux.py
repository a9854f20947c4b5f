# The serial line's multiplex: sockets on the board, their flow, and the bridge's end of them.

from errno import EAGAIN, ECONNRESET

from mux_world import World, code_of, errno_of, pattern

from tidemark import mux, mux_end

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
