"""Writes Euclid's algorithm, stopped half-way: what halves the doublings of a verification.

k = u/v modulo 8L with u and v of half as many bits (Antipa and others, "Accelerated verification
of ECDSA signatures"). For public numbers only: time and addresses depend on them.

The two dummy arguments are the locals that viper keeps in registers. They never index: on ARMv6-M
its compiler scales an index in place, and with it the local.
"""

from __future__ import annotations

from tidemark_host.cryptogen.programs import L

BITS = 128
"""u is below 2^BITS."""

_LIMB = 28
_LIMBS = 10
_MASK = (1 << _LIMB) - 1
_TOP = 8 * L

_SOURCE = f'''
@micropython.viper
def short_pair(bits: int, borrow: int, work: ptr32, k: ptr8, u: ptr8, v: ptr8) -> int:
    """Write u and v, 32 bytes each, with v odd and u or -u = v*k modulo 8L; return whether -u.

    `k`: 32 bytes, below L; `work`: {4 * _LIMBS} words.
    """
    # (a, s) and (b, t) are consecutive remainders with their cofactors, limbs of {_LIMB} bits:
    # b = t*k and a = -s*k where negative is 0, b = -t*k and a = s*k where it is 1.
    a = work
    b = ptr32(int(work) + {4 * _LIMBS})
    s = ptr32(int(work) + {8 * _LIMBS})
    t = ptr32(int(work) + {12 * _LIMBS})
    i = 0
    while i < {4 * _LIMBS}:
        work[i] = 0
        i += 1
#TOP
    t[0] = 1
    negative = 0
    bits = 0
    borrow = 0
    i = 0
    j = 0
    while i < 32:
        bits = bits | k[i] << borrow
        borrow += 8
        if borrow >= {_LIMB}:
            b[j] = bits & {_MASK}
            # What is left of the byte; bits may have lost its top bits.
            borrow -= {_LIMB}
            bits = k[i] >> (8 - borrow)
            j += 1
        i += 1
    b[j] = bits
    # The highest bits of a and b: bit aj of limb ai, bit bj of limb bi.
    ai = {(_TOP.bit_length() - 1) // _LIMB}
    aj = {(_TOP.bit_length() - 1) % _LIMB}
    bi = {_LIMBS - 1}
    bj = {_LIMB - 1}
    while True:
        while bi >= 0:
            if b[bi] >> bj & 1:
                break
            bj -= 1
            if bj < 0:
                bi -= 1
                bj = {_LIMB - 1}
        if {_LIMB} * bi + bj < {BITS} and t[0] & 1:
            break
        # Subtract b << d from a as long as that leaves a at or above zero; d as large as can be.
        while True:
            # With an even t, one more partial quotient makes the pair: s + q*t is odd.
            if {_LIMB} * bi + bj < {BITS} and {_LIMB} * ai + aj < {BITS}:
                break
            d = {_LIMB} * (ai - bi) + aj - bj
            lead = a[ai] << ({_LIMB - 1} - aj) & {_MASK}
            if ai:
                lead = lead | a[ai - 1] >> (aj + 1)
            other = b[bi] << ({_LIMB - 1} - bj) & {_MASK}
            if bi:
                other = other | b[bi - 1] >> (bj + 1)
            if lead <= other:
                if lead < other or d:
                    d -= 1
                else:
                    # As long and as high: all limbs decide.
                    i = ai
                    while i and a[i] == b[i]:
                        i -= 1
                    if a[i] < b[i]:
                        d = -1
            if d < 0:
                break
            w = 0
            while d >= {_LIMB}:
                d -= {_LIMB}
                w += 1
            i = w
            borrow = 0
            low = 0
            while i <= ai:
                bits = b[i - w]
                borrow = a[i] - (bits << d & {_MASK}) - low + borrow
                low = bits >> ({_LIMB} - d)
                a[i] = borrow & {_MASK}
                borrow = borrow >> {_LIMB}
                i += 1
            # s is below 2^257 / b.
            i = w
            borrow = 0
            low = 0
            while i < {_LIMBS} - bi:
                bits = t[i - w]
                borrow = s[i] + (bits << d & {_MASK}) + low + borrow
                low = bits >> ({_LIMB} - d)
                s[i] = borrow & {_MASK}
                borrow = borrow >> {_LIMB}
                i += 1
            while ai >= 0:
                if a[ai] >> aj & 1:
                    break
                aj -= 1
                if aj < 0:
                    ai -= 1
                    aj = {_LIMB - 1}
            if ai < 0:
                break
        p = a
        a = b
        b = p
        p = s
        s = t
        t = p
        i = ai
        ai = bi
        bi = i
        i = aj
        aj = bj
        bj = i
        negative = 1 - negative
    i = 0
    j = 0
    d = 0
    while i < 32:
        bits = b[j] >> d
        borrow = t[j] >> d
        if d > {_LIMB - 8}:
            bits = bits | b[j + 1] << ({_LIMB} - d)
            borrow = borrow | t[j + 1] << ({_LIMB} - d)
        u[i] = bits
        v[i] = borrow
        d += 8
        if d >= {_LIMB}:
            d -= {_LIMB}
            j += 1
        i += 1
    return negative
'''


def short_pair_source() -> str:
    """Return the function as source."""
    top = "\n".join(
        f"    a[{i}] = {_TOP >> _LIMB * i & _MASK}"
        for i in range(_LIMBS)
        if _TOP >> _LIMB * i & _MASK
    )
    return _SOURCE.replace("#TOP", top)
