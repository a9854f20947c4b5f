# The journal's contract in words; tests/powercut searches its promises under power cuts.

from nor import BEFORE, TORN, NorFlash, PowerCut
from tidemark.errors import StateError
from tidemark.flash import Region
from tidemark.journal import Journal


def _code(call, *args):
    try:
        call(*args)
    except StateError as error:
        return error.code
    return None


def _journal(flash, guard=None):
    journal = Journal(Region(flash, 0, flash.size), guard)
    journal.recover()
    return journal


def _same(flash, expected):
    journal = _journal(flash)
    assert journal.keys() == sorted(expected)
    for key in expected:
        assert journal.get(key) == expected[key]


def test_values_survive_and_the_last_one_counts():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.put("floor", b"one")
    journal.put("boot", bytes(640))
    journal.put("floor", b"")
    assert journal.get("floor") == b"" and journal.get("nothing") is None
    _same(flash, {"floor": b"", "boot": bytes(640)})


def test_blank_until_the_first_put():
    flash = NorFlash(16384)
    journal = _journal(flash)
    assert journal.is_blank() and not journal.recover()
    assert journal.affirm("key") is None and journal.mark("root") == (0, b"")
    assert flash.operations == 0
    journal.put("key", b"seed")
    assert not journal.is_blank() and not _journal(flash).is_blank()


def test_birth_never_erases():
    flash = NorFlash(16384)
    _journal(flash).put("key", b"seed")
    assert flash.erases == 0


def test_region_with_foreign_bytes_is_refused_at_birth():
    flash = NorFlash(16384)
    for start in (0, 8192):
        flash.program(start + 256, bytes(256))
    journal = _journal(flash)
    assert journal.is_blank() and _code(journal.put, "key", b"seed") == "journal-unborn"
    assert flash.erases == 0


def test_refusals_change_nothing():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.put("a", b"1")
    done = flash.operations
    for key in ("", "x" * 16, "\xe4", "a b", "a\n", "~", 7):
        assert _code(journal.put, key, b"") == "journal-key"
    assert _code(journal.put, "a", bytes(641)) == "journal-value"
    assert _code(journal.raise_mark, "m", -1) == "journal-value"
    assert _code(journal.raise_mark, "m", 1 << 64) == "journal-value"
    assert _code(journal.raise_mark, "m", 1, bytes(640)) == "journal-value"
    assert _code(journal.raise_mark, "m", 1, b"", bytes(33)) == "journal-value"
    assert flash.operations == done
    _same(flash, {"a": b"1"})


def test_at_most_48_keys():
    journal = _journal(NorFlash(65536))
    for i in range(48):
        journal.put("k" + str(i), b"v")
    assert _code(journal.put, "k48", b"v") == "journal-full"
    assert _code(journal.raise_mark, "k48", 1) == "journal-full"
    journal.delete("k7")
    journal.put("k48", b"v")
    assert len(journal.keys()) == 48


def test_full_journal_refuses_growth_and_keeps_working():
    flash = NorFlash(8192)
    journal = _journal(flash)
    kept = {}
    for i in range(10):
        key = "k" + str(i)
        if _code(journal.put, key, bytes([i]) * 640) == "journal-full":
            break
        kept[key] = bytes([i]) * 640
    assert 2 <= len(kept) < 10
    _same(flash, kept)
    for i in range(20):
        kept["k0"] = bytes([i]) * 640
        journal.put("k0", kept["k0"])
        _same(flash, kept)


def test_compactions_keep_everything_and_wear_both_halves_alike():
    flash = NorFlash(32768)
    kept = {}
    for i in range(120):
        journal = _journal(flash)
        for key, value in kept.items():
            assert journal.affirm(key) == value
        key = "k" + str(i % 7)
        kept[key] = bytes([i]) * (i * 37 % 641)
        journal.put(key, kept[key])
        if i % 11 == 0:
            journal.delete("k3")
            kept.pop("k3", None)
        _same(flash, kept)
    assert flash.erases > 16 and max(flash.erase_counts) - min(flash.erase_counts) <= 1


def test_affirm_appends_a_copy_once_a_boot():
    flash = NorFlash(16384)
    _journal(flash).put("boot", b"state")
    journal = _journal(flash)
    done = flash.operations
    assert journal.get("boot") == b"state" and flash.operations == done
    assert journal.affirm("boot") == b"state"
    after = flash.operations
    assert after > done
    assert journal.affirm("boot") == b"state" and flash.operations == after
    journal.put("boot", b"state")
    assert flash.operations == after
    journal.put("boot", b"other")
    assert journal.affirm("boot") == b"other"
    fresh = _journal(flash)
    done = flash.operations
    fresh.put("boot", b"other")
    assert flash.operations > done


def test_deleted_key_stays_deleted():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.delete("never")
    assert journal.is_blank()
    journal.put("a", b"1")
    journal.put("b", b"2")
    journal.delete("a")
    assert journal.get("a") is None and journal.affirm("a") is None
    _same(flash, {"b": b"2"})
    again = _journal(flash)
    done = flash.operations
    assert again.affirm("a") is None and flash.operations > done
    again.put("a", b"3")
    _same(flash, {"a": b"3", "b": b"2"})


def test_marks_only_rise():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.raise_mark("floor", 0)
    journal.raise_mark("floor", 5)
    assert _code(journal.raise_mark, "floor", 4) == "mark-falls"
    assert _journal(flash).mark("floor") == (5, b"")
    journal.raise_mark("floor", (1 << 64) - 1)
    assert _journal(flash).mark("floor") == ((1 << 64) - 1, b"")


def test_mark_binds_its_payload():
    journal = _journal(NorFlash(16384))
    journal.raise_mark("root", 3, b"hash-3")
    journal.raise_mark("root", 3, b"hash-3")
    assert _code(journal.raise_mark, "root", 3, b"other") == "mark-conflict"
    journal.raise_mark("root", 4, b"other")
    assert journal.mark("root") == (4, b"other")


def test_mark_starts_anew_in_another_scope():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.raise_mark("timestamp", 900, b"", b"keys-one")
    assert journal.mark("timestamp", b"keys-two") == (0, b"") == journal.mark("timestamp")
    journal.raise_mark("timestamp", 7, b"", b"keys-two")
    assert _journal(flash).mark("timestamp", b"keys-two") == (7, b"")
    assert _code(journal.raise_mark, "timestamp", 6, b"", b"keys-two") == "mark-falls"


def test_mark_is_neither_put_over_nor_deleted():
    flash = NorFlash(16384)
    journal = _journal(flash)
    journal.raise_mark("floor", 5)
    journal.put("value", b"v")
    assert _code(journal.put, "floor", b"") == "mark-falls"
    assert _code(journal.delete, "floor") == "mark-falls"
    assert _code(journal.raise_mark, "value", 1) == "mark-conflict"
    assert _journal(flash).mark("floor") == (5, b"")


def test_each_cut_leaves_the_old_value_or_the_new_one():
    for prior in (1, 5, 14):
        for variant in (BEFORE, TORN):
            for at in range(40):
                flash = NorFlash(8192)
                journal = _journal(flash)
                for i in range(prior):
                    journal.put("a", bytes([i]) * 300)
                journal.raise_mark("m", 9)
                flash.plan_cut(at, variant)
                cut = False
                try:
                    journal = _journal(flash)
                    journal.put("a", b"new")
                    journal.raise_mark("m", 10)
                except PowerCut:
                    cut = True
                flash.no_cut()
                journal = _journal(flash)
                assert journal.affirm("a") in (bytes([prior - 1]) * 300, b"new")
                assert journal.mark("m")[0] in (9, 10)
                if not cut:
                    break
            assert not cut


def test_worn_blocks_are_passed_over_and_worn_flash_is_reported():
    flash = NorFlash(8192)
    journal = _journal(flash)
    journal.put("a", b"1")
    flash.worn = {0, 1}
    assert _code(journal.put, "a", b"2") == "journal-worn"
    flash.worn = set()
    assert _journal(flash).affirm("a") in (b"1", b"2")
    flash.worn = {1}
    assert _code(journal.put, "a", b"3") is None
    _same(flash, {"a": b"3"})


def test_failed_put_is_not_taken_for_firm():
    flash = NorFlash(8192)
    journal = _journal(flash)
    journal.put("a", b"1")
    flash.worn = {0, 1}
    assert _code(journal.put, "a", b"2") == "journal-worn"
    flash.worn = set()
    done = flash.operations
    assert journal.affirm("a") == b"1" and flash.operations > done


def test_writes_are_bracketed_and_the_bracket_always_closes():
    calls = []
    flash = NorFlash(8192)
    journal = _journal(flash, calls.append)
    journal.put("a", b"1")
    assert calls == [False, True]
    flash.worn = {0, 1}
    assert _code(journal.put, "a", b"2") == "journal-worn"
    assert calls == [False, True] * 2


def test_garbage_is_no_journal():
    for seed in range(8):
        flash = NorFlash(8192)
        for page in range(0, 8192, 256):
            first = page // 256 * 37
            flash.program(page, bytes([(first + i * (seed + 1)) & 0x7F for i in range(256)]))
        journal = _journal(flash)
        assert journal.is_blank() and journal.keys() == []


def test_worn_records_are_noticed():
    class Forgetful(NorFlash):
        """Takes claims, but no longer whole records."""

        tired = False

        def program(self, addr, data):
            if not self.tired or bytes(data).replace(b"\xff", b"").replace(b"\x00", b"") == b"":
                NorFlash.program(self, addr, data)

    flash = Forgetful(8192)
    journal = _journal(flash)
    journal.put("a", b"1")
    flash.tired = True
    assert _code(journal.put, "a", b"2") == "journal-worn"
    flash.tired = False
    assert _journal(flash).affirm("a") == b"1"
