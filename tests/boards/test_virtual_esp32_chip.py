"""The virtual ESP32's chip: causes of resets, watchdog, clock, radio, console and timers by
ESP-IDF's rules; the firmware's ESP32 port stands on them."""

from __future__ import annotations

from pathlib import Path

from tests.boards.esp32_runtime import DEFINITION, MAIN, Make, run, say
from tidemark_host.boards.esp32_hardware import BOOT_WATCHDOG_S
from tidemark_host.boards.virtual_esp32 import VirtualEsp32Board
from tidemark_host.toolchain_virtual_esp32 import runtime_image

# -- causes of resets -----------------------------------------------------------------------------


def test_causes_of_resets_are_told_apart(esp32: Make) -> None:
    """MicroPython has one number for power-on and brownout; the port has a word for each."""
    board = esp32()
    board.serial_log.wait_for("cause power-on 1 marker 0x0")
    say(board, "port.set_marker(0x1234); port.reset()", "cause reset 2 marker 0x1234")
    say(board, "machine.deepsleep(10)", "cause reset 4 marker 0x1234")
    since = len(board.serial_log)
    board.send(b"from main import *; port.arm_watchdog(50)\r")
    board.serial_log.wait_for("cause watchdog 3 marker 0x1234", since=since)
    since = len(board.serial_log)
    board.brownout()
    board.serial_log.wait_for("cause brownout 1 marker 0x0", since=since)
    since = len(board.serial_log)
    board.reset()
    board.serial_log.wait_for("cause power-on 1 marker 0x0", since=since)
    seen = [reset.cause for reset in board.resets]
    assert seen == ["power-on", "reset", "deep-sleep", "watchdog", "brownout", "power-on"]


def test_marker_is_gone_where_the_application_used_the_memory(esp32: Make) -> None:
    board = esp32()
    line = 'port.set_marker(7); machine.RTC().memory(b"x" * 16); port.reset()'
    say(board, line, "cause reset 2 marker 0x0")


def test_marker_is_gone_where_a_bit_of_the_memory_fell(esp32: Make) -> None:
    board = esp32()
    for at in range(4, 16):
        line = (
            f"port.set_marker(7); m = bytearray(machine.RTC().memory()); m[{at}] ^= 1; "
            "machine.RTC().memory(m); port.reset()"
        )
        say(board, line, "cause reset 2 marker 0x0")


def test_watchdog_takes_over_from_the_bootloaders(tmp_path: Path) -> None:
    """Ours may have longer than the 9 s of the bootloader's, which nobody feeds."""
    changes: dict[str, str | None] = {"_boot.py": "import sys\nsys.path[:] = ['.frozen']\n"}
    image = runtime_image(DEFINITION, 1, {**changes, "main.py": MAIN})
    with VirtualEsp32Board(tmp_path, image=image) as board:
        board.power_on()
        board.serial_log.wait_for("runs in 0")
        assert 0 < board.watchdog_left <= BOOT_WATCHDOG_S
        said = run(
            board,
            """
            config = 0x3FF4808C
            before = machine.mem32[config]
            port.arm_watchdog(60000)
            after = machine.mem32[config]
            machine.mem32[config] = 0
            print(before ^ after, bin(after).count("1") > 1, machine.mem32[config] == after)
            """,
        )
        # One bit of it; what else it holds stays, and nobody writes it by accident.
        assert said == f"{1 << 31} True True"
        assert board.watchdog_left > 2 * BOOT_WATCHDOG_S


def test_uptime_goes_on_where_the_ticks_wrap(esp32: Make) -> None:
    board = esp32()
    said = run(
        board,
        """
        import esp32_chip, time
        first = port.uptime_ms()
        seen = []
        for _ in range(5):
            esp32_chip.state["zero"] -= 1 << 28
            seen.append(port.uptime_ms() - first >> 28)
        print(seen, time.ticks_ms() < 1 << 30)
        """,
    )
    assert said == "[1, 2, 3, 4, 5] True"


# -- console, timers, radio -----------------------------------------------------------------------


def test_random_numbers_switch_the_radio_on(esp32: Make) -> None:
    board = esp32()
    said = run(
        board,
        """
        import network
        radio = network.WLAN(network.STA_IF)
        before = radio.active()
        print(len(port.random(40)), before, radio.active())
        radio.active(False)
        port.random(1)
        print(radio.active())
        """,
    )
    assert said == "40 False True\nTrue"


def test_random_numbers_are_refused_while_the_radio_stays_off(esp32: Make) -> None:
    board = esp32()
    said = run(
        board,
        """
        import network
        network.WLAN.active = lambda self, on=None: False
        attempt(port.random, 4)
        """,
    )
    assert said.startswith("refused random-radio")


def test_interrupt_within_a_bracket_is_kept_and_told_once(esp32: Make) -> None:
    board = esp32()
    since = len(board.serial_log)
    board.send(
        b"from main import *\rimport select, sys\rport.listen()\rdef hold():\r"
        b"    poller = select.poll()\r    poller.register(sys.stdin, select.POLLIN)\r"
        b"    port.kbd_intr(False)\r    print('he' + 'ld')\r    poller.poll(60000)\r"
        b"    port.kbd_intr(True)\r    print('told', port.interrupted(), port.interrupted())\r\r"
        b"hold()\r"
    )
    board.serial_log.wait_for("held", since=since)
    board.send(b"\x03")
    board.serial_log.wait_for("told True False", since=since)


def test_timers_are_as_many_as_the_chip_has(esp32: Make) -> None:
    board = esp32()
    said = run(
        board,
        """
        import time
        calls = []
        for _ in range(5):
            attempt(port.start_timer, 20, calls.append)
        while len(calls) < 8:
            time.sleep_ms(5)
        print(len(calls) >= 8)
        """,
    )
    assert said == "refused timers: too many timers\nTrue"
