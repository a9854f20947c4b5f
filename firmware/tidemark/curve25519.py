# The group of Ed25519 and the ladder of X25519 on a native field engine. The functions are
# edwards25519's; the engines come from host_tools/tidemark_host/cryptogen when the image is built.
# Importing this raises ImportError where there is none.

try:
    import tidemark_curve_thumb as native
except ImportError:
    import tidemark_curve_viper as native

_ZERO = bytes(32)

# No native call may take 50 ms: script entries (ladder, comb) or bits (verification) a call.
_LADDER_SLICE = 32
_COMB_SLICE = 16
_BITS_SLICE = 16
# A bit of verification has at most a doubling and three additions, each of two programs.
_SCRIPT_BYTES = max(2 * 255, 2 * 7 * _BITS_SLICE)


class Engine:
    """A native engine with its memory: slots of field elements, table, scratch.

    `native`: a module that cryptogen makes. One engine serves all calls, one after the other.
    """

    def __init__(self, module):
        self.module = module
        self._native_run = module.run
        self._programs = module.PROGRAMS
        self._memory = bytearray(module.MEMORY_BYTES)
        # A copy: constants of an image need not be aligned to words.
        self._comb = bytearray(module.COMB)
        self._digits = bytearray(module.COLUMNS)
        self._script = bytearray(_SCRIPT_BYTES)
        # Two bytes more than a number has: native code reads ahead.
        self._number = bytearray(34)
        self._u = bytearray(34)
        self._v = bytearray(34)
        self._product = bytearray(4 * 64)
        for slot in range(len(module.ELEMENTS) // 32):
            self.load(slot, module.ELEMENTS[32 * slot : 32 * slot + 32])

    def load(self, slot, data):
        """Set a slot to 32 bytes, little-endian, modulo 2^255."""
        self._number[:32] = data
        self.module.load(0, 0, self._memory, slot, self._number)

    def store(self, slot):
        """Return the 32 bytes of a reduced slot."""
        out = bytearray(32)
        self.module.store(0, 0, self._memory, slot, self.module.SLOT_A, out)
        return out

    def run(self, program, argument=0):
        """Run one program."""
        self._script[0] = program
        self._script[1] = argument
        self._run(0, 1)

    def _run(self, at, count):
        self._native_run(0, 0, self._memory, self._script, at, count, self._programs, self._comb)

    def _run_slices(self, count, size, feed):
        """Run the first `count` entries of the script, `size` of them a native call."""
        at = 0
        while at < count:
            self._run(2 * at, min(size, count - at))
            at += size
            if feed:
                feed()

    def reduce(self, digest):
        """See edwards25519."""
        out = bytearray(32)
        self.module.widen(self._product, digest, 64)
        self.module.reduce(0, 0, self._product, out)
        return out

    def multiply_add(self, k, a, r):
        """See edwards25519."""
        out = bytearray(32)
        self.module.widen(self._product, r, 32)
        self.module.multiply_add(0, 0, self._product, k, a)
        self.module.reduce(0, 0, self._product, out)
        return out

    def _comb_digits(self, k):
        m = self.module
        self._number[:32] = self.multiply_add(k, m.HALF, m.HALF_OF_ALL_ONES)
        m.comb_digits(self._digits, self._number)

    def multiply_base(self, k, feed):
        """See edwards25519."""
        m = self.module
        self._comb_digits(k)
        self.run(m.NEUTRAL)
        m.comb_script(self._script, self._digits)
        self._run_slices(m.COLUMNS, _COMB_SLICE, feed)
        self.run(m.ENCODE)
        if feed:
            feed()
        out = self.store(m.SLOT_C)
        self.module.store(0, 0, self._memory, m.SLOT_B, m.SLOT_F, self._number)
        out[31] |= (self._number[0] & 1) << 7
        return bytes(out)

    def _decode(self, data, negate, feed):
        """Put the point of 32 bytes, or its negative, into X, Y, Z, T; return if there is one."""
        m = self.module
        self.load(m.SLOT_Y, data)
        self.run(m.ROOT)
        if feed:
            feed()
        if self.store(m.SLOT_F) != _ZERO:
            if self.store(m.SLOT_G) != _ZERO:
                return False
            self.run(m.OTHER_ROOT)
        if self.store(m.SLOT_X)[0] & 1 != data[31] >> 7 ^ negate:
            self.run(m.NEGATE_X)
        self.run(m.AFFINE_T)
        return True

    def short_pair(self, k):
        """Return (is negative, u, v) with u, or -u where negative, = v*k modulo 8L, and v odd.

        `k`: 32 bytes below L. u and v, each in a buffer of 34 bytes that the next call takes,
        are of about 128 bits: for public numbers only.
        """
        u, v = self._u, self._v
        return self.module.short_pair(0, 0, self._product, k, u, v), u, v

    def equation_holds(self, public, r, s, k, feed):
        """See edwards25519.

        With k = u/v modulo 8L, v odd, the equation is [vs]B - [u]A - [v]R = 0: odd v and the
        modulus 8L keep every point of small order in it. u and v have half as many bits as k,
        and so have the doublings.
        """
        m = self.module
        negative, u, v = self.short_pair(k)
        if not self._decode(public, not negative, feed):
            return False
        self.run(m.KEY_MULTIPLES)
        if not self._decode(r, True, feed):
            return False
        self.run(m.R_MULTIPLES)
        self._comb_digits(self.multiply_add(v, s, _ZERO))
        key = bytearray(m.DIGITS)
        nonce = bytearray(m.DIGITS)
        high = max(m.COLUMNS, m.signed_digits(key, u), m.signed_digits(nonce, v))
        self.run(m.NEUTRAL)
        while high > 0:
            low = max(0, high - _BITS_SLICE)
            size = m.sum_script(self._script, 0, high, low, key, nonce, self._digits)
            self._run(0, size >> 1)
            high = low
            if feed:
                feed()
        self.run(m.DIFFERENCE)
        return self.store(m.SLOT_F) == _ZERO and self.store(m.SLOT_X) == _ZERO

    def ladder(self, scalar, u, feed):
        """Return the u-coordinate of the clamped `scalar` times the point `u`, 32 bytes each."""
        m = self.module
        self.load(m.SLOT_U, u)
        self.run(m.LADDER_START)
        m.ladder_script(self._script, scalar)
        self._run_slices(255, _LADDER_SLICE, feed)
        self.run(m.LADDER_END)
        if feed:
            feed()
        m.store(0, 0, self._memory, m.SLOT_A, m.SLOT_B, self._number)
        return bytes(self._number[:32])


_engine = None


def engine():
    """Return the engine, made at the first call and kept."""
    global _engine
    if _engine is None:
        _engine = Engine(native)
    return _engine


def reduce(digest):
    """See edwards25519."""
    return engine().reduce(digest)


def multiply_add(k, a, r):
    """See edwards25519."""
    return engine().multiply_add(k, a, r)


def multiply_base(k, feed):
    """See edwards25519."""
    return engine().multiply_base(k, feed)


def equation_holds(public, r, s, k, feed):
    """See edwards25519."""
    return engine().equation_holds(public, r, s, k, feed)


def ladder(scalar, u, feed):
    """Return the u-coordinate of the clamped `scalar` times the point `u`, 32 bytes each."""
    return engine().ladder(scalar, u, feed)
