# Whole update runs: which release is taken, and which is refused before a byte of it is asked for.

from tuf_maker import NOW, key
from update_rig import BOARD, SECTORS, Rig, content

from tidemark import image
from tidemark.slots import CONFIRMED, EMPTY, STAGED
from tidemark.target import app_path


def test_newer_release_ends_up_staged_in_the_other_slot():
    rig = Rig()
    url = rig.offer(2)
    assert rig.run() == "staged"
    assert rig.slots.table() == [[CONFIRMED, 1, 0], [STAGED, 2, 0]]
    assert rig.downloads() == [(url, 0)]
    assert bytes(rig.regions[1].view(image.HEADER_SIZE, 40000)) == content(2)
    rig.boot()
    rig.check()
    assert rig.run() == "staged"
    assert len(rig.downloads()) == 1


def test_nothing_newer_is_current_and_nothing_at_all_is_none():
    rig = Rig()
    rig.publish()
    assert rig.run() == "none"
    rig.offer(1)
    operations = rig.flash.operations
    assert rig.run() == "current"
    assert rig.slots.table()[1] == [EMPTY, 0, 0]
    assert rig.downloads() == []
    assert rig.flash.operations - operations < 20  # marks alone


def test_odd_sizes_end_up_whole():
    for size in (1, 255, 4096, 4097, 16384, 16385, (SECTORS - 1) * 4096):
        rig = Rig()
        rig.offer(2, content(2, size))
        assert rig.run() == "staged", size


def test_image_that_does_not_fit_is_refused_before_a_byte_is_asked_for():
    rig = Rig()
    rig.offer(2, content(2, (SECTORS - 1) * 4096 + 1))
    assert rig.run() == "target-too-large"
    assert rig.downloads() == [] and rig.slots.state(1) == EMPTY


def test_older_signed_release_is_refused():
    rig = Rig()
    rig.offer(2)
    rig.run()
    rig.slots.choose()
    rig.slots.confirm()
    del rig.maker.targets[app_path(BOARD, 2)]
    rig.offer(1, content(99))
    for _ in rig.updater.run(NOW):
        pass
    assert rig.updater.outcome == "below-floor"
    assert rig.slots.table()[1] == [CONFIRMED, 2, 0]


def test_release_for_another_board_is_refused():
    rig = Rig()
    rig.offer(2, board="PICO")
    assert rig.run() == "wrong-board"
    assert rig.downloads() == []


def test_wrongly_signed_release_is_refused():
    rig = Rig()
    rig.maker.keys["targets"] = [key("thief")]
    rig.offer(2)
    assert rig.run() == "targets-threshold"
    assert rig.downloads() == [] and rig.slots.state(1) == EMPTY


def test_old_metadata_from_a_mirror_is_refused():
    rig = Rig()
    rig.offer(2)
    old = rig.peer.files["/metadata/timestamp.json"]
    rig.offer(3)
    rig.run()
    rig.peer.files["/metadata/timestamp.json"] = old
    assert rig.run() == "timestamp-rollback"


def test_aborted_release_is_dropped_from_its_slot():
    rig = Rig()
    rig.offer(2)
    rig.run()
    rig.maker.targets[app_path(BOARD, 2)]["custom"]["abort"] = True
    rig.publish()
    assert rig.run() == "none"
    assert rig.slots.state(1) == EMPTY


def test_without_time_nothing_is_downloaded():
    rig = Rig()
    rig.offer(2)
    rig.now = None
    assert rig.run() == "no-time"
    assert rig.downloads() == []
