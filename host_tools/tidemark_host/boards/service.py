"""The one thread in which a board's state lives, and how others have work done in it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from tidemark_host.boards.base import BoardError, BoardTimeout

T = TypeVar("T")

_CALL_S = 30.0


class Service:
    """Runs `turn()` again and again in a thread of its own, until `close`.

    `turn` waits, and handles events, by `self.poll(seconds)`.
    """

    def __init__(self, name: str, turn: Callable[[], None]) -> None:
        """Make it; `start` starts the thread."""
        self.selector = selectors.DefaultSelector()
        self.closing = False
        self._failed: Exception | None = None
        self._turn = turn
        self._ended = False
        self._jobs: deque[tuple[Callable[[], None], Callable[[BaseException], None]]] = deque()
        self._changed = threading.Condition()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.selector.register(self._wake_in, selectors.EVENT_READ, self._woken)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def do(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread and return its result; its error is the caller's.

        Raises BoardError `closed` or `service`, also where the thread ends before it gets to it;
        TimeoutError when it does not get to it in 30 s.
        """
        if self.closing or self._failed:
            raise self._gone()
        if threading.current_thread() is self._thread:
            return job()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except BaseException as error:  # handed to the caller, whose error it is
                future.set_exception(error)

        self._jobs.append((run, future.set_exception))
        if self._ended:
            self._refuse()
        else:
            self._wake()
        return future.result(_CALL_S)

    def poll(self, seconds: float | None) -> None:
        """Wait for events for at most `seconds` (None: for ever), and handle those that came."""
        for key, _ in self.selector.select(seconds):
            # An earlier event of this round may have closed this one's socket.
            now = self.selector.get_map().get(key.fd)
            if now is not None and now.data == key.data:
                key.data()

    def wait(self, holds: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait until `holds()`, looked at after each `notify`.

        Raises BoardTimeout; BoardError as `do` where the thread has ended and it does not hold.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or holds(), timeout):
                raise BoardTimeout(f"no {what} within {timeout} s")
            if self._ended and not holds():
                raise self._gone()

    def notify(self) -> None:
        """Have those who `wait` look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread. The selector is closed by `dispose`, after what is registered there."""
        self.closing = True
        self._wake()
        self._thread.join(_CALL_S)

    def dispose(self) -> None:
        """Close the selector."""
        self.selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _wake(self) -> None:
        # Full: it is awake. Closed: it has ended since.
        with contextlib.suppress(OSError):
            self._wake_out.send(b"w")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        while self._jobs:
            self._jobs.popleft()[0]()

    def _serve(self) -> None:
        try:
            while not self.closing:
                self._turn()
        except Exception as error:
            # A fault of ours: whoever asks next is told, and the traceback is shown.
            self._failed = error
            raise
        finally:
            self._ended = True
            self._refuse()
            self.notify()

    def _refuse(self) -> None:
        """Tell those whose job nobody will do any more."""
        while True:
            try:
                _, refuse = self._jobs.popleft()
            except IndexError:
                return
            refuse(self._gone())

    def _gone(self) -> BoardError:
        if self._failed:
            return BoardError("service", f"the board's thread ended: {self._failed!r}")
        return BoardError("closed", "the board has been closed")
