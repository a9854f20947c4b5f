# Who the board is: a key born on the board, and the write-once provisioning sector.

import hashlib

from tidemark import cbor, ed25519, entropy
from tidemark.compat import const
from tidemark.errors import CodecError, ConfigError, StateError

_MAGIC = b"TIDEMARK-PROV-1\x00"
_HEADER = const(256)
_BODY_MAX = const(6144)


def device_id(public):
    """First 16 hex digits (str, lower case) of SHA-256 of the first public key (32 bytes)."""
    return "".join("%02x" % byte for byte in hashlib.sha256(public).digest()[:8])


class Identity:
    """The board's Ed25519 key. The seed stays in the journal and in this object; nothing prints or
    sends it (I9)."""

    def __init__(self, seed):
        self.seed = seed
        self.public = ed25519.public_key(seed)
        self.id = device_id(self.public)

    def sign(self, message):
        """64-byte Ed25519 signature (RFC 8032)."""
        return ed25519.sign(self.seed, message, self.public)


def load(journal):
    """The board's `Identity`, or None before its birth. The key is affirmed before anything is
    made of it."""
    seed = journal.affirm("key")
    return Identity(seed) if seed else None


def birth(journal, random):
    """The board's `Identity`, made now when there is none.

    random: callable n -> n bytes of the hardware source. One that fails its health tests (see
    entropy) is StateError("random-health"), and no key is made.
    """
    identity = load(journal)
    if identity:
        return identity
    seed = entropy.tested(random)
    journal.put("key", seed)
    return load(journal)


class Provisioning:
    """What the write-once sector says: the owner's trust anchors, beside the public half of the
    key they were given to."""

    def __init__(self, public, root, gateway_id, gateway_key):
        self.public = public
        self.root = root
        self.gateway_id = gateway_id
        self.gateway_key = gateway_key

    def fields(self):
        return [1, self.public, self.root, self.gateway_id, self.gateway_key]


def read_provisioning(region):
    """The `Provisioning` of this board, None when the sector was never completed.

    Layout: page 0 magic, body length (u16), SHA-256 of the body, written last; the CBOR body from
    byte 256 on. A header without a body that matches it is a torn or altered sector:
    StateError("provisioning-damaged").
    """
    header = region.read(0, 50)
    if header == b"\xff" * 50:
        return None
    size = header[16] << 8 | header[17]
    if header[:16] != _MAGIC or size > min(_BODY_MAX, region.size - _HEADER):
        raise StateError("provisioning-damaged", "header")
    body = region.read(_HEADER, size)
    if hashlib.sha256(body).digest() != header[18:50]:
        raise StateError("provisioning-damaged", "digest")
    try:
        fields = cbor.decode(body, max_size=_BODY_MAX)
    except CodecError as error:
        raise StateError("provisioning-damaged", error.code)
    if not isinstance(fields, list) or len(fields) != 5 or fields[0] != 1:
        raise StateError("provisioning-damaged", "not of version 1")
    _, public, root, gateway_id, gateway_key = fields
    good = isinstance(root, bytes) and isinstance(gateway_id, str)
    for key in (public, gateway_key):
        good = good and isinstance(key, bytes) and len(key) == 32
    if not good:
        raise StateError("provisioning-damaged", "field types")
    return Provisioning(public, root, gateway_id, gateway_key)


def check_provisioning(region, provisioning):
    """Returns (body, whether it is there already) of what `write_provisioning` would write, or
    raises what that would refuse. Writes nothing."""
    body = cbor.encode(provisioning.fields())
    if len(body) > _BODY_MAX:
        raise ConfigError("provisioning-size", "%d bytes, at most %d" % (len(body), _BODY_MAX))
    present = None
    try:
        present = read_provisioning(region)
    except StateError:
        pass  # a cut during the header's write: nothing was promised yet, so it is written anew
    if present and present.fields() != provisioning.fields():
        raise StateError("provisioned", "the sector is written once")
    return body, present is not None


def write_provisioning(region, provisioning):
    """Writes the sector once: body first, header last. The same content again is no error; other
    content is StateError("provisioned")."""
    body, is_there = check_provisioning(region, provisioning)
    # Affirmed: a header that was torn may read whole only today, so it is programmed again.
    if not is_there:
        for sector in range(region.sectors):
            region.erase(sector)
    region.write(_HEADER, body)
    if region.read(_HEADER, len(body)) != body:
        raise StateError("provisioning-worn", "body did not read back")
    header = _MAGIC + len(body).to_bytes(2, "big") + hashlib.sha256(body).digest()
    region.write(0, header)
    if region.read(0, len(header)) != header:
        raise StateError("provisioning-worn", "header did not read back")
