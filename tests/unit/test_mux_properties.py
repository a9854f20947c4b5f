"""The serial multiplex on any line: streams arrive whole and in order, or end in an error."""

from __future__ import annotations

import functools
from errno import ECONNRESET

import mux_world
from hypothesis import given, settings
from hypothesis import strategies as st
from mux_world import Server, World

from tidemark.errors import LinkError
from tidemark.mux import Socket

SIZE = 1500
pattern = functools.cache(mux_world.pattern)
SOCKETS = 2

# What happens to one piece that is written: kind, and a number that says where or how much.
_DAMAGE = st.tuples(
    st.sampled_from(["pass", "pass", "pass", "flip", "cut", "double", "noise", "replay", "lose"]),
    st.integers(0, 4095),
)
_EVENT = st.tuples(
    st.sampled_from(["run", "unplug", "sleep", "flash", "new bridge", "new board", "close"]),
    st.integers(1, 500),
)


class Damage:
    """Damages one piece after the other as it is told, then none."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        self._steps = iter(steps)
        self._former: list[bytes] = []

    def __call__(self, data: bytes) -> bytes:
        self._former.append(data)
        kind, n = next(self._steps, ("pass", 0))
        at = n % len(data)
        if kind == "flip":
            return data[:at] + bytes((data[at] ^ 1 << n % 8,)) + data[at + 1 :]
        if kind == "cut":
            return data[:at] + data[at + 1 + n % 40 :]
        if kind == "double":
            return data + data
        if kind == "noise":
            return data[:at] + bytes([(i * n) & 0xFF for i in range(n % 700)]) + data[at:]
        if kind == "replay":
            return self._former[n % len(self._former)] + data
        return b"" if kind == "lose" else data


class Talker:
    """One connection after the other: sends one pattern, takes another."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._sock: Socket | None = None
        self.whole = 0

    def step(self) -> None:
        try:
            if self._sock is None:
                self._number += SOCKETS
                self._sock = self._world.mux.open(f"s{self._number}", 80, 1)
                self._sock.setblocking(False)
                self._up = pattern(2 * self._number, SIZE)
                self._down = pattern(2 * self._number + 1, SIZE)
                self._sent = 0
                self._got = b""
            self._talk(self._sock)
        except LinkError as error:
            assert error.code in ("timeout", "full")
        except OSError as error:
            assert error.errno == ECONNRESET
            self.close()

    def _talk(self, sock: Socket) -> None:
        self._sent += sock.write(self._up[self._sent :]) or 0
        data = sock.read(300)
        assert data != b""
        self._got += data or b""
        assert self._down.startswith(self._got)
        if len(self._got) == SIZE and self._sent == SIZE:
            self.whole += 1
            self.close()

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def forget(self) -> None:
        """The board is new: its sockets are gone without a word."""
        self._sock = None


def serve(world: World, seen: dict[int, Server]) -> None:
    """Give each new server what it has to send, and check what it got."""
    for server in world.network.every:
        if id(server) not in seen:
            seen[id(server)] = server
            server.pending = pattern(2 * int(server.host[1:]) + 1, SIZE)
        assert pattern(2 * int(server.host[1:]), SIZE).startswith(server.got)


@settings(max_examples=40, deadline=None)
@given(
    up=st.lists(_DAMAGE, max_size=60),
    down=st.lists(_DAMAGE, max_size=60),
    events=st.lists(_EVENT, max_size=6),
)
def test_streams_arrive_whole_and_in_order_or_end_in_an_error(
    up: list[tuple[str, int]], down: list[tuple[str, int]], events: list[tuple[str, int]]
) -> None:
    world = World()
    world.up.damage = Damage(up)
    world.down.damage = Damage(down)
    talkers = [Talker(world, n) for n in range(SOCKETS)]
    seen: dict[int, Server] = {}

    def run(ms: int) -> None:
        end = world.passed + ms
        while world.passed < end:
            for talker in talkers:
                talker.step()
            serve(world, seen)
            world.run(1)

    for kind, n in events:
        if kind == "unplug":
            world.there = False
        elif kind == "sleep":
            world.asleep = True
        elif kind == "flash":
            world.mux.quiet()
            world.wait(n)
            world.down.arrived = world.down.arrived[:32]
            world.mux.resume()
        elif kind == "new bridge":
            world.new_bridge()
        elif kind == "new board":
            world.new_board()
            for talker in talkers:
                talker.forget()
        elif kind == "close":
            talkers[n % SOCKETS].close()
        run(n)
        world.there = True
        world.asleep = False
    # A line that is good again carries everything, each channel's own.
    world.up.damage = world.down.damage = None
    before = [talker.whole for talker in talkers]
    for _ in range(200):
        run(50)
        if all(t.whole >= n + 2 for t, n in zip(talkers, before, strict=True)):
            break
    assert all(t.whole >= n + 2 for t, n in zip(talkers, before, strict=True))
    for talker in talkers:
        talker.close()
    world.run(3000)
    assert world.idle()
