"""A board's evidence ring, read and judged on the host: records, gaps, the hash chain, and why.

The ring's layout is in docs/flash-state.md; the firmware's side is firmware/tidemark/evidence.py.
What a board holds is its own claim: the chain shows that nothing was changed in the middle, not
that the board told the truth.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

SIZE = 64
MAX_REGION = 1 << 20  # bytes; boards have 32 KiB
KINDS: tuple[str, ...] = ("security", "slot", "system", "remote")
CAUSES: tuple[str, ...] = (
    "",
    "power-on",
    "watchdog",
    "soft",
    "reset",
    "brownout",
    "unknown",
    "lease",
)
_BODY = struct.Struct(">IBB12s16sIII")
_SUM_AT = 62
_MAX_DETAIL = 16
_SEGMENT = 4
_LONG = 0x80  # in the byte of the cause: the code goes on in the detail
_ZEROS = bytes(16)

# What a boot record's detail says of the reset before it (firmware/tidemark/reasons.py).
_RESETS = {
    "power-on": "the power came on",
    "watchdog": "the watchdog bit: something held the processor up",
    "reset": "the reset pin, or a reset without a reason of ours",
    "soft": "a soft reset",
    "brownout": "the supply sagged",
    "unknown": "started by the boot ROM, as after flashing, or by what the chip does not tell",
    "update": "deliberate, to try the release that was staged",
    "trial": "deliberate, to repeat a trial that was inconclusive",
    "lease": "a lease ran out: a forgotten console, or a boot that nobody took over",
    "deadline": "a task missed its deadline, and the watchdog bit",
    "heap": "the image ran out of heap",
    "crash": "the image raised an exception",
    "no-ack": "a trial went without an acknowledgement",
    "provisioned": "deliberate, after provisioning",
    "health": "the application's own health check failed",
    "rescue": "deliberate, after a rescue boot",
    "rollback": "deliberate, after a trial had ended",
    "runtime": "to try the runtime of a release; without a trial behind it, that did not come up",
    "restore": "deliberate, back to the runtime that is confirmed",
    "radio": "deliberate: the radio's driver had not started",
    "radio-start": "the start of the radio's driver: it hung, or its abort was a reset",
    "request": "asked for by a person or a command",
}


class EvidenceError(Exception):
    """Bytes that are no evidence ring; `code` is stable, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Record:
    """One event. `count`: of a remote event, how often it came; `uptime_s` since that reset."""

    number: int
    kind: str
    code: str
    detail: str
    count: int
    epoch: int
    seq: int
    uptime_s: float
    cause: str
    segment: bool


@dataclass(frozen=True)
class Gap:
    """Records `first` to `last` are missing; `marked`: the board knew when it went on."""

    first: int
    last: int
    marked: bool


@dataclass(frozen=True)
class Ring:
    """All that could be read, the oldest first. `broken`: numbers of records that do not continue
    the chain from the one before, though they should: somebody changed the flash."""

    records: tuple[Record, ...]
    gaps: tuple[Gap, ...]
    broken: tuple[int, ...]

    @property
    def why(self) -> str:
        """Return in one line why the board was reset last, and how its last trial ended."""
        return f"{_last_reset(self.records)}; {_last_trial(self.records)}"


def read_ring(region: bytes) -> Ring:
    """Read the evidence region of a flash and verify the chain. Raises EvidenceError `region`."""
    if not region or len(region) % SIZE or len(region) > MAX_REGION:
        raise EvidenceError("region", f"{len(region)} bytes are no evidence region")
    slots = len(region) // SIZE
    raw: dict[int, bytes] = {}
    for slot in range(slots):
        data = region[slot * SIZE : (slot + 1) * SIZE]
        number = _number(data)
        if number and (number - 1) % slots == slot:
            raw[number] = data
    gaps: list[Gap] = []
    broken: list[int] = []
    before: int | None = None
    for number in sorted(raw):
        marked = bool(raw[number][4] & _SEGMENT)
        if before is not None and number != before + 1:
            gaps.append(Gap(before + 1, number - 1, marked))
        # Behind an unmarked gap (a cut-off erase) the record it continues is not there to check.
        if before is not None and (marked or number == before + 1):
            # The record before a marked one may have been unreadable then and be readable now.
            earlier = sorted((n for n in raw if n < number), reverse=True) if marked else [before]
            starts = [raw[n][_BODY.size : _SUM_AT] for n in earlier] + [_ZEROS] * marked
            if not any(_follows(raw[number], chain) for chain in starts):
                broken.append(number)
        before = number
    records = tuple(_record(raw[number]) for number in sorted(raw))
    return Ring(records, tuple(gaps), tuple(broken))


def _follows(record: bytes, before: bytes) -> bool:
    chain = hashlib.sha256(before + record[: _BODY.size]).digest()[:16]
    return chain == record[_BODY.size : _SUM_AT]


def _number(record: bytes) -> int:
    """Return the number of a whole record, 0 for anything else."""
    checksum = binascii.crc32(record[:_SUM_AT]) & 0xFFFF
    if record[_SUM_AT:] != checksum.to_bytes(2, "big"):
        return 0
    number = int.from_bytes(record[:4], "big")
    if number > 0xFFFFFFFE or record[4] >> 3 > _MAX_DETAIL or record[5] & ~_LONG >= len(CAUSES):
        return 0
    return number


def _record(data: bytes) -> Record:
    number, _, _, code, detail, epoch, seq, uptime = _BODY.unpack(data[: _BODY.size])
    flags, cause = data[4], data[5]
    kind = KINDS[flags & 3]
    said, count = detail[: flags >> 3], 1
    if kind == "remote" and len(said) >= 4:
        said, count = said[4:], int.from_bytes(said[:4], "big")
    code = code.rstrip(b"\0")
    if cause & _LONG:
        rest, _, said = said.partition(b"\0")
        code += rest
    return Record(
        number,
        kind,
        _text(code),
        _text(said),
        count,
        epoch,
        seq,
        uptime / 10,
        CAUSES[cause & ~_LONG],
        bool(flags & _SEGMENT),
    )


def _text(data: bytes) -> str:
    """Return text of a board as text of ours: printable ASCII, all else escaped."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in data)


def _last_reset(records: Sequence[Record]) -> str:
    boots = [record for record in records if record.code == "boot"]
    if not boots:
        return "no boot is on record"
    boot = boots[-1]
    text = f"last reset: {_RESETS.get(boot.detail, boot.detail or boot.cause or 'unknown')}"
    # What the board noted just before it tells more than the reset itself.
    former = [record for record in records if record.number < boot.number]
    for record in reversed(former[-8:]):
        if record.code in ("crash", "heap", "rescue-fault", "base-fault"):
            return f"{text} ({record.code} {record.detail})"
        if record.code == "boot":
            break
    return text


def _last_trial(records: Sequence[Record]) -> str:
    for record in reversed(records):
        if record.code == "rejected":
            return (
                f"rolled back: the release was rejected, {record.detail} (record {record.number})"
            )
        if record.code == "inconclusive":
            return f"rolled back, to be tried again: {record.detail} (record {record.number})"
        if record.code == "confirmed":
            return f"release {record.detail} was confirmed (record {record.number})"
    return "no trial is on record"
