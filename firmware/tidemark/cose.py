# COSE_Mac0, COSE_Sign1 and COSE_Encrypt0 (RFC 9052, algorithms of RFC 9053) in Tidemark's profile
# (docs/protocol.md): one header layout for each, everything else refused.

from . import cbor, ed25519, hkdf
from .compat import const
from .errors import CodecError, CryptoError

TAG_ENCRYPT0 = const(16)
TAG_MAC0 = const(17)
TAG_SIGN1 = const(18)

HMAC_64 = const(4)
HMAC_256 = const(5)
EDDSA = const(-8)
AES_CCM = const(10)  # AES-CCM-16-64-128

UP = const(0)
DOWN = const(1)

_ALG_LABEL = const(1)
_KID_LABEL = const(4)
_IV_LABEL = const(5)
_CCM_TAG = const(8)
_IV_SIZE = const(13)

_TAG_BYTES = {HMAC_64: 8, HMAC_256: 32, EDDSA: 64}
_SIZE = const(1024)


def aad(direction, device_id, kind, nonce):
    """Return the external_aad (bytes) of a message.

    `direction`: "up" or "down"; `device_id`, `kind`: str; `nonce`: the boot nonce, 8 bytes, or
    b"" in hello, welcome and time.
    """
    return cbor.encode((1, direction, device_id, kind, nonce))


def mac_structure(protected, aad, payload):
    """Return the bytes that a COSE_Mac0 authenticates (RFC 9052, 6.3); arguments are bytes."""
    return cbor.encode(("MAC0", protected, aad, payload))


def sig_structure(protected, aad, payload):
    """Return the bytes that a COSE_Sign1 signs (RFC 9052, 4.4); arguments are bytes."""
    return cbor.encode(("Signature1", protected, aad, payload))


def _protect(alg):
    return cbor.encode({_ALG_LABEL: alg})


def _mac(key, protected, aad, payload, alg):
    tag = hkdf.hmac_sha256(key, mac_structure(protected, aad, payload))
    return tag[: _TAG_BYTES[alg]]


def mac0_seal(key, payload, aad, kid, alg):
    """Return a tagged COSE_Mac0 (bytes).

    `key`: 32 bytes; `payload`: bytes; `aad`: from `aad()`; `kid`: 1 byte, bytes; `alg`: HMAC_64
    or HMAC_256. Raises CodecError: "cose-alg", "cose-kid".
    """
    if alg not in (HMAC_64, HMAC_256):
        raise CodecError("cose-alg", "no MAC algorithm")
    if len(kid) != 1:
        raise CodecError("cose-kid", "kid is not one byte")
    protected = _protect(alg)
    tag = _mac(key, protected, aad, payload, alg)
    return cbor.encode(cbor.Tagged(TAG_MAC0, (protected, {_KID_LABEL: kid}, payload, tag)))


def sign1_seal(seed, payload, aad, public=None, feed=None):
    """Return a tagged COSE_Sign1 (bytes) under the Ed25519 `seed` (32 bytes).

    `payload`: bytes; `aad`: from `aad()`; `public`: the seed's own public key, to save computing
    it; `feed`: as in `ed25519.sign`. Raises CryptoError("ed25519-seed").
    """
    protected = _protect(EDDSA)
    signature = ed25519.sign(seed, sig_structure(protected, aad, payload), public, feed)
    return cbor.encode(cbor.Tagged(TAG_SIGN1, (protected, {}, payload, signature)))


def _parse(message, max_size, tags):
    """Return (tag, alg, kid or None, payload, MAC or signature, protected), by shape alone."""
    tagged = cbor.decode(message, 2, max_size, tags)
    tag = tagged.tag
    parts = tagged.value
    if not isinstance(parts, list) or len(parts) != 4:
        raise CodecError("cose-shape", "not an array of four")
    protected, unprotected, payload, proof = parts
    for part in (protected, payload, proof):
        if not isinstance(part, bytes):
            raise CodecError("cose-shape", "not a byte string")
    if not isinstance(unprotected, dict):
        raise CodecError("cose-shape", "unprotected header is no map")
    # RFC 9052, 3, writes an empty protected header as no bytes at all.
    headers = cbor.decode(protected, 1, 16) if protected else None
    if not isinstance(headers, dict) or list(headers) != [_ALG_LABEL]:
        raise CodecError("cose-shape", "protected header is not {1: alg}")
    alg = headers[_ALG_LABEL]
    fitting = (EDDSA,) if tag == TAG_SIGN1 else (HMAC_64, HMAC_256)
    # An int: 4.0 equals 4.
    if not isinstance(alg, int) or alg not in fitting:
        raise CodecError("cose-alg", "algorithm not of this envelope")
    if len(proof) != _TAG_BYTES[alg]:
        raise CodecError("cose-shape", "MAC or signature of another length")
    kid = None
    if tag == TAG_SIGN1:
        if unprotected:
            raise CodecError("cose-shape", "unprotected header is not empty")
    else:
        kid = unprotected.get(_KID_LABEL)
        if len(unprotected) != 1 or not isinstance(kid, bytes) or len(kid) != 1:
            raise CodecError("cose-shape", "unprotected header is not {4: kid}")
    return tag, alg, kid, payload, proof, protected


def peek(message, max_size=_SIZE):
    """Return (tag, alg, kid or None, payload) of a COSE_Mac0 or COSE_Sign1, verifying nothing.

    For finding the key and the window; whatever it returns is the sender's claim.
    Raises CodecError: "cose-shape", "cose-alg", those of `cbor.decode`.
    """
    return _parse(message, max_size, (TAG_MAC0, TAG_SIGN1))[:4]


def mac0_open(key_for_kid, message, aad, algs, max_size=_SIZE):
    """Return (payload, kid) of a tagged COSE_Mac0 whose MAC holds.

    `key_for_kid`: function of the kid (bytes) that returns the key (bytes) or None; `message`:
    bytes-like; `aad`: from `aad()`; `algs`: the algorithms accepted here, a tuple.
    Raises CodecError ("cose-shape", "cose-alg", those of `cbor.decode`), CryptoError ("cose-kid"
    for no key, "cose-mac" for a MAC that does not hold).
    """
    _, alg, kid, payload, tag, protected = _parse(message, max_size, (TAG_MAC0,))
    if alg not in algs:
        raise CodecError("cose-alg", "algorithm not accepted here")
    key = key_for_kid(kid)
    if key is None:
        raise CryptoError("cose-kid", "no key of this kid")
    if not hkdf.equal(tag, _mac(key, protected, aad, payload, alg)):
        raise CryptoError("cose-mac", "MAC does not hold")
    return payload, kid


def sign1_open(public, message, aad, max_size=_SIZE, feed=None):
    """Return the payload (bytes) of a tagged COSE_Sign1 whose signature holds under `public`.

    `public`: Ed25519 key, 32 bytes; `message`: bytes-like; `aad`: from `aad()`; `feed`: as in
    `ed25519.verify`. Raises CodecError ("cose-shape", "cose-alg", those of `cbor.decode`) and
    CryptoError("cose-sig").
    """
    _, _, _, payload, signature, protected = _parse(message, max_size, (TAG_SIGN1,))
    if not ed25519.verify(public, sig_structure(protected, aad, payload), signature, feed):
        raise CryptoError("cose-sig", "signature does not hold")
    return payload


# -- COSE_Encrypt0


def iv(direction, epoch, seq):
    """Return the 13-byte IV of a message: `direction` (UP or DOWN), then epoch and seq (ints below
    2^32), then zeros. The counter makes it unique under its key.
    """
    return bytes((direction,)) + epoch.to_bytes(4, "big") + seq.to_bytes(4, "big") + bytes(4)


def iv_counter(value, direction):
    """Return (epoch, seq) of an IV of this direction. Raises CodecError("cose-iv")."""
    if len(value) != _IV_SIZE or value[0] != direction or value[9:] != bytes(4):
        raise CodecError("cose-iv", "not an IV of this direction")
    return int.from_bytes(value[1:5], "big"), int.from_bytes(value[5:9], "big")


def enc_structure(protected, aad):
    """Return the bytes that a COSE_Encrypt0 authenticates (RFC 9052, 5.3); arguments are bytes."""
    return cbor.encode(("Encrypt0", protected, aad))


def encrypt0_seal(key, payload, aad, kid, nonce):
    """Return a tagged COSE_Encrypt0 (bytes) by AES-CCM-16-64-128.

    `key`: 16 bytes; `payload`: bytes; `aad`: from `aad()`; `kid`: 1 byte, bytes; `nonce`: from
    `iv()`, never twice under one key. Raises CodecError("cose-kid"), CryptoError("no-aes").
    """
    from . import ccm

    if len(kid) != 1:
        raise CodecError("cose-kid", "kid is not one byte")
    protected = _protect(AES_CCM)
    data = ccm.seal(key, nonce, enc_structure(protected, aad), payload, _CCM_TAG)
    unprotected = {_KID_LABEL: kid, _IV_LABEL: nonce}
    return cbor.encode(cbor.Tagged(TAG_ENCRYPT0, (protected, unprotected, data)))


def encrypt0_peek(message, max_size=_SIZE):
    """Return (kid, IV, protected header, ciphertext with tag) of a COSE_Encrypt0, verifying
    nothing. Raises CodecError: "cose-shape", "cose-alg", those of `cbor.decode`.
    """
    parts = cbor.decode(message, 2, max_size, (TAG_ENCRYPT0,)).value
    if not isinstance(parts, list) or len(parts) != 3:
        raise CodecError("cose-shape", "not an array of three")
    protected, unprotected, data = parts
    if not isinstance(protected, bytes) or not isinstance(data, bytes) or len(data) < _CCM_TAG:
        raise CodecError("cose-shape", "not a byte string, or shorter than a tag")
    if protected != _protect(AES_CCM):
        raise CodecError("cose-alg", "protected header is not {1: 10}")
    if not isinstance(unprotected, dict) or sorted(unprotected) != [_KID_LABEL, _IV_LABEL]:
        raise CodecError("cose-shape", "unprotected header is not {4: kid, 5: IV}")
    kid = unprotected[_KID_LABEL]
    nonce = unprotected[_IV_LABEL]
    for value, size in ((kid, 1), (nonce, _IV_SIZE)):
        if not isinstance(value, bytes) or len(value) != size:
            raise CodecError("cose-shape", "kid or IV of another size")
    return kid, nonce, protected, data


def encrypt0_open(key_for_kid, message, aad, max_size=_SIZE):
    """Return (payload, IV) of a tagged COSE_Encrypt0 whose tag holds.

    `key_for_kid`, `message`, `aad`: as in `mac0_open`. Raises CodecError ("cose-shape",
    "cose-alg", those of `cbor.decode`), CryptoError ("cose-kid", "ccm-tag", "no-aes").
    """
    from . import ccm

    kid, nonce, protected, data = encrypt0_peek(message, max_size)
    key = key_for_kid(kid)
    if key is None:
        raise CryptoError("cose-kid", "no key of this kid")
    return ccm.open(key, nonce, enc_structure(protected, aad), data, _CCM_TAG), nonce
