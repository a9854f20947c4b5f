"""Writes the field engine for 2^255 - 19 in asm_thumb: eight words of 32 bits, below 2^256.

2^256 = 38 mod P folds what goes over; results are congruent, not unique, until `store`. The
function `interpret` runs a whole script; `run` is its caller in viper, with the arguments of the
13-bit engine. Every operation takes the same time for all operands; a branch depends on the
program only.
"""

from __future__ import annotations

from tidemark_host.cryptogen import comb
from tidemark_host.cryptogen.programs import (
    ADD,
    ADD_REDUCED,
    END,
    FETCH,
    LOOKUP,
    MUL,
    MUL_A24,
    SELECT,
    SLOTS,
    SPREAD,
    SQR,
    SUB,
)
from tidemark_host.cryptogen.thumb import LR, Thumb
from tidemark_host.cryptogen.thumb_product import WORDS, Frame, multiply, square, wrap

SLOT_BYTES = 4 * WORDS
_CONTEXT = WORDS * len(SLOTS)
"""After the slots the memory has four words of `run`'s: script, its end, programs, comb."""

_A24 = 121665
_ENTRY_BYTES = 3 * SLOT_BYTES
_PAIRS = WORDS // 2


def pack(element: int) -> bytes:
    """Return an element as the comb has it."""
    return element.to_bytes(SLOT_BYTES, "little")


def _fold_carry(w: Thumb, source: int, d: int, *, borrow: bool) -> None:
    """Store the eight words at `source`, plus 38 for a carry or minus 38 for a borrow, at `d`.

    Where the 38 carries again, the first word is below 38, or borrows: at least 2^32 - 38, so
    that a second 38 ends there. Registers 0 and 4 to 7 are lost, `source` and `d` move on.
    """
    fold, words, zero = 0, (4, 5, 6, 7), 2
    first, then = (w.sub, w.sbc) if borrow else (w.add, w.adc)

    def multiple_of_the_carry(mask_or_factor: int) -> None:
        """fold = 38 or 0."""
        w.set(mask_or_factor, 38)
        if borrow:
            w.sbc(fold, fold)
            w.logic("and_", fold, mask_or_factor)
        else:
            w.set(fold, 0)
            w.adc(fold, fold)
            w.mul(fold, mask_or_factor)

    multiple_of_the_carry(4)
    w.set(zero, 0)
    for part in range(2):
        w.load_many(source, words)
        for i, word in enumerate(words):
            if part == i == 0:
                first(word, word, fold)
            else:
                then(word, zero)
        w.store_many(d, words)
    multiple_of_the_carry(4)
    w.sub_value(d, SLOT_BYTES)
    w.load(4, d)
    first(4, 4, fold)
    w.store(4, d)


def _long_sum(w: Thumb, d: int, a: int, b: int, *, borrow: bool) -> None:
    """Store a + b or a - b at d without the carry, which is left. Pointers move on."""
    for pair in range(_PAIRS):
        w.load_many(a, (4, 5))
        w.load_many(b, (6, 7))
        for word, other in ((4, 6), (5, 7)):
            if word == 4 and pair == 0:
                (w.sub if borrow else w.add)(word, word, other)
            else:
                (w.sbc if borrow else w.adc)(word, other)
        w.store_many(d, (4, 5))


def _sum(w: Thumb, *, borrow: bool) -> None:
    w.mov(0, 1)
    w.mov(LR, 1)
    _long_sum(w, 0, 2, 3, borrow=borrow)
    w.mov(3, LR)
    _fold_carry(w, 3, 1, borrow=borrow)


def _spread(w: Thumb) -> None:
    """d may be a: the sum waits in the frame."""
    for kept, pointer in ((8, 1), (9, 2), (10, 3)):
        w.mov(kept, pointer)
    w.frame_address(1, Frame.PRODUCT)
    _long_sum(w, 1, 2, 3, borrow=False)
    # The frame's copy is reduced where it is.
    w.frame_address(1, Frame.PRODUCT)
    w.frame_address(3, Frame.PRODUCT)
    _fold_carry(w, 3, 1, borrow=False)
    for pointer, kept in ((1, 10), (2, 9), (3, 10)):
        w.mov(pointer, kept)
    _long_sum(w, 1, 2, 3, borrow=True)
    w.mov(1, 10)
    w.mov(3, 10)
    _fold_carry(w, 3, 1, borrow=True)
    w.frame_address(0, Frame.PRODUCT)
    w.mov(1, 8)
    for _ in range(2):
        w.load_many(0, (4, 5, 6, 7))
        w.store_many(1, (4, 5, 6, 7))


def _multiply_a24(w: Thumb) -> None:
    """a + 121665 * b. The last word goes first, as in a product.

    121665 is 2^16 and 16 bits more, which wait in a register that only keeps.
    """
    d, a, b = 1, 2, 3
    high, x, temp, carry, word = 0, 4, 5, 6, 7
    factor, last = 8, 9
    w.set(x, (_A24 - 65536) >> 8)
    w.shift("lsl", x, x, 8)
    w.add_value(x, _A24 & 255)
    w.mov(factor, x)
    for k in (WORDS - 1, *range(WORDS - 1)):
        first = k == WORDS - 1
        w.load(word, b, k)
        # x, high = low half * factor + (high half * factor + word) << 16 + a's word + carry
        w.mov(temp, factor)
        w.low_half(x, word)
        w.mul(x, temp)
        w.shift("lsr", high, word, 16)
        w.mul(high, temp)
        w.shift("lsl", temp, high, 16)
        w.shift("lsr", high, high, 16)
        w.add(x, x, temp)
        w.set(temp, 0)
        w.adc(high, temp)
        w.shift("lsl", temp, word, 16)
        w.shift("lsr", word, word, 16)
        w.add(x, x, temp)
        w.adc(high, word)
        w.load(word, a, k)
        w.set(temp, 0)
        w.add(x, x, word)
        w.adc(high, temp)
        if first:
            wrap(w, x, high, temp)
            w.mov(last, x)
        else:
            w.add(x, x, carry)
            w.adc(high, temp)
            w.store(x, d, k)
        high, carry = carry, high
    w.mov(x, last)
    w.add(x, x, carry)
    w.store(x, d, WORDS - 1)


def _select(w: Thumb) -> None:
    d, a, b, mask = 1, 2, 3, 0
    w.load_frame(mask, Frame.ARGUMENT)
    w.shift("lsl", mask, mask, 31)
    w.shift("asr", mask, mask, 31)
    for _ in range(_PAIRS):
        w.load_many(a, (4, 5))
        w.load_many(b, (6, 7))
        for x, y in ((4, 6), (5, 7)):
            w.logic("eor", x, y)
            w.logic("and_", x, mask)
            w.logic("eor", x, y)
        w.store_many(d, (4, 5))


def _lookup(w: Thumb) -> None:
    """Read every entry, six words of each at a time; keep the masked sum.

    The frame has the masks, all ones for the entry that is wanted.
    """
    kept = (8, 9, 10, 11, 12, LR)
    w.load_frame(0, Frame.ARGUMENT)
    w.shift("lsr", 0, 0, 1)
    w.frame_address(2, Frame.DIGITS)
    w.set(3, 0)
    w.label("MASK")
    w.mov(4, 3)
    w.logic("eor", 4, 0)
    w.sub_value(4, 1)
    w.shift("asr", 4, 4, 31)
    w.store_many(2, (4,))
    w.add_value(3, 1)
    w.compare_value(3, comb.ENTRIES)
    w.jump("MASK", "ne")
    end, mask, masks, table = 4, 5, 6, 7
    w.mov(end, 2)
    w.mov(3, 1)
    w.load_frame(table, Frame.COMB)
    for part in range(4):
        w.frame_address(masks, Frame.DIGITS)
        w.set(0, 0)
        for register in kept:
            w.mov(register, 0)
        w.label(f"ENTRY{part}")
        w.load_many(masks, (mask,))
        for three in (kept[:3], kept[3:]):
            w.load_many(table, (0, 1, 2))
            for word in range(3):
                w.logic("and_", word, mask)
            for word, register in enumerate(three):
                w.add_high(register, word)
        w.add_value(table, _ENTRY_BYTES - 24)
        w.compare(masks, end)
        w.jump(f"ENTRY{part}", "ne")
        for three in (kept[:3], kept[3:]):
            for word, register in enumerate(three):
                w.mov(word, register)
            w.store_many(3, (0, 1, 2))
        if part < 3:
            w.load_frame(table, Frame.COMB)
            w.add_value(table, 24 * (part + 1))


def _fetch(w: Thumb) -> None:
    w.load_frame(0, Frame.ARGUMENT)
    w.shift("lsr", 0, 0, 1)
    w.set(2, _ENTRY_BYTES)
    w.mul(0, 2)
    w.load_frame(2, Frame.COMB)
    w.add(0, 0, 2)
    for _ in range(_ENTRY_BYTES // 16):
        w.load_many(0, (4, 5, 6, 7))
        w.store_many(1, (4, 5, 6, 7))


def _interpreter() -> str:
    w = Thumb()
    w.line("@micropython.asm_thumb")
    with w.block("def interpret(r0):"):
        w.enter(Frame.SIZE)
        w.store_frame(0, Frame.MEMORY)
        w.set(1, _CONTEXT // 16)
        w.shift("lsl", 1, 1, 6)
        w.add(0, 0, 1)
        w.add_value(0, 4 * (_CONTEXT % 16))
        w.load_many(0, (1, 2, 3, 4))
        for register, word in (
            (1, Frame.SCRIPT),
            (2, Frame.END),
            (3, Frame.PROGRAMS),
            (4, Frame.COMB),
        ):
            w.store_frame(register, word)
        w.label("NEXT")
        w.load_frame(0, Frame.SCRIPT)
        w.load_frame(1, Frame.END)
        w.compare(0, 1)
        w.jump("ENTER", "ne")
        w.leave(Frame.SIZE)
        w.far_jump("RETURN")
        w.label("ENTER")
        w.load_byte(1, 0, 0)
        w.load_byte(2, 0, 1)
        w.add_value(0, 2)
        w.store_frame(0, Frame.SCRIPT)
        w.store_frame(2, Frame.ARGUMENT)
        # The table of programs need not be aligned.
        w.load_frame(5, Frame.PROGRAMS)
        w.add(1, 1, 1)
        w.add(1, 1, 5)
        w.load_byte(2, 1, 0)
        w.load_byte(3, 1, 1)
        w.shift("lsl", 3, 3, 8)
        w.add(5, 5, 2)
        w.add(5, 5, 3)
        w.jump("ROW")
        w.label("LOOP")
        w.load_frame(5, Frame.PC)
        w.label("ROW")
        w.load_byte(0, 5, 0)
        for register in (1, 2, 3):
            w.load_byte(register, 5, register)
        w.add_value(5, 4)
        w.store_frame(5, Frame.PC)
        w.compare_value(0, END)
        w.jump("NEXT", "eq")
        w.load_frame(4, Frame.MEMORY)
        # b may be a number instead.
        w.store_frame(3, Frame.TURNS)
        for register in (1, 2, 3):
            w.shift("lsl", register, register, 5)
            w.add(register, register, 4)
        w.shift("lsl", 0, 0, 2)
        w.jump_ahead(0)
        w.nop()
        operations = (
            ("MUL", MUL),
            ("SQR", SQR),
            ("ADD", ADD),
            ("SUB", SUB),
            ("ADD", ADD_REDUCED),
            ("MUL_A24", MUL_A24),
            ("SPREAD", SPREAD),
            ("SELECT", SELECT),
            ("LOOKUP", LOOKUP),
            ("FETCH", FETCH),
        )
        assert [number for _, number in operations] == list(range(len(operations)))
        for name, _ in operations:
            w.far_jump(name)
        for name, body in (
            ("ADD", lambda: _sum(w, borrow=False)),
            ("SUB", lambda: _sum(w, borrow=True)),
            ("SPREAD", lambda: _spread(w)),
            ("SELECT", lambda: _select(w)),
            ("FETCH", lambda: _fetch(w)),
            ("LOOKUP", lambda: _lookup(w)),
            ("MUL_A24", lambda: _multiply_a24(w)),
            ("MUL", lambda: multiply(w)),
        ):
            w.label(name)
            body()
            w.far_jump("LOOP")
        w.label("SQR")
        square(w)
        w.load_frame(0, Frame.TURNS)
        w.sub_value(0, 1)
        w.store_frame(0, Frame.TURNS)
        w.load_frame(1, Frame.DESTINATION)
        w.mov(2, 1)
        w.compare_value(0, 0)
        w.jump("SQUARED", "eq")
        w.far_jump("SQR")
        w.label("SQUARED")
        w.far_jump("LOOP")
        w.label("RETURN")
    return w.text()


_VIPER = f'''
@micropython.viper
def run(
    t: int, acc: int, memory: ptr32, script: ptr8, at: int, count: int, programs: ptr8, comb: ptr32
):
    """Run `count` pairs (program, argument) of the script from byte `at` on."""
    context = ptr32(int(memory) + {4 * _CONTEXT})
    context[0] = int(script) + at
    context[1] = int(script) + at + count + count
    context[2] = int(programs)
    context[3] = int(comb)
    interpret(int(memory))


@micropython.viper
def load(x: int, carry: int, memory: ptr32, slot: int, data: ptr8):
    """Put 32 bytes, little-endian, into a slot; the top bit is dropped."""
    p = ptr8(int(memory) + {SLOT_BYTES} * slot)
    x = 0
    while x < 31:
        p[x] = data[x]
        x += 1
    p[31] = data[31] & 127


@micropython.viper
def store(x: int, carry: int, memory: ptr32, slot: int, scratch: int, out: ptr8):
    """Write a slot as its 32 bytes below P. `scratch`: not needed here."""
    p = ptr8(int(memory) + {SLOT_BYTES} * slot)
    carry = (p[31] >> 7) * 19
    x = 0
    while x < 31:
        carry = carry + p[x]
        out[x] = carry
        carry = carry >> 8
        x += 1
    top = (p[31] & 127) + carry
    # Below 2^255 + 19 now. P is to be taken off where 19 more would reach 2^255.
    carry = 19
    x = 0
    while x < 31:
        carry = (carry + out[x]) >> 8
        x += 1
    carry = ((carry + top) >> 7) * 19
    x = 0
    while x < 31:
        carry = carry + out[x]
        out[x] = carry
        carry = carry >> 8
        x += 1
    out[31] = (top + carry) & 127
'''


def field_source() -> str:
    """Return the functions `run`, `load`, `store` as source."""
    return _interpreter() + _VIPER


def constants() -> dict[str, object]:
    """Return the module's constants that depend on this representation."""
    return {
        "SLOT_BYTES": SLOT_BYTES,
        "MEMORY_BYTES": 4 * (_CONTEXT + 4),
        "COMB": comb.table(pack),
    }
