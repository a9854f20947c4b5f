# The other end of a session, by docs/protocol.md: small enough to be seen right, so that tests of
# the device's half run on both interpreters. tests/unit checks the wire against other libraries.

import hashlib

from tidemark import cbor, cose, ed25519, hkdf, x25519


def fixed_random(seed=b"r"):
    """A random source that gives the same bytes in every run, and never the same twice."""
    state = [0]

    def random(n):
        out = b""
        while len(out) < n:
            state[0] += 1
            out += hashlib.sha256(seed + str(state[0]).encode()).digest()
        return out[:n]

    return random


class Identity:
    """A device's key, as the base hands it to the session."""

    def __init__(self, seed=b"\x01" * 32):
        self._seed = seed
        self.public = ed25519.public_key(seed)
        self.id = "".join("%02x" % b for b in hashlib.sha256(self.public).digest()[:8])

    def sign(self, message):
        return ed25519.sign(self._seed, message, self.public)


class Counter:
    """Values as tidemark.counter gives them, without the flash. `fault`: raised instead."""

    def __init__(self, epoch=7):
        self._epoch = epoch
        self._n = [0, 0, 0, 0]
        self.epoch = 0
        self.fault = None

    def open_epoch(self):
        if self.fault:
            raise self.fault
        self.epoch = self._epoch
        return self.epoch

    def next(self, space):
        if self.fault:
            raise self.fault
        self._n[space] += 1
        return self.epoch, self._n[space] << 2 | space


class Gateway:
    """Answers hellos and opens what the device sealed."""

    def __init__(self, seed=b"\x02" * 32):
        self._seed = seed
        self.public = ed25519.public_key(seed)
        self.id = "".join("%02x" % b for b in hashlib.sha256(self.public).digest()[:8])
        self.random = fixed_random(b"gateway")
        self.kid = self.next_kid = b"\x05"
        self.nonce = b"gw-nonce"
        self.seq = 0

    def sign(self, kind, device, fields, seed=None):
        """A signed downward message of `kind`."""
        payload = cbor.encode(fields)
        return cose.sign1_seal(seed or self._seed, payload, cose.aad("down", device, kind, b""))

    def read_hello(self, hello):
        """The ten fields of a hello whose signature holds."""
        claimed = cbor.decode(cose.peek(hello, 4096)[3], max_size=4096)
        external = cose.aad("up", claimed[2], "hello", b"")
        return cbor.decode(cose.sign1_open(claimed[3], hello, external, 4096), max_size=4096)

    def welcome(self, hello, change=None, seed=None):
        """The welcome to `hello`; `change(fields)` alters them before they are signed."""
        fields = self.read_hello(hello)
        self.kid = self.next_kid
        scalar = self.random(32)
        body = [
            hashlib.sha256(hello).digest(),
            fields[2],
            x25519.public_key(scalar),
            self.kid,
            0,
        ]
        if change:
            change(body)
        message = self.sign("welcome", fields[2], body, seed)
        secret = x25519.x25519(scalar, fields[8])
        salt = hashlib.sha256(hello + message).digest()
        self.up = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 up mac", 32)
        self.enc = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 up enc", 16)
        self.down = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 down mac", 32)
        self.device = fields[2]
        self.key = fields[3]
        self.boot_nonce = fields[6]
        self.epoch = fields[7]
        self.seq = 0
        return message

    def open(self, kind, message):
        """The payload (list) of an upward message that verifies."""
        external = cose.aad("up", self.device, kind, self.boot_nonce)
        if message[0] == 0xC0 | cose.TAG_ENCRYPT0:
            payload, nonce = cose.encrypt0_open(
                lambda kid: self.enc if kid == self.kid else None, message, external
            )
            fields = cbor.decode(payload)
            assert list(cose.iv_counter(nonce, cose.UP)) == fields[:2]
            return fields
        if cose.peek(message)[0] == cose.TAG_SIGN1:
            return cbor.decode(cose.sign1_open(self.key, message, external))
        payload, kid = cose.mac0_open(
            lambda kid: self.up, message, external, (cose.HMAC_64, cose.HMAC_256)
        )
        assert kid == self.kid
        return cbor.decode(payload)

    def ack(self, acked_epoch, acked_seq, **changes):
        """An acknowledgement under the next downward counter, or with `changes`."""
        self.seq += 1
        fields = changes.get("fields")
        if fields is None:
            own = changes.get("epoch", self.epoch), changes.get("seq", self.seq << 2 | 2)
            fields = [own[0], own[1], acked_epoch, acked_seq]
        return cose.mac0_seal(
            changes.get("key", self.down),
            cbor.encode(fields),
            cose.aad("down", self.device, changes.get("kind", "ack"), self.boot_nonce),
            changes.get("kid", self.kid),
            changes.get("alg", cose.HMAC_256),
        )
