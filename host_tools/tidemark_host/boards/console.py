"""A board's serial console on the host: the log, a pty and a TCP port for the stock `mpremote`.

What the board prints goes to all of them; what any of them sends goes to the board. Lines end in
CR LF on the way out, as the C runtime of a real board has it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import termios
import threading
import time
import tty
from collections.abc import Iterator

from tidemark_host.boards.base import BoardTimeout, Line

LINES_MAX = 20_000  # lines the log keeps; older ones go
_LINE_MAX = 4096  # bytes of a line; the rest starts a new one
_CLIENTS_MAX = 4
_CHUNK = 4096


class ConsoleLog:
    """Lines with the time each was completed. Their numbers stay when old lines go."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._first = 0  # number of the oldest line kept
        self._open = bytearray()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        with self._changed:
            return self._first + len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        with self._changed:
            return iter(list(self._lines))

    def __getitem__(self, index: int) -> Line:
        with self._changed:
            if index < 0:
                return self._lines[index]
            if index < self._first:
                raise IndexError(f"line {index} is no longer kept")
            return self._lines[index - self._first]

    def add(self, data: bytes) -> None:
        """Take what the board has printed."""
        with self._changed:
            for part in data.splitlines(keepends=True):
                self._open += part
                if part.endswith(b"\n") or len(self._open) >= _LINE_MAX:
                    self._end_line()
            self._changed.notify_all()

    def note(self, text: str) -> None:
        """Add a line of the host's own, marked with `#`: power, resets, faults."""
        with self._changed:
            if self._open:
                self._end_line()
            self._lines.append(Line(time.monotonic(), f"# {text}"))
            self._changed.notify_all()

    def wait_for(self, text: str, timeout: float = 10.0, since: int = 0) -> Line:
        """Return the first line from number `since` on that contains `text`, be it unfinished.

        Raises BoardTimeout with the last lines of the log.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._lines[max(0, since - self._first) :]:
                    since += 1
                    if text in line.text:
                        return line
                since = max(since, self._first + len(self._lines))
                if text in _decode(self._open):
                    return Line(time.monotonic(), _decode(self._open))
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            last = "\n".join(line.text for line in self._lines[-15:])
        raise BoardTimeout(f"no {text!r} on the console within {timeout} s; it ends in\n{last}")

    def _end_line(self) -> None:
        self._lines.append(Line(time.monotonic(), _decode(self._open)))
        self._open.clear()
        if len(self._lines) > LINES_MAX:
            gone = len(self._lines) - LINES_MAX
            del self._lines[:gone]
            self._first += gone


def _decode(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "backslashreplace").rstrip("\r\n")


class Console:
    """The host's end of the serial line. Runs within the selector loop of its board's thread."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.log = ConsoleLog()
        self._selector = selector
        self._board: socket.socket | None = None
        self._last = 0  # the byte printed last
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        selector.register(self._master, selectors.EVENT_READ, self._from_pty)
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
        self._from_board()
        self._board = None
        self._selector.unregister(board)
        board.close()

    def flush(self) -> None:
        """Drop what waits in the pty for a reader that never came."""
        termios.tcflush(self._slave, termios.TCIFLUSH)

    def send(self, data: bytes) -> None:
        """Send to the board. What it has no room for is lost, as on a UART; so is all when off."""
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.send(data)

    def close(self) -> None:
        """Close all ends."""
        self.detach()
        self._selector.unregister(self._master)
        self._selector.unregister(self._listener)
        for client in list(self._clients):
            self._drop(client)
        self._listener.close()
        os.close(self._master)
        os.close(self._slave)

    def _from_board(self) -> None:
        board = self._board
        while board is not None:
            try:
                data = board.recv(_CHUNK)
            except OSError:
                return
            if not data:
                return
            self.log.add(data)
            self._show(self._cook(data))

    def _cook(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if byte == 10 and self._last != 13:
                out.append(13)
            out.append(byte)
            self._last = byte
        return bytes(out)

    def _show(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads the pty: a serial line does not wait
            os.write(self._master, data)
        for client in list(self._clients):
            try:
                client.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self._drop(client)

    def _from_pty(self) -> None:
        with contextlib.suppress(OSError):
            self.send(os.read(self._master, _CHUNK))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client = self._listener.accept()[0]
            if len(self._clients) >= _CLIENTS_MAX:
                client.close()
                return
            client.setblocking(False)
            self._clients.append(client)
            self._selector.register(
                client, selectors.EVENT_READ, lambda client=client: self._from_client(client)
            )

    def _from_client(self, client: socket.socket) -> None:
        if client not in self._clients:
            return
        try:
            data = client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.send(data)
        else:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._clients.remove(client)
        self._selector.unregister(client)
        client.close()
