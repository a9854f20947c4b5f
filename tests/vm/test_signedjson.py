# The signed part of a metadata file: the bytes that count, and what is read of them.

from tidemark import canonjson
from tidemark.errors import CodecError
from tidemark.signedjson import open_signed

SHAPE = {"a": None, "keys": {"*": {"public": None}}, "roles": {"name": None}}
SIGNED = {
    "a": [1, {"x": "y"}],
    "keys": {"k1": {"public": "p", "note": {"deep": [1]}}, "k2": {"public": "q"}},
    "roles": [{"name": "r", "other": 1}, {"name": 's"\\'}],
    "unknown": {"b": [True, None, False, -5, '"']},
}
READ = {
    "a": [1, {"x": "y"}],
    "keys": {"k1": {"public": "p"}, "k2": {"public": "q"}},
    "roles": [{"name": "r"}, {"name": 's"\\'}],
}


def file_of(signed, signatures=b"[]"):
    return b'{"signatures":' + signatures + b',"signed":' + signed + b"}"


def opened(data, depth=10, size=9999):
    signatures, signed, message = open_signed(data, size, depth, SHAPE)
    return signatures, signed, bytes(message)


def test_canonical_file_is_read_in_place():
    message = canonjson.encode(SIGNED)
    data = file_of(message, b'[{"keyid":"k","sig":"ab"}]')
    signatures, signed, found = open_signed(data, 9999, 10, SHAPE)
    assert signatures == [{"keyid": "k", "sig": "ab"}]
    assert signed == READ
    assert isinstance(found, memoryview) and bytes(found) == message


def test_any_other_spelling_is_signed_and_read_the_same():
    message = canonjson.encode(SIGNED)
    for old, new in (
        (b"{", b" { "),
        (b":", b"\n: "),
        (b'"public"', b'"p\\u0075blic"'),
        (b'"k1"', b'"\\u006b1"'),
        (b"-5", b" -5"),
    ):
        spelled = message.replace(old, new)
        assert opened(file_of(spelled)) == ([], READ, message), spelled
    swapped = b'{"signed":' + message + b',"signatures":[]}'
    assert opened(swapped) == ([], READ, message)
    assert opened(file_of(message)[:-1] + b',"zz":1}') == ([], READ, message)
    assert opened(file_of(message) + b"\n") == ([], READ, message)


def test_keys_out_of_order_are_put_in_order():
    assert opened(file_of(b'{"b":1,"a":2}')) == ([], {"a": 2}, b'{"a":2,"b":1}')
    # Also where nothing of it is kept.
    assert opened(file_of(b'{"unknown":{"b":1,"a":2}}'))[2] == b'{"unknown":{"a":2,"b":1}}'


def test_text_beyond_ascii_counts_as_utf8():
    for text in (b'"\xc3\xbc"', b'"\\u00fc"'):
        read = ([], {"a": "\u00fc"}, b'{"a":"\xc3\xbc"}')
        assert opened(file_of(b'{"a":' + text + b"}")) == read
    # Control characters stand for themselves once they are signed, and nowhere else.
    assert opened(file_of(b'{"a":"\\n"}')) == ([], {"a": "\n"}, b'{"a":"\n"}')


def test_what_is_no_json_is_refused_wherever_it_stands():
    for place in (b'{"a":%s}', b'{"unknown":%s}', b'{"keys":{"k":{"public":%s}}}'):
        for text, code in (
            (b'"\n"', "json-syntax"),
            (b"01", "json-syntax"),
            (b"1.5", "json-float"),
            (b"9007199254740993", "json-int"),
            (b'{"a":1,"a":1}', "json-duplicate"),
            (b'{"b":1,"a":1,"b":1}', "json-duplicate"),
            (b"[1,]", "json-syntax"),
            (b'{"a" 1}', "json-syntax"),
            (b"[1 2]", "json-syntax"),
            (b"nul", "json-syntax"),
            (b'"\\x"', "json-syntax"),
            (b'"\xff"', "json-utf8"),
            (b'"', "json-syntax"),
            (b"1}, 2", "json-syntax"),
            (b"[[[[[[[[[[1]]]]]]]]]]", "json-depth"),
        ):
            data = file_of(place.replace(b"%s", text))
            try:
                raise AssertionError((data, opened(data)))
            except CodecError as error:
                assert error.code == code, (data, error.code)


def test_text_behind_the_file_is_refused():
    for text in (b"}", b"{}", b"x", b",", b"\x00"):
        try:
            raise AssertionError(opened(file_of(b"{}") + text))
        except CodecError as error:
            assert error.code == "json-syntax"


def test_bounds_are_those_of_the_careful_reader():
    deep = b"[" * 8 + b"]" * 8
    assert opened(file_of(b'{"unknown":' + deep + b"}"))[1] == {}
    flood = file_of(b'{"unknown":[' + b"[]," * 2000 + b"[]]}")
    for data, size, code in (
        (file_of(b"{}"), 10, "json-size"),
        (flood, 9999, "json-nodes"),
        (file_of(b'{"unknown":' + b"[" * 3000 + b"]" * 3000 + b"}"), 9999, "json-depth"),
    ):
        try:
            raise AssertionError(opened(data, size=size))
        except CodecError as error:
            assert error.code == code


def test_missing_parts_are_none():
    for data in (b"{}", b"[]", b"1", b'{"signed":1}', file_of(b"[]"), file_of(b'"x"')):
        assert opened(data)[1] is None
    assert opened(b'{"signed":{}}')[0] is None


def test_others_get_their_turn():
    turns = []
    message = canonjson.encode({"unknown": [["some text"] for _ in range(200)]})
    for data in (file_of(message), file_of(message) + b" "):
        before = len(turns)
        open_signed(data, 9999, 10, SHAPE, lambda: turns.append(1))
        assert len(turns) - before >= 10
