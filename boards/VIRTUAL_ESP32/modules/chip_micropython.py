# `micropython` with the interrupt character of this board's console.

import unix_chip
from micropython import *  # noqa: F403

_CTRL_C = 3


def kbd_intr(char):
    """As MicroPython's: -1 takes Ctrl-C for a character, 3 lets it interrupt."""
    unix_chip.plain(char != _CTRL_C)
