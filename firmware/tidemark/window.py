# Replay window after RFC 6479: a ring of blocks of bits, where moving on clears whole blocks.

from .compat import const

_BLOCK = const(8)
_BLOCKS = const(32)
# One block is always partly ahead of the newest number, so it does not count.
_WIDTH = const(248)


class Window:
    """Which of the last 248 numbers were taken; kept in RAM, for the life of one key."""

    def __init__(self):
        self.newest = 0
        self._bits = bytearray(_BLOCKS)

    def fresh(self, number):
        """Return whether `number` (int from 1) was not taken and is not below the window."""
        if number > self.newest:
            return True
        if number < 1 or number <= self.newest - _WIDTH:
            return False
        return not self._bits[number // _BLOCK % _BLOCKS] & 1 << number % _BLOCK

    def take(self, number):
        """Mark `number` as taken. Only after `fresh` said yes and the message proved authentic."""
        block = number // _BLOCK
        if number > self.newest:
            newest = self.newest // _BLOCK
            for i in range(min(block - newest, _BLOCKS)):
                self._bits[(block - i) % _BLOCKS] = 0
            self.newest = number
        self._bits[block % _BLOCKS] |= 1 << number % _BLOCK
