# Canonical JSON as securesystemslib writes it, and a reader that takes JSON only.

from tidemark import canonjson
from tidemark.errors import CodecError

# Value, canonical form.
_CANONICAL = (
    ({}, b"{}"),
    ([], b"[]"),
    ((1, 2), b"[1,2]"),
    ("", b'""'),
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    (0, b"0"),
    (-7, b"-7"),
    (1 << 53, b"9007199254740992"),
    ({"b": 1, "a": [True, None], "B": {}}, b'{"B":{},"a":[true,null],"b":1}'),
    ({"10": 1, "9": 2, "": 3}, b'{"":3,"10":1,"9":2}'),
    # Only the quote and the backslash are escaped; control characters stand as they are.
    ('a"b\\c/d\n\t\x01\x7f', b'"a\\"b\\\\c/d\n\t\x01\x7f"'),
    ("\u00fc\u6c34\U00010151", b'"\xc3\xbc\xe6\xb0\xb4\xf0\x90\x85\x91"'),
    # Sorted by code point, also where UTF-16 would differ.
    ({"\uff61": 1, "\U00010151": 2}, b'{"\xef\xbd\xa1":1,"\xf0\x90\x85\x91":2}'),
)

# Text, value.
_JSON = (
    (b"0", 0),
    (b"-0", 0),
    (b" \t\r\n12 ", 12),
    (b"-9007199254740992", -9007199254740992),
    (b"true", True),
    (b"[false,null]", [False, None]),
    (b"[]", []),
    (b"[ ]", []),
    (b"{}", {}),
    (b"{ }", {}),
    (b'{"a" : [ 1 , {"b":"c"} ] }', {"a": [1, {"b": "c"}]}),
    (b'""', ""),
    (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    (b'"\\u0041\\u00e9\\u00E9\\uFF61"', "A\u00e9\u00e9\uff61"),
    (b'"\\ud800\\udd51"', "\U00010151"),
    (b'"x\xe6\xb0\xb4\\u0000y"', "x\u6c34\x00y"),
    (b'"\\\\"', "\\"),
    (b'"\\\\\\""', '\\"'),
    (b'"\x7f"', "\x7f"),
)

# Text, code of the refusal. Most of these are taken by one json module or another.
_REFUSED = (
    (b"", "json-syntax"),
    (b" ", "json-syntax"),
    (b"1 2", "json-syntax"),
    (b'{"a":1} x', "json-syntax"),
    (b"{}\x00", "json-syntax"),
    (b"\xef\xbb\xbf{}", "json-syntax"),
    (b"[", "json-syntax"),
    (b"[1", "json-syntax"),
    (b"[1,", "json-syntax"),
    (b"[1,]", "json-syntax"),
    (b"[,1]", "json-syntax"),
    (b"[1 2]", "json-syntax"),
    (b"[1}", "json-syntax"),
    (b"[true false]", "json-syntax"),
    (b"]", "json-syntax"),
    (b"{", "json-syntax"),
    (b'{"a"', "json-syntax"),
    (b'{"a":', "json-syntax"),
    (b'{"a":1', "json-syntax"),
    (b'{"a":1,', "json-syntax"),
    (b'{"a":1,}', "json-syntax"),
    (b'{"a" 1}', "json-syntax"),
    (b'{"a":1 "b":2}', "json-syntax"),
    (b'{"a":1]', "json-syntax"),
    (b"{1:2}", "json-syntax"),
    (b"{a:2}", "json-syntax"),
    (b"{null:2}", "json-syntax"),
    (b"fal", "json-syntax"),
    (b"True", "json-syntax"),
    (b"nullx", "json-syntax"),
    (b"NaN", "json-syntax"),
    (b"Infinity", "json-syntax"),
    (b"-Infinity", "json-syntax"),
    (b"'a'", "json-syntax"),
    (b"/* */1", "json-syntax"),
    (b"01", "json-syntax"),
    (b"-01", "json-syntax"),
    (b"00", "json-syntax"),
    (b"-", "json-syntax"),
    (b"- 1", "json-syntax"),
    (b"--1", "json-syntax"),
    (b"+1", "json-syntax"),
    (b".5", "json-syntax"),
    (b"0x10", "json-syntax"),
    (b"1-2", "json-syntax"),
    (b'"abc', "json-syntax"),
    (b'"a\nb"', "json-syntax"),
    (b'"a\x00b"', "json-syntax"),
    (b'"\\x41"', "json-syntax"),
    (b'"\\', "json-syntax"),
    (b'"\\"', "json-syntax"),
    (b'"\\u12"', "json-syntax"),
    (b'"\\u12', "json-syntax"),
    (b'"\\u123g"', "json-syntax"),
    (b'"\\u+123"', "json-syntax"),
    (b'"\\U0041"', "json-syntax"),
    (b"1.0", "json-float"),
    (b"[1e5]", "json-float"),
    (b"-1E5", "json-float"),
    (b"1.", "json-float"),
    (b"9007199254740993", "json-int"),
    (b"-9007199254740993", "json-int"),
    (b"123456789012345678901234567890", "json-int"),
    (b'{"a":1,"a":1}', "json-duplicate"),
    (b'{"a":1,"\\u0061":2}', "json-duplicate"),
    (b'[{"a":{},"b":1,"a":{}}]', "json-duplicate"),
    (b'"\xff"', "json-utf8"),
    (b'"\xc0\x80"', "json-utf8"),
    (b'"\xed\xa0\x80"', "json-utf8"),
    (b'"\xe6\xb0"', "json-utf8"),
    (b'"\xf4\x90\x80\x80"', "json-utf8"),
    (b'"\\ud800"', "json-utf8"),
    (b'"\\udd51"', "json-utf8"),
    (b'"\\ud800x"', "json-utf8"),
    (b'"\\ud800\\n"', "json-utf8"),
    (b'"\\ud800\\ud800"', "json-utf8"),
)


def _refuses(code, call, *args):
    try:
        value = call(*args)
    except CodecError as e:
        assert e.code == code, (e.code, code, args)
        return
    assert False, (code, args, value)


def test_writes_the_canonical_form():
    for value, want in _CANONICAL:
        assert canonjson.encode(value) == want, want


def test_refuses_what_has_no_canonical_form():
    for value, code in (
        (1.0, "json-float"),
        ([0.5], "json-float"),
        ({1: 2}, "json-key"),
        ({b"a": 2}, "json-key"),
        ({None: 2}, "json-key"),
        (b"bytes", "json-type"),
        ([object()], "json-type"),
        ("\ud800", "json-utf8"),
    ):
        _refuses(code, canonjson.encode, value)


def test_reads_json():
    for text, want in _JSON:
        got = canonjson.loads(text, 1000)
        assert got == want and type(got) is type(want), (text, got)
        assert canonjson.loads(bytearray(text), 1000) == want
        assert canonjson.loads(memoryview(text), 1000) == want


def test_refuses_all_else():
    for text, code in _REFUSED:
        _refuses(code, canonjson.loads, text, 1000)


def test_every_prefix_is_refused():
    text = b'{"a":[1,true,null,"x\\u00e9\\n"],"b":{"c":-5}}'
    for n in range(len(text)):
        _refuses("json-syntax", canonjson.loads, text[:n], 1000)


def test_size_and_depth_are_bounded():
    assert canonjson.loads(b"[1]", 3) == [1]
    _refuses("json-size", canonjson.loads, b"[1] ", 3)
    assert canonjson.loads(b"[[[1]]]", 100, 3) == [[[1]]]
    _refuses("json-depth", canonjson.loads, b"[[[[1]]]]", 100, 3)
    _refuses("json-depth", canonjson.loads, b'{"a":[{"b":{}}]}', 100, 3)
    _refuses("json-depth", canonjson.loads, b"[" * 100000, 100000)
    _refuses("json-depth", canonjson.loads, b'{"":' * 10000, 100000)


def test_a_string_of_escapes_costs_no_more_than_its_length():
    # Each escape must not look for the closing quote again.
    text = b'"' + b"\\n" * 20000 + b'"'
    assert canonjson.loads(text, 50000) == "\n" * 20000


def test_reading_the_canonical_form_gives_the_value_again():
    for value, form in _CANONICAL:
        if b"\n" not in form and not isinstance(value, tuple):
            assert canonjson.loads(form, 1000) == value
