"""The host reads evidence as the firmware wrote it: records, gaps, chain, the reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nor import NorFlash
from tidemark import evidence as firmware
from tidemark import reasons
from tidemark.flash import Region
from tidemark_host import evidence
from tidemark_host.evidence import EvidenceError, Gap, read_ring

SECTOR = 4096
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["boot", "reset", "rejected", "confirmed", "crash", "x" * 12, "x" * 13, "y" * 24]
        ),
        st.binary(max_size=16),
        st.sampled_from([firmware.SECURITY, firmware.SLOT, firmware.SYSTEM, firmware.REMOTE]),
    ),
    max_size=150,
)


def ring(sectors: int = 2) -> tuple[firmware.Evidence, bytearray]:
    content = bytearray(b"\xff" * sectors * SECTOR)
    made = firmware.Evidence(Region(NorFlash(content), 0, len(content)), coalesce_ms=0)
    made.recover()
    return made, content


def code_of(content: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        read_ring(content)
    return caught.value.code


@settings(deadline=None)
@given(EVENTS)
def test_what_the_firmware_recorded_is_what_the_host_reads(
    events: list[tuple[str, bytes, int]],
) -> None:
    made, content = ring()
    for at, (code, detail, kind) in enumerate(events):
        made.add(code, detail, kind, epoch=at, seq=at, uptime_ms=at * 100, cause="power-on")
    seen = read_ring(bytes(content))
    assert not seen.broken
    newest = made.head()[0]
    assert (seen.records[-1].number if seen.records else 0) == newest
    for record in seen.records:
        number, kind, code, detail, epoch, seq, uptime, cause, segment, _ = firmware.parse(
            made.read(record.number, 1)
        )
        assert (record.number, record.kind, record.code) == (number, evidence.KINDS[kind], code)
        assert (record.epoch, record.seq, record.cause) == (epoch, seq, cause)
        assert (record.uptime_s * 1000, record.segment) == (uptime, segment)
        if record.kind != "remote":
            assert record.count == 1
            assert len(record.detail) >= len(detail)


@settings(deadline=None)
@given(st.integers(0, 2 * SECTOR - 1), st.integers(1, 255))
def test_any_changed_byte_is_a_gap_or_a_broken_chain_or_blank(at: int, flip: int) -> None:
    made, content = ring()
    for number in range(100):
        made.add("boot", b"%d" % number)
    whole = read_ring(bytes(content))
    content[at] ^= flip
    seen = read_ring(bytes(content))
    touched = at // 64 + 1
    if any(record.number == touched for record in whole.records):
        assert seen.records != whole.records
        inside = touched not in (whole.records[0].number, whole.records[-1].number)
        assert not inside or Gap(touched, touched, False) in seen.gaps
    else:
        assert seen == whole


def test_gap_that_the_board_knew_of_is_marked_and_its_chain_goes_on() -> None:
    made, content = ring()
    for _ in range(3):
        made.add("boot", b"power-on")
    content[2 * 64 + 8] = 0  # the newest record has decayed
    again = firmware.Evidence(Region(NorFlash(content), 0, len(content)))
    again.recover()
    again.add("boot", b"watchdog")
    seen = read_ring(bytes(content))
    assert seen.gaps == (Gap(3, 3, True),)
    assert not seen.broken
    assert seen.records[-1].segment


def test_torn_record_that_comes_to_light_behind_a_marked_one_accuses_nobody() -> None:
    made, content = ring()
    for _ in range(3):
        made.add("boot", b"power-on")
    torn = bytes(content[2 * 64 : 3 * 64])
    content[2 * 64 + 4 : 3 * 64] = b"\xff" * 60  # today it reads as its claim alone
    again = firmware.Evidence(Region(NorFlash(content), 0, len(content)))
    again.recover()
    for _ in range(2):
        again.add("boot", b"power-on")
    content[2 * 64 : 3 * 64] = torn  # and tomorrow whole
    seen = read_ring(bytes(content))
    assert [record.number for record in seen.records] == [1, 2, 3, 4, 5]
    assert seen.records[3].segment
    assert not seen.broken


def test_record_that_was_exchanged_breaks_the_chain_at_its_number() -> None:
    made, content = ring()
    other, foreign = ring()
    for number in range(5):
        made.add("boot", b"%d" % number)
        other.add("boot", b"x%d" % number)
    content[3 * 64 : 4 * 64] = foreign[3 * 64 : 4 * 64]
    assert read_ring(bytes(content)).broken == (4, 5)


def test_record_in_the_slot_of_another_number_does_not_count() -> None:
    made, content = ring()
    for _ in range(3):
        made.add("boot", b"power-on")
    content[5 * 64 : 6 * 64] = content[1 * 64 : 2 * 64]
    content[1 * 64 : 2 * 64] = b"\xff" * 64
    assert [record.number for record in read_ring(bytes(content)).records] == [1, 3]


def test_bytes_that_are_no_region_are_refused() -> None:
    assert [
        code_of(content) for content in (b"", b"\xff" * 63, bytes(evidence.MAX_REGION + 64))
    ] == ["region"] * 3
    assert read_ring(b"\xff" * 8192).records == ()
    assert read_ring(b"\xff" * 8192).why == "no boot is on record; no trial is on record"


def test_every_reason_of_the_firmware_has_words() -> None:
    for reason in (*filter(None, reasons.REASONS), *("power-on", "watchdog", "reset", "soft")):
        made, content = ring()
        made.add("boot", reason.encode()[:16])
        said = read_ring(bytes(content)).why
        assert said.startswith("last reset: ")
        assert said.removeprefix("last reset: ").split(";")[0] != reason
    assert tuple(evidence.CAUSES) == firmware.CAUSES


def test_line_names_the_exception_and_how_the_last_trial_ended() -> None:
    made, content = ring()
    made.add("boot", b"power-on")
    made.add("confirmed", b"1.0.0", firmware.SLOT)
    made.add("boot", b"update")
    made.add("crash", b"ImportError")
    made.add("rejected", b"crash", firmware.SLOT)
    made.add("reset", b"rollback")
    made.add("boot", b"rollback")
    assert read_ring(bytes(content)).why == (
        "last reset: deliberate, after a trial had ended (crash ImportError); "
        "rolled back: the release was rejected, crash (record 5)"
    )


def test_text_of_a_board_is_escaped() -> None:
    made, content = ring()
    made.add("boot", b"\x1b[31m\n\xff")
    assert read_ring(bytes(content)).records[0].detail == "\\x1b[31m\\x0a\\xff"
