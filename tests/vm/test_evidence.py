# The evidence ring: numbers, chain, quota of remote events, power cuts.

from nor import BEFORE, TORN, NorFlash, PowerCut
from tidemark.errors import StateError
from tidemark.evidence import (
    REMOTE,
    SECURITY,
    SIZE,
    SLOT,
    SYSTEM,
    Evidence,
    follows,
    is_valid,
    parse,
)
from tidemark.flash import Region

_SECTOR = 512  # 8 records, of which 2 may be remote


def _ring(flash, **more):
    ring = Evidence(Region(flash, 0, flash.size), **more)
    ring.recover()
    return ring


def _flash(sectors=3):
    return NorFlash(sectors * _SECTOR, sector=_SECTOR, page=64)


def _records(ring):
    raw = ring.read(ring.oldest(), 64)
    return [raw[i : i + SIZE] for i in range(0, len(raw), SIZE)]


def _chain_holds(ring):
    """Every record continues the one before it that can be read, or is marked."""
    before = None
    for record in _records(ring):
        parts = parse(record)
        if before is not None:
            assert follows(record, before[9])
            assert parts[8] == (parts[0] != before[0] + 1)
        before = parts
    return before[0] if before else 0


def test_record_holds_what_was_recorded():
    ring = _ring(_flash())
    detail = b"0123456789abcdef"
    number = ring.add("trial-reject", detail, SLOT, 7, 0xFFFFFFFF, 123_456, "watchdog")
    parts = parse(ring.read(number, 1))
    assert parts[:9] == (
        1, SLOT, "trial-reject", b"0123456789abcdef", 7, 0xFFFFFFFF, 123_400, "watchdog", True
    )
    assert ring.head() == (1, parts[9])


def test_long_and_odd_fields_are_cut_to_size():
    ring = _ring(_flash())
    number = ring.add("an-odd-event", bytes(40), SECURITY, 1 << 40, -1, 1 << 50, "storm")
    parts = parse(ring.read(number, 1))
    assert parts[2:5] == ("an-odd-event", bytes(16), 0) and parts[7] == "unknown"
    assert parse(ring.read(ring.add("line\nfeed"), 1))[2] == "invalid"


def test_code_is_recorded_whole_and_takes_its_room_from_the_detail():
    for detail in (b"", b"sixteen bytes \x00.", b"\x00"):
        for size in (1, 12, 13, 23, 24):
            code = "abcdefghijklmnopqrstuvwx"[:size]
            behind = detail if size <= 12 else detail[: max(0, 16 - (size - 12) - 1)]
            ring = _ring(_flash())
            parts = parse(ring.read(ring.add(code, detail, SLOT, cause="watchdog"), 1))
            assert parts[1:4] == (SLOT, code, behind) and parts[7] == "watchdog"


def test_code_of_a_remote_event_is_counted_and_recorded_whole():
    for code, detail, behind in (
        ("timestamp-expired", b"update", b"update"),
        ("timestamp-rollback", b"welcome", b"welco"),
        ("of-twenty-four-letters-x", b"update", b""),
    ):
        ring = _ring(_flash(), coalesce_ms=1000)
        ring.add("boot")
        assert parse(ring.read(ring.add(code, detail, REMOTE), 1))[2:4] == (
            code, b"\x00\x00\x00\x01" + behind
        )
        assert ring.add(code, detail, REMOTE) == 0


def test_codes_that_begin_alike_are_counted_apart():
    ring = _ring(_flash(), coalesce_ms=1000)
    ring.add("boot")
    for code in ("timestamp-expired", "timestamp-missing"):
        assert parse(ring.read(ring.add(code, b"", REMOTE), 1))[2] == code


def test_code_that_no_record_has_room_for_is_invalid():
    ring = _ring(_flash())
    ring.add("boot")
    for kind in (SECURITY, REMOTE):
        assert parse(ring.read(ring.add("c" * 25, b"", kind), 1))[2] == "invalid"


def test_numbers_go_on_over_boots_and_laps():
    flash = _flash()
    for boot in range(20):
        ring = _ring(flash)
        for i in range(3):
            assert ring.add("boot", bytes([boot, i])) == boot * 3 + i + 1
        assert _chain_holds(ring) == boot * 3 + 3
    assert ring.oldest() == 60 - 24 + 5 and len(_records(ring)) == 20


def test_head_is_the_same_after_a_reset():
    flash = _flash()
    ring = _ring(flash)
    assert ring.head() == (0, bytes(16))
    for _ in range(5):
        ring.add("event")
    assert _ring(flash).head() == ring.head() and ring.head()[0] == 5


def test_read_is_bounded_and_skips_what_is_lost():
    ring = _ring(_flash(40))
    for _ in range(100):
        ring.add("event")
    assert len(ring.read(1, 1000)) == 64 * SIZE
    assert ring.read(101, 5) == b"" == ring.read(-5, 3)
    assert len(ring.read(99, 50)) == 2 * SIZE


def test_remote_events_are_counted_and_written_once_in_a_while():
    ring = _ring(_flash(), coalesce_ms=1000)
    ring.add("boot")
    assert ring.add("bad-mac", b"first", REMOTE, uptime_ms=0) == 2
    for i in range(500):
        assert ring.add("bad-mac", b"later", REMOTE, uptime_ms=i) == 0
    assert ring.add("bad-mac", b"last", REMOTE, uptime_ms=1000) == 3
    parts = parse(ring.read(3, 1))
    assert parts[1] == REMOTE and parts[3] == (501).to_bytes(4, "big") + b"last"


def test_poll_writes_counts_that_are_due():
    ring = _ring(_flash(), coalesce_ms=1000)
    ring.add("boot")
    ring.add("bad-mac", b"", REMOTE, uptime_ms=0)
    ring.add("bad-mac", b"", REMOTE, uptime_ms=10)
    ring.poll(500)
    assert ring.head()[0] == 2
    ring.poll(1100)
    assert ring.head()[0] == 3
    ring.poll(99_000)
    assert ring.head()[0] == 3


def test_remote_noise_never_pushes_anything_out():
    flash = _flash()
    ring = _ring(flash, coalesce_ms=1)
    for i in range(24):
        ring.add("slot-event", bytes([i]), SLOT)
    kept = [parse(record)[0] for record in _records(ring)]
    for boot in range(5):
        ring = _ring(flash, coalesce_ms=1)
        for i in range(300):
            ring.add("noise-" + str(i % 40), b"", REMOTE, uptime_ms=i * 10)
        ring.poll(1_000_000)
    assert [parse(record)[0] for record in _records(ring)] == kept


def test_remote_events_get_a_quarter_of_a_sector():
    flash = _flash()
    ring = _ring(flash, coalesce_ms=1)
    ring.add("boot")
    for i in range(100):
        ring.add("noise", b"", REMOTE, uptime_ms=i * 10)
        if i % 30 == 0:
            ring = _ring(flash, coalesce_ms=1)
    kinds = [parse(record)[1] for record in _records(ring)]
    assert kinds == [SYSTEM, REMOTE, REMOTE]
    for _ in range(5):
        assert ring.add("security", b"", SECURITY) == ring.head()[0]
    ring.add("security", b"", SECURITY)
    assert ring.add("noise", b"", REMOTE, uptime_ms=99_000)


def test_every_code_beyond_the_limit_shares_one_count():
    ring = _ring(_flash(), coalesce_ms=1_000_000)
    for i in range(100):
        ring.add("c" + str(i), b"", REMOTE)
    assert len(ring._pending) <= 17


def test_a_cut_at_any_operation_keeps_the_older_records():
    for prior in (0, 3, 7, 8, 24, 31):
        for variant in (BEFORE, TORN):
            for at in range(5):
                flash = _flash()
                ring = _ring(flash)
                for i in range(prior):
                    ring.add("event", bytes([i]))
                kept = _records(ring)
                erasing = prior % 8 == 0 and prior >= 24
                flash.plan_cut(at, variant)
                try:
                    _ring(flash).add("last")
                except PowerCut:
                    pass
                flash.no_cut()
                ring = _ring(flash)
                now = _records(ring)
                assert all(record in now for record in (kept[8:] if erasing else kept))
                assert ring.add("next", b"", SECURITY) > prior
                _chain_holds(ring)
                assert _ring(flash).head() == ring.head()


def test_unreadable_tail_starts_a_marked_segment():
    flash = _flash()
    ring = _ring(flash)
    ring.add("one")
    flash.plan_cut(2, TORN)
    try:
        _ring(flash).add("torn")
        assert False, "no cut"
    except PowerCut:
        pass
    flash.no_cut()
    ring = _ring(flash)
    assert ring.head()[0] == 1
    assert ring.add("after") == 3
    parts = parse(ring.read(3, 1))
    assert parts[8] and follows(ring.read(3, 1), parse(ring.read(1, 1))[9])


def test_altered_record_is_not_read():
    flash = _flash()
    ring = _ring(flash)
    ring.add("event", b"detail", SECURITY)
    record = ring.read(1, 1)
    for i in range(SIZE):
        altered = bytearray(record)
        altered[i] ^= 0x10
        assert not is_valid(altered) or parse(altered) != parse(record)
    for bad in (b"", record[:63], b"\xff" * 64, bytes(64)):
        try:
            parse(bad)
            assert False, "parsed"
        except StateError as error:
            assert error.code == "evidence-record"


def test_worn_ring_counts_what_it_could_not_keep():
    flash = _flash()
    ring = _ring(flash)
    ring.add("one")
    flash.worn = {0, 1, 2}
    assert ring.add("two") == 0 and ring.gaps == 1
    flash.worn = set()
    # Not tried again before the next boot.
    assert ring.add("three") == 0 and ring.gaps == 2
    ring = _ring(flash)
    assert ring.add("four") > 1
    _chain_holds(ring)


class _FadingFlash(NorFlash):
    """A program pushes the marginal cells at `fading` (offsets of bytes) over the edge."""

    fading = ()

    def program(self, addr, data):
        NorFlash.program(self, addr, data)
        for at in self.fading:
            if addr <= at < addr + len(data):
                self._buf[at] &= 0xFE


def _faded(records, fading):
    """(flash, ring of the boot in which the records of these numbers no longer read back)."""
    flash = _FadingFlash(3 * _SECTOR, sector=_SECTOR, page=64)
    ring = _ring(flash)
    for _ in range(records):
        ring.add("event")
    flash.fading = [(number - 1) % 24 * SIZE + 6 for number in fading]
    return flash, _ring(flash)


def test_newest_record_that_does_not_read_back_is_counted_and_not_built_on():
    flash, ring = _faded(3, [3])
    kept = parse(ring.read(2, 1))[9]
    assert ring.head() == (2, kept) and ring.gaps == 1
    assert ring.add("after") == 4
    after = ring.read(4, 1)
    assert parse(after)[8] and follows(after, kept)
    ring = _ring(flash)
    assert ring.head() == (4, parse(after)[9]) and ring.gaps == 0


def test_whole_sector_that_does_not_read_back_leaves_the_one_before():
    _, ring = _faded(16, range(9, 17))
    kept = parse(ring.read(8, 1))[9]
    assert ring.head() == (8, kept) and ring.gaps == 8
    assert ring.add("after") == 17 and follows(ring.read(17, 1), kept)


def test_only_record_that_does_not_read_back_leaves_an_empty_ring():
    _, ring = _faded(1, [1])
    assert ring.head() == (0, bytes(16)) and ring.gaps == 1
    assert ring.add("after") == 2 and follows(ring.read(2, 1), None)


def test_ring_of_which_nothing_reads_back_is_counted_in_bounded_time():
    flash, ring = _faded(24, range(1, 25))
    done = flash.programs
    assert ring.head() == (0, bytes(16)) and ring.gaps == 9
    assert flash.programs - done == 9 and flash.erases == 3
    assert ring.add("after") == 0 and ring.gaps == 10 and flash.erases == 3
