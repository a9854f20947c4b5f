"""A board's serial console on the host: the log, a pty and a TCP port for the stock `mpremote`.

What the board prints goes to all of them; what any of them sends goes to the board. Lines end in
CR LF on the way out, as the C runtime of a real board has it. As on a serial line, what is said
while nobody has the pty open is gone (but for the log).
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import termios
import tty
from collections.abc import Callable

from tidemark_host.boards.console_log import ConsoleLog

LOOK_S = 0.02  # how often to look whether somebody has opened the pty
_CLIENTS_MAX = 4
_CHUNK = 65536
_QUEUE_MAX = 1 << 20  # bytes that wait for one who reads slowly; more, and all of them are lost


class _Peer:
    """One who reads and types: bytes out are queued, bytes in are handed to `receive`."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fd: int,
        receive: Callable[[bytes], None],
        gone: Callable[[_Peer], None],
        patient: bool = True,
    ) -> None:
        """`patient`: what the peer has no room for waits; else it is lost, as on a device."""
        self.fd = fd
        self._patient = patient
        self._selector = selector
        self._receive = receive
        self._gone = gone
        self._queue = bytearray()
        os.set_blocking(fd, False)
        selector.register(fd, selectors.EVENT_READ, self._ready)

    def write(self, data: bytes) -> None:
        if len(self._queue) + len(data) > _QUEUE_MAX:
            self._queue.clear()
        self._queue += data
        self._flush()
        if not self._patient:
            self._queue.clear()

    def close(self) -> None:
        """Leave the selector. The descriptor is its owner's to close."""
        self._selector.unregister(self.fd)

    def _ready(self) -> None:
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            self._flush()
            return
        except OSError:
            data = b""
        if not data:
            self._gone(self)
            return
        self._receive(data)
        self._flush()

    def _flush(self) -> None:
        while self._queue:
            try:
                sent = os.write(self.fd, self._queue)
            except BlockingIOError:
                break
            except OSError:
                self._queue.clear()  # gone: the next read says so
                break
            del self._queue[:sent]
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._queue else 0)
        if self._selector.get_key(self.fd).events != want:
            self._selector.modify(self.fd, want, self._ready)


class Pty:
    """A pseudo terminal that others open by its `path`, within the selector loop of one thread."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        receive: Callable[[bytes], None],
        device: bool = False,
    ) -> None:
        """`receive`: gets what is typed there.

        `device`: as a port of the operating system it is always there, holds what comes before it
        is opened as far as it has room, and whoever reads it when it is closed is told. Else what
        is written while nobody has it open is gone.
        """
        self._selector = selector
        self._receive = receive
        self._device = device
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        self.path = os.ttyname(self._slave)
        if not device:
            # Nobody holds the other end but those who use it: so it can be seen whether any do.
            os.close(self._slave)
        self._peer: _Peer | None = None
        self._look = select.poll()
        self._look.register(self._master, select.POLLHUP)

    def look(self) -> bool:
        """Find out whether it has been opened, and return it. Call every `LOOK_S`."""
        if self._peer is None and not self._hung_up():
            self._peer = _Peer(
                self._selector, self._master, self._receive, self._drop, not self._device
            )
        return self._peer is not None

    def write(self, data: bytes) -> None:
        """Say it to whoever has it open."""
        if self.look() and self._peer is not None:
            self._peer.write(data)

    def close(self) -> None:
        """Close both ends."""
        if self._peer is not None:
            self._drop(self._peer)
        os.close(self._master)
        if self._device:
            os.close(self._slave)

    def _hung_up(self) -> bool:
        return any(events & select.POLLHUP for _, events in self._look.poll(0))

    def _drop(self, peer: _Peer) -> None:
        peer.close()
        self._peer = None


class Wire:
    """A board's end of its serial line where the board, or what stands for it, lives in the thread
    of the line's other end."""

    def __init__(self, selector: selectors.BaseSelector, receive: Callable[[bytes], None]) -> None:
        """`receive`: gets what the host sends."""
        self._selector = selector
        self._receive = receive
        self.host_end, self._end = socket.socketpair()  # the first: for `Console.attach`
        self._end.setblocking(False)
        selector.register(self._end, selectors.EVENT_READ, self._ready)

    def send(self, data: bytes | bytearray) -> None:
        """Send to the host. Where nobody reads it is lost, as on a line."""
        with contextlib.suppress(BlockingIOError):
            self._end.send(data)

    def close(self) -> None:
        """Close the board's end."""
        self._selector.unregister(self._end)
        self._end.close()

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._receive(self._end.recv(_CHUNK))


class Console:
    """The host's end of the serial line. Runs within the selector loop of its board's thread."""

    def __init__(self, selector: selectors.BaseSelector, raw: bool = False) -> None:
        """`raw`: a line that carries no text: no log, and its bytes as they are."""
        self.log = ConsoleLog()
        self._raw = raw
        self._selector = selector
        self._board: socket.socket | None = None
        self._last = 0  # the byte printed last
        self._pty = Pty(selector, self.send)
        self.path = self._pty.path
        self._clients: dict[_Peer, socket.socket] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def attach(self, board: socket.socket) -> None:
        """Connect the line to a board that starts. `board`: the host's end of its stdin/stdout."""
        self.detach()
        board.setblocking(False)
        self._board = board
        self._selector.register(board, selectors.EVENT_READ, self._from_board)

    def detach(self) -> None:
        """Take what the board still had to say, then disconnect it."""
        board = self._board
        if board is None:
            return
        self.take()
        self._board = None
        self._selector.unregister(board)
        board.close()

    def take(self) -> None:
        """Take all that the board has said so far."""
        while self._hear():
            pass

    def send(self, data: bytes) -> None:
        """Send to the board. What it has no room for is lost, as on a UART; so is all when off."""
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.send(data)

    def look(self) -> bool:
        """Find out whether the pty has been opened, and return it. Call every `LOOK_S`."""
        return self._pty.look()

    def hang_up(self) -> None:
        """End the connections of all who came over TCP."""
        for client in list(self._clients):
            self._drop(client)

    def close(self) -> None:
        """Close all ends."""
        self.detach()
        self._pty.close()
        self.hang_up()
        self._selector.unregister(self._listener)
        self._listener.close()

    def _from_board(self) -> None:
        # A piece a turn: a board that prints without end must not keep its thread from all else.
        self._hear()

    def _hear(self) -> bool:
        """Pass on a piece of what the board has said; return whether there was one."""
        board = self._board
        if board is None:
            return False
        try:
            data = board.recv(_CHUNK)
        except OSError:
            return False
        if not data:
            return False
        if not self._raw:
            self.log.add(data)
            data = self._cook(data)
        self._pty.write(data)
        for client in list(self._clients):
            client.write(data)
        return True

    def _cook(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if byte == 10 and self._last != 13:
                out.append(13)
            out.append(byte)
            self._last = byte
        return bytes(out)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client = self._listener.accept()[0]
            if len(self._clients) >= _CLIENTS_MAX:
                client.close()
                return
            self._clients[_Peer(self._selector, client.fileno(), self.send, self._drop)] = client

    def _drop(self, peer: _Peer) -> None:
        peer.close()
        self._clients.pop(peer).close()
