# Who relies on what the journal or the provisioning sector held at power-on affirms it first: a
# write that was cut off may read whole in one boot and not at all in the next.

from nor import AFTER, NEW, OLD, TORN, NorFlash, PowerCut
from tidemark import cbor, identity
from tidemark.errors import SlotError
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.runtimes import WRITING as RUNTIME_WRITING
from tidemark.runtimes import Runtimes
from tidemark.slots import REJECTED, WRITING, Release, Slots
from tidemark.updater import Progress

SECTOR = 2048


def release(index):
    return Release(bytes([index]) * 32, 5000, index, 1, "1.0.%d" % index)


def made():
    """A flash with the journal of a board that runs release 1."""
    flash = NorFlash(4 * SECTOR, sector=SECTOR, page=128, weak=True)
    slots_of(flash).provision(release(1))
    return flash


def journal_of(flash):
    journal = Journal(Region(flash, 0, flash.size))
    journal.recover()
    return journal


def slots_of(flash):
    slots = Slots(journal_of(flash))
    slots.recover()
    return slots


def operations(flash, work):
    before, state = flash.operations, flash.snapshot()
    work()
    count = flash.operations - before
    flash.restore(state)
    return count


def cut(flash, work, at, variant):
    flash.plan_cut(at, variant)
    try:
        work()
    except PowerCut:
        return
    finally:
        flash.no_cut()
    raise AssertionError("no cut")


def whole_then_gone(flash, work, found):
    """The last program of `work` is torn. It reads as done in one boot, as not begun in the next;
    `found(flash)` says in each what a boot finds."""
    assert not found(flash)
    cut(flash, work, operations(flash, work) - 1, TORN)
    seen = []
    for reading in (NEW, OLD):
        flash.power_up(dict.fromkeys(flash.weak_groups(), reading))
        seen.append(found(flash))
    assert seen == [True, True]


def test_boot_record_that_was_read_once_stays():
    flash = made()
    whole_then_gone(
        flash,
        lambda: slots_of(flash).begin_write(1, release(2)),
        lambda flash: slots_of(flash).state(1) == WRITING,
    )


def test_rejection_that_was_read_once_stays():
    flash = made()
    entries = cbor.encode([[bytes(16), 1, 2, "crash"]])
    whole_then_gone(
        flash,
        lambda: journal_of(flash).put("rejected", entries),
        lambda flash: bool(slots_of(flash).rejected()),
    )


class RuntimePort:
    def __init__(self):
        self.regions = ()
        self.otadata = Region(NorFlash(8192), 0, 8192)
        self.running = 0


def test_runtime_record_that_was_read_once_stays():
    flash = made()
    candidate = [RUNTIME_WRITING, 1, bytes(32), 5000, 2, "2.0.0", bytes(32)]
    record = cbor.encode([1, 0, 1, b"", candidate])

    def found(flash):
        runtimes = Runtimes(RuntimePort(), journal_of(flash), 1)
        runtimes.recover()
        return runtimes.candidate is not None

    whole_then_gone(flash, lambda: journal_of(flash).put("runtime", record), found)


def test_progress_of_a_download_that_was_read_once_stays():
    flash = made()
    record = cbor.encode([bytes(32), 1, 4096, 3, 60])

    def found(flash):
        progress = Progress(journal_of(flash), lambda: 0)
        progress.load()
        return progress.erasures == 3

    whole_then_gone(flash, lambda: journal_of(flash).put("download", record), found)


def test_provisioning_that_was_found_whole_stays():
    flash = NorFlash(4096, weak=True)
    region = Region(flash, 0, 4096)
    known = identity.Provisioning(bytes(32), b"{}", "0" * 16, bytes(32))

    def found(flash):
        if identity.read_provisioning(region) is None:
            return False
        identity.write_provisioning(region, known)  # what an owner does who was not answered
        return True

    whole_then_gone(flash, lambda: identity.write_provisioning(region, known), found)


def test_release_that_reads_rejected_is_refused_whatever_cut_came():
    flash = made()
    slots = slots_of(flash)
    slots.choose()
    slots.begin_write(1, release(2))
    slots.finish_write(1)
    start = flash.snapshot()

    def crashes():
        slots = slots_of(flash)
        slots.choose()
        slots.fault("crash")

    count = operations(flash, crashes)
    seen = 0
    for at in range(count):
        flash.restore(start)
        cut(flash, crashes, at, AFTER)
        slots = slots_of(flash)
        if slots.state(1) == REJECTED:
            seen += 1
            try:
                slots.check_candidate(release(2))
            except SlotError as error:
                assert error.code == "rejected"
            else:
                raise AssertionError("it is tried again")
    assert seen
