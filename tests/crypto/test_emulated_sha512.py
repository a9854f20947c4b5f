"""SHA-512's engines on the emulated RP2040: right, wherever the data lies, and blind to it."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.crypto.cases import cases
from tidemark_host import cryptogen
from tidemark_host.boards.emulated import measure
from tidemark_host.boards.emulated_chip import MARK_ADDRESS
from tidemark_host.toolchain_native import native_module

# One worker: a first build and the compiled emulator are made once.
pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(600)]

MARCH = "armv6m"
ENGINES = {"thumb": cryptogen.thumb_hash(), "viper": cryptogen.viper_hash(MARCH)}
CASES = 100
GOALS = {"thumb": 15_000, "viper": 87_000}
_SELECT = """
import engine
from tidemark import sha512
sha512.native = engine
"""


def files(engine: str) -> dict[str, bytes]:
    return {"engine.mpy": native_module("engine", ENGINES[engine], MARCH)}


def test_image_takes_the_assemblers() -> None:
    job = "from tidemark import sha512\nresult = sha512.native.__name__"
    assert measure({}, job).result == "tidemark_sha512_thumb"


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_agrees_with_hashlib(engine: str) -> None:
    wanted = cases("sha512", CASES)
    job = f"""{_SELECT}
result = []
cases = open("/bench/cases", "rb")
for _ in range({CASES}):
    size = int.from_bytes(cases.read(2), "big")
    result.append(sha512.digest(cases.read(size)).hex())
"""
    data = [bytes.fromhex(case.call[1]) for case in wanted]
    packed = b"".join(len(part).to_bytes(2, "big") + part for part in data)
    got = measure({**files(engine), "cases": packed}, job).result
    assert len(got) == len(wanted)
    for case, answer in zip(wanted, got, strict=True):
        assert answer == case.want, case.call


@pytest.mark.parametrize("engine", ENGINES)
def test_data_may_lie_at_any_address_and_come_in_any_pieces(engine: str) -> None:
    data = random.Random(5).randbytes(2600)
    job = f"""{_SELECT}
data = memoryview(open("/bench/data", "rb").read())
result = []
for first in (0, 1, 2, 3, 127, 128, 129, 1023, 1024, 1025, 2600):
    h = sha512.NativeSha512(data[:first])
    h.update(data[first:])
    result.append(h.digest().hex())
for start in range(8):
    result.append(sha512.digest(data[start:start + 1300]).hex())
"""
    got = measure({**files(engine), "data": data}, job).result
    whole = hashlib.sha512(data).hexdigest()
    parts = [hashlib.sha512(data[i : i + 1300]).hexdigest() for i in range(8)]
    assert got == [whole] * 11 + parts


@pytest.mark.parametrize("engine", ENGINES)
def test_a_block_takes_the_same_time_whatever_is_in_it(engine: str) -> None:
    rng = random.Random(7)
    blocks = [bytes(1024), b"\xff" * 1024, *(rng.randbytes(1024) for _ in range(18))]
    job = f"""{_SELECT}
from machine import mem32
hasher = sha512.NativeSha512()
data = bytearray(1024)
state = hasher._initial()
blocks = open("/bench/blocks", "rb")
work = hasher._work


def once(call=engine.block):
    # Without anything between the marks that takes memory: how long that takes, depends.
    mem32[{MARK_ADDRESS}] = 1
    call(data, state, work, 8)
    mem32[{MARK_ADDRESS}] = 2


for number in range(20):
    blocks.readinto(data)
    for turn in range(3):
        state[:] = data[:64]
        once()
for number in range(60):
    bench.names.append(str(number))
    bench.notes[str(number)] = (0, 0)
"""
    measured = measure({**files(engine), "blocks": b"".join(blocks)}, job)
    taken = list(measured.cycles.values())
    # Of three turns the shortest: the interpreter's caches and an interrupt come in between.
    cycles = [min(taken[at : at + 3]) for at in range(0, 60, 3)]
    assert max(cycles) <= 8 * GOALS[engine]
    assert len(set(cycles)) == 1, cycles
