# The health tests of the random source: what they take, and the broken sources that they refuse.

import hashlib
import os

from tidemark import entropy
from tidemark.errors import StateError


class Source:
    """A good source, the same each time; `spoil(bytearray, number of the draw)` breaks it."""

    def __init__(self, spoil=None):
        self.draws = 0
        self._spoil = spoil

    def __call__(self, n):
        data = bytearray(hashlib.sha256(self.draws.to_bytes(4, "big")).digest()[:n])
        if self._spoil:
            self._spoil(data, self.draws)
        self.draws += 1
        return data


def verdict(spoil):
    try:
        entropy.tested(Source(spoil))
    except StateError as e:
        return e.code
    return "taken"


def test_a_good_source_gives_bytes_that_were_drawn_after_the_samples():
    source = Source()
    assert entropy.tested(source) == hashlib.sha256((32).to_bytes(4, "big")).digest()
    assert source.draws == 33
    for _ in range(20):
        assert len(entropy.tested(os.urandom)) == 32


def test_nine_equal_bytes_in_a_row_are_refused_and_eight_are_not():
    for count, want in ((8, "taken"), (9, "random-health")):
        for draw in (0, 17, 32):

            def stuck(data, number):
                if number == draw:
                    for i in range(10, 10 + count):
                        data[i] = data[9] ^ 1

            assert verdict(stuck) == want, (count, draw)


def test_a_run_across_two_draws_is_seen():
    def stuck(data, number):
        if number in (5, 6):
            for i in range(27, 32) if number == 5 else range(5):
                data[i] = 0

    assert verdict(stuck) == "random-health"


def test_a_byte_that_comes_too_often_is_refused():
    # The first byte of the second window, in each of its sixteen draws.
    for count, want in ((5, "random-health"), (2, "taken")):

        def biased(data, number):
            if 16 <= number < 32:
                for i in range(count):
                    data[6 * i] = 0x5A

        assert verdict(biased) == want, count


def test_a_generator_that_begins_anew_is_refused():
    def same(data, number):
        data[:] = hashlib.sha256(b"one state").digest()

    assert verdict(same) == "random-health"

    def late(data, number):
        # The key itself would be one of the samples that were thrown away.
        if number == 32:
            data[:] = hashlib.sha256((3).to_bytes(4, "big")).digest()

    assert verdict(late) == "random-health"


def test_a_short_answer_is_refused():
    try:
        entropy.tested(lambda n: os.urandom(n - 1))
        assert False
    except StateError as e:
        assert e.code == "random-health"
