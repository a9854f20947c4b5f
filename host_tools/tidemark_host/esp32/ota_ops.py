"""The application's side of otadata, as ESP-IDF's app_update has it, and the safe way to use it.

From esp_ota_ops.c; the function is named at each of ours. MicroPython's esp32.Partition calls
set_boot and mark_app_valid_cancel_rollback as they are, without esp_ota_begin and its guard.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tidemark_host.esp32 import otadata
from tidemark_host.esp32.bootloader import FACTORY, TEST, Layout
from tidemark_host.esp32.flash import SECTOR, Flash, Region, erase_region, program_padded
from tidemark_host.esp32.image import ESP32, Chip, Image, ImageError, verify
from tidemark_host.esp32.otadata import Entry, State

# esp_err.h, esp_ota_ops.h
ERRORS = {
    "ESP_FAIL": -1,
    "ESP_ERR_INVALID_ARG": 0x102,
    "ESP_ERR_NOT_FOUND": 0x105,
    "ESP_ERR_NOT_SUPPORTED": 0x106,
    "ESP_ERR_OTA_PARTITION_CONFLICT": 0x1501,
    "ESP_ERR_OTA_VALIDATE_FAILED": 0x1503,
    "ESP_ERR_OTA_ROLLBACK_FAILED": 0x1505,
    "ESP_ERR_OTA_ROLLBACK_INVALID_STATE": 0x1506,
}


class OtaError(Exception):
    """A call that ESP-IDF refuses. `code`: a name in ERRORS; `number`: its value."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.number = ERRORS[code]


@dataclass(frozen=True)
class Rules:
    """In what ESP-IDF's releases differ.

    `in_place`: choosing the slot that is chosen already rewrites its entry; else it writes the
    other one with the same sequence. `begin_clears`: esp_ota_begin erases the entry that is not
    in charge, unless that names the running slot.
    """

    in_place: bool
    begin_clears: bool


IDF_5_4 = Rules(in_place=False, begin_clears=False)
IDF_5_5 = Rules(in_place=True, begin_clears=True)


class OtaOps:
    """esp_ota_ops of the application that runs in `running` (a slot, FACTORY or TEST)."""

    def __init__(
        self,
        flash: Flash,
        layout: Layout,
        running: int,
        chip: Chip = ESP32,
        *,
        rollback: bool = True,
        rules: Rules = IDF_5_4,
    ) -> None:
        self._flash = flash
        self._layout = layout
        self.running = running
        self._chip = chip
        self._rollback = rollback
        self._rules = rules
        self._count = len(layout.ota)

    def boot_partition(self) -> int:
        """Return what the next boot tries first (esp_ota_get_boot_partition).

        Wrong for a PENDING entry: the next reset takes its slot away.
        """
        index = otadata.active(self._entries())
        if index is not None and self._count:
            return otadata.slot_of(self._entries()[index].seq, self._count)
        # find_default_boot_partition
        if self._layout.factory:
            return FACTORY
        return 0 if self._count else TEST

    def state(self, slot: int) -> int:
        """Return the state that the first entry with a right CRC has for `slot`.

        From esp_ota_get_state_partition: an entry that was given up counts as well. Raises
        OtaError ESP_ERR_NOT_SUPPORTED (no slot), ESP_ERR_NOT_FOUND.
        """
        if not 0 <= slot < self._count:
            raise OtaError("ESP_ERR_NOT_SUPPORTED", f"{slot} is no slot")
        for entry in self._entries():
            if entry.has_crc and otadata.slot_of(entry.seq, self._count) == slot:
                return entry.state
        raise OtaError("ESP_ERR_NOT_FOUND", f"no entry names slot {slot}")

    def begin(self, slot: int) -> None:
        """Erase a slot for an image (esp_ota_begin with OTA_SIZE_UNKNOWN).

        Raises OtaError ESP_ERR_INVALID_ARG, ESP_ERR_OTA_PARTITION_CONFLICT (it runs),
        ESP_ERR_OTA_ROLLBACK_INVALID_STATE (the running one is not confirmed yet).
        """
        region = self._slot(slot)
        if slot == self.running:
            raise OtaError("ESP_ERR_OTA_PARTITION_CONFLICT", f"slot {slot} runs")
        self.refuse_pending()
        erase_region(self._flash, region)
        if self._rollback and self._rules.begin_clears:
            self._clear_other()

    def refuse_pending(self) -> None:
        """Raise OtaError ESP_ERR_OTA_ROLLBACK_INVALID_STATE while the running slot is in trial."""
        if not self._rollback or not 0 <= self.running < self._count:
            return
        try:
            state = self.state(self.running)
        except OtaError:
            return
        if state == State.PENDING_VERIFY:
            raise OtaError("ESP_ERR_OTA_ROLLBACK_INVALID_STATE", "the running slot is in trial")

    def set_boot_partition(self, index: int) -> None:
        """Choose what the next boot starts (esp_ota_set_boot_partition, esp_rewrite_ota_data).

        FACTORY erases otadata. In a trial ESP-IDF goes ahead, and takes the only entry that the
        board could have fallen back to. Raises OtaError ESP_ERR_OTA_VALIDATE_FAILED,
        ESP_ERR_INVALID_ARG; OtadataError `sequence`.
        """
        region = self._layout.region(index)
        if region is None:
            raise OtaError("ESP_ERR_INVALID_ARG", f"there is no partition {index}")
        self._verify(region)
        if index == FACTORY:
            erase_region(self._flash, self._otadata())
            return
        slot = 0 if index == TEST else index  # the low half of its subtype 0x20
        if slot >= self._count:
            raise OtaError("ESP_ERR_INVALID_ARG", f"{index} is no slot")
        entries = self._entries()
        active = otadata.active(entries)
        if active is None:
            target, seq = 0, slot + 1
        else:
            seq = otadata.next_seq(entries[active].seq, slot, self._count)
            same = otadata.slot_of(entries[active].seq, self._count) == slot
            target = active if same and self._rules.in_place else 1 - active
        state = State.NEW if self._rollback else State.UNDEFINED
        self._write(target, Entry.made(seq, state, entries[target].label))

    def mark_app_valid_cancel_rollback(self) -> None:
        """Make the entry in charge VALID; it need not name the running slot.

        Writes nothing if it is VALID. From esp_ota_current_ota_is_workable. Raises OtaError
        ESP_FAIL (no entry is in charge).
        """
        index, entry = self._in_charge()
        if entry.state != State.VALID:
            self._write(index, dataclasses.replace(entry, state=State.VALID))

    def mark_app_invalid_rollback(self) -> None:
        """Make the entry in charge INVALID; the caller resets the board.

        Raises OtaError ESP_FAIL, ESP_ERR_OTA_ROLLBACK_FAILED (nothing to go back to).
        """
        index, entry = self._in_charge()
        if not self.check_rollback_is_possible():
            raise OtaError("ESP_ERR_OTA_ROLLBACK_FAILED", "no other image would boot")
        self._write(index, dataclasses.replace(entry, state=State.INVALID))

    def check_rollback_is_possible(self) -> bool:
        """Tell whether the other entry, or else the factory image, could take over.

        From esp_ota_check_rollback_is_possible. A slot that no entry names does not count, though
        the bootloader would try it.
        """
        entries = self._entries()
        index = otadata.active(entries)
        if index is None or not self._count:
            return False
        other = entries[1 - index]
        if other.is_valid:
            region = self._layout.region(otadata.slot_of(other.seq, self._count))
        else:
            region = self._layout.factory
        return region is not None and self._passes(region)

    def last_invalid_partition(self) -> int | None:
        """Return the slot that was given up; of two, the older (…get_last_invalid_partition)."""
        entries = self._entries()
        given_up = [not entry.is_initial and entry.is_invalid for entry in entries]
        index = otadata.select(entries, given_up, highest=False)
        if index is None or not self._count:
            return None
        slot = otadata.slot_of(entries[index].seq, self._count)
        return slot if self._passes(self._slot(slot)) else None

    def _clear_other(self) -> None:
        """Erase the entry not in charge if it names another slot than the running one.

        From erase_last_boot_app_partition; what it refuses, esp_ota_begin does not ask about.
        """
        entries = self._entries()
        index = otadata.active(entries)
        if index is None:
            return
        other = entries[1 - index]
        if other.is_initial or otadata.slot_of(other.seq, self._count) == self.running:
            return
        self._flash.erase(self._otadata().offset + (1 - index) * SECTOR)

    def _in_charge(self) -> tuple[int, Entry]:
        entries = self._entries()
        index = otadata.active(entries)
        if index is None or not self._count:
            raise OtaError("ESP_FAIL", "no entry of otadata is in charge")
        return index, entries[index]

    def _otadata(self) -> Region:
        if self._layout.otadata is None:
            raise OtaError("ESP_ERR_NOT_FOUND", "there is no otadata partition")
        return self._layout.otadata

    def _entries(self) -> list[Entry]:
        return otadata.read(self._flash, self._otadata())

    def _write(self, index: int, entry: Entry) -> None:
        # rewrite_ota_seq computes the CRC anew; of a valid entry it is the same.
        otadata.write(self._flash, self._otadata(), index, entry)

    def _slot(self, slot: int) -> Region:
        region = self._layout.region(slot) if slot >= 0 else None
        if region is None:
            raise OtaError("ESP_ERR_INVALID_ARG", f"{slot} is no slot")
        return region

    def _verify(self, region: Region) -> Image:
        try:
            return verify(self._flash, region, self._chip)
        except ImageError as error:
            raise OtaError("ESP_ERR_OTA_VALIDATE_FAILED", str(error)) from error

    def _passes(self, region: Region) -> bool:
        try:
            self._verify(region)
        except OtaError:
            return False
        return True


class SafeOta(OtaOps):
    """The same calls with what a board must add, so that no power cut costs it its image.

    1. Nothing is changed in a trial, nor when the next boot would start another slot than the
       running one (after a fallback: reset first).
    2. The entry in charge is affirmed: its bytes are programmed again, so that one whose write
       was cut off can't read otherwise at the next boot.
    3. Any other entry is erased, whatever it reads, before the slot that it may name is touched.
    """

    def begin(self, slot: int) -> None:
        """As OtaOps.begin, which see; the order is guard, affirm, clear, erase the slot."""
        region = self._slot(slot)
        self._guard(slot)
        self._affirm()
        self._clear()
        erase_region(self._flash, region)

    def set_boot_partition(self, index: int) -> None:
        """As OtaOps.set_boot_partition. Raises OtaError ESP_ERR_OTA_ROLLBACK_INVALID_STATE too."""
        self._guard(index)
        self._affirm()
        super().set_boot_partition(index)

    def _guard(self, index: int) -> None:
        self.refuse_pending()
        if index == self.running:
            raise OtaError("ESP_ERR_OTA_PARTITION_CONFLICT", f"{index} runs")
        if self.boot_partition() != self.running:
            raise OtaError("ESP_ERR_OTA_ROLLBACK_INVALID_STATE", "another slot is to boot: reset")

    def _affirm(self) -> None:
        entries = self._entries()
        index = otadata.active(entries)
        if index is not None:
            addr = self._otadata().offset + index * SECTOR
            program_padded(self._flash, addr, entries[index].encode())

    def _clear(self) -> None:
        index = otadata.active(self._entries())
        for other in (0, 1):
            if other != index:
                self._flash.erase(self._otadata().offset + other * SECTOR)
