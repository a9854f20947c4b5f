# The serial line's multiplex on a line that is mute for a while, or bad.

from errno import ECONNRESET

from mux_world import World, errno_of, pattern

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
