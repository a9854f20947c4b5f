"""The emulated Pico: the real firmware image in an emulated RP2040, as a board like any other.

One service thread a board runs the chip in slices of emulated time, and between two of them hands
over what came from the host and what is for it. Emulated time never runs ahead of the host's
clock, since peers answer by that one, unless `skipping` says that nobody does; it falls behind
where the processor is busy, and does not catch up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from tidemark_host.boards.base import (
    LOG_MAX,
    BoardError,
    Cut,
    Operation,
    Reset,
    Violation,
)
from tidemark_host.boards.console import Console, Wire
from tidemark_host.boards.emulated_chip import (
    FLASH_SIZE,
    TYPICAL,
    Chip,
    Timing,
    with_runtime,
)
from tidemark_host.boards.nor import NorFlash, PowerCut
from tidemark_host.boards.repl import Repl
from tidemark_host.boards.served import HUNG, OFF, RUNNING, SimulatedBoard
from tidemark_host.boards.service import Service
from tidemark_host.toolchain_rp2 import flash_of
from tidemark_host.toolchain_rp2_emulator import load

_SLICE_S = 0.004  # emulated; how late the host is heard
_SILENCE_S = 5.0  # on a machine that is busy with other things
_SOFT_RESET = b"MPY: soft reboot"
_LINE_MAX = 256


class EmulatedBoard(SimulatedBoard):
    """A Pico without a Pico; implements `base.Board`.

    Its console is uart0, the link to its gateway uart1.
    """

    def __init__(
        self,
        runtime: Path | None = None,
        *,
        unique_id: bytes | None = None,
        seed: bytes | None = None,
        timing: Timing = TYPICAL,
        auto_power: bool = False,
        weak: bool = False,
    ) -> None:
        """Make a board that is switched off, with the runtime in its flash.

        `runtime`: a UF2 file; by default TIDEMARK_PICO's image, built when needed. `seed`: of the
        board's random source; one seed, the same keys. `timing`: of flash operations.
        `auto_power`, `weak`: as of `VirtualBoard`.
        """
        if runtime is None:
            from tidemark_host import toolchain

            runtime = toolchain.firmware("TIDEMARK_PICO")
        load("native")  # here, where it may take its time: the emulator may have to be compiled
        self._runtime = flash_of(runtime.read_bytes())
        self._unique_id = unique_id or os.urandom(8)
        self._seed = os.urandom(32) if seed is None else seed
        self._boots = 0
        self._timing = timing
        self._auto_power = auto_power
        self._weak = weak
        self._chip: Chip | None = None
        self._state = OFF
        self._nor = NorFlash(bytearray(b"\xff" * FLASH_SIZE), weak=weak)
        self._plan: tuple[int, str, int, int] | None = None
        self._operations: deque[Operation] = deque(maxlen=LOG_MAX)
        self._violations: deque[Violation] = deque(maxlen=LOG_MAX)
        self._resets: deque[Reset] = deque(maxlen=LOG_MAX)
        self._cuts: deque[Cut] = deque(maxlen=LOG_MAX)
        self._lost = [0, 0]
        self._skipping = False
        self._wall = self._emulated = 0.0  # seconds; the instant from which time is kept
        self._line = bytearray()
        self._service = Service("emulated-board", self._turn)
        selector = self._service.selector
        self._console = Console(selector)
        self._lines = [self._console, Console(selector, raw=True)]
        self._wires = [Wire(selector, self._receiver(uart)) for uart in (0, 1)]
        for line, wire in zip(self._lines, self._wires, strict=True):
            line.attach(wire.host_end)
        self._sent = [bytearray(), bytearray()]
        self._nor = self._flashed(b"")
        self._service.start()

    # -- the interface ------------------------------------------------------------------------

    @property
    def link_path(self) -> str:
        """The pty of the link (uart1), for `tidemark bridge`."""
        return self._lines[1].path

    @property
    def link_url(self) -> str:
        """The link over TCP: `socket://127.0.0.1:<port>`, for `tidemark bridge`."""
        return f"socket://127.0.0.1:{self._lines[1].port}"

    @property
    def emulated_s(self) -> float:
        """Emulated seconds since power-on; 0 when off."""
        chip = self._chip
        return chip.nanoseconds / 1e9 if chip else 0.0

    @property
    def lost(self) -> tuple[int, int]:
        """Bytes that came to uart0 and uart1 while their FIFO was full, in all boots."""

        def count() -> tuple[int, int]:
            now = [self._chip.lost(uart) if self._chip else 0 for uart in (0, 1)]
            return self._lost[0] + now[0], self._lost[1] + now[1]

        return self._service.do(count)

    @property
    def marker(self) -> int:
        """The register that survives resets."""

        def read() -> int:
            return int(self._chip.mcu.watchdog.read_uint32(0xC)) if self._chip else 0

        return self._service.do(read)

    def flash(self, image: bytes) -> None:
        """Switch off, erase the whole chip, write `image` from address 0.

        Where `image` is blank in the runtime's place, the board's runtime stays there. Raises
        BoardError `size`.
        """
        self._check_size(image)

        def write() -> None:
            self._off("flashed")
            worn = self._nor.faults
            self._nor = self._flashed(image)
            self._nor.faults = worn

        self._service.do(write)

    def power_on(self, readings: Mapping[int, str] | None = None) -> None:
        """Switch on; nothing happens when it is on. `readings`: of weak cells in this boot."""

        def on() -> None:
            if self._state == OFF:
                if self._weak:
                    self._nor.power_up(dict(readings or {}))
                self._start("power-on")

        self._service.do(on)

    def reset(self) -> None:
        """Pull the RUN pin: the cause is `reset`, the marker is lost. Raises BoardError `off`."""

        def pull() -> None:
            chip = self._chip
            if chip is None:
                raise BoardError("off", "a board without power can't be reset")
            if self._state == HUNG:
                self._off("reset")
                self._start("reset")
                return
            chip.reset_pin()
            self._started("reset")

        self._service.do(pull)

    def read_flash(self, start: int, size: int, resume: bool = True) -> bytes:
        """Return what the flash holds. Raises BoardError `bounds`."""
        self._check_bounds(start, size)
        return self._service.do(lambda: bytes(self._nor.view(start, size)))

    def snapshot(self) -> tuple[object, ...]:
        """Return the flash's physical state, for `restore`; equal states behave alike."""
        return self._service.do(self._nor.snapshot)

    def restore(self, state: tuple[object, ...]) -> None:
        """Switch off and give the flash a state of `snapshot`."""

        def back() -> None:
            self._off("restored")
            self._nor.restore(state)

        self._service.do(back)

    @contextlib.contextmanager
    def skipping(self) -> Generator[None]:
        """Skip the time in which the processor sleeps, for as long as the block lasts.

        For what no peer has a part in: hours of back-off or a lease pass in moments.
        """
        self._skipping = True
        try:
            yield
        finally:
            self._skipping = False

    def send(self, data: bytes) -> None:
        """Type on the console."""
        self._service.do(lambda: self._console.send(data))

    def repl(self, soft_reset: bool = False, timeout: float = 10.0) -> Repl:
        """Open the raw REPL by mpremote's own transport. Raises BoardError `console`."""
        return Repl(self.console_path, soft_reset, timeout, _SILENCE_S)

    def _let_go(self) -> None:
        for wire in self._wires:
            wire.close()
        for line in self._lines:
            line.close()

    # -- the service thread -------------------------------------------------------------------

    def _turn(self) -> None:
        chip = self._chip
        if chip is None or self._state != RUNNING:
            self._service.poll(None)
            return
        self._service.poll(self._patience(chip))
        if self._chip is not chip or self._state != RUNNING:
            return
        self._look()
        try:
            chip.run(_SLICE_S)
        except PowerCut:
            self._flush()
            self._interrupted(chip.interrupted, chip.variant)
            return
        except BoardError as error:
            self._flush()
            self._state = HUNG
            self.serial_log.note(str(error))
            self._service.notify()
            return
        self._flush()

    def _patience(self, chip: Chip) -> float:
        """Return how long emulated time must wait for the host's clock."""
        ahead = chip.nanoseconds / 1e9 - self._emulated - (time.monotonic() - self._wall)
        if ahead > 0 and not self._skipping:
            return ahead
        self._wall, self._emulated = time.monotonic(), chip.nanoseconds / 1e9
        return 0.0

    def _look(self) -> None:
        for line in self._lines:
            line.look()

    def _receiver(self, uart: int) -> Callable[[bytes], None]:
        def receive(data: bytes) -> None:
            if self._chip and self._state == RUNNING:
                self._chip.send(data, uart)

        return receive

    def _on_byte(self, uart: int, byte: int) -> None:
        self._sent[uart].append(byte)
        if uart == 0:
            self._watch_line(byte)

    def _watch_line(self, byte: int) -> None:
        """A soft reset shows on the console only."""
        if byte != 10:
            if len(self._line) < _LINE_MAX:
                self._line.append(byte)
            return
        if self._line.rstrip(b"\r").endswith(_SOFT_RESET):
            self._resets.append(Reset(time.monotonic(), "soft"))
            self._service.notify()
        self._line.clear()

    def _flush(self) -> None:
        for wire, line, data in zip(self._wires, self._lines, self._sent, strict=True):
            if data:
                wire.send(data)
                data.clear()
                # Now: what is noted next comes after it.
                line.take()

    # -- power --------------------------------------------------------------------------------

    def _flashed(self, image: bytes) -> NorFlash:
        return NorFlash(bytearray(with_runtime(image, self._runtime)), weak=self._weak)

    @property
    def _flash(self) -> NorFlash:
        return self._nor

    def _plan_cut(self, n: int, variant: str, count: int, mask: int) -> None:
        self._plan = (n - 1, variant, count, mask)
        if self._chip:
            self._chip.variant = variant
        self._nor.plan_cut(*self._plan)

    def _start(self, cause: str) -> None:
        # A boot of its own each time, and the same ones for the same seed.
        self._boots += 1
        chip = Chip(
            {},
            unique_id=self._unique_id,
            seed=self._seed + self._boots.to_bytes(8, "big"),
            timing=self._timing,
            weak=self._weak,
        )
        chip.nor.restore(self._nor.snapshot())
        chip.nor.faults = self._nor.faults
        self._nor = chip.nor
        if self._plan:
            chip.variant = self._plan[1]
            chip.nor.plan_cut(*self._plan)
        chip.operations = self._operations
        chip.on_byte = self._on_byte
        chip.on_reset = self._started
        chip.on_violation = self._refused
        self._chip = chip
        self._state = RUNNING
        self._wall, self._emulated = time.monotonic(), 0.0
        self._started(cause)

    def _started(self, cause: str) -> None:
        self._flush()
        self._resets.append(Reset(time.monotonic(), cause))
        self.serial_log.note(cause)
        self._service.notify()

    def _refused(self, violation: Violation) -> None:
        self._violations.append(violation)
        self.serial_log.note(f"flash violation: {violation}")

    def _off(self, why: str) -> None:
        chip, self._chip = self._chip, None
        if self._state == OFF or chip is None:
            return
        for uart in (0, 1):
            self._lost[uart] += chip.lost(uart)
        self._plan = None
        self._nor.no_cut()
        self._line.clear()
        self._state = OFF
        self.serial_log.note(why)
        self._service.notify()
