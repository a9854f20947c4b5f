"""What signatures, key agreement and SHA-512 cost on the emulated Pico, each engine beside the
others and beside what other people have for the board. Every result is checked on the host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tidemark_host import cryptogen
from tidemark_host.bench import peers
from tidemark_host.bench.registry import Results, suite
from tidemark_host.boards.base import BoardError
from tidemark_host.boards.emulated import Measured, cross_compile, measure
from tidemark_host.toolchain_native import native_module

_MARCH = "armv6m"
VERIFY, SIGN, AGREE, BLOCK = "Ed25519 verify", "Ed25519 sign", "X25519", "SHA-512 block"
HEAP = "heap above idle"
HEAP_GOAL = 25_000  # bytes


@dataclass(frozen=True)
class Engine:
    """A way to do the arithmetic. `curve`, `sha512`: source of native modules, both or none."""

    name: str
    curve: str = ""
    sha512: str = ""
    goals: Mapping[str, float] = field(default_factory=dict[str, float])

    def files(self) -> dict[str, bytes]:
        """Return the compiled modules for `measure`."""
        sources = {"engine_curve": self.curve, "engine_sha512": self.sha512}
        return {
            f"{name}.mpy": native_module(name, source, _MARCH)
            for name, source in sources.items()
            if source
        }


def engines() -> list[Engine]:
    """Return the engines that there are for the RP2040."""
    return [
        Engine("plain Python"),
        Engine(
            "viper",
            cryptogen.viper_curve(_MARCH),
            cryptogen.viper_hash(_MARCH),
            {VERIFY: 13_750_000, SIGN: 6_300_000, AGREE: 12_000_000, BLOCK: 87_000},
        ),
        Engine(
            "asm_thumb",
            cryptogen.thumb_curve(),
            cryptogen.thumb_hash(),
            {VERIFY: 5_600_000, SIGN: 3_200_000, AGREE: 5_300_000, BLOCK: 15_000},
        ),
    ]


# The RFC's signatures are of short messages; a signed report has about this size.
_MESSAGE = bytes(range(100))
_SEED = hashlib.sha256(b"bench").digest()
_KEY = Ed25519PrivateKey.from_private_bytes(_SEED)
_PUBLIC = _KEY.public_key().public_bytes_raw()
_SIGNATURE = _KEY.sign(_MESSAGE)
_SCALAR = hashlib.sha256(b"scalar").digest()
_U = X25519PrivateKey.from_private_bytes(_SEED).public_key().public_bytes_raw()
_SHARED = X25519PrivateKey.from_private_bytes(_SCALAR).exchange(
    X25519PublicKey.from_public_bytes(_U)
)
_PADDED = b"abc\x80" + bytes(123) + b"\x18"  # the one block of SHA-512("abc")
_ABC = hashlib.sha512(b"abc").hexdigest()

_INPUTS = f"""
MESSAGE = {_MESSAGE!r}
SEED = {_SEED!r}
PUBLIC = {_PUBLIC!r}
SIGNATURE = {_SIGNATURE!r}
SCALAR = {_SCALAR!r}
U = {_U!r}
PADDED = {_PADDED!r}
"""
_TAKEN = "import gc\ngc.collect()\nimported = gc.mem_alloc()\n"
_FROZEN = """
from tidemark import curve25519, ed25519, edwards25519, sha512, x25519
engine_curve = True
"""
# Sets what is to be measured, whatever the image has frozen.
_SELECT = """
from tidemark import ed25519, edwards25519, sha512, x25519
sha512.native = engine_sha512
if engine_curve:
    from tidemark import curve25519
    curve25519.native = engine_curve
    curve25519._engine = None
    ed25519.group = curve25519
    x25519.ladder = curve25519.ladder
else:
    ed25519.group = edwards25519
    x25519.ladder = None
"""
_CYCLES = f"""
x25519.public_key(SCALAR)  # a native engine makes its tables at its first use
holds = bench.measure({VERIFY!r}, ed25519.verify, PUBLIC, MESSAGE, SIGNATURE)
signature = bench.measure({SIGN!r}, ed25519.sign, SEED, MESSAGE, PUBLIC)
shared = bench.measure({AGREE!r}, x25519.x25519, SCALAR, U)
result = {{"verify": holds, "sign": signature.hex(), "x25519": shared.hex()}}
if engine_sha512:
    hasher = sha512.NativeSha512()
    state = hasher._initial()
    hasher._mix(state, PADDED)
    result["sha512"] = hasher._output(state).hex()
    # One call takes up to eight blocks.
    eight = PADDED * 8
    bench.measure({BLOCK!r}, engine_sha512.block, eight, state, hasher._work, 8)
else:
    hasher = sha512.Sha512()
    state = hasher._initial()
    bench.measure({BLOCK!r}, hasher._mix, state, PADDED)
    result["sha512"] = hasher._output(state).hex()
"""
_LIB = f"""
import _sha512
info = _sha512.sha_init()
info["data"] = list(PADDED)
bench.measure({BLOCK!r}, _sha512.sha_transform, info)
result = {{"sha512": b"".join([word.to_bytes(8, "big") for word in info["digest"]]).hex()}}
"""
_EXPANDED = hashlib.sha512(_SEED).digest()
_DIGESTS = (
    hashlib.sha512(_EXPANDED[32:] + _MESSAGE).digest()
    + hashlib.sha512(_SIGNATURE[:32] + _PUBLIC + _MESSAGE).digest()
)
_C = f"""
from c_peers import call, BLOCK, SIGN, VERIFY, X25519
DIGESTS = {_DIGESTS!r}
holds = bench.measure({VERIFY!r}, call, SIGNATURE, PUBLIC, DIGESTS[64:], VERIFY)
signature = bytearray(64)
bench.measure({SIGN!r}, call, signature, {_EXPANDED!r}, DIGESTS, SIGN)
shared = bytearray(32)
bench.measure({AGREE!r}, call, shared, SCALAR, U, X25519)
from tidemark import sha512
context = bytearray(256)
context[16:80] = b"".join([word.to_bytes(8, "little") for word in sha512._INITIAL])
bench.measure({BLOCK!r}, call, context, PADDED, 0, BLOCK)
state = [int.from_bytes(context[i : i + 8], "little") for i in range(16, 80, 8)]
result = {{
    "verify": bool(holds),
    "sign": bytes(signature).hex(),
    "x25519": bytes(shared).hex(),
    "sha512": b"".join([word.to_bytes(8, "big") for word in state]).hex(),
}}
"""
_EXPECTED = {
    "verify": True,
    "sign": _SIGNATURE.hex(),
    "x25519": _SHARED.hex(),
    "sha512": _ABC,
}

# The heap that all operations need together, found by taking up the heap but for a rest, and
# halving the interval between a rest that is enough and one that ends in a MemoryError.
_HEAP = """
gc.collect()
imported = gc.mem_alloc() - imported
ballast = [None] * 128


def fill(left):
    gc.collect()
    count = 0
    size = 65536
    while size >= 64:
        if gc.mem_free() - size - 32 >= left:
            try:
                ballast[count] = bytearray(size)
                count += 1
                continue
            except MemoryError:
                pass  # no piece of this size is left
        size >>= 1


def use():
    assert ed25519.verify(PUBLIC, MESSAGE, SIGNATURE)
    ed25519.sign(SEED, MESSAGE, PUBLIC)
    x25519.x25519(SCALAR, U)


def forget():
    if engine_curve:
        curve25519._engine = None
    sha512.NativeSha512._work = None
    edwards25519._comb.clear()


def enough(left):
    forget()
    fill(left)
    try:
        use()
        return True
    except MemoryError:
        return False
    finally:
        for i in range(len(ballast)):
            ballast[i] = None


low = 0
high = 32768
assert enough(high)
while high - low > 256:
    middle = (low + high) // 2
    if enough(middle):
        high = middle
    else:
        low = middle
forget()
gc.collect()
before = gc.mem_alloc()
use()
gc.collect()
result = [imported, high, gc.mem_alloc() - before]
"""


def _imports(engine: Engine) -> str:
    return "\n".join(
        f"import {name}" if source else f"{name} = None"
        for name, source in (("engine_curve", engine.curve), ("engine_sha512", engine.sha512))
    )


def _checked(what: str, measured: Measured, expected: Mapping[str, object]) -> Measured:
    if measured.result != {name: expected[name] for name in measured.result}:
        raise BoardError("wrong-result", f"{what}: {measured.result}")
    return measured


def _add_heap(results: Results, engine: Engine) -> None:
    """Baseline: the REPL with the engine's code, which an image has in its flash, imported."""
    job = f"{_INPUTS}\n{_imports(engine)}\n{_TAKEN}\n{_SELECT}\n{_HEAP}"
    goal = HEAP_GOAL if engine.goals else None
    _add_heap_row(results, engine.name, measure(engine.files(), job, timeout=600.0), goal)


def _add_heap_row(results: Results, name: str, measured: Measured, goal: float | None) -> None:
    imported, needed, kept = measured.result
    note = f"{imported} by imports; {kept} kept between calls"
    results.add(HEAP, imported + needed, "bytes", variant=name, goal=goal, note=note)


def measure_engine(results: Results, engine: Engine) -> None:
    """Add the rows in cycles of one of ours."""
    job = f"{_INPUTS}\n{_imports(engine)}\n{_SELECT}\n{_CYCLES}"
    measured = _checked(engine.name, measure(engine.files(), job), _EXPECTED)
    for name, cycles in measured.cycles.items():
        eight = name == BLOCK and engine.sha512
        results.add(
            name,
            cycles / 8 if eight else cycles,
            "cycles",
            variant=engine.name,
            goal=engine.goals.get(name),
            note="of eight in a call" if eight else "",
        )


def measure_peers(results: Results) -> None:
    """Add the rows of what other people have."""
    name, source = peers.micropython_lib_sha512()
    files = {"_sha512.mpy": cross_compile("_sha512.py", source)}
    measured = _checked(name, measure(files, _INPUTS + _LIB), _EXPECTED)
    results.add_cycles(measured, variant=name, peer=True)
    compiled = peers.compiled()
    files = {"c_peers.mpy": cross_compile("c_peers.py", peers.CALLER)}
    measured = _checked("C", measure(files, _INPUTS + _C, flash=compiled.flash), _EXPECTED)
    for what, cycles in measured.cycles.items():
        results.add(
            what,
            cycles,
            "cycles",
            variant=compiled.sha512 if what == BLOCK else compiled.curve,
            peer=True,
            note="SHA-512 not counted" if what in (VERIFY, SIGN) else "",
        )


@suite("crypto")
def crypto(results: Results) -> None:
    """Measure engines and peers on the emulated Pico."""
    for engine in engines():
        measure_engine(results, engine)
    measure_peers(results)
    for engine in engines():
        _add_heap(results, engine)
    measured = measure({}, f"{_INPUTS}\n{_TAKEN}\n{_FROZEN}\n{_HEAP}", timeout=600.0)
    _add_heap_row(results, "the image's engines", measured, HEAP_GOAL)
