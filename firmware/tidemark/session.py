# The device's half of hello, welcome, seal, open and time token (docs/protocol.md): bytes in,
# bytes out. Randomness, the counter and the identity are handed in; keys live in RAM only.

import hashlib

from . import cbor, cose, hkdf, x25519
from .compat import aes_ecb, const
from .errors import SessionError
from .window import Window

_PROTOCOL = const(1)
_SUITE = const(1)
_HELLO_MAX = const(4096)
_MESSAGE_MAX = const(1024)
_NONCE = const(8)
_TIME_LIMIT_MS = const(60000)

# Sequence spaces: the low two bits of seq.
LIVE = const(0)
BACKLOG = const(1)
OTHER = const(2)

# Upward kinds: space, algorithm of the MAC or None where only a signature will do, and whether
# integrity = "sign" turns the MAC into a signature.
_UP = {
    "telemetry": (LIVE, cose.HMAC_64, True),
    "backlog": (BACKLOG, cose.HMAC_64, True),
    "report": (OTHER, None, True),
    "alarm": (OTHER, None, True),
    "evidence": (OTHER, None, True),
    "result": (OTHER, cose.HMAC_256, False),
}


def _is_uint(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bytes(value, size):
    return isinstance(value, bytes) and len(value) == size


class Session:
    """One boot's conversation with one gateway. `epoch`: of the last hello, None before one.

    Every refusal raises a typed error and leaves the session as it was.
    """

    def __init__(
        self,
        identity,
        counter,
        gateway_id,
        gateway_key,
        random,
        integrity="mac",
        feed=None,
        confidential=False,
    ):
        """`identity`: has `id` (str), `public` (32 bytes), `sign(message)` -> 64 bytes; `counter`:
        has `open_epoch()` -> int and `next(space)` -> (epoch, seq); `gateway_id`: str;
        `gateway_key`: the Ed25519 key (32 bytes) that this board trusts; `random(n)`: n random
        bytes; `integrity`: "mac" or "sign"; `feed`: called between slices of long computations;
        `confidential`: whether telemetry and backlog are encrypted, which is not for "sign".
        Raises SessionError("integrity"), CryptoError("no-aes").
        """
        if integrity not in ("mac", "sign"):
            raise SessionError("integrity", 'neither "mac" nor "sign"')
        if confidential:
            if integrity == "sign":
                raise SessionError("integrity", "encrypted telemetry carries no signature")
            aes_ecb(bytes(16))  # better now than at the first reading
        self._identity = identity
        self._counter = counter
        self._gateway_id = gateway_id
        self._gateway_key = gateway_key
        self._random = random
        self._sign_all = integrity == "sign"
        self._feed = feed
        self._boot_nonce = None
        self.epoch = None
        self.policy_version = 0
        self._outstanding = None  # (SHA-256 of the hello, its running hash, scalar, epoch)
        self._kid = None
        self._confidential = confidential
        self._up_key = None
        self._enc_key = None
        self._down_key = None
        self._down_epoch = None
        self._window = None
        self._time_nonce = None
        self._time_asked = 0

    @property
    def boot_nonce(self):
        """8 random bytes, the same for the whole boot."""
        if self._boot_nonce is None:
            # Not before it is needed: an ESP32 must have its radio on for a random number.
            self._boot_nonce = self._random(_NONCE)
        return self._boot_nonce

    @property
    def ready(self):
        """True while there are session keys."""
        return self._kid is not None

    # -- handshake

    def hello(self, gateway_nonce, claims):
        """Return a new hello (bytes); it replaces an outstanding one, not the session.

        `gateway_nonce`: 8 bytes of a beacon or challenge; `claims`: dict with uint keys.
        Raises StateError when no epoch can be opened (I1: then nothing is said at all),
        SessionError: "gateway-nonce", "hello-size"; CodecError for claims outside the profile.
        """
        if not _is_bytes(gateway_nonce, _NONCE):
            raise SessionError("gateway-nonce", "not 8 bytes")
        epoch = self._counter.open_epoch()
        scalar = self._random(32)
        payload = cbor.encode(
            (
                _PROTOCOL,
                _SUITE,
                self._identity.id,
                self._identity.public,
                self._gateway_id,
                gateway_nonce,
                self.boot_nonce,
                epoch,
                x25519.public_key(scalar, self._feed),
                claims,
            )
        )
        message = self._sign(payload, self._aad("up", "hello", b""))
        if len(message) > _HELLO_MAX:
            raise SessionError("hello-size", "claims too large for a hello")
        # The salt is a hash over hello and welcome: keep the state, not up to 4 KiB of bytes.
        salt = hashlib.sha256(message)
        self._outstanding = (hashlib.sha256(message).digest(), salt, scalar, epoch)
        self.epoch = epoch
        return message

    def take_welcome(self, message):
        """Take the answer to the outstanding hello; new keys, window and down epoch follow.

        Raises SessionError: "welcome-unasked" (no hello is outstanding, as after a first welcome
        was taken), "welcome-shape", "welcome-hello" (answer to another hello), "welcome-id";
        CryptoError: "cose-sig", "x25519-zero"; CodecError.
        """
        if self._outstanding is None:
            raise SessionError("welcome-unasked", "no hello is outstanding")
        digest, salt, scalar, epoch = self._outstanding
        # Before any signature is checked: a flood of answers to others costs next to nothing.
        if self._answers(message, "welcome", 5) != digest:
            raise SessionError("welcome-hello", "answers another hello")
        _, device, share, kid, policy = self._open_signed(message, "welcome")
        if not (
            _is_bytes(share, 32)
            and _is_bytes(kid, 1)
            and isinstance(device, str)
            and _is_uint(policy)
        ):
            raise SessionError("welcome-shape", "fields of another type")
        if device != self._identity.id:
            raise SessionError("welcome-id", "for another device")
        # Raises for an all-zero secret, that is for a share of small order (RFC 7748, 6.1).
        secret = x25519.x25519(scalar, share, self._feed)
        self._outstanding = None
        salt.update(message)
        salt = salt.digest()
        self._up_key = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 up mac", 32)
        if self._confidential:
            self._enc_key = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 up enc", 16)
        self._down_key = hkdf.hkdf_sha256(salt, secret, b"tidemark/1 down mac", 32)
        self._kid = kid
        self._down_epoch = epoch
        self._window = Window()
        self.policy_version = policy

    # -- messages

    def seal(self, kind, body):
        """Return (message, epoch, seq) of an upward message of `kind` with `body` (list).

        Each call takes a new counter value: a message is never sealed twice under one.
        Raises SessionError: "kind", "no-session", "epoch-changed", "message-size"; StateError when
        the counter can't promise a new value; CodecError for a body outside the profile.
        """
        if kind not in _UP:
            raise SessionError("kind", "not an upward kind")
        if not self.ready:
            raise SessionError("no-session", "no welcome yet")
        space, alg, may_sign = _UP[kind]
        epoch, seq = self._counter.next(space)
        if epoch != self.epoch:
            raise SessionError("epoch-changed", "the gateway knows another epoch")
        payload = cbor.encode([epoch, seq] + body)
        aad = self._aad("up", kind, self.boot_nonce)
        if self._confidential and space != OTHER:
            nonce = cose.iv(cose.UP, epoch, seq)
            message = cose.encrypt0_seal(self._enc_key, payload, aad, self._kid, nonce)
        elif alg is None or (may_sign and self._sign_all):
            message = self._sign(payload, aad)
        else:
            message = cose.mac0_seal(self._up_key, payload, aad, self._kid, alg)
        if len(message) > _MESSAGE_MAX:
            raise SessionError("message-size", "more than 1,024 bytes")
        return message, epoch, seq

    def open(self, kind, message):
        """Return the body (list) of a downward message that is authentic and new; it is then old.

        An ack's body is [epoch, seq] (two uint). Raises SessionError: "kind-unsupported", "kind",
        "no-session", "epoch", "space", "replay", "message-shape"; CryptoError: "cose-kid",
        "cose-mac"; CodecError.
        """
        if kind == "command":
            raise SessionError("kind-unsupported", "this release takes no commands")
        if kind != "ack":
            raise SessionError("kind", "not a downward kind under session keys")
        if not self.ready:
            raise SessionError("no-session", "no welcome yet")
        # Shape, then window, then MAC, then window update: the cheap refusals come first.
        claimed = cose.peek(message, _MESSAGE_MAX)[3]
        number = self._check_down(cbor.decode(claimed, max_size=_MESSAGE_MAX))
        payload, _ = cose.mac0_open(
            self._key, message, self._aad("down", kind, self.boot_nonce), (cose.HMAC_256,)
        )
        fields = cbor.decode(payload, max_size=_MESSAGE_MAX)
        body = fields[2:]
        if len(body) != 2 or not (_is_uint(body[0]) and _is_uint(body[1])):
            raise SessionError("message-shape", "an ack is [epoch, seq]")
        self._window.take(number)
        return body

    def _check_down(self, fields):
        """Return seq >> 2 of a payload whose counter fits this session and its window."""
        if not isinstance(fields, list) or len(fields) < 2:
            raise SessionError("message-shape", "no [epoch, seq]")
        epoch, seq = fields[:2]
        if not (_is_uint(epoch) and _is_uint(seq)):
            raise SessionError("message-shape", "no [epoch, seq]")
        if epoch != self._down_epoch:
            raise SessionError("epoch", "not the epoch of the hello")
        if seq & 3 != OTHER:
            raise SessionError("space", "sequence space of another kind")
        if seq >> 32 or not self._window.fresh(seq >> 2):
            raise SessionError("replay", "taken already, or too old to tell")
        return seq >> 2

    # -- time token

    def want_time(self, uptime_ms):
        """Return a new nonce (8 bytes) to ask a time token with; a former one is void."""
        self._time_nonce = self._random(_NONCE)
        self._time_asked = uptime_ms
        return self._time_nonce

    def take_time(self, message, uptime_ms):
        """Return the Unix seconds (int) of the token for the outstanding nonce, once.

        Raises SessionError: "time-unasked", "time-late" (asked more than 60 s ago), "time-shape",
        "time-nonce", "time-gateway"; CryptoError("cose-sig"); CodecError.
        """
        if self._time_nonce is None:
            raise SessionError("time-unasked", "no time was asked for")
        if uptime_ms - self._time_asked > _TIME_LIMIT_MS:
            raise SessionError("time-late", "asked for more than 60 s ago")
        if self._answers(message, "time", 3) != self._time_nonce:
            raise SessionError("time-nonce", "answers another question")
        _, seconds, gateway_id = self._open_signed(message, "time")
        if not (_is_uint(seconds) and isinstance(gateway_id, str)):
            raise SessionError("time-shape", "fields of another type")
        if gateway_id != self._gateway_id:
            raise SessionError("time-gateway", "from another gateway")
        self._time_nonce = None
        return seconds

    # -- parts

    def _aad(self, direction, kind, nonce):
        return cose.aad(direction, self._identity.id, kind, nonce)

    def _key(self, kid):
        return self._down_key if kid == self._kid else None

    def _sign(self, payload, aad):
        """Return a COSE_Sign1 by the identity, whose seed stays with it."""
        protected = cbor.encode({1: cose.EDDSA})
        signature = self._identity.sign(cose.sig_structure(protected, aad, payload))
        return cbor.encode(cbor.Tagged(cose.TAG_SIGN1, (protected, {}, payload, signature)))

    def _answers(self, message, kind, count):
        """Return the first of `count` fields (bytes): what a message says it answers, unproven."""
        fields = cbor.decode(cose.peek(message, _MESSAGE_MAX)[3], max_size=_MESSAGE_MAX)
        if not isinstance(fields, list) or len(fields) != count:
            raise SessionError(kind + "-shape", "not an array of %d" % count)
        if not isinstance(fields[0], bytes):
            raise SessionError(kind + "-shape", "fields of another type")
        return fields[0]

    def _open_signed(self, message, kind):
        """Return the fields of a gateway's signed welcome or time, whose shape is known."""
        payload = cose.sign1_open(
            self._gateway_key, message, self._aad("down", kind, b""), _MESSAGE_MAX, self._feed
        )
        return cbor.decode(payload, max_size=_MESSAGE_MAX)
