# What MicroPython and CPython name differently, in one place.
# Every other module of the base is the same file on both and imports these names from here.

import time

try:
    from micropython import const
except ImportError:

    def const(value):
        """Return `value`: the stand-in for MicroPython's compile-time constant."""
        return value


try:
    ticks_ms = time.ticks_ms
    ticks_diff = time.ticks_diff
    ticks_add = time.ticks_add
    sleep_ms = time.sleep_ms
except AttributeError:
    # CPython: the wrap of a 32-bit port, so that tests see code that compares ticks with `<`.
    _PERIOD = 1 << 30
    _HALF = 1 << 29

    def ticks_ms():
        """Return milliseconds of a monotonic clock, wrapping at 2^30."""
        return (time.monotonic_ns() // 1000000) & (_PERIOD - 1)

    def ticks_diff(end, start):
        """Return `end - start` in ms across a wrap, in -2^29 to 2^29 - 1."""
        return ((end - start + _HALF) & (_PERIOD - 1)) - _HALF

    def ticks_add(ticks, delta):
        """Return the tick value `delta` ms (may be negative) after `ticks`."""
        return (ticks + delta) & (_PERIOD - 1)

    def sleep_ms(ms):
        """Sleep for `ms` milliseconds."""
        time.sleep(ms / 1000)


def aes_ecb(key):
    """Return a function that encrypts whole 16-byte blocks (bytes) under `key` by AES in ECB mode.

    Raises CryptoError("no-aes") where the platform's build has none.
    """
    try:
        from cryptolib import aes
    except ImportError:
        return _aes_of_cpython(key)
    return aes(key, 1).encrypt


def _aes_of_cpython(key):
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        from tidemark.errors import CryptoError

        raise CryptoError("no-aes", "this build has no cryptolib")
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update


def utf8(data):
    """Return the str of UTF-8 bytes (bytes-like); raise ValueError for anything RFC 3629 forbids.

    MicroPython's own decode takes overlong forms, surrogates and code points above U+10FFFF.
    """
    data = bytes(data)
    size = len(data)
    i = 0
    if not size or max(data) < 0x80:
        i = size
    while i < size:
        lead = data[i]
        low = 0x80
        high = 0xBF
        if lead < 0x80:
            more = 0
        elif 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            raise ValueError("not UTF-8")
        i += 1
        for _ in range(more):
            if i >= size or not low <= data[i] <= high:
                raise ValueError("not UTF-8")
            low = 0x80
            high = 0xBF
            i += 1
    return data.decode()
