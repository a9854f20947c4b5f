"""Generates the native cryptography of the firmware: readable here, fast there.

`modules(march)` returns the modules to freeze for a processor, by name: the fastest of each kind
that it can run, since flash has no room for a second one. None of them is committed; the build and
the tests write them next to the board's constants.
"""

from __future__ import annotations

from tidemark_host.cryptogen import (
    programs,
    scalars,
    thumb_field,
    thumb_sha512,
    viper_field,
    viper_sha512,
)

_HEAD = "# Made by tidemark_host.cryptogen; changes belong there.\n"

WIDE = frozenset({"x64"})
"""Processors whose viper loads zero-extend 32-bit words."""

THUMB = frozenset({"armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp"})
"""Processors that mpy-cross compiles asm_thumb for; one code runs on all."""


def _constants(values: dict[str, object]) -> str:
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


def _program_constants() -> tuple[dict[str, object], dict[str, int]]:
    code, numbers = programs.code()
    values: dict[str, object] = {
        "PROGRAMS": code,
        "ELEMENTS": b"".join(value.to_bytes(32, "little") for value in programs.CONSTANTS),
        **{f"SLOT_{name}": programs.SLOTS[name] for name in ("X", "Y", "A", "B", "C", "F", "G")},
        "SLOT_U": programs.SLOTS["KEY0_PLUS"],
    }
    values |= {name: number for name, number in numbers.items() if "_-" not in name}
    return {name: v for name, v in values.items() if not name[-1:].isdigit()}, numbers


def viper_curve(march: str) -> str:
    """Return the curve engine in viper."""
    wide = march in WIDE
    values, numbers = _program_constants()
    values |= viper_field.constants() | scalars.constants()
    return (
        f"{_HEAD}import micropython\n\n"
        f"{_constants(values)}\n\n"
        f"{viper_field.field_source(wide=wide)}\n{scalars.scalar_source(numbers, wide=wide)}"
    )


def thumb_curve() -> str:
    """Return the curve engine in asm_thumb, for processors of the Arm Cortex-M family."""
    values, numbers = _program_constants()
    values |= thumb_field.constants() | scalars.constants()
    return (
        f"{_HEAD}import micropython\n\n"
        f"{_constants(values)}\n\n"
        f"{thumb_field.field_source()}\n{scalars.scalar_source(numbers, wide=False)}"
    )


def viper_hash(march: str) -> str:
    """Return the compression of SHA-512 in viper."""
    return (
        f"{_HEAD}import micropython\n\n{_constants(viper_sha512.constants())}\n\n"
        f"{viper_sha512.sha512_source(wide=march in WIDE)}"
    )


def thumb_hash() -> str:
    """Return the compression of SHA-512 in Thumb code."""
    return (
        f"{_HEAD}import micropython\n\n{_constants(viper_sha512.constants())}\n\n"
        f"{thumb_sha512.sha512_source()}"
    )


def modules(march: str) -> dict[str, str]:
    """Return module name and source of each native module for `march` (mpy-cross's name)."""
    if march in THUMB:
        return {"tidemark_curve_thumb": thumb_curve(), "tidemark_sha512_thumb": thumb_hash()}
    return {
        "tidemark_curve_viper": viper_curve(march),
        "tidemark_sha512_viper": viper_hash(march),
    }
