"""The instructions that our own loop executes do what the emulator's core makes of them.

boards/emulated_thumb.pxi executes them; `plain` leaves each to the emulator's core, which takes
the same cycles and ends in the same state.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tidemark_host import toolchain
from tidemark_host.boards.emulated_chip import Chip
from tidemark_host.toolchain_rp2 import flash_of
from tidemark_host.toolchain_rp2_emulator import folder

pytestmark = pytest.mark.skipif(folder() is None, reason="the emulator can't be compiled here")

RAM, FLASH = 0x20000000, 0x10000000
CODE = RAM + 0x1000
EDGES = (0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
STORED = slice(0, 0x8000)
SCRIPT = b"""
import sys
words = {}
for i in range(200):
    words[str(i * 1.5)] = [i ** 5, -i % 7, 2 ** 70 // (i + 1)]
print(sum(len(word) for word in words), sorted(words)[:3])
from tidemark import ed25519
print(ed25519.public_key(b"1" * 32))
"""


class Pair:
    """A chip that runs our loop, and one that leaves all to the emulator's core."""

    def __init__(self, flash: dict[int, bytes]) -> None:
        self.ours, self.core = (Chip(flash, seed=1) for _ in range(2))
        self.core._loop.plain = True
        for chip in (self.ours, self.core):
            chip.stored = bytearray()  # type: ignore[attr-defined]
            chip.on_byte = lambda uart, byte, to=chip.stored: to.append(byte)  # type: ignore

    def same(self) -> None:
        assert state(self.ours) == state(self.core)


def state(chip: Chip) -> tuple[Any, ...]:
    core = chip.mcu.core
    *registers, pc = core.registers
    flags = (core.n, core.z, core.c, core.v, core.pm, core.waiting, core.ipsr)
    # The lowest bit of the program counter does not exist; the emulator sets it at times.
    return registers, pc & ~1, flags, core.cycles, chip.nanoseconds, bytes(chip.mcu.sram)


def test_firmware_runs_alike_to_the_nanosecond_and_to_the_last_byte_of_memory() -> None:
    pair = Pair(flash_of(toolchain.firmware("TIDEMARK_PICO").read_bytes()))
    steps = [(0.6, b""), (0.3, b"\x03"), (0.1, b"\x01"), (1.5, SCRIPT + b"\x04")]
    for seconds, typed in steps:
        for chip in (pair.ours, pair.core):
            chip.send(typed)
        for _ in range(round(seconds / 0.01)):
            for chip in (pair.ours, pair.core):
                chip.run(0.01)
            pair.same()
    said = [bytes(chip.stored) for chip in (pair.ours, pair.core)]  # type: ignore[attr-defined]
    assert said[0] == said[1]
    assert b"['0.0', '1.5', '10.5']" in said[0] and b"b'H\\x07ZY~r" in said[0]
    # What is left to the core are registers of peripherals, mostly.
    assert pair.ours._loop.left < 0.05 * pair.core._loop.left


def value(chance: random.Random) -> int:
    """Return what a register may hold: an address, a number, an edge. No peripheral's address."""
    kind = chance.randrange(6)
    if kind < 3:
        return RAM + chance.randrange(0x2000, 0x6000) & ~(3 if kind else 0)
    if kind == 3:
        return FLASH + chance.randrange(0x1000) * 4
    return chance.choice(EDGES) if kind == 4 else chance.randrange(0x60000000, 0xC0000000)


def instruction(chance: random.Random) -> tuple[int, int]:
    """Return an encoding and the half-word behind it."""
    kind = chance.randrange(32)
    op = kind << 11 | chance.randrange(0x800)
    second = chance.randrange(0x10000)
    if kind == 30:  # BL more often than by chance; PRIMASK; barriers
        primask = chance.choice(((0xF3EF, 0x8010 | second & 0xF00), (0xF380 | op & 15, 0x8810)))
        return chance.choice((primask, (op, second | 0xD000), (0xF3BF, 0x8F40 | second & 0x3F)))
    return op, second


def sign_lost(op: int, registers: list[int], carry: int) -> bool:
    """Say whether the core has V wrong: it adds the carry to an operand before it looks."""
    operand = registers[op & 7] if op >> 6 == 0b0100000101 else registers[op >> 3 & 7]
    added = carry if op >> 6 == 0b0100000101 else 1 - carry
    return op >> 6 in (0b0100000101, 0b0100000110) and operand + added in (0x80000000, 1 << 32)


def test_each_instruction_does_what_the_core_does() -> None:
    pair = Pair({0: bytes(range(256)) * 16})
    chance = random.Random(1)
    chips = (pair.ours, pair.core)
    noise = chance.randbytes(0x8000)
    for chip in chips:
        chip.mcu.sram[STORED] = noise
    for _ in range(40_000):
        op, second = instruction(chance)
        registers = [value(chance) for _ in range(15)]
        registers[13] = (RAM + chance.randrange(0x2000, 0x6000)) & ~3
        flags = [bool(chance.randrange(2)) for _ in range(5)]
        code = op.to_bytes(2, "little") + second.to_bytes(2, "little")
        for chip in chips:
            core = chip.mcu.core
            chip.mcu.sram[CODE - RAM : CODE - RAM + 4] = code
            for number, held in enumerate([*registers, CODE]):
                core.registers[number] = held
            core.n, core.z, core.c, core.v, core.pm = flags
            core.waiting = core.interrupts_updated = core.pending_svcall = False
            chip._loop.advance(1)
        if sign_lost(op, registers, int(flags[2])):
            pair.core.mcu.core.v = pair.ours.mcu.core.v
        assert state(pair.ours) == state(pair.core), (
            f"{op:04x} {second:04x} {[hex(register) for register in registers]} {flags}"
        )
