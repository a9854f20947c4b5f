# What the board measures. Yours go here: a class with `number` and `read`, listed by `fitted`.


class Counter:
    """How often it was read: a reading that shows loss and order."""

    number = 1

    def __init__(self):
        self._count = 0

    def read(self):
        """Return 1, 2, 3 ... (int)."""
        self._count += 1
        return self._count


class Ramp:
    """A made-up temperature in degrees Celsius: rises from 20.0 by a quarter to 27.75, again and
    again. Quarters are exact in every float."""

    number = 2

    def __init__(self):
        self._step = -1

    def read(self):
        """Return degrees Celsius (float)."""
        self._step = (self._step + 1) % 32
        return 20.0 + self._step / 4


def fitted(port):
    """Return this board's sensors (list). `port`: the platform, tidemark.port.

    A sensor has `number`, its key in the reading (int from 1, no two the same), and `read()`,
    which returns a value of the CBOR profile, None when there is none now, or raises OSError.
    """
    return [Counter(), Ramp()]
