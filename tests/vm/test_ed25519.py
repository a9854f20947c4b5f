# Ed25519 against RFC 8032 and against signatures that only a lax verifier takes.

from engines import curve25519, native, on_each_engine, plain

from tidemark import ed25519, edwards25519
from tidemark.errors import CryptoError

# RFC 8032, 7.1: name; secret key, public key, message, signature.
RFC_8032 = (
    (  # TEST 1
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e"
        "39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (  # TEST 2
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f"
        "3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (  # TEST 3
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67"
        "f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (  # TEST 1024
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50"
        "f8f54e9f77b1e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb"
        "26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89"
        "ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a82"
        "1a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39c"
        "e767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206b"
        "e6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd8435"
        "9d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d"
        "502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf"
        "2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e694"
        "85bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5"
        "555a7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26401d2e22"
        "f04d83d1255dc51addd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2af58429ec960"
        "31dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade82972"
        "97d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c"
        "4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34df"
        "f7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a6504"
        "0cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276c"
        "d419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc56"
        "00a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a4"
        "3dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041e989"
        "f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa9"
        "33a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c"
        "4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8ca"
        "c60c905c15fc910840b94c00a0b9d0",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ec"
        "ea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    (  # TEST SHA(abc)
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba"
        "3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfb"
        "c7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
)

# What is wrong; public key, message, R, S. "Equation holds" means that the bare verification
# equation, without the checks on encodings and orders, takes the signature.
_REFUSED = (
    (
        "S + L: the same signature, malleated",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "67600a2d439d7c41ef799abfadf26df2e540830bc1505593d8542162982b4111",
    ),
    (
        "S = L - 1 + L",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "d9a7ebb934c624b0ac39ef45bdf3bd2900000000000000000000000000000020",
    ),
    (
        "S of all ones",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ),
    (
        "S = 0",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "bit flipped in R",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d9684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "sign bit of R flipped",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8cbb"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "bit flipped in S",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae91cdda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "bit flipped in the message",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726a",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "sign bit of A flipped",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4668c",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "another public key",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "R and S swapped",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101"
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b",
    ),
    (
        "A is no point of the curve (y = 2)",
        "0200000000000000000000000000000000000000000000000000000000000000",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "A of small order (neutral), equation holds",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "746964656d61726b",
        "9e286d335160c6ff6ea5d8c7c5d506ae35ccf8f4dde523f3e55a97b716d12866"
        "1500000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A of small order (order 2), equation holds",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "746964656d61726b",
        "c9a3f86aae465f0e56513864510f3997561fa2c9e85ea21dc2292309f3cd6022"
        "0200000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A of small order (order 4), equation holds",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "746964656d61726b",
        "2f1132ca61ab38dff00f2fea3228f24c6c71d58085b80e47e19515cb27e8d047"
        "0400000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A of small order (order 8), equation holds",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "746964656d61726b",
        "b4b937fca95b2f1e93e41e62fc3c78818ff38a66096fad6e7973e5c90006d321"
        "0800000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A of small order (order 8, x negated), equation holds",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "746964656d61726b",
        "df5c2eadc44c6d94a19a9aa118afe5ac3193d26401f76251f522ff042dfbcb92"
        "0f00000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = p + 1, the neutral element, equation holds",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "746964656d61726b",
        "df5c2eadc44c6d94a19a9aa118afe5ac3193d26401f76251f522ff042dfbcb92"
        "0f00000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = p, of order 4, equation holds",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "746964656d61726b",
        "b862409fb5c4c4123df2abf7462b88f041ad36dd6864ce872fd5472be363c5b1"
        "0700000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = 1 with the sign bit, equation holds",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "746964656d61726b",
        "d4b4f5784868c3020403246717ec169ff79e26608ea126a1ab69ee77d1b16712"
        "0300000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = p + 1 with the sign bit, equation holds",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "746964656d61726b",
        "39289c8998fd69835c26b619e89848a7bf02b7cb7ad1ba1581cbc4506f2550ce"
        "0e00000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = p - 1 with the sign bit, equation holds",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "746964656d61726b",
        "c9a3f86aae465f0e56513864510f3997561fa2c9e85ea21dc2292309f3cd6022"
        "0200000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "A not canonical: y = 2^255 - 1",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "746964656d61726b",
        "d8684c3bc0451986ba67c8c383a96ca70f4c496a27a4c44c52caedd2c0be8c3b"
        "7a8c14d0283a6ae918dda21ccff88edde540830bc1505593d8542162982b4101",
    ),
    (
        "R of small order (neutral), equation holds",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "0100000000000000000000000000000000000000000000000000000000000000"
        "3c7cde9e370a5e44c2031604c1e737ee756def2ebaf11d7023c85501f706cc09",
    ),
    (
        "R of small order (not canonical, y = p + 1), equation holds",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
        "6b6b7491f73028a14c9431140af321d08b9c9ebbc322653e3b9d02193d0c540c",
    ),
    (
        "R of small order (neutral with the sign bit), equation holds",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "0100000000000000000000000000000000000000000000000000000000000080"
        "ba9624593b51ef2182e9c306575a584d8c10fc0bc3324e2708e90e20b4c1520c",
    ),
    (
        "R with a part of order 8: holds with the cofactor only",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "746964656d61726b",
        "cdbc161be64c4302f56443ff29ccf36a2075be1a1fa67ff126b56315f5681c38"
        "7aa7d6bafa92a8a709f9aa3ec02c50259d6fb7039ccb0c9291bd47b25a130b03",
    ),
    (
        "A with a part of order 8: holds with the cofactor only",
        "2ad7189ff2c500908ea7f468279fccdfdcb78ae4164feed7c5535bdc99531ca6",
        "746964656d61726b",
        "1d84c09c915b1e355f4130b3950f6754270b37696f36f1b6ca5d4a9b4cf48860"
        "624d301a38d38fa70f65b555c1dd7cf02fc30e9cc931cc85ba006d13a7bb300e",
    ),
)


def _hex(text):
    return bytes.fromhex(text)


@on_each_engine
def test_signs_and_verifies_as_rfc_8032():
    for seed, public, message, signature in RFC_8032:
        seed, public, message, signature = map(_hex, (seed, public, message, signature))
        assert ed25519.public_key(seed) == public
        assert ed25519.sign(seed, message) == signature
        assert ed25519.sign(seed, message, public) == signature
        assert ed25519.verify(public, message, signature) is True


@on_each_engine
def test_refuses_what_only_a_lax_verifier_takes():
    for what, public, message, signature in _REFUSED:
        assert ed25519.verify(_hex(public), _hex(message), _hex(signature)) is False, what


@on_each_engine
def test_refuses_every_flipped_byte_of_a_signature_and_key():
    _, public, message, signature = [_hex(v) for v in RFC_8032[2]]
    for i in range(64):
        bad = bytearray(signature)
        bad[i] ^= 1 << (i & 7)
        assert ed25519.verify(public, message, bad) is False, i
    for i in range(0, 32, 3):
        bad = bytearray(public)
        bad[i] ^= 1 << (i & 7)
        assert ed25519.verify(bad, message, signature) is False, i


def test_only_points_of_the_curve_are_keys():
    # y from 2 to 23 for which (y^2 - 1) / (d*y^2 + 1) is a square; 0 and 1 are of small order.
    found = []
    for y in range(2, 24):
        if edwards25519.decode(bytes((y,)) + bytes(31), None):
            found.append(y)
    assert found == [3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 19, 21, 23]


@on_each_engine
def test_wrong_lengths_are_false_and_a_wrong_seed_an_error():
    seed, public, message, signature = [_hex(v) for v in RFC_8032[1]]
    assert not ed25519.verify(public[:31], message, signature)
    assert not ed25519.verify(public + b"\0", message, signature)
    assert not ed25519.verify(public, message, signature[:63])
    assert not ed25519.verify(public, message, signature + b"\0")
    assert not ed25519.verify(b"", message, b"")
    for call in (ed25519.public_key, lambda s: ed25519.sign(s, message)):
        for bad in (b"", seed[:31], seed + b"\0"):
            try:
                call(bad)
                assert False, "seed of %d bytes taken" % len(bad)
            except CryptoError as e:
                assert e.code == "ed25519-seed"


@on_each_engine
def test_takes_any_bytes_like_message():
    seed, public, message, signature = [_hex(v) for v in RFC_8032[2]]
    for form in (bytearray, memoryview):
        assert ed25519.sign(form(seed), form(message)) == signature
        assert ed25519.verify(form(public), form(message), form(signature))


def _feeds(call, *args):
    calls = [0]

    def feed():
        calls[0] += 1

    call(*args, feed)
    return calls[0]


def test_plain_python_feeds_often_enough_for_a_slow_board():
    # 25,400 cycles a multiplication at 125 MHz and 50 ms a slice give some 2,700 / 250 slices.
    seed, public, message, signature = [_hex(v) for v in RFC_8032[1]]
    plain()
    try:
        assert _feeds(ed25519.verify, public, message, signature) >= 30
        assert _feeds(ed25519.sign, seed, message, public) >= 10
    finally:
        native()


def test_vm_native_code_feeds_often_enough_for_a_slow_board():
    # 13.75 million cycles to verify, 6.25 million in 50 ms; tests/crypto measures the slices.
    seed, public, message, signature = [_hex(v) for v in RFC_8032[1]]
    if native():
        assert _feeds(ed25519.verify, public, message, signature) >= 8
        assert _feeds(ed25519.sign, seed, message, public) >= 4


def test_vm_native_signed_digits_and_pairs_stay_in_their_bounds():
    if not native():
        return
    engine = curve25519.engine()
    order8 = 8 * edwards25519.L
    k = 1
    L = edwards25519.L
    scalars = [0, 1, 2, 8, L - 1, L // 3, 2 * L // 3 + 1, 1 << 128, (1 << 127) + 1, (1 << 128) - 1]
    scalars += [(order8 >> n) % L for n in range(4, 250, 7)]
    for _ in range(60):
        k = k * 0x123456789ABCDEF0123456789ABCDEF1 % L
        scalars.append(k)
    for k in scalars:
        negative, u, v = engine.short_pair(k.to_bytes(32, "little"))
        u, v = [int.from_bytes(number, "little") for number in (u, v)]
        assert ((-u if negative else u) - v * k) % order8 == 0
        assert v & 1 and 0 < v < 1 << 256 and u < 1 << 128
        digits = bytearray(engine.module.DIGITS)
        for number in (u, v):
            for i in range(len(digits)):
                digits[i] = 0
            count = engine.module.signed_digits(digits, number.to_bytes(34, "little"))
            total = 0
            for i in range(count - 1, -1, -1):
                digit = digits[i]
                assert not digit or digit & 1
                total = 2 * total + (digit if digit < 8 else digit - 16)
            assert total == number
    # Random scalars come out at about half their length.
    assert max(u, v) < 1 << 140


def test_vm_native_scalar_arithmetic_agrees_with_big_integers():
    if not native():
        return
    ones = b"\xff" * 32
    some = bytes(range(200, 232))
    for a in (bytes(32), ones, some):
        for b in (bytes(32), ones, some):
            assert curve25519.reduce(a + b) == edwards25519.reduce(a + b)
            for c in (bytes(32), ones, some):
                assert curve25519.multiply_add(a, b, c) == edwards25519.multiply_add(a, b, c)
