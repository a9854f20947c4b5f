"""What a board does between reset and hand-over when things are not as they should be."""

from __future__ import annotations

import asyncio

import pytest

from tests.system.steps import at_repl, both_slots, digest, overheard
from tidemark_host import provision
from tidemark_host.hil.site import Site
from tidemark_host.provision import ProvisionError

# Every module that stage 0 and the base import, built in or frozen, and both entry points.
HOSTILE = (
    *("_boot", "boot", "main", "os", "time", "json", "hashlib", "binascii", "struct", "socket"),
    *("select", "collections", "math", "gc", "errno", "random", "cryptolib", "micropython", "vfs"),
    *("tidemark", "tidemark_board", "agent", "umqtt", "uctypes", "ffi", "_thread", "asyncio"),
    *("machine", "rp2"),
)


async def test_hostile_files_shadow_no_module_of_the_base(site: Site) -> None:
    code = f"for name in {HOSTILE}:\n with open('/' + name + '.py', 'w') as f:\n  "
    code += "f.write('raise SystemExit')\nimport os\nprint(os.listdir('/'))"
    assert "umqtt.py" in await at_repl(site, code, soft_reset=True)
    boots = site.boots()
    await asyncio.to_thread(site.board.reset)
    assert (await site.heard(boots))["mode"] == "normal"


@pytest.mark.needs("console")
async def test_lost_journal_is_safe_mode_and_nothing_is_sent(site: Site) -> None:
    size = site.definition.regions["journal"].size
    await overheard(site)
    since = len(site.board.serial_log)
    await asyncio.to_thread(site.patch_flash, [("journal", 0, b"\xff" * size)])
    hellos = len(site.capture.of(site.id, "hello"))
    epochs = {epoch for epoch, _ in site.counters()}
    await asyncio.to_thread(site.board.power_on)
    await site.said("safe (state-lost)", 30, since)
    assert await asyncio.to_thread(_refusal, site) == "state-lost"
    assert len(site.capture.of(site.id, "hello")) == hellos
    assert {epoch for epoch, _ in site.counters()} == epochs, "what came late is of the old boot"


def _refusal(site: Site) -> str:
    patience = 10 * site.target.patience
    with site.board.repl(timeout=patience) as console, pytest.raises(ProvisionError) as refused:
        provision.begin(console)
    return refused.value.code


async def test_altered_confirmed_image_is_not_run_and_rescue_takes_an_update(site: Site) -> None:
    await asyncio.to_thread(site.patch_flash, [("slot_a", 4096 + 5000, b"\x00")])
    await asyncio.to_thread(site.board.power_on)
    assert not digest(await site.claimed(mode="rescue", timeout=60))
    index = await site.publish("1.1.0")
    assert await site.outcome(index, 90) == (index, "confirmed", "ok")


async def test_unreadable_slot_state_is_told_by_rescue_and_no_slot_is_written(site: Site) -> None:
    await at_repl(
        site,
        "from tidemark import cbor, stage0\nstage0.base.journal.put('boot', cbor.encode([2]))",
    )
    await asyncio.to_thread(site.board.reset)
    await site.claimed(mode="rescue", timeout=60)
    slots = await both_slots(site)
    await site.publish("1.1.0")
    await site.claimed(update="slots-unknown", timeout=60)
    assert slots == await both_slots(site)
