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
