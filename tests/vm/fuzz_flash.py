# Parsers of flash sectors and of the records in them, for fuzzing on both interpreters
# (fuzz_parsers.py). Each recovers twice, goes on with what it found, and recovers again.

from fuzz_mark import mark, mark_bytes

from nor import NorFlash
from tidemark import cbor, config, identity, image, otadata, runtimes, slots
from tidemark.counter import Counter
from tidemark.errors import StateError
from tidemark.evidence import SIZE, SYSTEM, Evidence, is_valid, parse
from tidemark.flash import Region
from tidemark.journal import Journal
from tidemark.outbox import Outbox

SECTOR = 2048
PAGE = 256
COUNTER_SIZE = 4 * 256
EVIDENCE_SIZE = 3 * 512
JOURNAL_SIZE = 2 * SECTOR
OUTBOX_SIZE = 3 * 1024
PROVISIONING_SIZE = 4096


class CountingFlash(NorFlash):
    """Counts the bytes that are looked at: what recovery costs."""

    def __init__(self, data, size, sector):
        content = bytearray(b"\xff" * size)
        content[: min(size, len(data))] = data[:size]
        NorFlash.__init__(self, content, sector, PAGE if sector % PAGE == 0 else sector)
        self.seen = 0

    def view(self, start, size):
        self.seen += size
        return NorFlash.view(self, start, size)

    def read_into(self, addr, buf):
        self.seen += len(buf)
        NorFlash.read_into(self, addr, buf)

    def content(self):
        return bytes(NorFlash.view(self, 0, self.size))


def _region(flash):
    return Region(flash, 0, flash.size)


def counter_sectors(data):
    """Recovers twice alike; an epoch above whatever was found, which the next boot finds."""
    flash = CountingFlash(data, COUNTER_SIZE, 256)
    counter = Counter(_region(flash))
    found = counter.recover()
    assert flash.seen <= 12 * flash.size, flash.seen
    assert Counter(_region(flash)).recover() == found
    epoch = counter.open_epoch()
    assert epoch > found and flash.erases <= 5 and flash.programs <= 20
    assert Counter(_region(flash)).recover() >= epoch
    return "taken %d %d" % (found, epoch)


def _journal(flash):
    journal = Journal(_region(flash))
    journal.recover()
    return journal


def _values(journal):
    return [(key, journal.get(key), journal.mark(key)) for key in journal.keys()]


def journal_sectors(data):
    """Recovers twice alike; what is affirmed is what was found; a new value joins it."""
    flash = CountingFlash(data, JOURNAL_SIZE, SECTOR)
    journal = _journal(flash)
    assert flash.seen <= 12 * flash.size, flash.seen
    found = _values(journal)
    blank = journal.is_blank()
    assert not blank or not found
    assert _values(_journal(flash)) == found and flash.operations == 0
    for key, value, _ in found:
        assert journal.affirm(key) == value
    try:
        journal.put("fuzz", b"new")
    except StateError:
        assert blank or journal.keys() == [key for key, _, _ in found]
        raise
    again = _journal(flash)
    wanted = [one for one in found if one[0] != "fuzz"]
    # A unit that nothing settles counts as blank; what it holds is seen when it is born anew.
    assert blank or [one for one in _values(again) if one[0] != "fuzz"] == wanted
    assert again.get("fuzz") == b"new"
    return "taken " + mark(found)


def evidence_sectors(data):
    """Recovers twice alike; goes on with a number above all that can be read."""
    flash = CountingFlash(data, EVIDENCE_SIZE, 512)
    ring = Evidence(_region(flash))
    head = ring.recover()
    # Eight strays at most, each found by a pass over the region.
    assert flash.seen <= 26 * flash.size, flash.seen
    again = Evidence(_region(flash))
    assert again.recover() == head and flash.operations == 0
    oldest = ring.oldest()
    assert oldest <= head
    found = ring.read(oldest, 64)
    for start in range(0, len(found), SIZE):
        parse(found[start : start + SIZE])
    number = ring.add("fuzz", b"x", SYSTEM)
    assert number > head or (number == 0 and ring.gaps == 1)
    if number:
        assert Evidence(_region(flash)).recover() == number
    return "taken %d %d %s" % (head, number, mark_bytes(found))


def evidence_record(data):
    """One record of 64 bytes."""
    fields = parse(data)
    assert is_valid(data, fields[0]) and len(fields[3]) <= 16
    return "taken " + mark(fields[0], fields[1], fields[2])


def outbox_sectors(data):
    """Recovers twice alike; a reading joins what waits; each can be acknowledged once."""
    flash = CountingFlash(data, OUTBOX_SIZE, 1024)
    box = Outbox(_region(flash))
    count = box.recover()
    assert flash.seen <= 16 * flash.size, flash.seen
    found = box.pending(limit=999)
    assert len(found) == count == len(box)
    again = Outbox(_region(flash))
    assert again.recover() == count and again.pending(limit=999) == found and flash.operations == 0
    handle = box.add(7, 1, b"fuzz")
    waiting = box.pending(limit=999)
    assert waiting[-1] == (handle, 7, 1, b"fuzz") and len(waiting) + box.dropped == count + 1
    for one in waiting:
        assert box.ack(one[0]) and not box.ack(one[0])
    assert len(box) == 0 and Outbox(_region(flash)).recover() == 0
    return "taken %d %s" % (count, mark([one[1:3] for one in found]))


def provisioning_sector(data):
    """What was written once is what is read, and takes nothing else."""
    flash = CountingFlash(data, PROVISIONING_SIZE, 4096)
    region = _region(flash)
    found = identity.read_provisioning(region)
    if found is None:
        return "blank"
    assert cbor.encode(found.fields()) in bytes(flash.content())
    identity.write_provisioning(region, found)
    assert flash.erases == 0
    named = found.gateway_id + "x"
    other = identity.Provisioning(found.public, found.root, named, found.gateway_key)
    try:
        identity.write_provisioning(region, other)
    except StateError as error:
        assert error.code == "provisioned"
    else:
        raise AssertionError("written twice")
    return "taken " + mark(found.gateway_id)


def config_record(data):
    """The settings of the link, as the base reads them."""
    values = config.check(cbor.decode(data))
    assert cbor.encode(values) == data
    config.cohort(values)
    ssid, password, country = config.wifi(values)
    assert len(ssid.encode()) <= 32 and len(password) <= 64 and len(country) in (0, 2)
    return "taken"


def slot_header(data):
    """The header of an image, then the check of what lies behind it."""
    board, release = image.decode_header(bytes(data[:256]) + b"\xff" * (256 - min(256, len(data))))
    again = image.encode_header(release, board)
    size = 18 + (again[16] << 8 | again[17])
    assert again[:size] == data[:size]
    flash = CountingFlash(data[256:], 2 * 4096, 4096)
    fed = []
    image.check(_region(flash), release, lambda: fed.append(1))
    return "taken %d" % release.index


def boot_record(data):
    """The slots' record in the journal: whatever it says, no slot in use is ever a target."""
    journal = _journal(NorFlash(2 * 4096))
    journal.put("boot", data)
    machine = slots.Slots(journal)
    machine.recover()
    machine.table()
    machine.resolve("power-on", "")
    slot, why = machine.choose()
    assert slot in (0, 1, slots.NONE)
    target = machine.target_slot()
    assert target not in (machine.confirmed, machine.running)
    assert machine.floor >= 0
    return "taken %d %s" % (slot, why)


def rejected_record(data):
    """The list of rejected releases in the journal."""
    journal = _journal(NorFlash(2 * 4096))
    machine = slots.Slots(journal)
    machine.recover()
    machine.provision(slots.Release(b"\2" * 32, 10, 1, 0, "0.9"))
    journal.put("rejected", data)
    machine = slots.Slots(journal)
    machine.recover()
    release = slots.Release(bytes(32), 10, 5, 0, "1.0")
    machine.check_candidate(release)
    return "taken"


class _Chip:
    """Two runtime slots of two sectors; the first one runs. A choice or a mark is the caller's to
    see."""

    running = 0

    def __init__(self, entries):
        flash = NorFlash(6 * 4096)
        self.otadata = Region(flash, 0, 2 * 4096)
        self.regions = [Region(flash, i * 4096, 2 * 4096) for i in (2, 4)]
        for number in (0, 1):
            self.otadata.write(number * 4096, entries[32 * number : 32 * number + 32])
        self.chosen = []

    def set_boot(self, slot):
        self.chosen.append(slot)

    def mark_valid(self):
        pass


def runtime_record(data):
    """Otadata (64 bytes), then the runtimes' record: whatever they say, the slot that runs and the
    confirmed one are never written, and only what the record names is ever chosen."""
    journal = _journal(NorFlash(2 * 4096))
    journal.put("runtime", data[64:])
    chip = _Chip(bytes(data[:64]) + b"\xff" * (64 - min(64, len(data))))
    machine = runtimes.Runtimes(chip, journal, 1)
    machine.recover()
    index, slot, _, _ = machine.table()
    assert (index, slot) == (1, 0) and machine.confirmed in (0, 1)
    app = slots.Release(b"\x04" * 32, 10, 2, 0, "2.0")
    if machine.enter(app, ""):
        assert machine.confirmed == 1 and chip.chosen in ([], [1])
        return "another"
    assert not chip.chosen
    wanted = slots.Release(bytes(32), 10, 0xFFFFFFFF, 0, "9.0")
    slot = machine.begin_write(wanted, app, None)
    assert slot == 1 - machine.confirmed and slot != chip.running
    assert otadata.in_charge(machine._otadata.read())[1:] == (0, otadata.VALID)
    machine.recover()
    if machine.candidate:
        named = slots.Release(machine.candidate.app, 10, 2, 0, "2.0")
        # Of what is still written nothing is chosen.
        assert machine.candidate.state == runtimes.WRITING
        machine.enter(named, "")
    return "taken"
