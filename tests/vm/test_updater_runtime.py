# Update runs of a board with two runtime slots: the runtime that an application needs comes first,
# or nothing does.

import hashlib

from http_peer import head
from test_otadata import entry
from test_runtimes import SECTOR, Port
from update_rig import BOARD, Rig, content

from nor import AFTER, BEFORE, TORN, NorFlash, PowerCut
from tidemark.flash import Region
from tidemark.otadata import VALID
from tidemark.runtimes import STAGED as RUNTIME_STAGED
from tidemark.runtimes import WRITING as RUNTIME_WRITING
from tidemark.runtimes import Runtimes
from tidemark.slots import EMPTY, STAGED, WRITING
from tidemark.target import runtime_path

SIZE = 10000  # of a runtime


class PairRig(Rig):
    """A board with runtime 1 in slot 0 of two, each three sectors of a flash of their own."""

    def __init__(self, cohort=""):
        self.ota = NorFlash(16 * SECTOR)
        Region(self.ota, 8 * SECTOR, 2 * SECTOR).write(0, entry(1, VALID))
        super().__init__(cohort)

    def boot(self):
        super().boot()
        self.port = Port(self.ota, 0)
        self.runtimes = Runtimes(self.port, self.journal, 1)
        self.runtimes.recover()
        updater = self.updater
        self.updater = type(updater)(
            BOARD,
            updater.device_id,
            1,
            updater.client,
            updater.targets,
            self.slots,
            self.journal,
            self.regions,
            lambda: self.uptime,
            cohort=self.cohort,
            runtimes=self.runtimes,
        )

    def offer_runtime(self, index, data=None, path=None, **change):
        """Lists a runtime, for the next release that is offered; returns the URL path."""
        data = content(100 + index, SIZE) if data is None else data
        path = path or runtime_path(BOARD, index)
        change = dict({"kind": "runtime"}, **change)
        self.maker.targets[path], url = self.entry(path, index, data, **change)
        return url

    def check(self):
        super().check()
        candidate = self.runtimes.candidate
        region = self.port.regions[1]
        if candidate and not region.is_blank(0, region.page):
            # With a first page it may be started: then it is what was authorised.
            held = bytes(region.read(0, candidate.length))
            assert hashlib.sha256(held).digest() == candidate.digest
        if self.slots.state(1) == STAGED and self.runtimes.candidate:
            candidate = self.runtimes.candidate
            held = bytes(self.port.regions[1].read(0, candidate.length))
            assert candidate.state == RUNTIME_STAGED
            assert hashlib.sha256(held).digest() == candidate.digest


def test_runtime_comes_first_and_both_are_staged():
    rig = PairRig()
    runtime = rig.offer_runtime(2)
    url = rig.offer(2, min_runtime=2)
    assert rig.run() == "staged"
    assert [asked[0] for asked in rig.downloads()] == [runtime, url]
    candidate = rig.runtimes.candidate
    assert (candidate.state, candidate.slot, candidate.index) == (RUNTIME_STAGED, 1, 2)
    assert candidate.app == rig.slots.release(1).digest
    rig.boot()
    assert rig.run() == "staged"
    assert len(rig.downloads()) == 2


def test_board_without_runtime_slots_goes_on_refusing():
    rig = Rig()
    rig.offer(2, min_runtime=2)
    assert rig.run() == "runtime-too-old"
    assert rig.slots.state(1) == EMPTY


def test_application_that_needs_no_newer_runtime_comes_alone():
    rig = PairRig()
    rig.offer_runtime(2)
    rig.offer(2, min_runtime=1)
    assert rig.run() == "staged"
    assert rig.runtimes.candidate is None
    assert len(rig.downloads()) == 1


def test_what_may_not_come_is_refused_before_a_slot_is_touched():
    for change, code in (
        (None, "runtime-missing"),
        ({"kind": "app"}, "wrong-kind"),
        ({"board": "OTHER"}, "wrong-board"),
        ({"index": 3}, "wrong-index"),
        ({"abort": True}, "runtime-aborted"),
        ({"cohort": 0}, "runtime-not-offered"),
        ({"version": ""}, "target-shape"),
    ):
        rig = PairRig()
        if change is not None:
            rig.offer_runtime(2)
            rig.maker.targets[runtime_path(BOARD, 2)]["custom"].update(change)
        rig.offer(2, min_runtime=2)
        assert rig.run() == code, code
        assert rig.slots.state(1) == EMPTY
        assert rig.runtimes.candidate is None
        assert rig.downloads() == []


def test_runtime_that_does_not_fit_or_is_not_newer_is_refused():
    rig = PairRig()
    rig.offer_runtime(2, content(102, 3 * SECTOR + 1))
    rig.offer(2, min_runtime=2)
    assert rig.run() == "runtime-too-large"
    assert rig.slots.state(1) == EMPTY


def test_nothing_is_installed_on_another_runtime_than_the_confirmed_one():
    rig = PairRig()
    rig.offer(2)
    rig.port.running = rig.runtimes.running = 1
    assert rig.run() == "runtime-lost"
    assert rig.slots.state(1) == EMPTY


def test_download_of_a_runtime_is_resumed():
    rig = PairRig()
    data = content(102, 3 * SECTOR)
    runtime = rig.offer_runtime(2, data)
    rig.offer(2, min_runtime=2)
    rig.peer.cut_after = 2 * SECTOR + 100
    assert rig.run() == "closed"
    assert rig.slots.state(1) == WRITING
    assert rig.runtimes.candidate.state == RUNTIME_WRITING
    rig.peer.cut_after = None
    rig.boot()
    assert rig.run() == "staged"
    # Its first page was not in the flash, and came once more.
    starts = [start for path, start in rig.downloads() if path == runtime]
    assert starts == [0, 0, 2 * SECTOR]
    assert rig.ota.erase_counts[13:16] == [1, 1, 1]


def test_resumed_download_with_another_first_page_is_not_staged():
    rig = PairRig()
    data = content(102, 3 * SECTOR)
    runtime = rig.offer_runtime(2, data)
    rig.offer(2, min_runtime=2)
    rig.peer.cut_after = 2 * SECTOR + 100
    assert rig.run() == "closed"
    rig.peer.cut_after = None
    rig.boot()

    def another(path, start):
        if path == runtime and start == 0:
            return head("200 OK", len(data)) + bytes(len(data))

    rig.peer.answer = another
    assert rig.run() == "target-hash"
    rig.peer.answer = None
    assert rig.run() == "staged"


def test_first_page_of_a_runtime_is_programmed_last():
    rig = PairRig()
    rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    addresses = []
    program = rig.ota.program

    def watched(addr, data):
        if addr >= 13 * SECTOR:
            addresses.append(addr)
        program(addr, data)

    rig.ota.program = watched
    assert rig.run() == "staged"
    assert addresses[-1] == 13 * SECTOR
    assert addresses[:-1] == [13 * SECTOR + 256 * page for page in range(1, 40)]


def test_runtime_of_a_page_or_less_is_staged():
    for size in (1, 255, 256, 257, SECTOR, 2 * SECTOR + 1):
        rig = PairRig()
        rig.offer_runtime(2, content(102, size))
        rig.offer(2, min_runtime=2)
        assert rig.run() == "staged", size


def test_power_cut_ahead_of_the_first_page_costs_that_page_alone():
    for how, reading in ((BEFORE, None), (TORN, "old"), (TORN, "new"), (AFTER, None)):
        rig = PairRig()
        rig.ota = NorFlash(16 * SECTOR, weak=True)
        Region(rig.ota, 8 * SECTOR, 2 * SECTOR).write(0, entry(1, VALID))
        rig.boot()
        data = content(102, SIZE)
        runtime = rig.offer_runtime(2, data)
        rig.offer(2, min_runtime=2)
        # The other entry cleared and erased, three sectors, 39 pages; then the first.
        rig.ota.plan_cut(1 + 2 + 3 + 39, how)
        try:
            rig.run()
            raise AssertionError("no cut")
        except PowerCut:
            rig.peer.open_sockets = 0
        rig.ota.power_up({group: reading for group in rig.ota.weak_groups()})
        rig.boot()
        before = len(rig.downloads())
        assert rig.run() == "staged"
        again = [asked for asked in rig.downloads()[before:] if asked[0] == runtime]
        there = how == AFTER or reading == "new"
        assert again == ([] if there else [(runtime, 0)]), (how, reading)
        assert rig.ota.erase_counts[13] == 1
        # Firm: what the cut left does not come back.
        rig.ota.power_up({group: "old" for group in rig.ota.weak_groups()})
        assert bytes(rig.port.regions[1].read(0, SIZE)) == data


def test_first_page_that_was_torn_is_not_programmed_over():
    for count in (0, 1, 100, 255):
        rig = PairRig()
        rig.offer_runtime(2)
        rig.offer(2, min_runtime=2)
        rig.ota.plan_cut(1 + 2 + 3 + 39, TORN, count, 0x0F)
        try:
            rig.run()
            raise AssertionError("no cut")
        except PowerCut:
            rig.peer.open_sockets = 0
        rig.boot()
        assert rig.run() == "staged"
        assert rig.ota.erase_counts[13] == 2


def test_download_does_not_go_on_behind_a_first_page_that_is_there():
    rig = PairRig()
    data = content(102, 3 * SECTOR)
    rig.offer_runtime(2, data)
    rig.offer(2, min_runtime=2)
    rig.peer.cut_after = 2 * SECTOR + 100
    assert rig.run() == "closed"
    rig.peer.cut_after = None
    rig.boot()
    # As an older base left it.
    rig.port.regions[1].write(0, b"\xe9" + data[1:256])
    assert rig.run() == "staged"
    assert rig.ota.erase_counts[13:16] == [2, 2, 1]


def test_runtime_that_the_mirror_forged_is_not_staged():
    rig = PairRig()
    runtime = rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    # The bootloader would start these: nothing but their own checksum is asked for.
    rig.peer.files[runtime] = content(666, SIZE)
    assert rig.run() == "target-hash"
    assert rig.port.regions[1].is_blank(0, 256)
    assert rig.runtimes.candidate.state == RUNTIME_WRITING
    assert rig.slots.state(1) == WRITING
    rig.peer.files[runtime] = content(102, SIZE)
    assert rig.run() == "staged"


def test_runtime_that_the_flash_does_not_hold_is_not_staged():
    rig = PairRig()
    rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    program = rig.ota.program

    def decays(addr, data):
        program(addr, data)
        if addr == 15 * SECTOR:
            rig.ota._buf[14 * SECTOR] ^= 1

    rig.ota.program = decays
    assert rig.run() == "runtime-digest"
    assert rig.port.regions[1].is_blank(0, 256)
    assert rig.runtimes.candidate.state == RUNTIME_WRITING
    rig.ota.program = program
    assert rig.run() == "staged"


def test_mirror_that_forges_a_runtime_can_not_wear_the_flash_out():
    rig = PairRig()
    runtime = rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    rig.peer.files[runtime] = bytes(SIZE)
    outcomes = [rig.run() for _ in range(8)]
    assert outcomes[:4] == ["target-hash"] * 4
    assert outcomes[4:] == ["erase-limit"] * 4
    assert rig.ota.erase_counts[13] == 4
    # The entry beside the one in charge was erased once, not with each try.
    assert rig.ota.erase_counts[9] == 1


def test_a_later_release_without_a_runtime_drops_the_candidate():
    rig = PairRig()
    rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    assert rig.run() == "staged"
    rig.offer(3, min_runtime=1)
    assert rig.run() == "staged"
    assert rig.runtimes.candidate is None


def test_a_later_release_with_the_same_runtime_does_not_fetch_it_again():
    rig = PairRig()
    runtime = rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    assert rig.run() == "staged"
    url = rig.offer(3, min_runtime=2)
    assert rig.run() == "staged"
    assert [asked[0] for asked in rig.downloads()].count(runtime) == 1
    assert rig.downloads()[-1][0] == url
    assert rig.runtimes.candidate.app == rig.slots.release(1).digest


def test_abort_of_the_runtime_takes_the_staged_pair_back():
    rig = PairRig()
    rig.offer_runtime(2)
    rig.offer(2, min_runtime=2)
    assert rig.run() == "staged"
    rig.offer_runtime(2, abort=True)
    rig.offer(2, min_runtime=2)
    assert rig.run() == "runtime-aborted"
    assert rig.slots.state(1) == EMPTY


def test_no_delegated_role_speaks_for_a_runtime():
    own = "canary/" + runtime_path(BOARD, 2)
    fleets = runtime_path(BOARD, 2)
    for listed in (own, fleets):
        rig = PairRig("canary")
        rig.maker.delegate("canary", ["canary/*/*", BOARD + "/*"])
        runtime, _ = rig.entry(listed, 2, content(102, SIZE), kind="runtime")
        app = "canary/%s/app-2.romfs" % BOARD
        release, _ = rig.entry(app, 2, min_runtime=2)
        rig.maker.publish_delegated("canary", {listed: runtime, app: release}, None)
        rig.publish()
        assert rig.run() == "runtime-missing", listed
        assert rig.slots.state(1) == EMPTY
        assert rig.runtimes.candidate is None
        assert rig.downloads() == []
        # Once the fleet's role lists one, the cohort's release takes that.
        url = rig.offer_runtime(2, content(103, SIZE))
        rig.publish()
        assert rig.run() == "staged"
        assert rig.downloads()[0][0] == url


def test_no_delegated_role_takes_a_runtime_back():
    rig = PairRig("canary")
    rig.maker.delegate("canary", ["canary/*/*", BOARD + "/*"])
    rig.offer_runtime(2)
    app = "canary/%s/app-2.romfs" % BOARD
    release, _ = rig.entry(app, 2, min_runtime=2)
    rig.maker.publish_delegated("canary", {app: release}, None)
    rig.publish()
    assert rig.run() == "staged"
    back, _ = rig.entry(runtime_path(BOARD, 2), 2, content(102, SIZE), kind="runtime", abort=True)
    rig.maker.publish_delegated("canary", {app: release, runtime_path(BOARD, 2): back}, None)
    rig.publish()
    assert rig.run() == "staged"
