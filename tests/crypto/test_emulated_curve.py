"""The curve's engines on the emulated RP2040: right, in time, and as long for every secret.

What is compared in cycles is what a caller pays: the engine and the Python around it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.crypto.cases import cases
from tests.crypto.emulated import ENGINES, run
from tidemark_host.boards.emulated import cross_compile
from tidemark_host.cryptogen import comb, programs
from tidemark_host.cryptogen.programs import P

# One worker: a first build and the compiled emulator are made once.
pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(600)]

# 50 ms of an RP2040 at 125 MHz.
SLICE = 6_250_000
# Turns for what is imported, made or looked up once, and until the heap is as in every turn.
WARM = 2
SECRETS = {"thumb": 200, "viper": 10}
CASES = {"thumb": 16, "viper": 6}
GOALS = {
    "thumb": {"verify": 5_600_000, "sign": 3_200_000, "x25519": 5_300_000},
    "viper": {"verify": 13_750_000, "sign": 6_300_000, "x25519": 12_000_000},
}
HEAP = 25_000

# Of the assembler's elements: all that is folded over, once or twice, and full words.
_EDGES = (
    *(0, 1, 19, 37, 38, 39, P - 1, P, P + 1, 2 * P - 1, 2 * P, 2**255 - 1, 2**255),
    *(2**256 - n for n in (1, 2, 37, 38, 39, 76, 2**32, 2**128)),
    *(2**128 - 1, 2**256 // 65537, 2**256 - 1 - 2**256 // 65537),
)


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_agrees_with_cryptography(engine: str) -> None:
    wanted = [case for kind in ("sign", "verify", "x25519") for case in cases(kind, CASES[engine])]
    files = {
        "peer.mpy": cross_compile("peer.py", Path(__file__).with_name("peer.py").read_text()),
        "cases": "".join(json.dumps(case.call) + "\n" for case in wanted).encode(),
    }
    job = """
import json, peer
assert ed25519.group is curve25519
for line in open("/bench/cases"):
    print(peer.answer(json.loads(line)))
"""
    got = run(engine, job, files).output.split()
    assert len(got) == len(wanted)
    for case, answer in zip(wanted, got, strict=True):
        assert answer == case.want, case.call


def test_assemblers_field_is_exact_at_its_edges() -> None:
    operations = {
        "MUL": (programs.MUL, lambda a, b: a * b),
        "SQR": (programs.SQR, lambda a, _: a**8),
        "ADD": (programs.ADD, lambda a, b: a + b),
        "SUB": (programs.SUB, lambda a, b: a - b),
        "MUL_A24": (programs.MUL_A24, lambda a, b: a + 121665 * b),
        "SPREAD": (programs.SPREAD, lambda a, b: a + b),
        "SELECT": (programs.SELECT, lambda a, b: a if a & 1 else b),
    }
    # Each into a slot of its own, and into its first operand; three squarings, one in place.
    x, y, out = (programs.SLOTS[name] for name in "XYA")
    rows = [
        bytes((number, d, x, y if name != "SQR" else 3, programs.END, 0, 0, 0))
        for d in (out, x)
        for name, (number, _) in operations.items()
    ]
    table = b"".join((2 * len(rows) + 8 * i).to_bytes(2, "little") for i in range(len(rows)))
    rng = random.Random(25519)
    pairs = [
        tuple(rng.choice(_EDGES) if rng.random() < 0.5 else rng.getrandbits(256) for _ in "ab")
        for _ in range(100)
    ] + [(a, a) for a in _EDGES]
    job = f"""
import uctypes
engine = curve25519.engine()
engine._programs = {table + b"".join(rows)!r}
memory = uctypes.bytearray_at(uctypes.addressof(engine._memory), native.MEMORY_BYTES)
file = open("/bench/pairs", "rb")
pair = bytearray(64)
while file.readinto(pair):
    for i in range({len(rows)}):
        memory[{32 * x} : {32 * x + 64}] = pair
        engine.run(i, pair[0] & 1)
        print(engine.store({out} if i < {len(operations)} else {x}).hex(), engine.store({y}).hex())
"""
    packed = b"".join(a.to_bytes(32, "little") + b.to_bytes(32, "little") for a, b in pairs)
    lines = iter(run("thumb", job, {"pairs": packed}).output.split("\n"))
    for a, b in pairs:
        for name, (_, of) in [*operations.items(), *operations.items()]:
            got, other = (
                int.from_bytes(bytes.fromhex(text), "little") for text in next(lines).split()
            )
            assert got == of(a, b) % P, (name, hex(a), hex(b))
            assert other == (a - b if name == "SPREAD" else b) % P, (name, hex(a), hex(b))


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_with_a_secret_take_the_same_cycles_for_each_argument(engine: str) -> None:
    job = f"""
import gc
engine = curve25519.engine()


def steps(program, arguments):
    # Nothing stays behind in the heap from one turn to the next.
    for argument in range({WARM} + arguments):
        engine._script[0] = program
        engine._script[1] = argument % arguments
        gc.collect()
        begin()
        engine._run(0, 1)
        end()


steps(native.COMB_STEP, {2 * comb.ENTRIES})
steps(native.LADDER_STEP, 2)
steps(native.LADDER_STEP, 2)
for _ in range({WARM + 2 * comb.ENTRIES}):
    name("comb")
for _ in range({2 * (WARM + 2)}):
    name("ladder")
"""
    cycles = run(engine, job).cycles
    for program, steps in (("comb", 2 * comb.ENTRIES), ("ladder", 2)):
        taken = [n for name, n in cycles.items() if name.startswith(program)]
        assert len(set(taken[-steps:])) == 1, (program, set(taken))


@pytest.mark.parametrize("engine", ENGINES)
def test_secrets_take_the_same_cycles_to_sign_and_agree(engine: str) -> None:
    count = SECRETS[engine]
    job = f"""
import gc
secret = bytearray(32)
public = bytes(32)
message = b"message"


def time(function, *args):
    begin()
    function(*args)
    end()


def all(turns):
    # Nothing stays behind in the heap from one turn to the next.
    for _ in range(turns):
        file.readinto(secret)
        gc.collect()
        time(ed25519.public_key, secret)
        time(ed25519.sign, secret, message, public)
        time(x25519.public_key, secret)


file = open("/bench/secrets", "rb")
all({count + WARM})
for _ in range({count + WARM}):
    name("public_key")
    name("sign")
    name("x25519")
"""
    rng = random.Random(1)
    secrets = [rng.randbytes(32) for _ in range(WARM)]
    secrets += [bytes(32), b"\xff" * 32, *(rng.randbytes(32) for _ in range(count - 2))]
    cycles = run(engine, job, {"secrets": b"".join(secrets)}).cycles
    for function in ("public_key", "sign", "x25519"):
        taken = [n for name, n in cycles.items() if name.startswith(function)]
        assert len(taken) == count + WARM
        assert len(set(taken[WARM:])) == 1, function


def test_agreed_secret_that_begins_with_zeros_takes_no_longer() -> None:
    job = """
import gc


def agree(shared):
    gc.collect()
    begin()
    x25519.x25519(shared, shared)
    end()


def all(count):
    for zeros in range(count):
        shared[:] = zero
        for i in range(zeros, 32):
            shared[i] = 255
        agree(shared)


zero = bytes(32)
shared = bytearray(32)
# What comes after the ladder, with each outcome that it may have.
x25519.ladder = lambda scalar, u, feed: shared
all(2)
all(32)
for _ in range(34):
    name("agree")
"""
    assert len(set(list(run("thumb", job).cycles.values())[2:])) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_no_native_call_and_no_wait_for_the_feed_lasts_50_ms(engine: str) -> None:
    job = """
class Timed:
    def __init__(self, module):
        self.module = module

    def __getattr__(self, attribute):
        value = getattr(self.module, attribute)
        if attribute.upper() == attribute:
            return value

        def call(*args):
            name(attribute)
            begin()
            result = value(*args)
            end()
            return result

        return call


def feed():
    end()
    name("feed")
    begin()


def work(hook):
    public = ed25519.public_key(seed, hook)
    assert ed25519.verify(public, b"", ed25519.sign(seed, b"", public, hook), hook)
    return x25519.x25519(seed, public, hook)


seed = bytes(range(32))
name("feed")
begin()
shared = work(feed)
end()
curve25519._engine = curve25519.Engine(Timed(native))
assert work(None) == shared
"""
    cycles = run(engine, job).cycles
    assert {name.partition(" ")[0] for name in cycles} >= {"feed", "run", "reduce", "store"}
    assert max(cycles.values()) < SLICE


@pytest.mark.parametrize("engine", ENGINES)
def test_cycles_and_heap_are_within_the_goals(engine: str) -> None:
    job = """
import gc, sys
seed = bytes(range(32))
public = bench.measure("public", ed25519.public_key, seed)
signature = bench.measure("sign", ed25519.sign, seed, b"message", public)
assert bench.measure("verify", ed25519.verify, public, b"message", signature)
bench.measure("x25519", x25519.public_key, seed)


def first():
    # As after power-on: the modules' names, the engine, and what a verification leaves behind.
    import tidemark.curve25519, tidemark.ed25519

    tidemark.curve25519._engine = tidemark.curve25519.Engine(native)
    tidemark.ed25519.verify(public, b"message", signature)


curve25519._engine = None
for module in ("curve25519", "edwards25519", "field25519", "ed25519", "x25519", "sha512"):
    sys.modules.pop("tidemark." + module, None)
del curve25519, ed25519, x25519
gc.collect()
bench.measure("first", first)
"""
    measured = run(engine, job)
    for function, goal in GOALS[engine].items():
        assert measured.cycles[function] <= goal, function
    assert measured.costs["first"].allocated <= HEAP
