"""Each mend of the emulator: the defect in rp2040py as it comes, and that it is gone here.

A test is skipped where rp2040py itself no longer has the defect: then the mend can go.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tidemark_host.boards.emulated_chip import SECTOR, Chip, Timing
from tidemark_host.toolchain_rp2_emulator import load

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.timeout(300)]

ICR, IMSC, DR, FR, LCR_H, IBRD, IFLS, MASKED = 0x44, 0x38, 0x00, 0x18, 0x2C, 0x24, 0x34, 0x40
TX, RX, TXFF = 1 << 5, 1 << 4, 1 << 5
FIFOS = 0x70
ROSC, RANDOMBIT = 0x40060, 0x1C
CTRL, REASON, LOAD = 0x00, 0x08, 0x04
ENABLE, TRIGGER = 1 << 30, 1 << 31
TICK = 0x2C
WRITE_ENABLE, PROGRAM, UNIQUE_ID = 0x06, 0x02, 0x4B


def plain() -> Any:
    """rp2040py's chip as it comes."""
    mcu = load("rp2040").RP2040()
    logging = load("utils.logging")
    mcu.logger = logging.ConsoleLogger(logging.LogLevel.ERROR, True)
    return mcu


def mended(**options: Any) -> Any:
    return Chip({}, **options).mcu


def needs_mending(defect: bool) -> None:
    if not defect:
        pytest.skip("mended in rp2040py: this mend can go")


def open_uart(mcu: Any) -> Any:
    uart = mcu.uart[0]
    uart.write_uint32_atomic(IBRD, 26, 0)
    uart.write_uint32_atomic(LCR_H, FIFOS, 0)
    return uart


def clears_transmit_interrupt(mcu: Any) -> bool:
    uart = open_uart(mcu)
    uart.write_uint32_atomic(IMSC, TX, 0)
    uart.write_uint32_atomic(ICR, TX, 0)
    return not uart.read_uint32(MASKED) & TX


def test_clearing_the_transmit_interrupt_clears_it() -> None:
    needs_mending(not clears_transmit_interrupt(plain()))
    assert clears_transmit_interrupt(mended())


def fills_up(mcu: Any) -> bool:
    uart = open_uart(mcu)
    for _ in range(33):  # one is being sent, 32 wait
        uart.write_uint32_atomic(DR, 0x55, 0)
    return bool(uart.read_uint32(FR) & TXFF)


def test_what_is_sent_takes_its_time_and_fills_the_fifo() -> None:
    needs_mending(not fills_up(plain()))
    chip = Chip({})
    sent: list[float] = []
    chip.on_byte = lambda uart, byte: sent.append(chip.nanoseconds)
    assert fills_up(chip.mcu)
    chip.mcu.clock.tick(1e9)
    gaps = [round(after - before) for before, after in pairwise(sent)]
    # 10 bits at 48 MHz / 16 / 26
    assert len(sent) == 33
    assert set(gaps) == {86667}


def raises_at_the_level(mcu: Any) -> list[bool]:
    uart = open_uart(mcu)
    uart.write_uint32_atomic(IMSC, RX, 0)
    uart.write_uint32_atomic(IFLS, 0, 0)  # 4 bytes
    seen: list[bool] = []
    for byte in range(5):
        uart.feed_byte(byte)
        seen.append(bool(uart.read_uint32(MASKED) & RX))
    return seen


def test_receive_interrupt_comes_at_the_fifos_level() -> None:
    level = [False, False, False, True, True]
    needs_mending(raises_at_the_level(plain()) != level)
    assert raises_at_the_level(mended()) == level


def test_receive_timeout_tells_of_bytes_below_the_level() -> None:
    mcu = mended()
    uart = open_uart(mcu)
    uart.write_uint32_atomic(IMSC, 1 << 6, 0)
    uart.feed_byte(1)
    uart.feed_byte(2)
    assert not uart.read_uint32(MASKED)
    mcu.clock.tick(33 * uart.bit_ns)
    assert uart.read_uint32(MASKED) == 1 << 6
    # Read one byte: the other still waits, and says so again.
    uart.write_uint32_atomic(ICR, 1 << 6, 0)
    assert uart.read_uint32(DR) == 1
    mcu.clock.tick(33 * uart.bit_ns)
    assert uart.read_uint32(MASKED) == 1 << 6


def test_full_receive_fifo_loses_what_comes() -> None:
    chip = Chip({})
    uart = open_uart(chip.mcu)
    for byte in range(40):
        uart.feed_byte(byte)
    assert chip.lost(0) == 8
    assert [uart.read_uint32(DR) for _ in range(32)] == list(range(32))


def bites_again(mcu: Any) -> bool:
    dog = mcu.watchdog
    dog.write_uint32_atomic(TICK, 1 << 9, 0)
    dog.write_uint32_atomic(LOAD, 2000, 0)  # 1 ms: counted down twice a tick
    dog.write_uint32_atomic(CTRL, ENABLE, 0)
    mcu.clock.tick(1.5e6)
    assert dog.read_uint32(REASON) == 1
    return bool(dog.read_uint32(CTRL) & ENABLE)


def test_watchdogs_own_reset_disarms_it() -> None:
    needs_mending(bites_again(plain()))
    assert not bites_again(mended())


def stays_armed_by_hand(mcu: Any) -> bool:
    mcu.watchdog.write_uint32_atomic(CTRL, TRIGGER | ENABLE, 0)
    return bool(mcu.watchdog.read_uint32(CTRL) & ENABLE)


def test_reset_by_hand_leaves_the_watchdog_disarmed() -> None:
    needs_mending(stays_armed_by_hand(plain()))
    assert not stays_armed_by_hand(mended())


def id_of(mcu: Any) -> bytes:
    mcu.ssi._tx_buffer = bytearray()
    sent = bytes([UNIQUE_ID]) + bytes(12)
    return bytes(mcu.ssi._shift_byte(byte) for byte in sent)[5:]


def test_flash_has_an_id_of_its_own() -> None:
    needs_mending(id_of(plain()) == b"\xff" * 8)
    assert id_of(mended(unique_id=b"12345678")) == b"12345678"


def operation_ns(mcu: Any) -> float:
    began = mcu.clock.nanos
    mcu.ssi._write_enabled = True
    mcu.ssi._tx_buffer = bytearray([PROGRAM, 0x10, 0, 0]) + bytes(256)
    mcu.ssi._apply_command()
    return float(mcu.clock.nanos - began)


def test_flash_operations_take_their_time() -> None:
    needs_mending(operation_ns(plain()) == 0)
    assert operation_ns(mended(timing=Timing(program_s=0.0007))) == pytest.approx(0.7e6)


def overwritten(mcu: Any) -> int:
    mcu.flash[0x100000] = 0xF0
    mcu.ssi._write_enabled = True
    mcu.ssi._tx_buffer = bytearray([PROGRAM, 0x10, 0, 0, 0x0F]) + b"\xff" * 255
    mcu.ssi._apply_command()
    return int(mcu.flash[0x100000])


def test_different_bytes_over_programmed_ones_are_refused() -> None:
    needs_mending(overwritten(plain()) == 0)
    assert overwritten(mended()) == 0xF0


def random_bits(mcu: Any) -> set[int]:
    return {mcu.peripherals[ROSC].read_uint32(RANDOMBIT) & 1 for _ in range(64)}


def test_ring_oscillator_is_random() -> None:
    needs_mending(len(random_bits(plain())) == 1)
    assert random_bits(mended()) == {0, 1}


def test_compiled_divider_and_timer_give_the_emulators_values() -> None:
    chip = Chip({})
    compiled, theirs = chip.mcu.sio, load("sio").RPSIO(chip.mcu)
    if type(compiled) is type(theirs):
        pytest.skip("no compiler here: the emulator's own serve")
    numbers = (0, 1, 7, 10, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF9, 0xFFFFFFFF)
    for signed in (0, 8):
        for dividend in numbers:
            for divisor in numbers:
                results: list[list[int]] = []
                for sio in (compiled, theirs):
                    sio.write_uint32(0x60 + signed, dividend)
                    sio.write_uint32(0x64 + signed, divisor)
                    read = [sio.read_uint32(offset) for offset in (0x78, 0x74, 0x70, 0x78)]
                    results.append([int(value) & 0xFFFFFFFF for value in read])
                assert results[0] == results[1], (signed, dividend, divisor)
    chip.mcu.timer._epoch_nanos = -(2**33 * 1e3 + 5e3)  # as if it had run for so long
    for offset in (0x24, 0x28):
        ours = chip.mcu.peripherals[0x40054].read_uint32(offset)
        assert ours == chip.mcu.timer.read_uint32(offset) == (2 if offset == 0x24 else 5)


def test_erase_of_a_sector_leaves_its_neighbours() -> None:
    chip = Chip({0: bytes(3 * SECTOR)})
    chip.mcu.ssi._write_enabled = True
    chip.mcu.ssi._tx_buffer = bytearray([0x20, 0x00, 0x10, 0x00])
    chip.mcu.ssi._apply_command()
    assert chip.read_flash(0, 3 * SECTOR) == bytes(SECTOR) + b"\xff" * SECTOR + bytes(SECTOR)
