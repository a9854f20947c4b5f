# A confirmed runtime whose flash decayed: from the rescue that the former one runs it is fetched
# again, byte for byte, or nothing is touched.

import hashlib

from test_otadata import entry
from test_runtimes import SECTOR, refused
from test_updater_runtime import SIZE, PairRig
from update_rig import BOARD, content

from tidemark import cbor, otadata
from tidemark.base import Base
from tidemark.flash import Region
from tidemark.otadata import ABORTED, NEW, PENDING, UNDEFINED, VALID
from tidemark.slots import Release
from tidemark.target import runtime_path
from tidemark.updates import Updates

DATA = content(102, SIZE)
DIGEST = hashlib.sha256(DATA).digest()
RUNTIME = Release(DIGEST, SIZE, 2, 0, "1.0.2")
RECORD = [1, 1, 2, DIGEST, None]
ENTRIES = entry(1, VALID), entry(2, VALID)


class LostRig(PairRig):
    """A board whose confirmed runtime 2, in slot 1, decayed; runtime 1 runs as the fallback.

    Whatever writes into slot 1 is watched, and so is who chooses it.
    """

    def __init__(self, cohort="", record=RECORD, entries=ENTRIES):
        super().__init__(cohort)
        self.record = cbor.encode(record)
        self.journal.put("runtime", self.record)
        self.put_entries(*entries)
        region = self.port.regions[1]
        region.write(0, DATA[: SIZE - SIZE % 256])
        self.ota._buf[13 * SECTOR + 40] ^= 1
        self.writes = 0
        for name in ("erase", "program"):
            self._watch(name, getattr(self.ota, name))
        self.reset()

    def put_entries(self, *entries):
        region = Region(self.ota, 8 * SECTOR, 2 * SECTOR)
        for number in (0, 1):
            region.erase(number)
            region.write(number * SECTOR, entries[number])

    def _watch(self, name, change):
        def watched(addr, *data):
            assert not 10 * SECTOR <= addr < 13 * SECTOR, "the slot that runs"
            if addr >= 13 * SECTOR:
                self.writes += 1
                for raw in self.port._entries():
                    found = otadata.parse(raw)
                    assert not found or found[0] % 2, "an entry names the slot"
                assert not self.port.calls
                # With its first page it may be started, so that is written last.
                head = addr == 13 * SECTOR and name == "program"
                assert not head or self.holds(data[0]) == DIGEST
            change(addr, *data)

        setattr(self.ota, name, watched)

    def reset(self):
        """A boot that ends in rescue: the confirmed runtime was called back, and did not come."""
        self.boot()
        choose = self.port.set_boot

        def chosen(slot):
            assert slot == 1 and self.holds() == DIGEST
            choose(slot)

        self.port.set_boot = chosen
        assert refused(self.runtimes.enter, self.slots.confirmed_release, "restore") == (
            "runtime-lost"
        )

    def holds(self, head=b""):
        """Digest of what slot 1 holds, of what it would hold with this head."""
        data = bytes(head) + bytes(self.port.regions[1].view(len(head), SIZE - len(head)))
        return hashlib.sha256(data).digest()

    def serve(self, **change):
        """Lists runtime 2 and publishes; returns its URL path."""
        url = self.offer_runtime(2, DATA, **change)
        self.publish()
        return url

    def untouched(self):
        return (self.writes, self.downloads(), self.port.calls) == (0, [], [])


def test_lost_runtime_is_written_again_and_chosen_last():
    for entries in (
        ENTRIES,
        # Its choice of the last restoration; the former one's in charge; of no state at all.
        (entry(1, VALID), entry(2, PENDING)),
        (entry(3, VALID), entry(2, VALID)),
        (entry(1, UNDEFINED), entry(2, VALID)),
        (entry(4, VALID), entry(2, VALID)),
        # None that names what runs.
        (entry(1, ABORTED), entry(2, VALID)),
        (entry(1, ABORTED), entry(2, VALID, 5)),
    ):
        rig = LostRig(entries=entries)
        url = rig.serve()
        assert rig.run() == "healed"
        assert rig.downloads() == [(url, 0)]
        assert rig.holds() == DIGEST
        assert rig.port.calls == [("set_boot", 1)]
        assert otadata.in_charge(rig.port._entries())[1:] == (1, NEW)
        # What is confirmed was never anything else.
        assert rig.journal.get("runtime") == rig.record


def test_entry_of_what_runs_is_firm_before_the_other_one_is_erased():
    rig = LostRig()
    rig.serve()
    order = []
    erase, program = rig.ota.erase, rig.ota.program

    def erased(addr):
        order.append(("erase", addr // SECTOR))
        erase(addr)

    def programmed(addr, data):
        order.append(("program", addr // SECTOR))
        program(addr, data)

    rig.ota.erase, rig.ota.program = erased, programmed
    assert rig.run() == "healed"
    # The kept one, then the other: its CRC, and all of it.
    assert order[:4] == [("program", 8), ("program", 9), ("erase", 9), ("erase", 13)]
    # Once more before the choice, which is the test port's one entry.
    assert order[-3:] == [("program", 8), ("erase", 9), ("program", 9)]


def test_nothing_but_the_confirmed_digest_heals():
    other = content(103, SIZE)
    for offers, code in (
        ([], "rt-unlisted"),
        ([(2, other, {})], "rt-unlisted"),
        ([(3, DATA, {})], "rt-unlisted"),
        ([(3, other, {})], "rt-unlisted"),
        ([(2, DATA, {"kind": "app"})], "wrong-kind"),
        ([(2, DATA, {"board": "OTHER"})], "wrong-board"),
    ):
        rig = LostRig()
        for index, data, change in offers:
            rig.offer_runtime(index, data, **change)
        # A release of its own does not come in its place.
        rig.offer(2)
        assert rig.run() == code, code
        assert rig.untouched()
        assert rig.slots.state(1) == 0


def test_runtime_whose_digest_nobody_recorded_is_not_healed():
    rig = LostRig(record=[1, 1, 2, b"", None])
    rig.serve()
    assert rig.run() == "rt-no-digest"
    assert rig.untouched()


def test_top_level_role_alone_heals():
    rig = LostRig("canary")
    rig.maker.delegate("canary", ["canary/*/*", BOARD + "/*"])
    path = runtime_path(BOARD, 2)
    listed, _ = rig.entry(path, 2, DATA, kind="runtime")
    rig.maker.publish_delegated("canary", {path: listed}, None)
    rig.publish()
    assert rig.run() == "rt-unlisted"
    assert rig.untouched()


def test_what_only_concerns_what_is_taken_does_not_keep_a_board_lost():
    for change in ({"abort": True}, {"cohort": 0}):
        rig = LostRig()
        rig.serve(**change)
        assert rig.run() == "healed"


def test_what_the_mirror_forged_is_not_chosen_and_can_not_wear_the_flash_out():
    rig = LostRig()
    url = rig.serve()
    rig.peer.files[url] = bytes(SIZE)
    outcomes = []
    for _ in range(6):
        outcomes.append(rig.run())
        rig.reset()
    assert outcomes == ["target-hash"] * 4 + ["erase-limit"] * 2
    # Not chosen, nor such that a bootloader would start it by itself.
    assert rig.port.calls == []
    assert rig.port.regions[1].is_blank(0, 256)
    assert rig.ota.erase_counts[13] == 4
    rig.peer.files[url] = DATA
    rig.uptime += 90_000
    assert rig.run() == "healed"


def test_healing_that_was_cut_off_is_resumed():
    rig = LostRig()
    rig.serve()
    rig.peer.cut_after = 2 * SECTOR + 1500
    assert rig.run() == "closed"
    assert rig.port.calls == []
    rig.peer.cut_after = None
    rig.reset()
    assert rig.run() == "healed"
    assert [offset for _, offset in rig.downloads()] == [0, 0, 2 * SECTOR]


def test_healing_is_not_resumed_behind_a_head_of_somebody_else():
    rig = LostRig()
    rig.serve()
    rig.peer.cut_after = 2 * SECTOR + 1500
    assert rig.run() == "closed"
    rig.peer.cut_after = None
    rig.reset()
    rig.ota._buf[13 * SECTOR] = 0xE9
    assert rig.run() == "healed"
    assert [offset for _, offset in rig.downloads()] == [0, 0]


def test_first_page_that_went_amiss_is_not_started():
    rig = LostRig()
    url = rig.serve()
    rig.peer.cut_after = 2 * SECTOR + 1500
    assert rig.run() == "closed"
    rig.peer.cut_after = None
    rig.peer.files[url] = bytes(256) + DATA[256:]
    rig.reset()
    assert rig.run() == "target-hash"
    assert rig.port.regions[1].is_blank(0, 256)
    rig.peer.files[url] = DATA
    assert rig.run() == "healed"


def test_what_its_installation_knew_to_be_good_is_hashed_and_written_anew():
    rig = LostRig()
    rig.serve()
    rig.journal.put("download-rt", cbor.encode([DIGEST, 1, SIZE, 1, 0]))
    assert rig.run() == "healed"
    assert [offset for _, offset in rig.downloads()] == [0]


def test_runtime_that_is_whole_and_does_not_start_is_not_chosen_for_ever():
    rig = LostRig()
    rig.serve()
    outcomes = []
    for _ in range(6):
        outcomes.append(rig.run())
        # It hangs: the bootloader gives it up, and the former one comes back.
        rig.put_entries(entry(1, VALID), entry(2, ABORTED))
        rig.reset()
    assert outcomes == ["healed"] * 3 + ["erase-limit"] * 3
    assert len(rig.downloads()) == 1
    assert rig.port.calls == []
    rig.uptime += 90_000
    assert rig.run() == "healed"
    assert len(rig.downloads()) == 1


def test_runtime_that_the_flash_does_not_hold_is_not_chosen():
    rig = LostRig()
    rig.serve()
    program = rig.ota.program

    def decays(addr, data):
        program(addr, data)
        if addr == 15 * SECTOR:
            rig.ota._buf[14 * SECTOR] ^= 1

    rig.ota.program = decays
    assert rig.run() == "runtime-digest"
    assert rig.port.regions[1].is_blank(0, 256)
    assert rig.port.calls == []
    rig.ota.program = program
    assert rig.run() == "healed"


def test_bootloader_that_refuses_leaves_the_board_in_rescue():
    rig = LostRig()
    rig.serve()
    rig.port.refuses = True
    assert rig.run() == "runtime-lost"
    assert rig.holds() == DIGEST


def test_worn_entry_is_told_before_the_slot_is_touched():
    rig = LostRig()
    rig.serve()
    rig.ota.fail(9, "dead")
    assert rig.run() == "otadata-worn"
    assert rig.untouched()


def test_only_what_was_called_back_and_did_not_come_is_written():
    rig = LostRig()
    rig.boot()
    assert refused(rig.runtimes.begin_heal, RUNTIME) == "not-lost"
    rig.serve()
    assert rig.run() == "runtime-lost"
    # What runs is never written, whatever this boot has been told.
    healthy = PairRig()
    healthy.journal.put("runtime", cbor.encode([1, 0, 1, DIGEST, None]))
    healthy.boot()
    assert refused(healthy.runtimes.restore, "restore") == "runtime-lost"
    assert refused(healthy.runtimes.begin_heal, RUNTIME) == "not-lost"
    assert rig.untouched()


def test_runtime_that_does_not_fit_is_refused():
    rig = LostRig()
    large = Release(DIGEST, 3 * SECTOR + 1, 2, 0, "r2")
    assert refused(rig.runtimes.begin_heal, large) == "runtime-too-large"


def test_digest_of_a_runtime_that_was_replaced_by_cable_heals_nothing():
    rig = PairRig()
    rig.journal.put("runtime", cbor.encode([1, 0, 2, DIGEST, None]))
    rig.boot()
    # It says 1, the journal knows 2.
    assert rig.runtimes.settle(rig.slots.confirmed_release) == [("runtime", "by cable")]
    assert rig.runtimes.settle(rig.slots.confirmed_release) == []
    assert cbor.decode(rig.journal.get("runtime")) == [1, 0, 2, b"", None]
    # Of the former one, in rescue, the record is right: it is not what runs.
    lost = LostRig()
    assert lost.runtimes.settle(lost.slots.confirmed_release) == []
    assert lost.journal.get("runtime") == lost.record


class Plain:
    """Whatever a part of the base asks for."""

    def __init__(self, **known):
        for name, value in known.items():
            setattr(self, name, value)


class Bare(Updates):
    """The update task at a point of its life."""

    def __init__(self, base, outcome, state=0):
        self._base = base
        self.updater = Plain(outcome=outcome, error=None)
        self._state, self._due, self._period_ms, self._told = state, 0, 1000, 0


def test_healed_board_reports_and_resets_into_the_confirmed_runtime():
    told = []
    base = Plain(
        record=lambda *event: told.append(event[:2]),
        record_all=lambda _events: None,
        reset=lambda reason: told.append(reason),
        connection=Plain(report_soon=lambda: None, reports_acked=1, reporting=0),
        slots=Plain(in_trial=False, retry_due=False, retries=0, untold=lambda: []),
        uptime_ms=lambda: 1000,
    )
    updates = Bare(base, "healed")
    updates._finish(1000)
    assert updates.running
    updates.step()
    assert told == [("update", "healed")]
    base.connection.reports_acked = 2
    updates.step()
    assert told == [("update", "healed"), "restore"]


def test_no_other_reset_cuts_a_healing_off():
    running = 2
    for lost, outcome, state, healing in (
        (True, "none", 0, True),
        (True, "closed", running, True),
        (True, "closed", 0, False),
        (False, "none", running, False),
    ):
        told = []
        updates = Bare(Plain(runtimes=Plain(is_lost=lost)), outcome, state)
        assert updates.healing is healing
        base = Plain(
            updates=updates,
            slots=Plain(acknowledged=lambda ms: [], retry_due=True, retries=0),
            connection=Plain(idle=True, first_ack_ms=0),
            reset=lambda reason: told.append(reason),
            _retry_at=1,
        )
        Base._former_acknowledged(base, 1000)
        assert told == ([] if healing else ["update"])
    assert not Bare(Plain(runtimes=None), "none").healing
