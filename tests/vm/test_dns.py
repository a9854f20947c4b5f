# Questions to a name server and its answers, which anybody on the network may forge or garble.

from tidemark import dns
from tidemark.errors import LinkError


def refused(call, *args):
    try:
        call(*args)
    except LinkError as error:
        return error.code
    raise AssertionError("not refused")


def record(address, kind=1, owner=b"\xc0\x0c", klass=1):
    """A resource record; `address` is its data."""
    head = owner + kind.to_bytes(2, "big") + klass.to_bytes(2, "big") + bytes(4)
    return head + len(address).to_bytes(2, "big") + bytes(address)


def reply(asked, records, count=None, flags=b"\x81\x80", number=None):
    count = len(records) if count is None else count
    head = (asked[:2] if number is None else number) + flags + b"\x00\x01"
    return head + count.to_bytes(2, "big") + bytes(4) + asked[12:] + b"".join(records)


ASKED = dns.question(0x1234, "broker.barn.example")
ALIAS = record(b"\x01x\xc0\x0c", kind=5)


def test_question_is_one_standard_query_for_an_address():
    assert ASKED == (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        b"\x06broker\x04barn\x07example\x00\x00\x01\x00\x01"
    )


def test_what_is_no_name_is_not_asked_for():
    for name in ("", ".", "a..b", "a.", "x" * 64, ".".join(["x" * 63] * 4)):
        assert refused(dns.question, 1, name) == "resolve"
    assert len(dns.question(1, "x" * 63)) == 12 + 1 + 63 + 1 + 4


def test_addresses_are_told_from_names():
    for host in ("192.0.2.7", "0.0.0.0", "255.255.255.255"):
        assert dns.is_address(host)
    for host in ("192.0.2", "192.0.2.256", "192.0.2.7.", "192.0.2.x", "", "1.2.3.4.5", "1..2.3"):
        assert not dns.is_address(host)


def test_addresses_of_an_answer_are_found_behind_an_alias():
    found = dns.answer(ASKED, reply(ASKED, [ALIAS, record((192, 0, 2, 7)), record((10, 1, 2, 3))]))
    assert found == ["192.0.2.7", "10.1.2.3"]
    long_owner = record((192, 0, 2, 7), owner=b"\x03www\x04barn\x00")
    assert dns.answer(ASKED, reply(ASKED, [long_owner])) == ["192.0.2.7"]


def test_no_more_than_four_addresses_are_taken():
    records = [record((192, 0, 2, n)) for n in range(9)]
    assert dns.answer(ASKED, reply(ASKED, records)) == ["192.0.2.%d" % n for n in range(4)]


def test_answer_to_another_question_is_none():
    good = [record((192, 0, 2, 7))]
    other = dns.question(0x1234, "broker.burn.example")
    assert dns.answer(ASKED, reply(ASKED, good, number=b"\x12\x35")) is None
    assert dns.answer(ASKED, reply(other, good)) is None
    for flags in (b"\x01\x80", b"\x89\x80", b"\x83\x80"):  # a query, another kind, cut short
        assert dns.answer(ASKED, reply(ASKED, good, flags=flags)) is None


def test_servers_no_is_an_error_with_a_code():
    for flags in (b"\x81\x83", b"\x81\x82", b"\x81\x85"):
        assert refused(dns.answer, ASKED, reply(ASKED, [], flags=flags)) == "resolve"
    assert refused(dns.answer, ASKED, reply(ASKED, [])) == "resolve"
    six = record(bytes(16), kind=28)
    assert refused(dns.answer, ASKED, reply(ASKED, [ALIAS, six])) == "resolve"


def test_answer_cut_at_any_byte_or_altered_is_none_a_code_or_an_answer():
    whole = reply(ASKED, [ALIAS, record((192, 0, 2, 7), owner=b"\x03www\x04barn\x00")])
    for end in range(len(whole)):
        assert dns.answer(ASKED, whole[:end]) is None, end
    for at in range(len(whole)):
        for byte in (0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF):
            try:
                found = dns.answer(ASKED, whole[:at] + bytes((byte,)) + whole[at + 1 :])
            except LinkError as error:
                assert error.code == "resolve"
            else:
                assert found is None or 1 <= len(found) <= 2


def test_promised_records_are_looked_at_up_to_a_bound():
    # 16 aliases, and an address behind them that is not looked for.
    many = [ALIAS] * 16 + [record((192, 0, 2, 7))]
    assert refused(dns.answer, ASKED, reply(ASKED, many)) == "resolve"
    assert dns.answer(ASKED, reply(ASKED, many[1:])) == ["192.0.2.7"]
    assert dns.answer(ASKED, reply(ASKED, [ALIAS], count=0xFFFF)) is None
