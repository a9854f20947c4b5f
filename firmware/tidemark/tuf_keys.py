# TUF keys: which signature schemes count, and when a role's threshold is reached (TUF 1.0.3x, 4.2
# and 5.3.4).

from binascii import unhexlify

from tidemark import ed25519
from tidemark.compat import const
from tidemark.errors import TrustError

_KEYS_MAX = const(32)  # keys that one role may name: each costs a signature check
_KEYID_MAX = const(128)

# (keytype, scheme): function without arguments that returns a module with `decode(text)`, public
# key bytes in one canonical form or None when malformed, and `verify(public, message, signature,
# feed)`, a bool. What is not here is ignored towards a threshold, never an error.
_schemes = {}


def unhex(text, size):
    """`size` bytes of a hex str in either case, or None when it is anything else."""
    if not isinstance(text, str) or len(text) != 2 * size:
        return None
    try:
        out = unhexlify(text)
    except ValueError:
        return None
    return out if len(out) == size else None


def _signature_bytes(text):
    if not isinstance(text, str) or len(text) & 1 or not 0 < len(text) <= 1024:
        return None
    return unhex(text, len(text) >> 1)


def identify(key):
    """(scheme, public bytes) of a key object of metadata, or None for one that cannot count here.

    Two key ids with the same public value are one key, whatever they and their type are called.
    """
    keyval = key.get("keyval")
    load = _schemes.get((key.get("keytype"), key.get("scheme")))
    if load is None or not isinstance(keyval, dict):
        return None
    public = load().decode(keyval.get("public"))
    return None if public is None else (key["scheme"], public)


def check_keys(keys):
    """Raises TrustError("metadata-shape") unless `keys` is an object of key objects as TUF 4.2 has
    them.

    Key ids are taken as names (TAP 12): unique by being object keys, never recomputed. Keys of
    unknown type are kept.
    """
    if not isinstance(keys, dict):
        raise TrustError("metadata-shape", "keys")
    for keyid, key in keys.items():
        if not keyid or len(keyid) > _KEYID_MAX or not isinstance(key, dict):
            raise TrustError("metadata-shape", "key")
        if not (isinstance(key.get("keytype"), str) and isinstance(key.get("scheme"), str)):
            raise TrustError("metadata-shape", "key")
        if not isinstance(key.get("keyval"), dict):
            raise TrustError("metadata-shape", "key")


def check_role(role):
    """Raises TrustError("metadata-shape") unless `role` has unique key ids and a threshold of at
    least 1.
    """
    if not isinstance(role, dict):
        raise TrustError("metadata-shape", "role")
    keyids = role.get("keyids")
    threshold = role.get("threshold")
    if not isinstance(keyids, list) or len(keyids) > _KEYS_MAX:
        raise TrustError("metadata-shape", "keyids")
    for keyid in keyids:
        if not isinstance(keyid, str) or keyids.count(keyid) != 1:
            raise TrustError("metadata-shape", "keyids")
    if not isinstance(threshold, int) or isinstance(threshold, bool) or threshold < 1:
        raise TrustError("metadata-shape", "threshold")


def check_signatures(signatures):
    """{keyid: hex str} of a signature list. Raises TrustError: "metadata-shape", or
    "signature-twice" for a key id that signs more than once (TUF 4.2.1).
    """
    if not isinstance(signatures, list) or len(signatures) > _KEYS_MAX:
        raise TrustError("metadata-shape", "signatures")
    found = {}
    for entry in signatures:
        if not isinstance(entry, dict):
            raise TrustError("metadata-shape", "signature")
        keyid = entry.get("keyid")
        sig = entry.get("sig")
        if not isinstance(keyid, str) or not isinstance(sig, str):
            raise TrustError("metadata-shape", "signature")
        if keyid in found:
            raise TrustError("signature-twice", "one key id, two signatures")
        found[keyid] = sig
    return found


def reaches_threshold(role, keys, message, signatures, feed=None):
    """True if enough different keys of `role` signed `message` (bytes).

    `role` and `keys`: checked objects of the delegating metadata; `signatures`: {keyid: hex}. At
    most 32 checks.
    """
    counted = []
    for keyid in role["keyids"]:
        key = keys.get(keyid)
        sig = signatures.get(keyid)
        if key is None or sig is None:
            continue
        identity = identify(key)
        signature = _signature_bytes(sig)
        if identity is None or signature is None or identity in counted:
            continue
        if feed:
            feed()  # a PEM key takes its time to be read
        module = _schemes[(key["keytype"], key["scheme"])]()
        if module.verify(identity[1], message, signature, feed):
            counted.append(identity)
            if len(counted) >= role["threshold"]:
                return True
    return False


class _Ed25519:
    @staticmethod
    def decode(text):
        return unhex(text, 32)

    @staticmethod
    def verify(public, message, signature, feed):
        return ed25519.verify(public, message, signature, feed)


def _ed25519():
    return _Ed25519


def _ecdsa_p256():
    # Loaded when a key asks for it: most boards never meet one.
    from tidemark import ecdsa_p256

    return ecdsa_p256


def _rsa_pss():
    from tidemark import rsa_pss

    return rsa_pss


_schemes[("ed25519", "ed25519")] = _ed25519
_schemes[("ecdsa", "ecdsa-sha2-nistp256")] = _ecdsa_p256
# An older name of the key type, still found in repositories.
_schemes[("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256")] = _ecdsa_p256
_schemes[("rsa", "rsassa-pss-sha256")] = _rsa_pss
