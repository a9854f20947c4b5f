"""A writer of MicroPython's inline assembler for ARMv6-M, which every Thumb core understands.

Registers are numbers, 0 to 7 but where a method says more. What the inline assembler has no word
for goes in as data. On flags: `add`, `sub`, `adc`, `sbc` and their forms with a value set all;
`mul`, `logic` and `set` leave the carry, shifts set it to the last bit that they lose; `mov`,
`add_high`, `low_half`, loads and stores leave all.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemark_host.cryptogen.source import Source

LR = 14
"""Free between two calls: the function's own prologue has saved it."""


def _mask(registers: Sequence[int]) -> int:
    if list(registers) != sorted(set(registers)) or not set(registers) <= set(range(8)):
        raise ValueError(f"no register list: {registers}")
    return sum(1 << register for register in registers)


class Thumb(Source):
    """Lines of one asm_thumb function."""

    def _op(self, name: str, *operands: int | str) -> None:
        self.line(f"{name}({', '.join(map(str, operands))})")

    def _raw(self, halfword: int) -> None:
        self.line(f"data(2, {halfword:#06x})")

    def label(self, name: str) -> None:
        """Name this place."""
        self._op("label", name)

    def jump(self, name: str, condition: str = "") -> None:
        """Go to a label within 2 KiB; with a condition ("eq", "ne"), within 256 bytes."""
        self._op(f"b{condition}", name)

    def far_jump(self, name: str) -> None:
        """Go to a label anywhere; LR is lost."""
        self._op("bl", name)

    def nop(self) -> None:
        """Fill a halfword."""
        self._op("nop")

    def jump_ahead(self, n: int) -> None:
        """Skip n bytes from 4 bytes behind this instruction on; n is a register."""
        self._raw(0x4487 | n << 3)

    def set(self, d: int, value: int) -> None:
        """d = value, 0 to 255; the carry stays."""
        self._op("mov", f"r{d}", value)

    def mov(self, d: int, m: int) -> None:
        """d = m, any registers."""
        self._raw(0x4600 | (d >> 3) << 7 | m << 3 | d & 7)

    def add_high(self, d: int, m: int) -> None:
        """d += m, any registers."""
        self._raw(0x4400 | (d >> 3) << 7 | m << 3 | d & 7)

    def add(self, d: int, n: int, m: int) -> None:
        """d = n + m."""
        self._op("add", f"r{d}", f"r{n}", f"r{m}")

    def sub(self, d: int, n: int, m: int) -> None:
        """d = n - m."""
        self._op("sub", f"r{d}", f"r{n}", f"r{m}")

    def add_value(self, d: int, value: int) -> None:
        """d += value, 0 to 255."""
        self._op("add", f"r{d}", value)

    def sub_value(self, d: int, value: int) -> None:
        """d -= value, 0 to 255."""
        self._op("sub", f"r{d}", value)

    def adc(self, d: int, m: int) -> None:
        """d += m + carry."""
        self._op("adc", f"r{d}", f"r{m}")

    def sbc(self, d: int, m: int) -> None:
        """d -= m + borrow."""
        self._op("sbc", f"r{d}", f"r{m}")

    def mul(self, d: int, m: int) -> None:
        """d *= m."""
        self._op("mul", f"r{d}", f"r{m}")

    def logic(self, name: str, d: int, m: int) -> None:
        """d = d `name` m; name: "and_", "orr", "eor"."""
        self._op(name, f"r{d}", f"r{m}")

    def compare(self, n: int, m: int) -> None:
        """Set the flags of n - m."""
        self._op("cmp", f"r{n}", f"r{m}")

    def compare_value(self, n: int, value: int) -> None:
        """Set the flags of n - value, 0 to 255."""
        self._op("cmp", f"r{n}", value)

    def shift(self, name: str, d: int, m: int, bits: int) -> None:
        """d = m shifted; name: "lsl", "lsr", "asr"."""
        self._op(name, f"r{d}", f"r{m}", bits)

    def low_half(self, d: int, m: int) -> None:
        """d = m & 0xFFFF; no flags."""
        self._raw(0xB280 | m << 3 | d)

    def load(self, d: int, n: int, word: int = 0) -> None:
        """d = word number `word` (0 to 31) from address n on."""
        self._op("ldr", f"r{d}", f"[r{n}, {4 * word}]")

    def store(self, d: int, n: int, word: int = 0) -> None:
        """Store d as word number `word` (0 to 31) from address n on."""
        self._op("str", f"r{d}", f"[r{n}, {4 * word}]")

    def load_byte(self, d: int, n: int, at: int) -> None:
        """d = byte number `at` (0 to 31) from address n on."""
        self._op("ldrb", f"r{d}", f"[r{n}, {at}]")

    def load_many(self, n: int, registers: Sequence[int]) -> None:
        """Load the registers from address n on, which moves past them."""
        self._raw(0xC800 | n << 8 | _mask(registers))

    def store_many(self, n: int, registers: Sequence[int]) -> None:
        """Store the registers from address n on, which moves past them."""
        self._raw(0xC000 | n << 8 | _mask(registers))

    def load_frame(self, d: int, word: int) -> None:
        """d = word of the stack frame."""
        self._raw(0x9800 | d << 8 | word)

    def store_frame(self, d: int, word: int) -> None:
        """Store d as a word of the stack frame."""
        self._raw(0x9000 | d << 8 | word)

    def frame_address(self, d: int, word: int) -> None:
        """d = address of a word of the stack frame; no flags."""
        self._raw(0xA800 | d << 8 | word)

    def enter(self, words: int) -> None:
        """Save registers 8 to 11, which belong to the caller, and make a frame of `words`."""
        for i in range(4):
            self.mov(4 + i, 8 + i)
        self._op("push", "{r4, r5, r6, r7}")
        self._raw(0xB080 | words)

    def leave(self, words: int) -> None:
        """Undo `enter`."""
        self._raw(0xB000 | words)
        self._op("pop", "{r4, r5, r6, r7}")
        for i in range(4):
            self.mov(8 + i, 4 + i)
