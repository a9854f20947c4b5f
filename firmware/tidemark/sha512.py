# SHA-512 (FIPS 180-4), for Ed25519. `sha512()` takes the platform's when it has one, else the
# native compression function that host_tools/tidemark_host/cryptogen makes, else plain Python.

import hashlib
from array import array

try:
    import tidemark_sha512_thumb as native
except ImportError:
    try:
        import tidemark_sha512_viper as native
    except ImportError:
        native = None

_MASK = 0xFFFFFFFFFFFFFFFF
_BLOCK = 128

# FIPS 180-4, 5.3.5: the first 64 bits of the fractional parts of the square roots of 2 to 19.
_INITIAL = (
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
)

# FIPS 180-4, 4.2.3: the same of the cube roots of the first eighty primes.
_K = (
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
)


class Sha512:
    """SHA-512 in plain Python, the same on every platform; `sha512()` chooses the faster one.

    `data`: bytes-like, hashed at once. `feed`: called with no argument after each block of 128
    bytes (about 46 ms on a 125 MHz Cortex-M0+), or None.
    """

    digest_size = 64
    block_size = 128
    _slice = _BLOCK

    def __init__(self, data=b"", feed=None):
        self._state = self._initial()
        self._tail = bytearray(_BLOCK)
        self._length = 0
        self._feed = feed
        if data:
            self.update(data)

    def _initial(self):
        return list(_INITIAL)

    def update(self, data):
        """Hash `data` (bytes-like, any length) after what came before."""
        view = memoryview(data)
        size = len(view)
        used = self._length % _BLOCK
        self._length += size
        at = 0
        if used:
            at = min(_BLOCK - used, size)
            self._tail[used : used + at] = view[:at]
            if used + at < _BLOCK:
                return
            self._compress(self._state, self._tail)
        end = at + (size - at) // _BLOCK * _BLOCK
        if end > at:
            self._compress(self._state, view[at:end])
        if size > end:
            self._tail[: size - end] = view[end:]

    def digest(self):
        """Return the 64-byte hash of all data so far; more may follow."""
        used = self._length % _BLOCK
        last = bytearray(_BLOCK if used < _BLOCK - 16 else 2 * _BLOCK)
        last[:used] = self._tail[:used]
        last[used] = 0x80
        # The length field has 128 bits; no message here reaches 2^61 bytes.
        last[-8:] = (8 * self._length).to_bytes(8, "big")
        state = self._state[:]
        self._compress(state, last)
        return self._output(state)

    def _compress(self, state, blocks):
        """Mix whole blocks into `state`, a slice of them between two calls of `feed`."""
        size = self._slice
        for at in range(0, len(blocks), size):
            self._mix(state, blocks if len(blocks) <= size else blocks[at : at + size])
            if self._feed:
                self._feed()

    def _output(self, state):
        return b"".join([word.to_bytes(8, "big") for word in state])

    def _mix(self, state, block):
        """Mix one 128-byte block into `state`, a list of eight 64-bit ints (FIPS 180-4, 6.4.2)."""
        mask = _MASK
        w = [int.from_bytes(block[i : i + 8], "big") for i in range(0, _BLOCK, 8)]
        a, b, c, d, e, f, g, h = state
        for t in range(80):
            i = t & 15
            if t > 15:
                # A word written twice in a row holds all its rotations.
                x = w[(t - 15) & 15]
                s0 = x | x << 64
                y = w[(t - 2) & 15]
                s1 = y | y << 64
                w[i] = (
                    w[i]
                    + w[(t - 7) & 15]
                    + ((s0 >> 1 ^ s0 >> 8 ^ x >> 7) & mask)
                    + ((s1 >> 19 ^ s1 >> 61 ^ y >> 6) & mask)
                ) & mask
            s1 = e | e << 64
            t1 = h + ((s1 >> 14 ^ s1 >> 18 ^ s1 >> 41) & mask) + (g ^ e & (f ^ g)) + _K[t] + w[i]
            s0 = a | a << 64
            t2 = ((s0 >> 28 ^ s0 >> 34 ^ s0 >> 39) & mask) + (a & b | c & (a | b))
            h = g
            g = f
            f = e
            e = (d + t1) & mask
            d = c
            c = b
            b = a
            a = (t1 + t2) & mask
        for i, word in enumerate((a, b, c, d, e, f, g, h)):
            state[i] = (state[i] + word) & mask


class NativeSha512(Sha512):
    """SHA-512 on the native compression function; no branch or address depends on the data.

    `feed`: called with no argument after each eight blocks at most (6 ms on a 125 MHz
    Cortex-M0+), or None.
    """

    _slice = 8 * _BLOCK
    _work = None

    def _initial(self):
        cls = NativeSha512
        if cls._work is None:
            # The constants as aligned words, and as much room for the message schedule.
            cls._work = array("i", native.K + bytes(len(native.K)))
        return bytearray(native.INITIAL)

    def _mix(self, state, blocks):
        native.block(blocks, state, self._work, len(blocks) // _BLOCK)

    def _output(self, state):
        out = bytearray(64)
        native.output(out, state)
        return bytes(out)


_platform = getattr(hashlib, "sha512", None)


def sha512(data=b"", feed=None):
    """Return a SHA-512 object with `update(data)` and `digest()`, `data` already hashed.

    `feed` is called between blocks where the hash runs in Python (see `Sha512`).
    """
    if _platform:
        return _platform(data)
    if native:
        return NativeSha512(data, feed)
    return Sha512(data, feed)


def digest(data, feed=None):
    """Return the 64-byte SHA-512 of `data` (bytes-like)."""
    return sha512(data, feed).digest()
