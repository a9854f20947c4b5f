"""Questions to the chip itself, for docs/hardware-checklist.md. Every board answers them; what a
board of this machine says is true of its model alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.steps import at_repl
from tidemark_host.hil.site import Site

# RFC 8032, 7.1, TEST 3.
SEED = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
SHA512_OF_ABC = (
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
)


async def asked(site: Site, code: str) -> Any:
    """Run code at the REPL under the console's lease; return what it put into `answer`."""
    setup = (
        "import json, gc\nfrom tidemark import port, stage0\nbase = stage0.base\n"
        "from tidemark.compat import ticks_ms, ticks_diff\n"
        "base.supervisor.lease(base.board.LEASE_REPL_MS, 'lease')\n"
    )
    said = await at_repl(site, f"{setup}{code}\nprint(json.dumps(answer))")
    answer = json.loads(said.strip().splitlines()[-1])
    site.note(f"the chip says {answer}")
    return answer


async def test_machine_code_gives_the_results_of_the_standards(site: Site) -> None:
    answer = await asked(
        site,
        f"from tidemark import ed25519, sha512\n"
        f"seed, public = bytes.fromhex('{SEED}'), bytes.fromhex('{PUBLIC}')\n"
        "begin = ticks_ms()\n"
        "signature = ed25519.sign(seed, b'\\xaf\\x82', public)\n"
        "good = ed25519.verify(public, b'\\xaf\\x82', signature)\n"
        "bad = ed25519.verify(public, b'\\xaf\\x83', signature)\n"
        "hexed = lambda data: ''.join('%02x' % byte for byte in data)\n"
        "answer = [hexed(signature), hexed(sha512.digest(b'abc')), good, bad,"
        " ticks_diff(ticks_ms(), begin)]",
    )
    assert answer[:2] == [SIGNATURE, SHA512_OF_ABC]
    assert (bool(answer[2]), bool(answer[3])) == (True, False)


async def test_random_source_passes_its_health_tests_each_time(site: Site) -> None:
    answer = await asked(
        site,
        "from tidemark import entropy\n"
        "draws = {bytes(entropy.tested(port.select().random)) for _ in range(3)}\n"
        "answer = [len(draws), sorted(len(draw) for draw in draws)]",
    )
    assert answer == [3, [32, 32, 32]]


async def test_heap_is_above_the_floor_of_the_board(site: Site) -> None:
    answer = await asked(
        site, "gc.collect()\nanswer = [gc.mem_free(), gc.mem_alloc(), base.board.HEAP_FLOOR]"
    )
    assert answer[0] > answer[2], answer


async def test_a_sector_is_erased_programmed_and_read_back_within_a_watchdogs_time(
    site: Site,
) -> None:
    # The last sector of the outbox, which is the board's own and may be lost.
    region = site.definition.regions["outbox"]
    at = region.end - site.definition.sector
    tries = 1 if site.target.exclusive else 3
    answer = await asked(
        site,
        f"flash, at, page = port.select().flash(), {at}, bytes(range(256))\n"
        "size = base.board.PAGE\n"
        "page = (page * (size // 256 + 1))[:size]\n"
        "def timed(act, *what):\n"
        "    begin = ticks_ms()\n"
        "    act(*what)\n"
        "    return ticks_diff(ticks_ms(), begin)\n"
        # The same page again changes nothing. A chip takes as long each time; a machine that
        # stands still does so once.
        f"erased = min(timed(flash.erase, at) for _ in range({tries}))\n"
        "blank = bytes(flash.view(at, size)) == b'\\xff' * size\n"
        f"programmed = min(timed(flash.program, at, page) for _ in range({tries}))\n"
        "copy = bytearray(size)\n"
        "flash.read_into(at, copy)\n"
        "same = bytes(flash.view(at, size)) == page and copy == page\n"
        "flash.erase(at)\n"
        "answer = [blank, same, erased, programmed, base.board.WATCHDOG_MS]",
    )
    assert answer[:2] == [True, True]
    # A lease feeds between the two, and a UART link is silent during each.
    assert max(answer[2:4]) < answer[4] / 2, answer


@pytest.mark.needs("runtimes")
async def test_board_comes_back_from_deep_sleep_into_its_confirmed_release(site: Site) -> None:
    former, boots = site.claims(), site.boots()
    with site.board.repl(False, 10 * site.target.patience) as console:
        from contextlib import suppress

        from tidemark_host.boards.base import BoardError

        with suppress(BoardError):  # it is gone in the middle of its answer
            console.exec("import machine\nmachine.deepsleep(500)", 3.0)
    claims = await site.heard(boots)
    assert claims["mode"] == "normal"
    assert claims["image-digest"] == former["image-digest"]
    assert claims["runtime-digest"] == former["runtime-digest"]
