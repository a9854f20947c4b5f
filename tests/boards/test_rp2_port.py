"""The port's registers of RP2040 and RP2350: those of pico-sdk's headers, and what they mean.

No emulator has an RP2350: its addresses are compared with the vendor's, its causes of resets are
tried on the register values that its datasheet gives.
"""

from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import firmware_dir
from tidemark_host import toolchain_rp2
from tidemark_host.chips import CHIPS

# name in the port: block, register, and its block's name in pico-sdk's address map of each chip.
REGISTERS = {
    "_TIMERAWH": ("timer", "TIMER_TIMERAWH", "TIMER", "TIMER0"),
    "_WATCHDOG_CTRL": ("watchdog", "WATCHDOG_CTRL", "WATCHDOG", "WATCHDOG"),
    "_WATCHDOG_REASON": ("watchdog", "WATCHDOG_REASON", "WATCHDOG", "WATCHDOG"),
    "_SCRATCH0": ("watchdog", "WATCHDOG_SCRATCH0", "WATCHDOG", "WATCHDOG"),
    "_SCRATCH4": ("watchdog", "WATCHDOG_SCRATCH4", "WATCHDOG", "WATCHDOG"),
    "_ROSC_RANDOMBIT": ("rosc", "ROSC_RANDOMBIT", "ROSC", "ROSC"),
}
CHIP_RESET = {
    "rp2040": (
        "vreg_and_chip_reset",
        "VREG_AND_CHIP_RESET_CHIP_RESET",
        "VREG_AND_CHIP_RESET",
        ("HAD_POR", "HAD_RUN", "HAD_PSM_RESTART"),
    ),
    "rp2350": (
        "powman",
        "POWMAN_CHIP_RESET",
        "POWMAN",
        (
            *("HAD_POR", "HAD_BOR", "HAD_RUN_LOW", "HAD_DP_RESET_REQ", "HAD_RESCUE"),
            "HAD_GLITCH_DETECT",
        ),
    ),
}
SAME = {
    "_CTRL_ENABLE": "WATCHDOG_CTRL_ENABLE_BITS",
    "_REASON_TIMER": "WATCHDOG_REASON_TIMER_BITS",
    "_REASON_FORCE": "WATCHDOG_REASON_FORCE_BITS",
}

each_chip = pytest.mark.parametrize("chip", ["rp2040", "rp2350"])


def load(chip: str, monkeypatch: pytest.MonkeyPatch, memory: dict[int, int]) -> Any:
    """Return the port as an image for `chip` has it, over `memory` (address: word)."""
    fakes = {
        "machine": types.SimpleNamespace(mem32=memory),
        "micropython": types.SimpleNamespace(const=lambda value: value),
        "rp2": types.SimpleNamespace(),
        "uctypes": types.SimpleNamespace(),
        "tidemark_board": types.SimpleNamespace(CHIP=chip),
    }
    with monkeypatch.context() as patch:
        for name, fake in fakes.items():
            patch.setitem(__import__("sys").modules, name, fake)
        path = firmware_dir() / "tidemark" / "port" / "rp2.py"
        spec = importlib.util.spec_from_file_location(f"port_of_{chip}", path)
        assert spec
        assert spec.loader
        port = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(port)
    return port


def defines(path: Path) -> dict[str, int]:
    text = path.read_text()
    found = re.findall(r"^#define (\w+)\s+_u\((0x[0-9a-f]+)\)$", text, re.MULTILINE)
    return {name: int(value, 16) for name, value in found}


def test_every_chip_of_the_port_is_here() -> None:
    chips = {chip.name for chip in CHIPS.values() if chip.port == "rp2"}
    assert chips == set(CHIP_RESET)


@pytest.mark.timeout(600)  # the first one fetches the sources
@each_chip
def test_registers_are_where_the_vendor_has_them(
    chip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = load(chip, monkeypatch, {})
    sdk = toolchain_rp2.source_tree() / "lib" / "pico-sdk" / "src"
    regs = sdk / chip / "hardware_regs" / "include" / "hardware" / "regs"
    bases = defines(regs / "addressmap.h")
    for name, (block, register, *owners) in REGISTERS.items():
        owner = owners[chip == "rp2350"]
        place = bases[f"{owner}_BASE"] + defines(regs / f"{block}.h")[f"{register}_OFFSET"]
        assert getattr(port, name) == place, name
    block, register, owner, flags = CHIP_RESET[chip]
    known = defines(regs / f"{block}.h")
    assert bases[f"{owner}_BASE"] + known[f"{register}_OFFSET"] == port._CHIP_RESET
    assert sum(known[f"{register}_{flag}_BITS"] for flag in flags) == port._HAD
    watchdog = defines(regs / "watchdog.h")
    assert all(getattr(port, name) == watchdog[there] for name, there in SAME.items())
    assert bases["XIP_BASE"] == port._XIP_BASE
    driver = (sdk / "rp2_common" / "hardware_watchdog" / "watchdog.c").read_text()
    assert f"WATCHDOG_NON_REBOOT_MAGIC {port._ARMED_BY_SDK:#x}" in driver


ARMED = 0x6AB73121
# By the chip: CTRL, REASON, SCRATCH4, CHIP_RESET, and what a board says of a boot that finds them.
CAUSES = [
    ("rp2040", 0, 0, 0, 0x000100, "power-on"),
    ("rp2040", 0, 0, 0, 0x010000, "power-on"),
    ("rp2040", 0, 1, ARMED, 0x000100, "watchdog"),
    ("rp2040", 0, 1, 0, 0x000100, "unknown"),
    ("rp2040", 0, 2, 0, 0x000100, "reset"),
    ("rp2040", 1 << 30, 2, 0, 0x000100, "soft"),
    ("rp2350", 0, 0, 0, 1 << 16, "power-on"),
    ("rp2350", 0, 0, 0, 1 << 17, "power-on"),
    ("rp2350", 0, 0, 0, 1 << 18, "power-on"),
    ("rp2350", 0, 0, 0, 1 << 26, "power-on"),
    ("rp2350", 0, 1, ARMED, 1 << 28, "watchdog"),
    ("rp2350", 0, 1, 0xB007C0D3, 1 << 28, "unknown"),
    ("rp2350", 0, 2, 0, 1 << 28, "reset"),
    ("rp2350", 1 << 30, 2, 0, 1 << 16, "soft"),
    # A debugger's warm reset clears the reason and is no deed of the image.
    ("rp2350", 0, 0, ARMED, 1 << 27, "unknown"),
]


@pytest.mark.parametrize(("chip", "ctrl", "reason", "scratch4", "had", "cause"), CAUSES)
def test_cause_of_a_boot_is_read_from_the_chips_own_registers(
    chip: str,
    ctrl: int,
    reason: int,
    scratch4: int,
    had: int,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory: dict[int, int] = {}
    port = load(chip, monkeypatch, memory)
    memory |= {
        port._WATCHDOG_CTRL: ctrl,
        port._WATCHDOG_REASON: reason,
        port._SCRATCH4: scratch4,
        port._CHIP_RESET: had,
    }
    assert port.reset_cause() == cause
    port.set_marker(7)
    assert memory[port._SCRATCH0] == 7 == port.marker()
