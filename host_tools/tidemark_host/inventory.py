"""The inventory: which devices exist, by public key. A JSON file that people can read and keep.

Nothing in it is secret. A gateway answers only keys that are in here.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from tidemark_host.filelock import only_writer
from tidemark_host.protocol import key_id

State = Literal["active", "revoked"]

_FORMAT = 1
MAX_DEVICES = 100_000
DEFAULT_COHORT = "default"
_MEND = "The file is plain JSON: mend that entry, or restore the file from a backup."
_HINTS = {
    "unknown-device": "`tidemark inventory` lists the devices there are.",
    "revoked": "Erase the board's flash, then flash and provision it anew.",
    "full": f"A site has at most {MAX_DEVICES} devices: take out entries, or start another site.",
}


class InventoryError(Exception):
    """An inventory file or entry that does not hold. `code`: short and stable.

    `hint`: what to try next.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.hint = _HINTS.get(code, _MEND)


@dataclass(frozen=True, slots=True)
class Device:
    """One enrolled device. `public`: 64 hex digits; times in Unix seconds."""

    id: str
    public: str
    board: str
    nickname: str = ""
    enrolled_at: float = 0.0
    state: State = "active"
    cohort: str = DEFAULT_COHORT
    cleared: int = 0  # how often a quarantine was lifted; one that began before the last is over

    @property
    def public_bytes(self) -> bytes:
        return bytes.fromhex(self.public)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **{f.name: (int, float) if f.name.endswith("_at") else str for f in fields(Device)},
    "cleared": int,
}
_OLD = ("cleared_at",)  # of earlier files, ignored: a quarantine lifted there holds again


class Inventory:
    """The devices of one file. Every change is written at once, atomically, and to what the file
    holds by then: two commands at a time lose nothing of each other's."""

    def __init__(self, path: Path) -> None:
        """Read `path`; a missing file is an empty inventory. Raises InventoryError."""
        self.path = path
        self._devices: dict[str, Device] = {}
        self._stamp: tuple[int, int, int] | None = None
        self.reload()

    def reload(self) -> bool:
        """Read the file again if it changed; return whether it did. Raises InventoryError.

        After an error the devices are those of the last good file.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return False
            data = self.path.read_bytes()
        except FileNotFoundError:
            changed = self._stamp is not None
            self._stamp, self._devices = None, {}
            return changed
        self._stamp = stamp
        self._devices = _parse(data, self.path)
        return True

    def __iter__(self) -> Iterator[Device]:
        return iter(sorted(self._devices.values(), key=lambda d: (d.enrolled_at, d.id)))

    def __len__(self) -> int:
        return len(self._devices)

    def __contains__(self, device: str) -> bool:
        return device in self._devices

    def get(self, device: str) -> Device | None:
        """Return the device with this id, if it is enrolled."""
        return self._devices.get(device)

    def enroll(
        self, public: bytes, board: str, nickname: str = "", cohort: str = DEFAULT_COHORT
    ) -> Device:
        """Add a device by its public key (32 bytes); the same key again changes nothing.

        Raises InventoryError: "key" for a wrong length, "full", "revoked" for a revoked key.
        """
        if len(public) != 32:
            raise InventoryError("key", "a public key has 32 bytes")
        with only_writer(self.path):
            self.reload()
            known = self._devices.get(key_id(public))
            if known is not None:
                if known.state == "revoked":
                    raise InventoryError("revoked", f"{known.id} is revoked; it needs a new key")
                return known
            if len(self._devices) >= MAX_DEVICES:
                raise InventoryError("full", f"more than {MAX_DEVICES} devices")
            now = time.time()
            device = Device(key_id(public), public.hex(), board, nickname, now, cohort=cohort)
            self._put(device)
            return device

    def clear(self, device: str) -> Device:
        """Lift a device's quarantine, by number and not by time: clocks differ and are set.

        Raises InventoryError("unknown-device").
        """
        return self._change(device, lambda known: replace(known, cleared=known.cleared + 1))

    def rename(self, device: str, nickname: str) -> Device:
        """Give a device another nickname. Raises InventoryError("unknown-device")."""
        return self._change(device, lambda known: replace(known, nickname=nickname))

    def assign(self, device: str, cohort: str) -> Device:
        """Put a device into a cohort. Raises InventoryError("unknown-device")."""
        return self._change(device, lambda known: replace(known, cohort=cohort))

    def revoke(self, device: str) -> Device:
        """Refuse a device from now on. Raises InventoryError("unknown-device")."""
        return self._change(device, lambda known: replace(known, state="revoked"))

    def _change(self, device: str, change: Callable[[Device], Device]) -> Device:
        with only_writer(self.path):
            self.reload()
            known = self._devices.get(device)
            if known is None:
                raise InventoryError("unknown-device", f"{device[:64]!r} is not in {self.path}")
            changed = change(known)
            self._put(changed)
            return changed

    def _put(self, device: Device) -> None:
        devices = {**self._devices, device.id: device}
        document = {"format": _FORMAT, "devices": [asdict(devices[k]) for k in sorted(devices)]}
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._devices = devices
        status = self.path.stat()
        self._stamp = (status.st_mtime_ns, status.st_size, status.st_ino)


def _parse(data: bytes, path: Path) -> dict[str, Device]:
    try:
        document: Any = json.loads(data.decode())
        if document["format"] != _FORMAT:
            raise InventoryError("format", f"{path}: format {document['format']!r} is not known")
        entries = cast("list[dict[str, Any]]", document["devices"])
        if len(entries) > MAX_DEVICES:
            raise InventoryError("full", f"{path}: more than {MAX_DEVICES} devices")
        devices = [_device(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InventoryError("malformed", f"{path}: {error}") from error
    if len({d.id for d in devices}) != len(devices):
        raise InventoryError("malformed", f"{path}: a device is listed twice")
    return {d.id: d for d in devices}


def _device(entry: dict[str, Any]) -> Device:
    entry = {name: value for name, value in entry.items() if name not in _OLD}
    for name, value in entry.items():
        if name not in _TYPES or not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise ValueError(f"field {name[:32]!r}")
    device = Device(**entry)
    if len(device.public_bytes) != 32 or key_id(device.public_bytes) != device.id:
        raise InventoryError("key", f"{device.id[:32]!r} is not the hash of its key")
    if not 0 <= device.cleared < 1 << 32:
        raise ValueError(f"cleared {device.cleared}")
    if device.state not in ("active", "revoked"):
        raise ValueError(f"state {device.state[:32]!r}")
    return device
