"""Words of the formats: what a change puts into an input besides single bytes."""

# fmt: off
CBOR_WORDS = (
    *(b"\xf4", b"\xf6", b"\xf7", b"\xf9\x44\x00", b"\xf9\x7e\x00", b"\xfa\x7f\xc0\x00\x00"),
    *(b"\x18\x18", b"\x19\x01\x00", b"\x1b" + b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\x5f"),
    *(b"\xff",),
    *(b"\xa1\x00\x00", b"\xa2\x00\x00\x00\x00", b"\x80", b"\x60", b"\x61\xff", b"\x62\xc3\xa9"),
    *(b"\xc0", b"\xc2\x41\x00", b"\xd1", b"\xe0", b"\xf8\x20", b"\x20", b"\x01\x01"),
)

# Headers with a number that only equals the algorithm's: f9 4400 is 4.0.
COSE_WORDS = (
    *(b"\x44\xa1\x01\xf9\x44", b"\x45\xa1\x01\xf9\x44\x00", b"\x45\xa1\x01\xf9\xc8\x00"),
    *(b"\x45\xa1\x01\xf9\x49\x00", b"\x43\xa1\x01\x05", b"\x43\xa1\x01\x27", b"\x40", b"\xa0"),
    *(b"\xa1\x04\x41\x01", b"\xd0", b"\xd1", b"\xd2", b"\x43\xa1\x01\x0a"),
)

JSON_WORDS = (
    *(b"null", b"true", b"-1", b"0", b"-0", b"1e9", b"9007199254740993", b"1" * 30, b"[]", b"{}"),
    *(b'""', b'"\\ud800"', b'"\\u0000"', b"\\", b"\x7f", b"\xc3\xa9", b"\xff", b"[" * 20, b" "),
    *(b'"signed":', b'"signatures":', b'"version":', b'"*"', b'"paths":', b'"roles":'),
    *(b'"abort":',),
    *(b'"a"', b'"../x"', b'"1.0"', b'"2027-02-30T00:00:00Z"', b'"sha512":"00"', b'"length":'),
)

HTTP_WORDS = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b": ", b":", b"\t", b" ", b"\0", b"\x1c"),
    *(b"\x85",),
    *(b"\xc2\xa0", b"\xc3\xa9", b"\xff", b"\x0b", b"Content-Length: 5", b"Content-Length:60"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"+60", b"060", b"6_0"),
    *(b"Content-Encoding: identity\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"206", b"416"),
    *(b"bytes ",),
    *(b"X: \nTransfer-Encoding: chunked\r\n", b"X: a\rContent-Length: 7\r\n", b"99999999999"),
)

MQTT_WORDS = (
    *(b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x80", b"\x40\x02\x00\x01", b"\xd0\x00", b"\x34"),
    *(b"\x30\x00", b"\x32\x02\x00\x00", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\x7f", b"\x36"),
    *(b"\x90\x03\x00\x01\x01", b"\x62\x02\x00\x01", b"\xe0\x00", b"\x30\x05\x00\x03\xff\xfe\xfd"),
)

TOML_WORDS = (
    *(b"[", b"[[", b"]", b"]]", b"=", b"\n", b'"', b"'", b'"""', b".", b"{", b"}", b","),
    *(b"#", b"\\"),
    *(b"0x", b"-1", b"true", b"1.5", b"nan", b"1979-05-27", b"9" * 4301, b"a." * 600),
    *(b"[[board]]\n",),
    *(b"[" * 400, b"{a=" * 200, b"\xff", b"\xc3\xa9", b"[0, 4096]", b"[x]\n", b'\nlabel = "x"\n'),
)

DER_WORDS = (b"\x30", b"\x02", b"\x03", b"\x00", b"\x80", b"\x81\x80", b"\x82\x01\x00",
             b"\x06\x08")

PEM_WORDS = (
    *(b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----", b"\n", b"\r\n", b" "),
    *(b"=", b"=="),
    *(b"\xc2\xa0", b"\x0c", b"\x1c", b"A", b"/", b"-", b"_", b"AAAA"),
)

# fmt: on
