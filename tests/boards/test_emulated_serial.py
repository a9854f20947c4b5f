"""The factory image of `make firmware` on the emulated Pico, as a person would use a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tidemark_host import provision, remote, toolchain_build
from tidemark_host.boards.emulated_board import EmulatedBoard
from tidemark_host.cli.evidence import command as evidence
from tidemark_host.firmware import make_firmware
from tidemark_host.flashing import read_image
from tidemark_host.release import KeyStore, Repository
from tidemark_host.toolchain_cache import REPO

BOARD = "TIDEMARK_PICO"
LINK = provision.LinkSettings("127.0.0.1", 1, "http://127.0.0.1:1/m/", "http://127.0.0.1:1/t/")


@pytest.mark.timeout(1200)  # the first one compiles the runtime
def test_flashed_board_works_at_once_and_tells_what_happened_to_it() -> None:
    report = make_firmware(BOARD)
    board = toolchain_build.board_of(BOARD)
    image = read_image(REPO / "build" / BOARD / "factory.uf2", board)
    flash = bytearray(b"\xff" * board.flash_size)
    for offset, content in image.parts.items():
        flash[offset : offset + len(content)] = content
    repository = Repository.open(report.signed.repository, KeyStore(Path("no-keys")))
    with EmulatedBoard() as pico:
        pico.flash(bytes(flash))
        pico.power_on()
        pico.serial_log.wait_for("not provisioned", 60)
        with pico.repl(timeout=60) as console:
            facts = remote.ask(console)
            assert (facts.board, facts.runtime) == (BOARD, report.runtime)
            assert not facts.used
            # Hashed by the chip's own code, in place: `tidemark flash` would skip it.
            assert remote.digest(console, image.spans) == image.digest
            born = provision.begin(console)
            anchors = provision.Anchors(repository.root_bytes(), bytes(range(32)))
            assert provision.finish(console, anchors, LINK)["index"] == report.signed.index
            assert born.board == BOARD
            console.exec("provision.leave()")
        pico.serial_log.wait_for(f"slot a, release {report.signed.index}", 60)
        resets = len(pico.resets)
        told = CliRunner().invoke(evidence, [pico.console_path])
        assert told.exit_code == 0, told.output
        assert told.output.startswith("last reset: deliberate, after provisioning;")
        assert "the hash chain holds" in told.output
        pico.wait_reset("reset", 60, since=resets)
        assert not pico.violations
