"""The process that plays the virtual board's processor: MicroPython's unix port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tidemark_host.boards.base import BoardError


class Processor:
    """Starts and kills the process. One at a time; a killed one leaves nothing behind."""

    def __init__(
        self,
        argv: Sequence[str],
        heap: str,
        folder: Path,
        firmware: Path | None,
        code: Path | None,
        chip: Path | None = None,
    ) -> None:
        """`argv`: the runtime. `heap`: its size, as `-X heapsize` takes it. `folder`: its place.

        `firmware`, `code`: folders of sources searched before the frozen modules, `code` first.
        `chip`: of a board whose base lies in its flash, the folder of what is there before it.
        """
        self._argv = list(argv)
        self._heap = heap
        self._folder = folder
        self._firmware = firmware.resolve() if firmware else None
        self._paths = tuple(str(path.resolve()) for path in (code, firmware) if path)
        self._chip = chip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        process = self._process
        return process.pid if process else None

    def start(self, console: int, flash_path: Path) -> socket.socket:
        """Start the process and return the host's end of its hardware channel.

        `console`: descriptor for its stdin and stdout. Raises BoardError `runtime`.
        """
        ours, theirs = socket.socketpair()
        flash = os.open(flash_path, os.O_RDONLY)
        entry = (
            f"import esp32_chip; esp32_chip.start({theirs.fileno()}, {flash})"
            if self._chip
            else "from tidemark.port import unix; "
            f"unix.start({theirs.fileno()}, {flash}, {self._paths!r})"
        )
        try:
            self._process = subprocess.Popen(
                [*self._argv, "-X", f"heapsize={self._heap}", "-c", entry],
                stdin=console,
                stdout=console,
                stderr=console,
                pass_fds=(theirs.fileno(), flash),
                cwd=self._folder,
                env=self._environment(),
            )
        except OSError as error:
            ours.close()
            raise BoardError("runtime", f"can't start {self._argv[0]}: {error}") from error
        finally:
            theirs.close()
            os.close(flash)
        ours.setblocking(False)
        return ours

    def kill(self) -> None:
        """End the process as a power cut does; nothing happens when there is none."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def how_it_ended(self) -> str:
        """Return how the process ended that has closed its channel, and forget it."""
        process = self._process
        if process is None:
            return "no process"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        self.kill()
        code = process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def _environment(self) -> dict[str, str]:
        if self._chip:
            path = str(self._chip)
        else:
            path = f"{self._firmware}:.frozen" if self._firmware else ".frozen"
        return {"MICROPYPATH": path, "PATH": os.environ.get("PATH", "")}
