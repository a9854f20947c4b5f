# The start-up health test of the hardware random source, before a key is made of it: the
# repetition count and adaptive proportion tests of NIST SP 800-90B, 4.4, over the 1,024 samples of
# 4.3, and one for what these two can't see, a generator that starts in one state each time.

from tidemark.compat import const
from tidemark.errors import StateError

_DRAW = const(32)
_DRAWS = const(32)
# A sample is a byte, taken to have 4 bits of min-entropy, half of what it should have; a source
# that has them fails with a probability of 2^-30 a test.
_REPEATS = const(9)  # 1 + 30 / 4, rounded up (4.4.1)
_WINDOW = const(512)
_SHARE = const(71)  # 1 + critbinom(512, 2^-4, 1 - 2^-30) (4.4.2)


def tested(random):
    """Return 32 fresh bytes of a source that has just passed its health tests.

    `random`: callable n -> n bytes. 1,024 bytes are drawn in pieces of 32, tested and thrown
    away; the bytes that are returned go through the tests as well.
    Raises StateError("random-health"). This finds a source that is broken, not one that was
    built to deceive: who controls the source knows the key.
    """
    draws = set()
    last = None
    run = 0
    at = 0
    for _ in range(_DRAWS + 1):
        draw = bytes(random(_DRAW))
        if len(draw) != _DRAW or draw in draws:
            raise StateError("random-health", "the random source repeats itself")
        draws.add(draw)
        for sample in draw:
            run = run + 1 if sample == last else 1
            last = sample
            if not at % _WINDOW:
                first = sample
                share = 0
            share += sample == first
            at += 1
            if run >= _REPEATS:
                raise StateError("random-health", "the random source is stuck")
            if share >= _SHARE:
                raise StateError("random-health", "the random source is biased")
    return draw
