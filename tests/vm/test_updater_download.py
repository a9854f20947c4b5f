# Whole update runs: how an image comes into its slot, from mirrors that lie or break off, onto
# flash that wears out, through power cuts.

from http_peer import head
from tuf_maker import NOW
from update_rig import BOARD, SECTORS, Rig, content

from nor import AFTER, BEFORE, DEAD, FAULTS, FEW_BITS, NO_PROGRAM, STUCK_1, TORN, PowerCut
from tidemark import image
from tidemark.errors import ImageError
from tidemark.slots import EMPTY, WRITING
from tidemark.target import app_path


def test_wrong_bytes_are_the_mirrors_fault_and_the_next_run_starts_over():
    rig = Rig()
    url = rig.offer(2)
    good = rig.peer.files[url]
    rig.peer.files[url] = good[:20000] + b"!" + good[20001:]
    assert rig.run() == "target-hash"
    assert rig.slots.state(1) == WRITING
    rig.peer.files[url] = good
    assert rig.run() == "staged"
    assert rig.downloads() == [(url, 0), (url, 0)]


def test_longer_and_shorter_files_are_refused_without_an_erase():
    rig = Rig()
    url = rig.offer(2)
    for data in (content(2) + b"x", content(2)[:-1], b""):
        rig.peer.files[url] = data
        erases = rig.flash.erases
        assert rig.run() == "http-length"
        assert rig.flash.erases == erases


def test_missing_file_is_refused_without_an_erase():
    rig = Rig()
    del rig.peer.files[rig.offer(2)]
    erases = rig.flash.erases
    assert rig.run() == "target-missing"
    assert rig.flash.erases == erases


def test_broken_download_goes_on_where_it_was():
    rig = Rig()
    url = rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 22000)
    assert rig.run() == "closed"
    rig.peer.answer = None
    rig.boot()
    assert rig.run() == "staged"
    assert rig.downloads() == [(url, 0), (url, 20480)]


def _cut_targets(peer, size):
    """Answers for images break off `size` bytes behind where they start."""

    def answer(path, start):
        if not path.startswith("/targets/"):
            return None
        data = peer.files[path]
        spans = "Content-Range: bytes %d-%d/%d" % (start, len(data) - 1, len(data))
        status = "206 Partial Content" if start else "200 OK"
        fields = [spans] if start else []
        return head(status, len(data) - start, *fields) + data[start : start + size]

    return answer


def test_server_that_ignores_range_is_skipped_forward():
    rig = Rig()
    url = rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 22000)
    rig.run()
    rig.peer.answer = None
    rig.peer.ranges = False
    erases = rig.flash.erases
    assert rig.run() == "staged"
    assert rig.downloads()[1] == (url, 20480)
    # 20480 bytes were kept: five sectors of the image and the header are erased, no more.
    assert rig.flash.erases - erases <= 5 + 1 + 1


def test_resumed_download_hashes_what_the_slot_holds():
    rig = Rig()
    rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 22000)
    rig.run()
    rig.peer.answer = None
    rig.regions[1].erase(2)  # a sector that counted as good
    rig.boot()
    assert rig.run() == "target-hash"
    assert rig.run() == "staged"


def test_other_release_meanwhile_starts_over():
    rig = Rig()
    rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 22000)
    rig.run()
    rig.peer.answer = None
    url = rig.offer(3)
    assert rig.run() == "staged"
    assert rig.downloads()[-1] == (url, 0)
    assert rig.slots.release(1).index == 3


def test_slot_that_was_given_up_is_written_anew():
    # The mark says "good to the end", but it speaks of a slot that holds something else by now.
    rig = Rig()
    url = rig.offer(2)
    rig.run()
    rig.maker.targets[app_path(BOARD, 2)]["custom"]["abort"] = True
    rig.publish()
    rig.run()
    assert rig.slots.state(1) == EMPTY
    for sector in range(SECTORS):
        rig.regions[1].erase(sector)
    rig.maker.targets[app_path(BOARD, 2)]["custom"]["abort"] = False
    rig.publish()
    assert rig.run() == "staged"
    assert rig.downloads() == [(url, 0), (url, 0)]


def test_slot_is_erased_for_a_digest_at_most_four_times_a_day():
    rig = Rig()
    url = rig.offer(2)
    good = rig.peer.files[url]
    rig.peer.files[url] = b"!" + good[1:]
    for _ in range(4):
        assert rig.run() == "target-hash"
    erases = rig.flash.erases
    assert rig.run() == "erase-limit"
    rig.boot()
    assert rig.run() == "erase-limit"
    assert rig.flash.erases - erases < 4  # the journal's own
    rig.uptime = 86400
    rig.peer.files[url] = good
    assert rig.run() == "staged"


def test_resets_do_not_shorten_the_day():
    rig = Rig()
    url = rig.offer(2)
    good = rig.peer.files[url]
    rig.peer.files[url] = b"!" + good[1:]
    for _ in range(4):
        rig.run()
    for _ in range(30):
        rig.uptime = 0
        rig.boot()
        assert rig.run() == "erase-limit"
    # Days of 12 hours of uptime: the hours add up, but for what each reset swallows.
    for day in range(3):
        rig.uptime = 0
        rig.boot()
        outcomes = []
        for hour in range(13):
            rig.uptime = hour * 3600
            outcomes.append(rig.run())
        if "target-hash" in outcomes:
            break
    assert day in (1, 2) and outcomes.index("target-hash") > 0


def test_mirror_that_always_breaks_off_wears_nothing_out():
    rig = Rig()
    rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 3000)
    outcomes = [rig.run() for _ in range(12)]
    assert outcomes == ["closed"] * 4 + ["erase-limit"] * 8
    rig = Rig()
    rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 5000)
    assert rig.run() == "closed"
    rig.peer.answer = _cut_targets(rig.peer, 3000)
    outcomes = [rig.run() for _ in range(12)]
    assert outcomes == ["closed"] * 7 + ["erase-limit"] * 5


def test_slow_but_steady_mirror_gets_there():
    rig = Rig()
    rig.offer(2)
    rig.peer.answer = _cut_targets(rig.peer, 5000)
    outcomes = [rig.run() for _ in range(10)]
    assert outcomes == ["closed"] * 9 + ["staged"]


def test_nothing_holds_the_loop_between_two_turns():
    rig = Rig()
    rig.offer(2)
    longest = operations = 0
    before = rig.flash.operations
    for _ in rig.updater.run(NOW):
        operations = rig.flash.operations - before
        before = rig.flash.operations
        longest = max(longest, operations)
    assert rig.updater.outcome == "staged"
    # 4 pages of image, or a few pages of journal: far below one sector's worth.
    assert longest <= 24, longest


def test_power_cut_anywhere_in_a_run_ends_in_a_staged_image():
    rig = Rig()
    rig.offer(2, content(2, 20000))
    start = rig.flash.snapshot()
    files = dict(rig.store.files)
    before = rig.flash.operations
    assert rig.run() == "staged"
    total = rig.flash.operations - before
    assert total > 80
    for variant in (BEFORE, TORN, AFTER):
        for at in range({BEFORE: 0, TORN: 1, AFTER: 2}[variant], total, 11):
            rig.flash.restore(start)
            rig.store.files = dict(files)
            rig.boot()
            rig.flash.plan_cut(at, variant)
            try:
                rig.run()
                assert False, "no cut"
            except PowerCut:
                pass
            rig.peer.open_sockets = 0
            rig.boot()
            rig.check()
            assert rig.run() == "staged", (at, variant)
            rig.boot()
            rig.check()


def test_two_power_cuts_in_a_row_end_in_a_staged_image():
    rig = Rig()
    rig.offer(2, content(2, 20000))
    start = rig.flash.snapshot()
    for first in range(20, 100, 23):
        for second in range(0, 60, 17):
            rig.flash.restore(start)
            rig.store.files = {}
            for at in (first, second):
                rig.boot()
                rig.flash.plan_cut(at, TORN)
                try:
                    rig.run()
                except PowerCut:
                    rig.peer.open_sockets = 0
            rig.flash.no_cut()
            rig.boot()
            rig.check()
            assert rig.run() == "staged", (first, second)


def test_abandoned_run_leaves_no_socket_and_goes_on_later():
    rig = Rig()
    rig.offer(2)
    run = rig.updater.run(NOW)
    for _ in range(200):
        next(run)
    run.close()
    assert rig.peer.open_sockets == 0
    assert rig.run() == "staged"


def test_slot_that_does_not_hold_what_is_written_is_noticed_at_once():
    for kind in FAULTS:
        rig = Rig()
        rig.flash.program(rig.regions[1]._start + 2 * 4096, b"\x5a" * 4096)
        rig.flash.fail((8 + SECTORS) + 2, kind)
        rig.offer(2)
        assert rig.run() == "slot-worn", kind
        assert rig.slots.table()[1][0] == WRITING
        # Not to the end: the sectors behind the bad one were left alone.
        assert rig.regions[1].is_blank(4 * 4096)
        for _ in range(3):
            assert rig.run() == "slot-worn"
        assert rig.run() == "erase-limit"
        rig.boot()
        rig.check()


def test_slot_whose_header_does_not_hold_is_never_staged():
    for kind in (NO_PROGRAM, FEW_BITS, STUCK_1, DEAD):
        rig = Rig()
        rig.flash.fail(8 + SECTORS, kind)
        rig.offer(2)
        assert rig.run() == "slot-worn", kind
        assert rig.slots.table()[1][0] == WRITING
        rig.boot()
        assert rig.slots.choose() == (0, "confirmed")


def test_header_is_in_a_slot_only_when_its_whole_image_is():
    rig = Rig()
    rig.offer(2, content(2, 20000))
    start = rig.flash.snapshot()
    before = rig.flash.operations
    assert rig.run() == "staged"
    total = rig.flash.operations - before
    seen = 0
    for at in range(0, total, 3):
        rig.flash.restore(start)
        rig.store.files = {}
        rig.boot()
        rig.flash.plan_cut(at, AFTER)
        try:
            rig.run()
        except PowerCut:
            rig.peer.open_sockets = 0
        try:
            _, release = image.decode_header(rig.regions[1].read(0, 256))
        except ImageError:
            continue
        image.check(rig.regions[1], release)
        seen += 1
    assert seen
