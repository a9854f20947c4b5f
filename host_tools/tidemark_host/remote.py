"""Questions to a running board over its raw REPL: what it is, what its flash holds.

Entering the REPL has interrupted what ran there; `resume` lets it go on. What a board says is its
own claim.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tidemark_host.boards.base import BoardError

_CHUNK = 256  # bytes of flash a line holds
_READ_S = 20.0  # between two of what the board prints
_MAX_REGION = 1 << 20
_HASH_S = 60.0  # a board hashes its whole flash in a few seconds

# Prints one line of JSON. Whatever else the board runs, this says nothing of Tidemark then.
_ASK = """
import json, sys
facts = {"platform": sys.platform}
try:
    import tidemark_board as b
    facts["board"] = b.NAME
    facts["runtime"] = "".join("%02x" % x for x in b.RUNTIME)
    from tidemark import stage0
    base = stage0.base
    def used(name):
        region = base.regions[name]
        for offset in range(0, region.size, 256):
            if bytes(region.view(offset, 256)) != b"\\xff" * 256:
                return True
        return False
    facts["used"] = used("provisioning") or used("counter") or used("journal")
    facts["provisioned"] = not base.unprovisioned
except (ImportError, AttributeError, KeyError):
    pass
print(json.dumps(facts))
"""
_HASH = """
def _digest(spans):
    import hashlib
    from tidemark import port
    flash = port.select().flash()
    h = hashlib.sha256()
    for start, size in spans:
        while size:
            n = min(size, 16384)
            h.update(flash.view(start, n))
            start += n
            size -= n
    print("".join("%02x" % x for x in h.digest()))
"""


class Console(Protocol):
    """What is used of a board: `boards.repl.Repl` is one."""

    def exec(self, code: str, timeout: float = 10.0) -> str: ...


@dataclass(frozen=True)
class Facts:
    """What a board says of itself; "" and False where it runs nothing of ours.

    `used`: it has opened a counter or made a key, which flashing would lose.
    """

    platform: str
    board: str = ""
    runtime: str = ""
    used: bool = False
    provisioned: bool = False


def ask(console: Console) -> Facts:
    """Return what the board is. Raises BoardError."""
    out = console.exec(_ASK)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        raise BoardError("console", f"no answer to a question: {out[-200:]!r}")
    said = cast("dict[str, Any]", json.loads(lines[-1]))
    return Facts(
        str(said.get("platform", "")),
        str(said.get("board", "")),
        str(said.get("runtime", "")),
        said.get("used") is True,
        said.get("provisioned") is True,
    )


def digest(console: Console, spans: Sequence[tuple[int, int]]) -> str:
    """Return the SHA-256 (hex) over spans (offset, bytes) of the board's flash, hashed there."""
    console.exec(_HASH)
    return console.exec(f"_digest({[list(span) for span in spans]!r})", _HASH_S).strip()


def read_region(console: Console, name: str) -> bytes:
    """Return the content of a region of board.toml. Raises BoardError."""
    console.exec(
        f"import binascii\nfrom tidemark import stage0\n_region = stage0.base.regions[{name!r}]\n"
    )
    size = int(console.exec("print(_region.size)"))
    if not 0 < size <= _MAX_REGION or size % _CHUNK:
        raise BoardError("console", f"a region of {size} bytes")
    # A blank part, as most of a young board's are, is not worth its time on a slow line.
    said = console.exec(
        f"for _at in range(0, {size}, {_CHUNK}):\n"
        f"    _part = bytes(_region.view(_at, {_CHUNK}))\n"
        f"    if _part != b'\\xff' * {_CHUNK}:\n"
        "        print(_at, binascii.hexlify(_part).decode())\n",
        _READ_S,
    )
    content = bytearray(b"\xff" * size)
    try:
        for line in said.splitlines():
            place, text = line.split()
            at, part = int(place), bytes.fromhex(text)
            if len(part) != _CHUNK or at % _CHUNK or not 0 <= at < size:
                raise ValueError(f"{len(part)} bytes at {at}")
            content[at : at + _CHUNK] = part
    except ValueError as error:
        raise BoardError("console", f"not a region's content: {error}") from error
    return bytes(content)


def from_base64(said: str, size: int) -> bytes:
    """Return `size` bytes of flash from a board's answer in base64. Raises BoardError."""
    try:
        part = binascii.a2b_base64(said)
    except binascii.Error as error:
        raise BoardError("console", f"not what flash looks like: {said[:60]!r}") from error
    if len(part) != size:
        raise BoardError("console", f"{len(part)} bytes of flash where {size} were asked for")
    return part


def resume(console: Console) -> bool:
    """Let a board go on that was interrupted: it resets within half a second, reason "request".

    Returns whether it does: one that waits to be provisioned has nothing to go on with, and stays
    as it is. Raises BoardError `exec`.
    """
    try:
        said = console.exec(
            "from tidemark import stage0\n"
            "if not stage0.base.unprovisioned:\n"
            "    stage0.base.supervisor.lease(500, 'request')\n"
            "    print('leaves')\n"
        )
    except BoardError as error:
        if error.code == "exec":
            raise
        return True  # its answer went with it, where this machine was late to read it
    return "leaves" in said


def enter_bootloader(console: Console) -> None:
    """Send the board into the boot loader of its chip. It is gone then; so is the console."""
    try:
        console.exec("import machine\nmachine.bootloader()", 3.0)
    except BoardError as error:
        # No answer is the answer; a traceback is a board that has no boot loader to enter.
        if error.code == "exec":
            raise
