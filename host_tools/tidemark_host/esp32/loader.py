"""A chip in its boot ROM's serial loader, by esptool as a library: what it is, what its flash
holds, and writing it.

esptool puts its stub into the chip's RAM. Each of its commands is bounded in time by itself.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tidemark_host.bootsel import Progress
from tidemark_host.uf2_file import spans

_BAUD = 460_800  # once the stub runs; the ROM begins at 115,200
# Ports with a UART behind them; on the others no rate means anything.
_BRIDGED = re.compile(r"/dev/ttyUSB|/dev/cu\.(usbserial|SLAB|wchusb)|COM")
_MB = 1 << 20


class LoaderError(Exception):
    """A chip that could not be read or written; `code` is stable, the text is for people.

    `no-loader`: it could not be reached; `loader`: it could, and something failed then.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Loader:
    """A chip that answers. All methods raise LoaderError `loader`.

    `chip`: as board.toml names it. `flash_size`: bytes, 0 where esptool does not know the flash
    chip. `secured`: what is burned into its eFuses, of `secure-boot` and `flash-encryption`.
    """

    def __init__(self, esp: Any, tool: Any, progress: Progress | None) -> None:
        self._esp = esp
        self._tool = tool
        self._progress = progress
        self.chip = str(esp.CHIP_NAME).lower().replace("-", "")
        size = str(tool.detect_flash_size(esp) or "")
        self.flash_size = int(size.removesuffix("MB")) * _MB if size.endswith("MB") else 0
        self.secured = tuple(
            name
            for name, burned in (
                ("secure-boot", esp.get_secure_boot_enabled()),
                ("flash-encryption", esp.get_flash_encryption_enabled()),
            )
            if burned
        )

    def read(self, offset: int, size: int) -> bytes:
        """Return what the flash holds."""
        with _told("loader"):
            return bytes(self._esp.read_flash(offset, size))

    def holds(self, offset: int, content: bytes) -> bool:
        """Tell whether the flash holds `content` there, by the MD5 that the chip computes."""
        with _told("loader"):
            said = str(self._esp.flash_md5sum(offset, len(content)))
        return said == hashlib.md5(content, usedforsecurity=False).hexdigest()

    def write(self, parts: Mapping[int, bytes], first: Mapping[int, bytes] | None = None) -> None:
        """Write `parts` (offset: content), after `first`; whole sectors are erased. Each is
        compared then."""
        joined = [*spans(first or {}), *spans(parts)]
        total, done = sum(len(content) for _, content in joined), 0
        for offset, content in joined:
            with _told("loader", self._scaled(done, len(content), total)):
                # "keep": not a byte of a header is changed; esptool looks whether the chip fits.
                self._tool.write_flash(self._esp, [(offset, content)], flash_size="keep")
            done += len(content)
            if self._progress:
                self._progress(done, total)

    def _scaled(self, done: int, size: int, total: int) -> Progress | None:
        """Return the progress of one part as that of all of them."""
        show = self._progress
        if show is None:
            return None
        return lambda now, whole: show(done + size * now // max(whole, 1), total)


@contextmanager
def opened(port: str, progress: Progress | None = None) -> Generator[Loader]:
    """Reset the chip at a serial port into its loader; it is reset into its firmware at the end.

    port: as pyserial takes it; over `socket://` the chip must be in its loader already. Raises
    LoaderError.
    """
    tool = importlib.import_module("esptool")
    esp: Any = None
    try:
        with _told("no-loader"):
            esp = tool.detect_chip(port)
        with _told("loader"):
            esp = esp.run_stub()
            if not esp.secure_download_mode:
                tool.attach_flash(esp)
            if _BRIDGED.match(port):
                esp.change_baud(_BAUD)
            loader = Loader(esp, tool, progress)
        yield loader
    finally:
        if esp is not None:
            with suppress(Exception), _told("loader"):
                tool.reset_chip(esp, "hard-reset")
            esp._port.close()


def run(port: str) -> None:
    """Reset the chip at a port by its lines, into its firmware and out of its loader.

    Raises LoaderError `no-loader` for a port that can't be opened.
    """
    reset: Any = importlib.import_module("esptool.reset")
    serial: Any = importlib.import_module("serial")
    try:
        line = serial.serial_for_url(port, 115_200, exclusive=True)
    except (OSError, ValueError) as error:
        raise LoaderError("no-loader", f"{port}: {error}") from error
    with line, _told("no-loader"):
        # DTR released: GPIO0 high, so that the ROM starts what is in the flash.
        line.dtr = False
        reset.HardReset(line, uses_usb=True)()


@contextmanager
def _told(code: str, progress: Progress | None = None) -> Generator[None]:
    """Silence esptool, take its progress, and turn its failures into ours."""
    pylib: Any = importlib.import_module("esp_pylib.logger")
    tool: Any = importlib.import_module("esptool")
    former = pylib.EspLog.instance
    pylib.EspLog.set_logger(_quiet(pylib.EspLogBase, progress))
    try:
        yield
    except (tool.FatalError, OSError) as error:
        words = " ".join(str(error).split())
        raise LoaderError(code, f"esptool: {words}") from error
    finally:
        pylib.EspLog.set_logger(former)


def _quiet(base: Any, progress: Progress | None) -> Any:
    """Return a logger for esptool, a `base`, that passes on how far a write is, and nothing."""

    def silent(*_: Any, **__: Any) -> None: ...

    def show(_: Any, now: int, whole: int, *__: Any, **___: Any) -> None:
        if progress:
            progress(now, whole)

    names = ("print", "err", "warn", "note", "hint", "debug", "set_verbosity")
    return type("Quiet", (base,), {**dict.fromkeys(names, silent), "progress_bar": show})()
