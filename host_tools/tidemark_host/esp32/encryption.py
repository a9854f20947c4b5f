"""Flash encryption as firmware and bootloader meet it: what ESP-IDF's functions make of the flash.

From ESP-IDF's docs/en/security/flash-encryption.rst and esp_partition/partition_target.c: a
partition that is encrypted is encrypted when written and decrypted when read; what is read through
the memory map is decrypted whatever it is. An erased sector is ciphertext of 0xFF bytes to
nobody: it reads as noise. The bootloader's own reads and writes of otadata and images are such
accesses too (bootloader_flash.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tidemark_host.boards.nor import NorError, NorFlash
from tidemark_host.esp32.flash import Region

UNIT = 16  # bytes that are encrypted together (esp_flash_write_encrypted takes no less)
_KEY = bytes(range(32))


class EncryptedNor(NorFlash):
    """As NorFlash, of which `encrypted` lists the encrypted partitions; without any it is one.

    `mapped`: what is read through the memory map by `view`. The cipher is one as the chips': a
    unit depends on its address, and one bit that is wrong makes a unit of noise. Its rules are
    NorFlash's over the ciphertext, so that only the same bytes may be programmed again.
    """

    def __init__(
        self,
        buf: int | bytearray | memoryview,
        sector: int = 4096,
        page: int = 256,
        weak: bool = False,
        hard: bool = False,
        *,
        encrypted: Sequence[Region] = (),
        mapped: Region | None = None,
    ) -> None:
        super().__init__(buf, sector, page, weak, hard)
        self._encrypted = tuple(encrypted)
        self._mapped = mapped
        self._cipher = Cipher(algorithms.AES(_KEY), modes.ECB())
        units = range(self.size // UNIT) if self._encrypted or mapped else ()
        table = b"".join(unit.to_bytes(UNIT, "little") for unit in units)
        self._tweaks = self._cipher.encryptor().update(table)

    def twin(self) -> EncryptedNor:
        """Return another flash whose cells hold what these read now; nothing in it is weak."""
        made = EncryptedNor(bytearray(self._buf), self.sector, self.page)
        made._encrypted, made._mapped = self._encrypted, self._mapped
        made._tweaks = self._tweaks
        return made

    def encrypt_in_place(self, region: Region) -> None:
        """Do to a region what the first start does to it (esp_flash_encrypt_region)."""
        for addr in range(region.offset, region.offset + region.size, self.sector):
            plain = bytes(super().view(addr, self.sector))
            self.erase(addr)
            self.program(addr, plain)

    def view(self, start: int, size: int) -> memoryview:
        """Return the bytes from `start` as the firmware sees them, for now."""
        if _inside(self._mapped, start, size) or self._is_encrypted(start, size):
            return memoryview(self._plain(start, size))
        return super().view(start, size)

    def read_into(self, addr: int, buf: bytearray | memoryview) -> None:
        """Fill `buf` from `addr` on as esp_partition_read does. Raises NorError `bounds`."""
        if self._is_encrypted(addr, len(buf)):
            buf[:] = self._plain(addr, len(buf))
        else:
            super().read_into(addr, buf)

    def program(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """As NorFlash.program, which see; whole pages are whole units."""
        if self._is_encrypted(addr, len(data)):
            tweak = self._tweaks[addr : addr + len(data)]
            data = _xor(self._cipher.encryptor().update(_xor(data, tweak)), tweak)
        super().program(addr, data)

    def _plain(self, start: int, size: int) -> bytes:
        first = start - start % UNIT
        end = start + size + -(start + size) % UNIT
        tweak = self._tweaks[first:end]
        raw = super().view(first, end - first)
        plain = _xor(self._cipher.decryptor().update(_xor(raw, tweak)), tweak)
        return plain[start - first : start - first + size]

    def _is_encrypted(self, start: int, size: int) -> bool:
        if any(_inside(region, start, size) for region in self._encrypted):
            return True
        ends = ((region.offset, region.offset + region.size) for region in self._encrypted)
        if any(start < end and start + size > offset for offset, end in ends):
            raise NorError("bounds", "an access is wholly in one partition")
        return False


def _inside(region: Region | None, start: int, size: int) -> bool:
    if region is None:
        return False
    return region.offset <= start and start + size <= region.offset + region.size


def _xor(one: bytes | bytearray | memoryview, other: bytes) -> bytes:
    value = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return value.to_bytes(len(other), "little")
