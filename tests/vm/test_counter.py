# The counter's contract in words; tests/powercut searches its rules exhaustively.

from nor import BEFORE, TORN, NorFlash, PowerCut
from tidemark.counter import Counter
from tidemark.errors import StateError
from tidemark.flash import Region


def _code(call, *args):
    try:
        call(*args)
    except StateError as error:
        return error.code
    return None


def _region(sectors=2, sector=256, flash=None):
    flash = flash or NorFlash(sectors * sector, sector=sector, page=64)
    return Region(flash, 0, flash.size)


def test_epochs_rise_by_one_a_boot_through_many_laps():
    region = _region()
    for boot in range(100):
        counter = Counter(region)
        assert counter.recover() == boot and counter.epoch == 0
        assert counter.open_epoch() == boot + 1 == counter.open_epoch() == counter.epoch


def test_recover_alone_writes_nothing():
    flash = NorFlash(512, sector=256, page=64)
    region = _region(flash=flash)
    Counter(region).open_epoch()
    done = flash.operations
    assert Counter(region).recover() == 1 and flash.operations == done


def test_each_space_counts_by_itself_from_one():
    counter = Counter(_region())
    assert _code(counter.next, 0) == "counter-closed"
    counter.open_epoch()
    assert counter.next(0) == (1, 4) and counter.next(0) == (1, 8)
    assert counter.next(2) == (1, 6) and counter.next(1) == (1, 5) and counter.next(0) == (1, 12)
    assert _code(counter.next, 4) == _code(counter.next, -1) == "counter-space"


def test_spent_sequence_is_refused_and_stays_so():
    counter = Counter(_region())
    counter.open_epoch()
    counter._seq[1] = (1 << 30) - 2
    assert counter.next(1) == (1, ((1 << 30) - 1) << 2 | 1)
    assert _code(counter.next, 1) == _code(counter.next, 1) == "seq-exhausted"
    assert counter.next(0) == (1, 4)


def test_worn_flash_refuses_for_the_rest_of_the_boot():
    flash = NorFlash(512, sector=256, page=64)
    region = _region(flash=flash)
    assert Counter(region).open_epoch() == 1
    flash.worn = {0, 1}
    counter = Counter(region)
    assert _code(counter.open_epoch) == "counter-worn"
    flash.worn = set()
    assert _code(counter.open_epoch) == "counter-worn" and counter.epoch == 0
    assert _code(counter.next, 0) == "counter-closed"


def test_worn_slots_are_passed_over():
    flash = NorFlash(768, sector=256, page=64)
    region = _region(flash=flash)
    for _ in range(16):
        last = Counter(region).open_epoch()
    flash.worn = {1}
    assert Counter(region).open_epoch() > last


def test_a_cut_write_never_leads_to_the_same_epoch():
    for at in range(3):
        for variant in (BEFORE, TORN):
            flash = NorFlash(512, sector=256, page=64)
            region = _region(flash=flash)
            for _ in range(16):
                last = Counter(region).open_epoch()
            flash.plan_cut(at, variant)
            try:
                Counter(region).open_epoch()
                assert False, "no cut"
            except PowerCut:
                pass
            flash.no_cut()
            assert Counter(region).open_epoch() > last


def test_failed_write_leaves_no_promise_behind():
    flash = NorFlash(512, sector=256, page=64)
    counter = Counter(_region(flash=flash))
    flash.plan_cut(1, BEFORE)
    try:
        counter.open_epoch()
        assert False, "no cut"
    except PowerCut:
        pass
    flash.no_cut()
    assert counter.epoch == 0 and _code(counter.open_epoch) == "counter-worn"


def test_writes_are_bracketed_and_the_bracket_always_closes():
    calls = []
    flash = NorFlash(512, sector=256, page=64)
    counter = Counter(_region(flash=flash), calls.append)
    counter.recover()
    assert calls == []
    counter.open_epoch()
    assert calls == [False, True]
    flash.worn = {0, 1}
    assert _code(Counter(_region(flash=flash), calls.append).open_epoch) == "counter-worn"
    assert calls == [False, True] * 2


def test_one_program_a_boot_and_one_erase_a_sector():
    flash = NorFlash(8192)
    region = _region(flash=flash)
    for _ in range(512):
        Counter(region).open_epoch()
    # The record itself, the affirmation of the one before it, four slots cleared before an erase.
    assert flash.erases == 2 and flash.programs == 512 + 511 + 2 * 4


def test_one_sector_is_refused():
    flash = NorFlash(256, sector=256, page=64)
    assert _code(Counter, Region(flash, 0, 256)) == "counter-region"
