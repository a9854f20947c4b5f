"""Writes multiplication and squaring modulo 2^255 - 19 for ARMv6-M.

The processor's product has 32 bits, of two digits of 16. An element is eight words of 32 bits,
anything below 2^256. Registers 0 to 7 compute; 8 to 12 and 14 only keep. No branch and no address
depends on an element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from tidemark_host.cryptogen.thumb import LR, Thumb

WORDS = 8
_KEPT = (8, 9, 10, 11, 12, LR)


class Frame(IntEnum):
    """Words of the stack frame, by their first."""

    MEMORY = 0
    PC = 1
    SCRIPT = 2
    END = 3
    PROGRAMS = 4
    COMB = 5
    ARGUMENT = 6
    TURNS = 7
    DESTINATION = 8
    FACTOR = 9
    CARRY = 10
    HALVES = 11
    DIGITS = 13
    PRODUCT = 29
    SIZE = 45


# A product by rows. With a = sum of x_i 2^16i and four words of b, b = E + 2^16 O, where E has the
# low halves of b and O the high ones, x_i E and x_i O have no carry between their words: the
# 32-bit products lie side by side. Rows of an even weight are summed in one number, those of an
# odd weight in another one, by one long addition a row, and the sums meet at the end.


def _digits(w: Thumb, a: int) -> None:
    """Write the digits of the element at address a, each in a word."""
    w.frame_address(6, Frame.DIGITS)
    for _ in range(WORDS // 2):
        w.load_many(a, (4, 7))
        w.low_half(0, 4)
        w.shift("lsr", 4, 4, 16)
        w.low_half(5, 7)
        w.shift("lsr", 7, 7, 16)
        w.store_many(6, (0, 4, 5, 7))


def _halves(w: Thumb, part: int) -> None:
    """Keep the halves of four words of b: E and half of O in registers, the rest in the frame."""
    w.load_frame(3, Frame.FACTOR)
    if part:
        w.add_value(3, 16)
    w.load_many(3, (0, 1, 2, 4))
    for j, word in enumerate((0, 1, 2, 4)):
        w.low_half(5, word)
        w.mov(_KEPT[j], 5)
        w.shift("lsr", word, word, 16)
        if j < 2:
            w.mov(_KEPT[4 + j], word)
        else:
            w.store_frame(word, Frame.HALVES + j - 2)


def _half(w: Thumb, d: int, odd: bool, j: int) -> None:
    if odd and j >= 2:
        w.load_frame(d, Frame.HALVES + j - 2)
    else:
        w.mov(d, _KEPT[4 * odd + j])


_Row = tuple[int, bool]
"""Number of the digit; whether it is multiplied by O rather than E."""


def _sum_rows(
    w: Thumb,
    at: int,
    rows: Sequence[Sequence[_Row]],
    before: Callable[[int], Sequence[int]],
    carry: int | None = None,
) -> None:
    """Add rows[k] at word `at` + k of the sum, for each k; store the words of the sum.

    before(word): frame words to add to that word of the sum, what was there before. A window of
    five words moves over the sum. The first row at a place never carries into its fifth word if
    nothing was there before: digits are at most 2^16 - 1, and what lies below is too little to
    make up for it.
    carry: where to store the last word, which is a carry; else it is the sum's last word.
    """
    window = [0, 1, 2, 3, 4]
    digit, product, zero = 5, 6, 7
    w.set(zero, 0)
    fresh = not before(at)
    if not fresh:
        for j in range(4):
            (word,) = before(at + j)
            w.load_frame(window[j], word)
    for k, here in enumerate(rows):
        top = window[4]
        top_is_set = False
        if k:
            for word in before(at + k + 3):
                w.load_frame(product, word)
                w.add(window[3], window[3], product)
                if top_is_set:
                    w.adc(top, zero)
                else:
                    w.set(top, 0)
                    w.adc(top, top)
                top_is_set = True
        for number, (i, odd) in enumerate(here):
            w.load_frame(digit, Frame.DIGITS + i)
            first = fresh and k == 0 and number == 0
            for j in range(4):
                target = window[j] if first else product
                _half(w, target, odd, j)
                w.mul(target, digit)
                if not first and j == 0:
                    w.add(window[j], window[j], product)
                elif not first:
                    w.adc(window[j], product)
            if top_is_set:
                w.adc(top, zero)
            elif number or not (fresh or (k and not before(at + k + 3))):
                w.set(top, 0)
                w.adc(top, top)
                top_is_set = True
        if not top_is_set:
            w.set(top, 0)
        w.store_frame(window[0], Frame.PRODUCT + at + k)
        window = [*window[1:], window[0]]
    last = at + len(rows)
    for j in range(3):
        w.store_frame(window[j], Frame.PRODUCT + last + j)
    w.store_frame(window[3], Frame.PRODUCT + last + 3 if carry is None else carry)


def _shift_by_a_digit(w: Thumb) -> None:
    """Multiply the product, so far the sum of odd weight, by 2^16."""
    w.frame_address(7, Frame.PRODUCT)
    for group in range(4):
        w.load_many(7, (0, 1, 2, 3))
        left_over = 5 + group % 2
        w.shift("lsr", left_over, 3, 16)
        for i in (3, 2, 1):
            w.shift("lsl", i, i, 16)
            w.shift("lsr", 4, i - 1, 16)
            w.logic("orr", i, 4)
        w.shift("lsl", 0, 0, 16)
        if group:
            w.logic("orr", 0, 11 - left_over)
        w.sub_value(7, 16)
        w.store_many(7, (0, 1, 2, 3))


def multiply(w: Thumb) -> None:
    """Product of the elements at addresses 2 and 3, reduced, to address 1."""
    w.store_frame(1, Frame.DESTINATION)
    w.store_frame(3, Frame.FACTOR)
    _digits(w, 2)
    odd = [[(2 * k, True), (2 * k + 1, False)] for k in range(WORDS)]
    even = [
        [*([(2 * k - 1, True)] if k else []), *([(2 * k, False)] if k < WORDS else [])]
        for k in range(WORDS + 1)
    ]

    def there(
        begin: int, end: int, extra: dict[int, int] | None = None
    ) -> Callable[[int], list[int]]:
        def words(word: int) -> list[int]:
            more = [extra[word]] if extra and word in extra else []
            return [Frame.PRODUCT + word, *more] if begin <= word < end else []

        return words

    _halves(w, 0)
    _sum_rows(w, 0, odd, there(0, 0))
    _halves(w, 1)
    _sum_rows(w, 4, odd, there(4, 12))
    _shift_by_a_digit(w)
    _halves(w, 0)
    _sum_rows(w, 0, even, there(0, 12), Frame.CARRY)
    _halves(w, 1)
    _sum_rows(w, 4, even, there(4, 16, {12: Frame.CARRY}))
    _fold(w)


def _wide_product(w: Thumb, low: int, high: int, other: int, temps: tuple[int, int]) -> None:
    """(low, high) = high * other, 64 bits; `other` is lost."""
    high_by_low, low_by_high = temps
    w.low_half(low_by_high, high)
    w.shift("lsr", high, high, 16)
    w.low_half(high_by_low, other)
    w.shift("lsr", other, other, 16)
    w.mov(low, low_by_high)
    w.mul(low, high_by_low)
    w.mul(low_by_high, other)
    w.mul(high_by_low, high)
    w.mul(high, other)
    for middle in temps:
        w.shift("lsl", other, middle, 16)
        w.shift("lsr", middle, middle, 16)
        w.add(low, low, other)
        w.adc(high, middle)


def _wide_square(w: Thumb, low: int, high: int, temps: tuple[int, int]) -> None:
    """(low, high) = high * high, 64 bits."""
    middle, shifted = temps
    w.low_half(low, high)
    w.shift("lsr", high, high, 16)
    w.mov(middle, low)
    w.mul(middle, high)
    w.mul(low, low)
    w.mul(high, high)
    w.shift("lsl", shifted, middle, 17)
    w.shift("lsr", middle, middle, 15)
    w.add(low, low, shifted)
    w.adc(high, middle)


def square(w: Thumb) -> None:
    """Square of the element at address 2, reduced, to address 1.

    By columns: products of different words are summed, doubled, and added to the square.
    """
    w.store_frame(1, Frame.DESTINATION)
    w.load_many(2, (0, 1, 3, 4))
    for i, word in enumerate((0, 1, 3, 4)):
        w.mov(_KEPT[i], word)
    w.load_many(2, (0, 1, 3, 4))
    for i, word in enumerate((0, 1, 3, 4)):
        w.store_frame(word, Frame.DIGITS + i)

    def word_of_a(d: int, i: int) -> None:
        if i < 4:
            w.mov(d, _KEPT[i])
        else:
            w.load_frame(d, Frame.DIGITS + i - 4)

    column = (5, 6, 7)
    carried = _KEPT[4:]

    def add_to_column(low: int, high: int, zero: int) -> None:
        w.add(column[0], column[0], low)
        w.adc(column[1], high)
        w.set(zero, 0)
        w.adc(column[2], zero)

    for k in range(2 * WORDS - 1):
        pairs = [(i, k - i) for i in range(WORDS) if i < k - i < WORDS]
        for number, (i, j) in enumerate(pairs):
            low, high = (4, 0) if number else column[:2]
            word_of_a(high, i)
            word_of_a(1, j)
            _wide_product(w, low, high, 1, (2, 3))
            if number:
                add_to_column(low, high, 1)
            else:
                w.set(column[2], 0)
        if pairs:
            w.add(column[0], column[0], column[0])
            w.adc(column[1], column[1])
            w.adc(column[2], column[2])
        if k % 2 == 0:
            low, high = (4, 0) if pairs else column[:2]
            word_of_a(high, k // 2)
            _wide_square(w, low, high, (2, 3))
            if pairs:
                add_to_column(low, high, 1)
            else:
                w.set(column[2], 0)
        if k:
            w.mov(0, carried[0])
            w.mov(2, carried[1])
            add_to_column(0, 2, 1)
        w.store_frame(column[0], Frame.PRODUCT + k)
        w.mov(carried[0], column[1])
        w.mov(carried[1], column[2])
    w.store_frame(column[1], Frame.PRODUCT + 2 * WORDS - 1)
    _fold(w)


def _fold(w: Thumb) -> None:
    """Reduce the product: 2^256 = 38. The last word goes first, so that its top goes in below.

    What is above bit 254 then comes back as 19 times itself, and the result is below
    2^255 + 2^232.
    """
    x, product, shifted, factor, d, zero = 0, 2, 3, 5, 6, 7
    high, carry = 1, 4
    w.load_frame(d, Frame.DESTINATION)
    w.set(factor, 38)
    w.set(zero, 0)
    for k in (WORDS - 1, *range(WORDS - 1)):
        first = k == WORDS - 1
        w.load_frame(high, Frame.PRODUCT + WORDS + k)
        w.load_frame(x, Frame.PRODUCT + k)
        w.low_half(product, high)
        w.mul(product, factor)
        if not first:
            w.add(product, product, carry)
        w.shift("lsr", high, high, 16)
        w.mul(high, factor)
        w.shift("lsl", shifted, high, 16)
        w.shift("lsr", high, high, 16)
        w.add(product, product, shifted)
        w.adc(high, zero)
        w.add(x, x, product)
        w.adc(high, zero)
        if first:
            wrap(w, x, high, shifted)
            w.mov(_KEPT[0], x)
        else:
            w.store(x, d, k)
        high, carry = carry, high
    w.mov(x, _KEPT[0])
    w.add(x, x, carry)
    w.store(x, d, WORDS - 1)


def wrap(w: Thumb, x: int, high: int, temp: int) -> None:
    """Take what is above 31 bits out of (x, high), the last word, and make high 19 times that."""
    w.shift("lsr", temp, x, 31)
    w.shift("lsl", high, high, 1)
    w.add(high, high, temp)
    w.set(temp, 19)
    w.mul(high, temp)
    w.shift("lsl", x, x, 1)
    w.shift("lsr", x, x, 1)
