# COSE against the examples of the COSE working group and RFC 9052's structures, and what the
# profile refuses.

from tidemark import cbor, cose
from tidemark.errors import CodecError, CryptoError

_CONTENT = b"This is the content."
_MAC_KEY = bytes.fromhex("849b57219dae48de646d07dbb533566e976686457c1491be3a76dcea6c427188")
_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

# COSE working group, github.com/cose-wg/Examples. What is authenticated: example; protected
# header, external data, MAC_structure.
_MAC_STRUCTURES = (
    (  # mac0-tests/HMac-01
        "a10105",
        "",
        "84644d41433043a101054054546869732069732074686520636f6e74656e742e",
    ),
    (  # mac0-tests/mac-pass-02
        "",
        "ff00ee11dd22cc33bb44aa559966",
        "84644d414330404eff00ee11dd22cc33bb44aa55996654546869732069732074686520636f6e74656e742e",
    ),
    (  # mac0-tests/mac-pass-03
        "",
        "",
        "84644d414330404054546869732069732074686520636f6e74656e742e",
    ),
    (  # hmac-examples/HMac-enc-05
        "a10104",
        "",
        "84644d41433043a101044054546869732069732074686520636f6e74656e742e",
    ),
)

# The same for signatures: protected header, external data, Sig_structure.
_SIG_STRUCTURES = (
    (  # eddsa-examples/eddsa-sig-02
        "a10127",
        "",
        "846a5369676e61747572653143a101274054546869732069732074686520636f6e74656e742e",
    ),
    (  # sign1-tests/sign-pass-02
        "a10126",
        "11aa22bb33cc44dd55006699",
        "846a5369676e61747572653143a101264c11aa22bb33cc44dd5500669954546869732069732074686520636f"
        "6e74656e742e",
    ),
)

# Tags under _MAC_KEY: protected header, external data, tag as it stands in the example.
_MAC_TAGS = (
    ("a10105", "", "a1a848d3471f9d61ee49018d244c824772f223ad4f935293f1789fc3a08d8c58"),
    (
        "",
        "ff00ee11dd22cc33bb44aa559966",
        "0fecaec59bb46cc8a488aaca4b205e322dd52696b75a45768d3c302dd4bae2f7",
    ),
    ("", "", "176dce14c1e57430c13658233f41dc89aa4fa0ff9b8783f23b0ef51ca6b026bc"),
    ("a10104", "", "11f9e357975fb849"),
)

# eddsa-examples/eddsa-sig-01: its protected header also names a content type.
_EDDSA_PROTECTED = "a201270300"
_EDDSA_SIGNATURE = (
    "7142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c5781932b7afb87"
    "11497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a44d6fef0d"
)

# Whole examples that other profiles allow and this one refuses: message, code.
_FOREIGN = (
    (  # mac0-tests/HMac-01: no kid
        "d18443a10105a054546869732069732074686520636f6e74656e742e5820a1a848d3471f9d61ee49018d244c"
        "824772f223ad4f935293f1789fc3a08d8c58",
        "cose-shape",
    ),
    (  # mac0-tests/mac-pass-02: the algorithm is not protected
        "d18440a1010554546869732069732074686520636f6e74656e742e58200fecaec59bb46cc8a488aaca4b205e"
        "322dd52696b75a45768d3c302dd4bae2f7",
        "cose-shape",
    ),
    (  # mac0-tests/mac-pass-03: no tag
        "8440a1010554546869732069732074686520636f6e74656e742e5820176dce14c1e57430c13658233f41dc89"
        "aa4fa0ff9b8783f23b0ef51ca6b026bc",
        "cbor-tag",
    ),
    (  # sign1-tests/sign-pass-02: ECDSA
        "d28443a10126a10442313154546869732069732074686520636f6e74656e742e5840eae868ecc176883766c5"
        "dc5ba5b8dca25dab3c2e56a551ce5705b793914348e155388b10c4f1b59a6733eab416870a945111a4b2fbdb"
        "ef33a77234b1deff2f9b",
        "cose-alg",
    ),
    (  # eddsa-examples/eddsa-sig-01: two protected headers, kid in a signature
        "d28445a201270300a10442313154546869732069732074686520636f6e74656e742e58407142fd2ff96d56db"
        "85bee905a76ba1d0b7321a95c8c4d3607c5781932b7afb8711497dfa751bf40b58b3bcc32300b1487f3db340"
        "85eef013bf08f4a44d6fef0d",
        "cose-shape",
    ),
    (  # sign1-tests/sign-fail-01: tag 998
        "d903e68443a10126a10442313154546869732069732074686520636f6e74656e742e5840eae868ecc1768837"
        "66c5dc5ba5b8dca25dab3c2e56a551ce5705b793914348e19f43d6c6ba654472da301b645b293c9ba939295b"
        "97c4bdb847782bff384c5794",
        "cbor-tag",
    ),
)

_AAD = cose.aad("up", "0011223344556677", "telemetry", b"bootnonc")
_KID = b"\x07"


def _refuses(family, code, call, *args):
    try:
        value = call(*args)
    except (CodecError, CryptoError) as e:
        assert isinstance(e, family) and e.code == code, (e.code, code)
        return
    assert False, (code, value)


def _key_for_kid(kid):
    return _MAC_KEY if kid == _KID else None


def _open(message):
    return cose.mac0_open(_key_for_kid, message, _AAD, (cose.HMAC_64, cose.HMAC_256))


def test_structures_of_the_examples():
    for protected, external, want in _MAC_STRUCTURES:
        got = cose.mac_structure(bytes.fromhex(protected), bytes.fromhex(external), _CONTENT)
        assert got == bytes.fromhex(want)
    for protected, external, want in _SIG_STRUCTURES:
        got = cose.sig_structure(bytes.fromhex(protected), bytes.fromhex(external), _CONTENT)
        assert got == bytes.fromhex(want)


def test_tags_and_signature_of_the_examples():
    from tidemark import ed25519, hkdf

    for protected, external, want in _MAC_TAGS:
        data = cose.mac_structure(bytes.fromhex(protected), bytes.fromhex(external), _CONTENT)
        want = bytes.fromhex(want)
        assert hkdf.hmac_sha256(_MAC_KEY, data)[: len(want)] == want
    data = cose.sig_structure(bytes.fromhex(_EDDSA_PROTECTED), b"", _CONTENT)
    assert ed25519.sign(_SEED, data) == bytes.fromhex(_EDDSA_SIGNATURE)
    assert ed25519.verify(_PUBLIC, data, bytes.fromhex(_EDDSA_SIGNATURE))


def test_messages_of_other_profiles_are_refused():
    for text, code in _FOREIGN:
        _refuses(CodecError, code, cose.peek, bytes.fromhex(text))


def test_the_kid_is_not_authenticated_so_a_sealed_example_differs_by_it_alone():
    # mac0-tests/HMac-01 and hmac-examples/HMac-enc-05 with a kid of ours.
    for alg, tag in ((cose.HMAC_256, _MAC_TAGS[0][2]), (cose.HMAC_64, _MAC_TAGS[3][2])):
        message = cose.mac0_seal(_MAC_KEY, _CONTENT, b"", _KID, alg)
        tag = bytes.fromhex(tag)
        assert message[-len(tag) :] == tag
        assert message[:5] == bytes((0xD1, 0x84, 0x43, 0xA1, 0x01))
        assert cose.mac0_open(_key_for_kid, message, b"", (alg,)) == (_CONTENT, _KID)


def test_external_aad_is_the_array_of_the_protocol():
    want = "85" + "01" + "627570" + "70" + b"0011223344556677".hex() + "69" + b"telemetry".hex()
    assert _AAD == bytes.fromhex(want + "48" + b"bootnonc".hex())
    assert cose.aad("down", "0011223344556677", "time", b"")[-1:] == b"\x40"


def test_mac0_opens_what_it_sealed():
    for alg, size in ((cose.HMAC_64, 8), (cose.HMAC_256, 32)):
        message = cose.mac0_seal(_MAC_KEY, b"payload", _AAD, _KID, alg)
        assert _open(message) == (b"payload", _KID)
        assert _open(memoryview(bytearray(message))) == (b"payload", _KID)
        assert cose.peek(message) == (cose.TAG_MAC0, alg, _KID, b"payload")
        assert cbor.decode(message, 6, 1024, (17,)).value[3] == message[-size:]


def test_sign1_opens_what_it_sealed():
    message = cose.sign1_seal(_SEED, b"payload", _AAD)
    assert message == cose.sign1_seal(_SEED, b"payload", _AAD, _PUBLIC)
    assert cose.sign1_open(_PUBLIC, message, _AAD) == b"payload"
    assert cose.peek(message) == (cose.TAG_SIGN1, cose.EDDSA, None, b"payload")


def test_an_empty_payload_is_a_payload():
    message = cose.mac0_seal(_MAC_KEY, b"", _AAD, _KID, cose.HMAC_256)
    assert _open(message) == (b"", _KID)


def test_no_bit_of_a_mac0_can_be_flipped():
    message = cose.mac0_seal(_MAC_KEY, b"\x82\x01\x02", _AAD, _KID, cose.HMAC_64)
    for i in range(8 * len(message)):
        bad = bytearray(message)
        bad[i >> 3] ^= 1 << (i & 7)
        try:
            got = _open(bad)
        except (CodecError, CryptoError):
            continue
        assert False, (i, got)


def test_no_byte_of_a_sign1_can_change():
    message = cose.sign1_seal(_SEED, b"\x82\x01\x02", _AAD, _PUBLIC)
    for i in range(len(message)):
        bad = bytearray(message)
        bad[i] ^= 1 << (i & 7)
        try:
            got = cose.sign1_open(_PUBLIC, bad, _AAD)
        except (CodecError, CryptoError):
            continue
        assert False, (i, got)


def test_another_context_does_not_open():
    contexts = (
        ("down", "0011223344556677", "telemetry", b"bootnonc"),
        ("up", "0011223344556678", "telemetry", b"bootnonc"),
        ("up", "0011223344556677", "backlog", b"bootnonc"),
        ("up", "0011223344556677", "telemetry", b"bootnond"),
        ("up", "0011223344556677", "telemetry", b""),
    )
    mac = cose.mac0_seal(_MAC_KEY, b"p", _AAD, _KID, cose.HMAC_256)
    signed = cose.sign1_seal(_SEED, b"p", _AAD, _PUBLIC)
    algs = (cose.HMAC_256,)
    for context in contexts:
        aad = cose.aad(*context)
        _refuses(CryptoError, "cose-mac", cose.mac0_open, _key_for_kid, mac, aad, algs)
        _refuses(CryptoError, "cose-sig", cose.sign1_open, _PUBLIC, signed, aad)


def test_key_kid_and_algorithm_are_checked():
    message = cose.mac0_seal(_MAC_KEY, b"p", _AAD, _KID, cose.HMAC_64)
    _refuses(CryptoError, "cose-mac", cose.mac0_open, lambda kid: bytes(32), message, _AAD, (4,))
    _refuses(CryptoError, "cose-kid", cose.mac0_open, lambda kid: None, message, _AAD, (4,))
    _refuses(CodecError, "cose-alg", cose.mac0_open, _key_for_kid, message, _AAD, (5,))
    _refuses(CodecError, "cose-alg", cose.mac0_open, _key_for_kid, message, _AAD, ())
    other = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signed = cose.sign1_seal(_SEED, b"p", _AAD, _PUBLIC)
    _refuses(CryptoError, "cose-sig", cose.sign1_open, other, signed, _AAD)
    _refuses(CodecError, "cose-alg", cose.mac0_seal, _MAC_KEY, b"p", _AAD, _KID, cose.EDDSA)
    for kid in (b"", b"ab"):
        _refuses(CodecError, "cose-kid", cose.mac0_seal, _MAC_KEY, b"p", _AAD, kid, 4)


def test_one_envelope_is_not_taken_for_the_other():
    mac = cose.mac0_seal(_MAC_KEY, b"p", _AAD, _KID, cose.HMAC_64)
    signed = cose.sign1_seal(_SEED, b"p", _AAD, _PUBLIC)
    _refuses(CodecError, "cbor-tag", _open, signed)
    _refuses(CodecError, "cbor-tag", cose.sign1_open, _PUBLIC, mac, _AAD)


def test_every_other_shape_is_refused():
    p4 = bytes.fromhex("a10104")
    pe = bytes.fromhex("a10127")
    kid = {4: _KID}
    tag = bytes(8)
    signature = bytes(64)
    cases = (
        (17, 0, "cose-shape"),
        (17, {}, "cose-shape"),
        (17, [], "cose-shape"),
        (17, [p4, kid, b""], "cose-shape"),
        (17, [p4, kid, b"", tag, b""], "cose-shape"),
        # The payload is detached, or of another type; so is the rest.
        (17, [p4, kid, None, tag], "cose-shape"),
        (17, [p4, kid, "p", tag], "cose-shape"),
        (17, [p4, kid, b"", None], "cose-shape"),
        (17, [None, kid, b"", tag], "cose-shape"),
        (17, [{1: 4}, kid, b"", tag], "cose-shape"),
        (17, [p4, None, b"", tag], "cose-shape"),
        (17, [p4, [], b"", tag], "cose-shape"),
        # Unprotected header: kid, one byte, nothing else.
        (17, [p4, {}, b"", tag], "cose-shape"),
        (17, [p4, {4: b""}, b"", tag], "cose-shape"),
        (17, [p4, {4: b"ab"}, b"", tag], "cose-shape"),
        (17, [p4, {4: 7}, b"", tag], "cose-shape"),
        (17, [p4, {4: "a"}, b"", tag], "cose-shape"),
        (17, [p4, {4: None}, b"", tag], "cose-shape"),
        (17, [p4, {5: _KID}, b"", tag], "cose-shape"),
        (17, [p4, {4: _KID, 5: b""}, b"", tag], "cose-shape"),
        (17, [p4, {1: 4, 4: _KID}, b"", tag], "cose-shape"),
        (18, [pe, {4: _KID}, b"", signature], "cose-shape"),
        # Protected header: {1: alg}, nothing else, of this envelope.
        (17, [b"", kid, b"", tag], "cose-shape"),
        (17, [b"\xa0", kid, b"", tag], "cose-shape"),
        (17, [b"\x04", kid, b"", tag], "cose-shape"),
        (17, [bytes.fromhex("a10204"), kid, b"", tag], "cose-shape"),
        (17, [bytes.fromhex("a201040300"), kid, b"", tag], "cose-shape"),
        (17, [bytes.fromhex("a1011804"), kid, b"", tag], "cbor-not-shortest"),
        (17, [bytes.fromhex("a1010400"), kid, b"", tag], "cbor-trailing"),
        (17, [bytes.fromhex("a101f94400"), kid, b"", tag], "cose-alg"),
        (17, [bytes.fromhex("a101f6"), kid, b"", tag], "cose-alg"),
        (17, [bytes.fromhex("a10180"), kid, b"", tag], "cbor-depth"),
        (17, [bytes.fromhex("a10106"), kid, b"", tag], "cose-alg"),
        (17, [pe, kid, b"", signature], "cose-alg"),
        (18, [p4, {}, b"", tag], "cose-alg"),
        (18, [bytes.fromhex("a10126"), {}, b"", signature], "cose-alg"),
        (17, [p4 + bytes(20), kid, b"", tag], "cbor-size"),
        # Another length of MAC or signature.
        (17, [p4, kid, b"", b""], "cose-shape"),
        (17, [p4, kid, b"", bytes(7)], "cose-shape"),
        (17, [p4, kid, b"", bytes(32)], "cose-shape"),
        (17, [bytes.fromhex("a10105"), kid, b"", bytes(8)], "cose-shape"),
        (18, [pe, {}, b"", bytes(63)], "cose-shape"),
        # Encrypt0, or what is no COSE at all.
        (16, [bytes.fromhex("a1010a"), {5: bytes(13)}, b""], "cbor-tag"),
        (97, [p4, kid, b"", tag], "cbor-tag"),
    )
    for number, value, code in cases:
        message = cbor.encode(cbor.Tagged(number, value))
        _refuses(CodecError, code, cose.peek, message)
        if number == 18:
            _refuses(CodecError, code, cose.sign1_open, _PUBLIC, message, _AAD)
        else:
            _refuses(CodecError, code, _open, message)


def test_size_is_bounded_before_anything_is_read():
    payload = bytes(1024)
    message = cose.mac0_seal(_MAC_KEY, payload, _AAD, _KID, cose.HMAC_64)
    _refuses(CodecError, "cbor-size", _open, message)
    _refuses(CodecError, "cbor-size", cose.peek, message)
    assert cose.peek(message, 4096)[3] == payload
    _refuses(CodecError, "cbor-size", cose.sign1_open, _PUBLIC, bytes(4097), _AAD, 4096)
    _refuses(CodecError, "cbor-short", cose.peek, b"")


_ENC_KEY = bytes(range(16))
_IV = bytes.fromhex("00000000070000000400000000")


def _enc_key_for_kid(kid):
    return _ENC_KEY if kid == _KID else None


def _open_encrypted(message, aad=_AAD, keys=_enc_key_for_kid):
    return cose.encrypt0_open(keys, message, aad)


def test_iv_is_direction_epoch_seq_and_zeros():
    assert cose.iv(cose.UP, 7, 4) == _IV
    assert cose.iv(cose.DOWN, 0xFFFFFFFF, 6).hex() == "01ffffffff0000000600000000"
    assert cose.iv_counter(_IV, cose.UP) == (7, 4)
    long = _IV + b"\0"
    for wrong in (_IV[:-1], long, b"\1" + _IV[1:], _IV[:-1] + b"\1", _IV[:9] + b"\1\0\0\0"):
        _refuses(CodecError, "cose-iv", cose.iv_counter, wrong, cose.UP)


def test_structure_of_an_encrypt0():
    # RFC 9052, 5.3: ["Encrypt0", protected, external_aad].
    structure = cose.enc_structure(b"\xa1\x01\x0a", b"\xff")
    assert structure.hex() == "8368456e63727970743043a1010a41ff"


def test_encrypt0_opens_what_it_sealed():
    message = cose.encrypt0_seal(_ENC_KEY, _CONTENT, _AAD, _KID, _IV)
    assert message[:6].hex() == "d08343a1010a"
    assert message[6:25].hex() == "a20441" + _KID.hex() + "054d" + _IV.hex()
    assert _open_encrypted(message) == (_CONTENT, _IV)
    assert cose.encrypt0_peek(message)[:2] == (_KID, _IV)


def test_no_bit_of_an_encrypt0_can_be_flipped():
    message = cose.encrypt0_seal(_ENC_KEY, _CONTENT, _AAD, _KID, _IV)
    for at in range(len(message)):
        changed = bytearray(message)
        changed[at] ^= 1 << (at & 7)
        try:
            _open_encrypted(bytes(changed))
        except (CodecError, CryptoError):
            continue
        assert False, at


def test_encrypt0_of_another_context_key_or_shape_is_refused():
    message = cose.encrypt0_seal(_ENC_KEY, _CONTENT, _AAD, _KID, _IV)
    _refuses(CryptoError, "ccm-tag", _open_encrypted, message, _AAD + b"x")
    _refuses(CryptoError, "ccm-tag", _open_encrypted, message, _AAD, lambda kid: bytes(16))
    _refuses(CryptoError, "cose-kid", _open_encrypted, message, _AAD, lambda kid: None)
    _refuses(CodecError, "cose-kid", cose.encrypt0_seal, _ENC_KEY, b"", _AAD, b"", _IV)
    protected = cbor.encode({1: 10})
    data = bytes(8)
    good = {4: _KID, 5: _IV}
    for code, parts in (
        ("cose-shape", (protected, good)),
        ("cose-shape", (protected, good, data, data)),
        ("cose-shape", (protected, {5: _IV}, data)),
        ("cose-shape", (protected, {4: _KID}, data)),
        ("cose-shape", (protected, {4: _KID, 5: _IV, 6: 1}, data)),
        ("cose-shape", (protected, {4: b"", 5: _IV}, data)),
        ("cose-shape", (protected, {4: _KID, 5: _IV[1:]}, data)),
        ("cose-shape", (protected, {4: 7, 5: _IV}, data)),
        ("cose-shape", (protected, (), data)),
        ("cose-shape", (protected, good, data[1:])),
        ("cose-shape", (protected, good, 5)),
        ("cose-shape", (10, good, data)),
        ("cose-alg", (cbor.encode({1: 11}), good, data)),
        ("cose-alg", (cbor.encode({1: 5}), good, data)),
        ("cose-alg", (b"", good, data)),
    ):
        wrong = cbor.encode(cbor.Tagged(cose.TAG_ENCRYPT0, parts))
        _refuses(CodecError, code, _open_encrypted, wrong)
    wrong = cbor.encode(cbor.Tagged(cose.TAG_MAC0, (protected, good, data)))
    _refuses(CodecError, "cbor-tag", _open_encrypted, wrong)
    _refuses(CodecError, "cbor-size", _open_encrypted, bytes(1025))
