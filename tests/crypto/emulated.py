"""The curve's engines on the emulated RP2040: how the tests put one to work there."""

from __future__ import annotations

from collections.abc import Mapping

from tidemark_host import cryptogen
from tidemark_host.boards.emulated import Measured, measure
from tidemark_host.boards.emulated_chip import MARK_ADDRESS
from tidemark_host.toolchain_native import native_module

ENGINES = ("thumb", "viper")

_PROLOGUE = """
from machine import mem32
import tidemark_curve_{engine} as native
from tidemark import curve25519, ed25519, x25519
curve25519._engine = curve25519.Engine(native)


def begin():
    mem32[{mark}] = 1


def end():
    mem32[{mark}] = 2


def name(text):
    # Every interval between begin() and end() needs a name.
    text = "%s %d" % (text, len(bench.names))
    bench.names.append(text)
    bench.notes[text] = (0, 0)
"""


def run(engine: str, job: str, files: Mapping[str, bytes] | None = None) -> Measured:
    """Run a job with that engine in charge. The assembler's is the image's own."""
    modules = dict(files or {})
    if engine == "viper":
        name = "tidemark_curve_viper"
        modules[f"{name}.mpy"] = native_module(name, cryptogen.viper_curve("armv6m"), "armv6m")
    prologue = _PROLOGUE.format(engine=engine, mark=MARK_ADDRESS)
    return measure(modules, prologue + job, timeout=120.0)
