"""The serial loader of an ESP32's boot ROM, and esptool's stub in it, on a real flash image.

A TCP server that pyserial opens as `socket://`. It knows what esptool 5 sends to read, compare
and write a flash (Espressif's "Serial Protocol"); the stub that is uploaded is thrown away, and
what it would do is done here: a write erases whole sectors first. It has no modem lines: a chip is
in its loader from the start, and resets are not seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import zlib
from types import TracebackType
from typing import Any, Self

from esptool.targets import CHIP_DEFS  # pyright: ignore[reportUnknownVariableType]

SECTOR = 4096
_SFDP, _READ_ID, _USR = 0x5A, 0x9F, 1 << 18
_MAGIC_REG = 0x40001000
_NO = b"\x01\x05"  # ROM_INVALID_RECV_MSG


class RomSerial:
    """`with RomSerial("esp32", flash) as rom`: `rom.url` is the port. `erased`, `written`: places.

    `size_id`: of the flash chip, 0x16 for 4 MB, 0x17 for 8 MB. `efuses`: register to value.
    `fails_at`: the write that reaches this address breaks off, as when the cable is pulled.
    """

    def __init__(
        self,
        chip: str,
        flash: bytearray,
        size_id: int = 0x16,
        efuses: dict[int, int] | None = None,
        fails_at: int | None = None,
    ) -> None:
        self.flash = flash
        self.erased: list[int] = []
        self.written: list[tuple[int, int]] = []
        self.sessions = 0
        self.fails_at = fails_at
        self._chip: Any = CHIP_DEFS[chip]
        self._size_id = size_id
        self._registers = dict(efuses or {})
        if self._chip.USES_MAGIC_VALUE:
            self._registers[_MAGIC_REG] = self._chip.MAGIC_VALUE
        self._stub = False
        self._inflate: Any = None
        self._at = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._line: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"socket://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    # -- the line

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self.sessions += 1
            self._stub = False  # each session begins after a reset
            self._line, self._input = line, line.makefile("rb")
            with line, self._input, contextlib.suppress(OSError, EOFError):
                while True:
                    self._answer(self._frame())

    def _frame(self) -> bytes:
        """Return the next frame of the line, SLIP taken off (RFC 1055)."""
        frame, begun, escape = bytearray(), False, False
        while True:
            got = self._input.read(1)
            if not got:
                raise EOFError
            byte = got[0]
            if byte == 0xC0:
                if begun and frame:
                    return bytes(frame)
                begun = True
            elif escape:
                frame.append({0xDC: 0xC0, 0xDD: 0xDB}[byte])
                escape = False
            elif byte == 0xDB:
                escape = True
            elif begun:
                frame.append(byte)

    def _send(self, frame: bytes) -> None:
        assert self._line is not None
        coded = frame.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        self._line.sendall(b"\xc0" + coded + b"\xc0")

    def _reply(self, op: int, value: int = 0, data: bytes = b"", status: bytes = b"\0\0") -> None:
        if not self._stub:
            status += b"\0\0"
        body = data + status
        self._send(struct.pack("<BBHI", 1, op, len(body), value) + body)

    # -- the commands

    def _answer(self, frame: bytes) -> None:
        direction, op, size, _ = struct.unpack_from("<BBHI", frame)
        data = frame[8:]
        assert direction == 0 and len(data) == size, frame[:16].hex()
        name = {number: name for name, number in self._chip.ESP_CMDS.items()}.get(op, "")
        act = getattr(self, f"_{name.lower()}", None)
        if act is None:
            self._reply(op, status=_NO)
            return
        act(op, data)

    def _sync(self, op: int, data: bytes) -> None:
        for _ in range(8):
            self._reply(op, 0 if self._stub else 0x20120707)

    def _get_security_info(self, op: int, data: bytes) -> None:
        if self._chip.USES_MAGIC_VALUE:
            self._reply(op, status=_NO)
        else:
            chip = self._chip.IMAGE_CHIP_ID
            self._reply(op, data=struct.pack("<IB7sII", 0, 0, bytes(7), chip, 0))

    def _read_reg(self, op: int, data: bytes) -> None:
        self._reply(op, self._registers.get(*struct.unpack("<I", data), 0))

    def _write_reg(self, op: int, data: bytes) -> None:
        base = self._chip.SPI_REG_BASE
        for at in range(0, len(data), 16):
            address, value, _, _ = struct.unpack_from("<IIII", data, at)
            self._registers[address] = value
            if address == base and value & _USR:
                self._spi(base)
        self._reply(op)

    def _spi(self, base: int) -> None:
        """Do one command of the flash chip, and finish at once."""
        command = self._registers[base + self._chip.SPI_USR2_OFFS] & 0xFF
        word = {_READ_ID: self._size_id << 16 | 0x40EF, _SFDP: 0x50444653}.get(command, 0)
        self._registers[base + self._chip.SPI_W0_OFFS] = word
        self._registers[base] = 0

    def _mem_begin(self, op: int, data: bytes) -> None:
        self._reply(op)

    _mem_data = _spi_attach = _spi_set_params = _mem_begin

    def _mem_end(self, op: int, data: bytes) -> None:
        self._reply(op)
        self._stub = True
        self._send(b"OHAI")

    def _spi_flash_md5(self, op: int, data: bytes) -> None:
        at, size, _, _ = struct.unpack("<IIII", data)
        self._reply(op, data=hashlib.md5(self.flash[at : at + size]).digest())

    def _read_flash(self, op: int, data: bytes) -> None:
        at, size, block, _ = struct.unpack("<IIII", data)
        self._reply(op)
        content = bytes(self.flash[at : at + size])
        for start in range(0, size, block):
            self._send(content[start : start + block])
            self._frame()  # how much has arrived
        self._send(hashlib.md5(content).digest())

    def _flash_begin(self, op: int, data: bytes) -> None:
        size, _, _, at = struct.unpack_from("<IIII", data)
        for sector in range(at - at % SECTOR, at + size, SECTOR):
            self.erased.append(sector)
            self.flash[sector : sector + SECTOR] = b"\xff" * SECTOR
        self.written.append((at, size))
        self._at, self._end, self._inflate = at, at + size, None
        self._reply(op)

    def _flash_defl_begin(self, op: int, data: bytes) -> None:
        self._flash_begin(op, data)
        self._inflate = zlib.decompressobj()

    def _flash_data(self, op: int, data: bytes) -> None:
        (size,) = struct.unpack_from("<I", data)
        block = data[16 : 16 + size]
        if self._inflate:
            block = self._inflate.decompress(block)
        block = block[: self._end - self._at]  # the last one is filled up
        if self.fails_at is not None and self._at <= self.fails_at < self._at + len(block):
            self.flash[self._at : self.fails_at] = block[: self.fails_at - self._at]
            raise EOFError
        self.flash[self._at : self._at + len(block)] = block
        self._at += len(block)
        self._reply(op)

    _flash_defl_data = _flash_data

    def _flash_end(self, op: int, data: bytes) -> None:
        self._reply(op)

    _flash_defl_end = _flash_end
