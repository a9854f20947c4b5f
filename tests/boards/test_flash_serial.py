"""Flashing a board at a serial port: into its boot ROM, what is skipped, what is refused."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.boards.conftest import Desk, DeskRepl
from tests.boards.usb_serial import wait
from tests.conftest import REPO
from tidemark_host import bootsel, provision, remote
from tidemark_host.boardfile import Board, load_board
from tidemark_host.boards.repl import Repl
from tidemark_host.bootsel import DriveError
from tidemark_host.discovery import Found
from tidemark_host.flashing import (
    STATE,
    FlashingError,
    Image,
    flash_drive,
    flash_rp2,
    read_image,
)
from tidemark_host.uf2_file import encode

LINK = provision.LinkSettings("127.0.0.1", 1, "http://127.0.0.1:1/m/", "http://127.0.0.1:1/t/")
BY_SERIAL = "E66038B713952A31"


def found(desk: Desk) -> Found:
    return Found(desk.port.device, BY_SERIAL)


def own(desk: Desk) -> str:
    """Provision the board; return its id."""
    anchors = provision.Anchors(desk.repository.root_bytes(), bytes(range(32)))
    plugs = desk.usb.plugs
    with DeskRepl(desk.port.device) as console:
        born = provision.begin(console)
        provision.finish(console, anchors, LINK)
        console.exec("from tidemark import provision; provision.leave()")
    desk.usb.wait_replugged(plugs)
    return born.id


def test_blank_board_is_flashed_through_its_boot_rom_and_asked_afterwards(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    outcome = flash_rp2(found(desk), desk.image, desk.bench)
    assert (outcome.how, outcome.skipped, outcome.verified) == ("drive", False, True)
    assert desk.rom.flashed == 1
    for offset, content in desk.image.parts.items():
        assert desk.board.read_flash(offset, len(content)) == content
    assert own(desk)  # the release that was flashed is confirmed under its root


def test_one_board_at_a_time_is_in_its_boot_rom_until_it_was_asked(desk: Desk) -> None:
    seen: list[tuple[str, int]] = []
    drives = desk.bench.drives

    def look() -> list[bootsel.Drive]:
        seen.append(("looked", desk.rom.flashed))
        return drives()

    @contextmanager
    def lock() -> Iterator[None]:
        seen.append(("locked", desk.rom.flashed))
        yield
        seen.append(("free", desk.rom.flashed))

    wait(desk.usb.path.exists, "port")
    desk.bench.drives, desk.bench.lock = look, lock
    assert flash_rp2(found(desk), desk.image, desk.bench).verified
    assert (seen[0], seen[-1]) == (("locked", 0), ("free", 1))
    assert ("looked", 0) in seen[1:-1]


def test_what_other_firmware_left_in_the_regions_of_our_state_is_erased(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    with desk.board.flash_path.open("r+b") as flash:
        for name in STATE:
            flash.seek(desk.definition.regions[name].offset)
            flash.write(b"littlefs" * 1024)

    class Foreign(DeskRepl):
        """Until it is flashed the board runs nothing of ours."""

        def __init__(self, console_path: str) -> None:
            super().__init__(console_path)
            if not desk.rom.flashed:
                self.exec("import sys\nsys.modules['tidemark_board'] = None")

    desk.bench.open = Foreign
    assert flash_rp2(found(desk), desk.image, desk.bench).verified
    assert own(desk)


def test_board_that_holds_the_image_is_left_alone(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    flash_rp2(found(desk), desk.image, desk.bench)
    starts = len(desk.board.resets)
    outcome = flash_rp2(found(desk), desk.image, desk.bench)
    assert (outcome.how, outcome.skipped) == ("none", True)
    assert desk.rom.flashed == 1
    assert len(desk.board.resets) == starts


def test_used_board_keeps_its_key_unless_it_is_asked_for_twice(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    flash_rp2(found(desk), desk.image, desk.bench)
    former = own(desk)
    other = Image(desk.definition, {**desk.image.parts, 0: bytes(4096)})
    plugs = desk.usb.plugs
    with pytest.raises(FlashingError) as refused:
        flash_rp2(found(desk), other, desk.bench)
    assert refused.value.code == "used"
    assert desk.rom.flashed == 1
    # It was interrupted to be asked, and goes on with its work.
    desk.usb.wait_replugged(plugs)

    runtime = Image(desk.definition, {0: bytes(4096)})
    assert runtime.runtime_only
    plugs = desk.usb.plugs
    flash_rp2(found(desk), runtime, desk.bench)
    # It came back from its boot ROM, and once it was asked it resets to go on with its work.
    desk.usb.wait_replugged(plugs + 1)
    plugs = desk.usb.plugs
    with DeskRepl(desk.port.device) as console:
        assert provision.begin(console).id == former
        remote.resume(console)
    desk.usb.wait_replugged(plugs)

    assert flash_rp2(found(desk), desk.image, desk.bench, force=True).verified
    provisioning = desk.definition.regions["provisioning"]
    assert desk.board.read_flash(provisioning.offset, provisioning.size).strip(b"\xff") == b""
    with DeskRepl(desk.port.device) as console:
        assert not remote.ask(console).used
    assert own(desk) != former


def test_answer_that_is_lost_as_the_board_leaves_is_no_failure(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resets half a second after it was asked, whoever has not read its answer by then."""
    wait(desk.usb.path.exists, "port")
    flash_rp2(found(desk), desk.image, desk.bench)
    own(desk)
    asks, late = Repl.exec, 0.0

    def exec_late(repl: Repl, code: str, timeout: float = 10.0) -> str:
        nonlocal late
        follow = repl._transport.follow  # pyright: ignore[reportPrivateUsage]

        def slow(*words: Any) -> Any:
            time.sleep(late)
            return follow(*words)

        late = 1.5 if "lease(500" in code else 0.0
        monkeypatch.setattr(repl._transport, "follow", slow)  # pyright: ignore[reportPrivateUsage]
        return asks(repl, code, timeout)

    monkeypatch.setattr(Repl, "exec", exec_late)
    plugs = desk.usb.plugs
    runtime = Image(desk.definition, {0: bytes(4096)})
    assert flash_rp2(found(desk), runtime, desk.bench).verified
    desk.usb.wait_replugged(plugs + 1)


class Posing(DeskRepl):
    """Until it is flashed, the board says that it is another one."""

    name = "TIDEMARK_PICO_W"

    def __init__(self, desk: Desk, console_path: str) -> None:
        super().__init__(console_path)
        if not desk.rom.flashed:
            self.exec(f"import tidemark_board\ntidemark_board.NAME = {self.name!r}")


@pytest.fixture
def posing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose board says that it is a Pico W, and has left the Pico W's key."""
    wait(desk.usb.path.exists, "port")
    monkeypatch.setattr(desk.bench, "open", lambda path: Posing(desk, path))
    with desk.board.flash_path.open("r+b") as flash:
        for name in STATE:
            flash.seek(load(Posing.name).regions[name].offset)
            flash.write(b"the former's own")
    return desk


def load(name: str) -> Board:
    return load_board(REPO / "boards" / name / "board.toml")


def refused_as(code: str, desk: Desk, image: Image, force: bool = True) -> str:
    plugs = desk.usb.plugs
    with pytest.raises(FlashingError) as refused:
        flash_rp2(found(desk), image, desk.bench, force=force)
    assert refused.value.code == code
    assert desk.rom.flashed == 0
    assert desk.usb.plugs == plugs
    return str(refused.value)


def test_board_becomes_another_one_by_force_and_keeps_no_key_of_the_former(posing: Desk) -> None:
    assert "--force" in refused_as("wrong-board", posing, posing.image, force=False)
    assert flash_rp2(found(posing), posing.image, posing.bench, force=True).verified
    assert b"the former's own" not in posing.board.flash_path.read_bytes()
    assert own(posing)


def test_no_force_puts_a_runtime_over_another_boards_key(posing: Desk) -> None:
    runtime = Image(posing.definition, {0: bytes(4096)})
    for force in (False, True):
        said = refused_as("wrong-board", posing, runtime, force)
        assert "--runtime --board TIDEMARK_PICO_W" in said
        assert "--force" not in said


def test_no_force_makes_a_board_that_nobody_can_find_the_key_of(
    posing: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Posing, "name", "SOMEBODY_S")
    assert "boards/" in refused_as("wrong-board", posing, posing.image)


def test_no_force_puts_an_image_on_another_chip_or_a_smaller_flash(
    posing: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for force in (False, True):
        large = dataclasses.replace(posing.definition, flash_size=4 << 20)
        refused_as("wrong-flash", posing, Image(large, posing.image.parts), force)
    monkeypatch.setattr(Posing, "name", "TIDEMARK_PICO2")
    for force in (False, True):
        refused_as("wrong-chip", posing, posing.image, force)


def test_flash_that_does_not_hold_what_was_written_is_reported(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    write = desk.board.flash_path

    class Worn(DeskRepl):
        """The board that comes back has lost a bit."""

        def __init__(self, console_path: str) -> None:
            super().__init__(console_path)
            if desk.rom.flashed:
                with write.open("r+b") as flash:
                    flash.seek(100)
                    flash.write(b"\0")

    desk.bench.open = Worn
    with pytest.raises(FlashingError) as refused:
        flash_rp2(found(desk), desk.image, desk.bench)
    assert refused.value.code == "verify"


def test_board_that_stays_away_is_reported_within_bounds(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    desk.bench.back_s = 0.2
    with pytest.raises(FlashingError) as refused:
        flash_rp2(Found(desk.port.device, "0000"), desk.image, desk.bench)
    assert refused.value.code == "gone"


def test_board_without_a_number_of_its_own_is_found_again_by_its_place(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    mine = dataclasses.replace(desk.port, serial_number=None, location="1-2")
    other = dataclasses.replace(mine, device="/dev/nothing", location="1-1")
    desk.bench.ports = lambda: [other, mine] if desk.usb.path.exists() else [other]
    known = Found(mine.device, location="1-2", by_location=True)
    assert flash_rp2(known, desk.image, desk.bench).port == mine.device


def test_two_boards_of_one_number_after_flashing_are_a_question(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    twin = dataclasses.replace(desk.port, device="/dev/nothing")
    desk.bench.ports = lambda: [twin, desk.port]
    with pytest.raises(FlashingError, match="/dev/nothing") as refused:
        flash_rp2(found(desk), desk.image, desk.bench)
    assert refused.value.code == "several"


def test_another_board_that_waits_in_its_boot_rom_is_not_flashed_in_its_place(
    desk: Desk, tmp_path: Path
) -> None:
    wait(desk.usb.path.exists, "port")
    other = tmp_path / "other"
    other.mkdir()
    (other / "INFO_UF2.TXT").write_text(f"Board-ID: {desk.definition.chip.drive}\n")
    desk.bench.drives = lambda: bootsel.drives([other, desk.rom.folder])
    with pytest.raises(FlashingError, match=str(other)) as refused:
        flash_rp2(found(desk), desk.image, desk.bench, force=True)
    assert refused.value.code == "other-drive"
    assert [path.name for path in other.iterdir()] == ["INFO_UF2.TXT"]
    assert not desk.rom.folder.exists(), "the board was left where it was"


def test_drive_of_a_held_button_is_flashed_without_a_question(desk: Desk) -> None:
    desk.rom.appear()
    assert flash_drive(desk.image, desk.bench) == "drive"
    wait(lambda: desk.rom.flashed == 1, "flashing")
    # Only what the image names is erased: whatever the board had written itself is still there.
    state = desk.definition.regions["journal"]
    assert not [at for at in desk.rom.erased if state.offset <= at < state.end]


def test_without_a_drive_picotool_does_it_and_without_both_the_way_is_said(
    desk: Desk, tmp_path: Path
) -> None:
    desk.bench.drive_s = desk.bench.picotool_after_s = 0.1
    with pytest.raises(FlashingError, match="picotool") as refused:
        flash_drive(desk.image, desk.bench)
    assert refused.value.code == "no-drive"
    program, log = tmp_path / "picotool", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "$1 $2 $3" > {log}\ncp "$4" {log}.uf2\n')
    program.chmod(0o755)
    desk.bench.which = lambda name: str(program)
    assert flash_drive(desk.image, desk.bench) == "picotool"
    assert log.read_text() == "load -v -x\n"
    written = Path(f"{log}.uf2").read_bytes()
    assert written == encode(desk.image.parts, desk.definition.chip)
    program.write_text("#!/bin/sh\necho No accessible devices >&2\nexit 249\n")
    with pytest.raises(FlashingError, match="No accessible devices"):
        flash_drive(desk.image, desk.bench)


def test_drive_of_another_chip_is_refused(desk: Desk) -> None:
    from tidemark_host.chips import CHIPS

    desk.rom.appear()
    board = dataclasses.replace(desk.definition, chip=CHIPS["rp2350"])
    with pytest.raises(DriveError) as refused:
        flash_drive(Image(board, desk.image.parts), desk.bench)
    assert refused.value.code == "wrong-chip"


def test_image_files_are_read_as_uf2_or_raw_and_bounded(desk: Desk, tmp_path: Path) -> None:
    whole = tmp_path / "factory.uf2"
    whole.write_bytes(encode(desk.image.parts, desk.definition.chip))
    assert read_image(whole, desk.definition).digest == desk.image.digest
    for content in (b"", bytes(desk.definition.flash_size + 1)):
        raw = tmp_path / "flash.bin"
        raw.write_bytes(content)
        with pytest.raises(FlashingError):
            read_image(raw, desk.definition)


def test_board_that_resets_while_it_is_asked_gets_another_chance(desk: Desk) -> None:
    wait(desk.usb.path.exists, "port")
    resets: list[str] = []

    class Resetting(DeskRepl):
        """The first time somebody connects, the board resets."""

        def __init__(self, console_path: str) -> None:
            if not resets:
                resets.append(console_path)
                desk.board.power_off()
                wait(lambda: not desk.usb.path.is_symlink(), "unplugging")
            try:
                super().__init__(console_path)
            finally:
                desk.board.power_on()

    desk.bench.open = Resetting
    assert flash_rp2(found(desk), desk.image, desk.bench).verified
    assert resets
