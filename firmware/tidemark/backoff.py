# Pauses between attempts, for all that tries again: pure, chance and clock are handed in.

from tidemark.compat import const
from tidemark.errors import StateError

_DOUBLINGS_MAX = const(7)
_SPREAD = const(40503)  # 2^16 by the golden ratio: ms that are near lie far apart


def share(random, now):
    """Return a number of 0..65535 by chance: `random(n)`, n random bytes.

    It never raises for want of randomness: a radio that does not start has no noise either, and
    then something that tries again must do so all the same. `now` (int, ms) serves instead: it
    keeps no secret, but boards that were switched on together are ms apart by then.
    """
    try:
        return int.from_bytes(random(2), "big")
    except (OSError, StateError):
        return now * _SPREAD & 0xFFFF


def pause(failures, first_ms, last_ms, random, now):
    """Return ms to wait after `failures` in a row (int, 0 after the first): `first_ms`, doubled up
    to `last_ms`, half of it fixed, half at random. The others as in `share`."""
    half = min(first_ms << min(failures, _DOUBLINGS_MAX), last_ms) // 2
    return half + (half * share(random, now) >> 16)
