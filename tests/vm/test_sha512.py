# SHA-512 against FIPS 180-4's examples; the class in Python on both interpreters.

from tidemark import sha512

_EMPTY = (
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)
_ABC = (
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
)
_TWO_BLOCKS = (
    "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
    "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"
)
_LONG = (
    b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
    b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"
)
# NIST's additional byte-oriented examples: a byte, how many, hash.
_ADDITIONAL = (
    (0x00, 111,
     "77ddd3a542e530fd047b8977c657ba6ce72f1492e360b2b2212cd264e75ec038"
     "82e4ff0525517ab4207d14c70c2259ba88d4d335ee0e7e20543d22102ab1788c"),
    (0x00, 112,
     "2be2e788c8a8adeaa9c89a7f78904cacea6e39297d75e0573a73c756234534d6"
     "627ab4156b48a6657b29ab8beb73334040ad39ead81446bb09c70704ec707952"),
    (0x00, 113,
     "0e67910bcf0f9ccde5464c63b9c850a12a759227d16b040d98986d54253f9f34"
     "322318e56b8feb86c5fb2270ed87f31252f7f68493ee759743909bd75e4bb544"),
    (0x00, 122,
     "4f3f095d015be4a7a7cc0b8c04da4aa09e74351e3a97651f744c23716ebd9b3e"
     "822e5077a01baa5cc0ed45b9249e88ab343d4333539df21ed229da6f4a514e0f"),
    (0x00, 1000,
     "ca3dff61bb23477aa6087b27508264a6f9126ee3a004f53cb8db942ed345f2f2"
     "d229b4b59c859220a1cf1913f34248e3803bab650e849a3d9a709edc09ae4a76"),
    (0x41, 1000,
     "329c52ac62d1fe731151f2b895a00475445ef74f50b979c6f7bb7cae349328c1"
     "d4cb4f7261a0ab43f936a24b000651d4a824fcdd577f211aef8f806b16afe8af"),
    (0x55, 1005,
     "59f5e54fe299c6a8764c6b199e44924a37f59e2b56c3ebad939b7289210dc8e4"
     "c21b9720165b0f4d4374c90f1bf4fb4a5ace17a1161798015052893a48c3d161"),
)
_MILLION_LETTERS = (
    "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
    "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
)
_MILLION_ZEROS = (
    "ce044bc9fd43269d5bbc946cbebc3bb711341115cc4abdf2edbc3ff2c57ad4b1"
    "5deb699bda257fea5aef9c6e55fcf4cf9dc25a8c3ce25f2efe90908379bff7ed"
)
# SHA-512 over the SHA-512 of 0, 1, ... 299 bytes 00 01 02 ...
_EVERY_LENGTH = (
    "97248248ab8e9324b9577e93acd92914d32bb25edcacbb91edb75576dea14781"
    "b5b477c027835c43a08ddc16cbbcd6d067d159897e5c18aa43aeeb2e49811bb3"
)


def test_examples_of_fips_180():
    for data, want in ((b"", _EMPTY), (b"abc", _ABC), (_LONG, _TWO_BLOCKS)):
        want = bytes.fromhex(want)
        assert sha512.Sha512(data).digest() == want
        assert sha512.sha512(data).digest() == want
        assert sha512.digest(data) == want


def test_additional_examples_of_nist():
    for byte, count, want in _ADDITIONAL:
        data = bytes((byte,)) * count
        assert sha512.Sha512(data).digest().hex() == want, (byte, count)
        assert sha512.digest(data).hex() == want, (byte, count)


def test_vm_native_code_takes_a_million_bytes():
    if not sha512.native:
        return
    for piece, want in ((b"a" * 1000, _MILLION_LETTERS), (bytes(1000), _MILLION_ZEROS)):
        h = sha512.NativeSha512()
        for _ in range(1000):
            h.update(piece)
        assert h.digest().hex() == want


def test_every_length_around_the_padding():
    chain = sha512.Sha512()
    data = bytes([i & 255 for i in range(300)])
    for n in range(300):
        chain.update(sha512.Sha512(data[:n]).digest())
    assert chain.digest() == bytes.fromhex(_EVERY_LENGTH)


def test_updates_in_pieces_and_digests_again():
    for cut in (0, 1, 63, 111, 112):
        h = sha512.Sha512()
        h.update(memoryview(_LONG)[:cut])
        h.digest()
        h.update(bytearray(_LONG[cut:]))
        h.update(b"")
        assert h.digest() == bytes.fromhex(_TWO_BLOCKS)
        assert h.digest() == bytes.fromhex(_TWO_BLOCKS)


def test_a_piece_larger_than_a_block_after_a_partial_one():
    data = bytes([i & 255 for i in range(1000)])
    h = sha512.Sha512(data[:5])
    h.update(data[5:700])
    h.update(data[700:])
    assert h.digest() == sha512.Sha512(data).digest()


def test_vm_native_code_agrees_however_it_is_cut():
    if not sha512.native:
        return
    data = bytes([i * 7 & 255 for i in range(300)])
    for n in range(0, 300, 3):
        h = sha512.NativeSha512(data[:n])
        assert h.digest() == sha512.Sha512(data[:n]).digest()
        h.update(memoryview(data)[n:])
        assert h.digest() == sha512.Sha512(data).digest()


def test_feeds_after_each_block():
    calls = [0]

    def feed():
        calls[0] += 1

    sha512.Sha512(bytes(1024), feed).digest()
    assert calls[0] == 9


def test_vm_native_code_feeds_after_eight_blocks():
    calls = [0]

    def feed():
        calls[0] += 1

    if sha512.native:
        sha512.NativeSha512(bytes(8 * 128 * 5), feed)
        assert calls[0] == 5
