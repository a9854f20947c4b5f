"""The inventory file: ids are hashes of keys, changes are whole, bad files change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway.parts import Site
from tidemark_host.inventory import Device, Inventory, InventoryError
from tidemark_host.protocol import key_id


def test_enrolled_device_is_there_for_another_reader(tmp_path: Path):
    path = tmp_path / "inventory.json"
    watching = Inventory(path)
    assert not watching.reload()
    device = Inventory(path).enroll(b"k" * 32, "PICO", "north pump")
    assert watching.reload()
    assert watching.get(device.id) == device
    assert device.id == key_id(b"k" * 32)
    assert not watching.reload()


def test_the_same_key_again_changes_nothing_and_a_revoked_one_is_refused(tmp_path: Path):
    inventory = Inventory(tmp_path / "inventory.json")
    device = inventory.enroll(b"k" * 32, "PICO")
    assert inventory.enroll(b"k" * 32, "OTHER") == device
    inventory.revoke(device.id)
    with pytest.raises(InventoryError) as error:
        inventory.enroll(b"k" * 32, "PICO")
    assert error.value.code == "revoked"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "0" * 16},
        {"public": "00" * 31},
        {"public": "zz" * 32},
        {"state": "admin"},
        {"nickname": 5},
        {"enrolled_at": True},
        {"unknown": "x"},
        {"cleared": 1.5},
        {"cleared": -1},
        {"cleared": 1 << 64},
    ],
)
def test_an_entry_that_does_not_hold_is_refused_and_the_last_good_file_stays(
    tmp_path: Path, change: dict[str, object]
):
    path = tmp_path / "inventory.json"
    inventory = Inventory(path)
    device = inventory.enroll(b"k" * 32, "PICO")
    document = json.loads(path.read_text())
    document["devices"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(InventoryError):
        inventory.reload()
    assert inventory.get(device.id) == device


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2, "devices": []}', "[" * 100_000])
def test_a_file_that_is_no_inventory_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "inventory.json"
    path.write_text(text)
    with pytest.raises(InventoryError):
        Inventory(path)


def test_an_entry_with_a_clearance_by_time_is_read_and_clears_nothing(tmp_path: Path):
    path = tmp_path / "inventory.json"
    device = Inventory(path).enroll(b"k" * 32, "PICO")
    document = json.loads(path.read_text())
    del document["devices"][0]["cleared"]
    document["devices"][0]["cleared_at"] = 1_700_000_000.5
    path.write_text(json.dumps(document))
    assert Inventory(path).get(device.id) == device


def test_the_gateway_keeps_serving_when_the_file_breaks(site: Site):
    device = site.device()
    site.inventory.path.write_text("{")
    site.core.tick()
    site.greet(device)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidemark_host", "inventory", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def test_the_command_lists_devices_with_what_the_gateway_knows(site: Site):
    device = site.device()
    device.claims[271] = "[red]2.0[/red]"
    site.greet(device)
    quiet = site.inventory.enroll(b"q" * 32, "PICO", "attic")
    state = ("--state", str(site.path))
    rows = {row["id"]: row for row in json.loads(run(*state, "--json").stdout)}
    assert rows[device.id]["version"] == "[red]2.0[/red]"
    assert rows[quiet.id]["seen"] == "never"
    table = run(*state).stdout
    assert "attic" in table
    assert "[red]2.0[/red]" in table
    (boot,) = json.loads(run(*state, "--events", device.id, "--json").stdout)
    assert boot["kind"] == "boot"


def test_the_command_lifts_a_quarantine_and_says_what_is_wrong(site: Site):
    device = site.device()
    site.greet(device)
    with site.store.transaction():
        site.store.quarantine(device.id, "clone", 0, site.clock.now)
    state = ("--state", str(site.path))
    assert json.loads(run(*state, "--json").stdout)[0]["state"] == "quarantined"
    done = run(*state, "--clear", device.id, "--json")
    assert json.loads(done.stdout)[0]["state"] == "active"
    failed = run(*state, "--clear", "nobody")
    assert failed.returncode == 1
    assert "unknown-device" in failed.stderr


def test_two_commands_at_a_time_lose_nothing_of_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boards provisioned side by side, and one that is revoked meanwhile."""
    path = tmp_path / "inventory.json"
    former = Inventory(path).enroll(b"a" * 32, "PICO")
    put = Inventory._put

    def slowly(inventory: Inventory, device: Device) -> None:
        time.sleep(0.1)  # the others have read the file by now, unless they wait for their turn
        put(inventory, device)

    monkeypatch.setattr(Inventory, "_put", slowly)
    acts: list[Callable[[], object]] = [
        lambda: Inventory(path).revoke(former.id),
        *(lambda n=n: Inventory(path).enroll(bytes([n]) * 32, "PICO") for n in range(4)),
    ]
    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act) for act in acts]:
            done.result(30)
    found = Inventory(path)
    assert len(found) == 5
    assert [device.id for device in found if device.state == "revoked"] == [former.id]
