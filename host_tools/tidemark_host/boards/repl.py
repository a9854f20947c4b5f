"""The raw REPL of a board, by the code of the stock `mpremote`."""

from __future__ import annotations

import contextlib
import io
import secrets
import time
from types import TracebackType
from typing import Any, Self

from mpremote.transport import TransportError  # pyright: ignore[reportMissingTypeStubs]
from mpremote.transport_serial import SerialTransport  # pyright: ignore[reportMissingTypeStubs]

from tidemark_host.boards.base import BoardError


def _port_errors() -> tuple[type[Exception], ...]:
    try:
        import termios
    except ImportError:  # Windows
        return (OSError,)
    return (OSError, termios.error)  # pyserial lets the second one through


# What a serial port raises that has just gone.
GONE = _port_errors()
_READ_S = 0.2
_ANSWER_S = 5.0
# What gets a board out of whatever mode it was left in: Ctrl-C for code that caught the first one,
# Ctrl-B out of the raw REPL. In half of a raw paste Ctrl-C ends the paste.
_RECOVER = b"\x03\r\x03\x03\x02\r\x03"
_TRIES = 3


class Repl:
    """Code run on a board over its console. Entering it interrupts what runs there (Ctrl-C)."""

    def __init__(
        self,
        console_path: str,
        soft_reset: bool = False,
        timeout: float = 10.0,
        silence: float = _READ_S,
    ) -> None:
        """Connect. `soft_reset`: begin with a clean heap, as `mpremote exec` does. `silence`:
        seconds that a board may take for a single byte of its answer.

        A board that was left in a raw REPL, in half of a paste, or that caught the first Ctrl-C is
        recovered. Raises BoardError `console` when no raw REPL answers within `timeout` seconds.
        """
        self._transport: Any = None
        try:
            # Without a time-out of its own mpremote waits for ever on a pty.
            self._transport = SerialTransport(console_path, timeout=silence)
            self._enter(soft_reset, timeout)
        except (TransportError, *GONE) as error:
            self.close()
            raise BoardError("console", f"no raw REPL at {console_path}: {error}") from error

    def _enter(self, soft_reset: bool, timeout: float) -> None:
        """Enter the raw REPL, also of a board that was left in the middle of something."""
        until = time.monotonic() + timeout
        for last in range(_TRIES - 1, -1, -1):
            left = until - time.monotonic()
            try:
                # mpremote prints what it read when it gives up.
                with contextlib.redirect_stdout(io.StringIO()):
                    self._transport.enter_raw_repl(soft_reset, max(left, _READ_S) / (last + 1))
                self._catch_up(max(until - time.monotonic(), _READ_S))
                return
            except TransportError:
                if not last:
                    raise
                self._transport.serial.write(_RECOVER)

    def _catch_up(self, timeout: float) -> None:
        """Read past whatever the board still had to say, banners of the raw REPL among it."""
        token = secrets.token_hex(4)
        self._transport.serial.write(f"print('{token[:4]}','{token[4:]}')\x04".encode())
        # The prompt behind it is left to be read, as mpremote wants it.
        end = f"{token[:4]} {token[4:]}\r\n\x04\x04".encode()
        data = self._transport.read_until(1, end, timeout_overall=timeout)
        if not data.endswith(end):
            raise TransportError("the raw REPL does not answer")

    def exec(self, code: str, timeout: float = 10.0) -> str:
        """Run `code` and return what it printed, lines ended by a bare newline.

        Raises BoardError: `exec` with the board's traceback; `console` when no answer came
        within `timeout` seconds.
        """
        try:
            # mpremote reads the board's first word once; a board that is busy takes a moment.
            self._transport.serial.timeout = _ANSWER_S
            self._transport.exec_raw_no_follow(code)
            self._transport.serial.timeout = _READ_S
            out, err = self._transport.follow(timeout)
        except (TransportError, *GONE) as error:
            raise BoardError("console", f"no answer from the REPL: {error}") from error
        if err:
            raise BoardError("exec", text(err))
        return text(out)

    def soft_reset(self) -> None:
        """Soft-reset the board within the raw REPL: _boot.py runs again, main.py does not."""
        try:
            self._transport.enter_raw_repl(soft_reset=True)
        except (TransportError, *GONE) as error:
            raise BoardError("console", f"no answer to a soft reset: {error}") from error

    def close(self) -> None:
        """Leave the raw REPL and the console to the next one."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            if transport.in_raw_repl:
                transport.exit_raw_repl()
        except (TransportError, *GONE):
            pass  # the board is off: there is nothing to leave
        finally:
            close_transport(transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def close_transport(transport: Any) -> None:
    """Close mpremote's transport, also of a port that is gone."""
    with contextlib.suppress(*GONE):
        transport.close()
    # mpremote stops halfway when the port can't take its last words.
    transport.serial.close()


def text(data: bytes) -> str:
    """Return what a board printed, with bare newlines and other bytes than UTF-8 escaped."""
    return data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
