# The outbox: order, acknowledgement, bounds, resets and power cuts.

from nor import BEFORE, IO, TORN, NorFlash, PowerCut
from tidemark.errors import FlashError, StateError
from tidemark.flash import Region
from tidemark.outbox import Outbox

_SECTOR = 1024  # two chunks


def _outbox(flash, guard=None):
    outbox = Outbox(Region(flash, 0, flash.size), guard)
    outbox.recover()
    return outbox


def _flash(sectors=3):
    return NorFlash(sectors * _SECTOR, sector=_SECTOR, page=256)


def _ids(outbox, **more):
    return [entry[1:3] for entry in outbox.pending(limit=1000, **more)]


def _code(call, *args):
    try:
        call(*args)
    except StateError as error:
        return error.code
    return None


def test_readings_come_back_in_order_after_a_reset():
    flash = _flash()
    outbox = _outbox(flash)
    for i in range(5):
        outbox.add(3, outbox.next_index(), bytes([i]) * i)
    for box in (outbox, _outbox(flash)):
        assert len(box) == 5
        assert [entry[1:] for entry in box.pending()] == [
            (3, i + 1, bytes([i]) * i) for i in range(5)
        ]


def test_pending_goes_on_after_a_handle_and_keeps_its_limit():
    outbox = _outbox(_flash())
    handles = [outbox.add(1, i, b"x") for i in range(10)]
    first = outbox.pending(limit=4)
    assert [entry[0] for entry in first] == handles[:4]
    assert [entry[0] for entry in outbox.pending(after=first[-1][0], limit=4)] == handles[4:8]
    assert outbox.pending(after=handles[9]) == [] and outbox.pending(limit=0) == []


def test_acknowledged_reading_is_gone_for_good_and_only_once():
    flash = _flash()
    outbox = _outbox(flash)
    handles = [outbox.add(1, i, b"x") for i in range(6)]
    assert outbox.ack(handles[2]) and not outbox.ack(handles[2])
    assert outbox.ack_id(1, 0) and not outbox.ack_id(1, 0) and not outbox.ack_id(9, 9)
    assert not outbox.ack(12345) and not outbox.ack(0) and not outbox.ack(1 << 40)
    assert not outbox.ack(handles[1] + 1)
    assert len(outbox) == 4 == len(_outbox(flash))
    assert _ids(_outbox(flash)) == [(1, 1), (1, 3), (1, 4), (1, 5)]


def test_live_and_backlog_are_told_apart_by_the_epoch():
    flash = _flash()
    outbox = _outbox(flash)
    outbox.add(1, 1, b"old")
    outbox = _outbox(flash)
    outbox.add(2, 1, b"new")
    assert _ids(outbox, epoch=2, backlog=True) == [(1, 1)]
    assert _ids(outbox, epoch=2, backlog=False) == [(2, 1)]
    assert _ids(outbox) == [(1, 1), (2, 1)]


def test_full_outbox_drops_the_oldest_sector_and_counts():
    flash = _flash()
    outbox = _outbox(flash)
    for i in range(60):
        outbox.add(1, i, bytes(100))
    assert outbox.dropped + len(outbox) == 60 and outbox.dropped > 0
    assert _ids(outbox) == [(1, i) for i in range(outbox.dropped, 60)] == _ids(_outbox(flash))


def test_acknowledged_readings_are_not_counted_as_dropped():
    outbox = _outbox(_flash())
    for i in range(100):
        assert outbox.ack(outbox.add(1, i, bytes(100)))
    assert outbox.dropped == 0 and len(outbox) == 0 and outbox.pending() == []


def test_bounds_of_a_reading():
    flash = _flash()
    outbox = _outbox(flash)
    assert _code(outbox.add, 1, 1, bytes(257)) == "outbox-value"
    assert _code(outbox.add, -1, 1, b"") == "outbox-value"
    assert _code(outbox.add, 1, 1 << 32, b"") == "outbox-value"
    assert flash.operations == 0
    outbox.add(0xFFFFFFFF, 0xFFFFFFFF, bytes(256))
    outbox.add(0, 0, b"")
    assert [entry[1:] for entry in _outbox(flash).pending()] == [
        (0xFFFFFFFF, 0xFFFFFFFF, bytes(256)), (0, 0, b"")
    ]


def test_index_counts_from_one_in_each_boot():
    flash = _flash()
    for _ in range(2):
        outbox = _outbox(flash)
        assert [outbox.next_index() for _ in range(3)] == [1, 2, 3]


def test_many_boots_lose_nothing_while_there_is_room():
    flash = NorFlash(16384)
    waiting = []
    for boot in range(40):
        outbox = _outbox(flash)
        assert _ids(outbox) == waiting and len(outbox) == len(waiting)
        for _ in range(12):
            index = outbox.next_index()
            outbox.add(boot, index, b"r" * (index * 7 % 90))
            waiting.append((boot, index))
        for handle, epoch, index, body in outbox.pending(limit=10):
            assert body == b"r" * (index * 7 % 90) and outbox.ack(handle)
            waiting.remove((epoch, index))
        waiting = waiting[outbox.dropped :]
        assert _ids(outbox) == waiting


def test_a_cut_at_any_operation_loses_no_stored_reading():
    for prior in (0, 1, 7, 14, 15):
        for variant in (BEFORE, TORN):
            for at in range(4):
                flash = _flash()
                outbox = _outbox(flash)
                for i in range(prior):
                    outbox.add(1, i, bytes(40))
                flash.plan_cut(at, variant)
                try:
                    _outbox(flash).add(2, 1, bytes(40))
                except PowerCut:
                    pass
                flash.no_cut()
                outbox = _outbox(flash)
                ids = _ids(outbox)
                assert [one for one in ids if one[0] == 1] == [(1, i) for i in range(prior)]
                outbox.add(3, 1, b"later")
                assert _ids(_outbox(flash)) == ids + [(3, 1)]


def test_a_cut_acknowledgement_leaves_the_reading_or_not():
    for variant in (BEFORE, TORN):
        flash = _flash()
        outbox = _outbox(flash)
        handles = [outbox.add(1, i, b"x") for i in range(3)]
        flash.plan_cut(0, variant, 0, 0xF0)
        try:
            outbox.ack(handles[1])
            assert False, "no cut"
        except PowerCut:
            pass
        flash.no_cut()
        ids = _ids(_outbox(flash))
        assert (1, 0) in ids and (1, 2) in ids


def test_worn_flash_is_reported():
    flash = _flash()
    outbox = _outbox(flash)
    outbox.add(1, 1, b"kept")
    flash.worn = {0, 1, 2}
    assert _code(outbox.add, 1, 2, b"lost") == "outbox-worn"
    flash.worn = set()
    assert _ids(_outbox(flash)) == [(1, 1)]


def test_figures_one_program_a_reading_and_one_an_acknowledgement():
    flash = NorFlash(65536)
    outbox = _outbox(flash)
    for i in range(1000):
        outbox.ack(outbox.add(1, i, bytes(24)))
    # Beyond the two a reading: page crossings, and one claim in 12 readings.
    assert flash.programs < 2350 and flash.erases <= 12


def test_writes_are_bracketed_and_the_bracket_always_closes():
    calls = []
    flash = _flash()
    outbox = _outbox(flash, calls.append)
    outbox.ack(outbox.add(1, 1, b"x"))
    assert calls == [False, True] * 2
    flash.worn = {0, 1, 2}
    assert _code(outbox.add, 1, 2, b"x") == "outbox-worn"
    assert calls == [False, True] * 3


def _refuse_erase(flash, sector):
    """The driver reports that `sector` was not erased; a program there would work."""
    erase = flash.erase

    def refuse(addr):
        if addr == sector * flash.sector:
            raise FlashError("flash-io", "refused")
        erase(addr)

    flash.erase = refuse


def test_sector_whose_erase_is_reported_to_fail_is_left():
    flash = _flash()
    outbox = _outbox(flash)
    _refuse_erase(flash, 1)
    stored = 0
    for index in range(40):
        if _code(outbox.add, 1, index, bytes(24)) is None:
            stored += 1
        if outbox.dropped > 2:
            break
    assert bytes(flash.view(_SECTOR, _SECTOR)) == b"\xff" * _SECTOR
    assert stored > 30 and len(_outbox(flash)) == len(outbox)


def test_acknowledgement_that_the_driver_refuses_is_none():
    flash = _flash()
    outbox = _outbox(flash)
    handle = outbox.add(1, 1, b"kept")
    flash.fail(0, IO)
    assert not outbox.ack(handle) and len(outbox) == 1


def test_nothing_is_written_before_what_waits_is_known():
    flash = _flash()
    outbox = _outbox(flash)
    for i in range(5):
        outbox.add(3, i, b"waits")
    unread = Outbox(Region(flash, 0, flash.size))
    assert _code(unread.add, 4, 0, b"new") == "outbox-worn"
    assert _ids(_outbox(flash)) == [(3, i) for i in range(5)]
    unread.recover()
    unread.add(4, 0, b"new")
    assert _ids(_outbox(flash)) == [(3, i) for i in range(5)] + [(4, 0)]


def test_nothing_is_written_behind_half_a_recovery():
    flash = _flash()
    outbox = _outbox(flash)
    for i in range(5):
        outbox.add(3, i, b"waits")
    again = _outbox(flash)
    view = flash.view

    def fails(off, n):
        raise FlashError("flash-io", "no answer")

    flash.view = fails
    try:
        again.recover()
        raise AssertionError("was read")
    except FlashError as error:
        assert error.code == "flash-io"
    finally:
        flash.view = view
    assert not len(again) and not _ids(again)
    assert _code(again.add, 4, 0, b"new") == "outbox-worn"
    assert _ids(_outbox(flash)) == [(3, i) for i in range(5)]
